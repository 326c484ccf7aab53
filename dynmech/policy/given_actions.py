"""A policy with other recommendations on the same tree: what it is worth, not what is best."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from dynmech.bounded import Bounded
from dynmech.errors import InvalidArgument, OutsideSupport, describe
from dynmech.policy.outcomes import expected_outcomes
from dynmech.policy.priced import AbstractPriced, Figures
from dynmech.policy.questions import AbstractEvaluator


def other_actions(
    policy: AbstractPriced,
    actions: Sequence[np.ndarray],
    laws: Float[np.ndarray, "L A"] | None = None,
) -> tuple[AbstractEvaluator, Figures]:
    """What answers for a policy with other actions, and its tables; see `with_actions`.

    **Arguments:** `laws`: over controls, row l of which is drawn from where `actions` say A + l.
    """
    plan, env, pairs = policy.plan, policy.env, policy.pairs
    call = "EfficientPolicy.with_actions(actions=...)"
    shapes = [np.shape(taken) for taken in actions]
    if shapes != [taken.shape for taken in plan.actions]:
        must = f"have shapes {[taken.shape for taken in plan.actions]}"
        raise InvalidArgument(describe(call, must, shapes))
    top = max(int(np.max(taken)) for taken in actions)
    most = len(env.controls) - 1 + (0 if laws is None else len(laws))
    if min(int(np.min(taken)) for taken in actions) < 0 or top > most:
        raise OutsideSupport(describe(call, f"be in 0..{most}", top))
    kinds = [np.int32 if laws is not None else taken.dtype for taken in plan.actions]
    taken = tuple(np.asarray(new, kind) for new, kind in zip(actions, kinds, strict=True))
    used = dataclasses.replace(plan, actions=taken, laws=laws)
    for t, (layer, here) in enumerate(zip(plan.tree.layers[:-1], taken, strict=False)):
        entry, control, _ = used.split(here.ravel())
        if (layer.child[entry % layer.nodes, control, 0] < 0).any():
            must = "take only recommendations that the solver followed"
            do = "solve with Exact(listed=True), which follows all"
            raise InvalidArgument(describe(call, must, f"others in period {t + 1}", do))
    outcomes = expected_outcomes(used, env.values.support, pairs, np.arange(len(pairs.root)))
    worth = outcomes.surplus
    shape = policy.value.shape
    value = worth[pairs.base].reshape(shape)
    # Where rounds are cut off, what those after the last may cost is below the value.
    off = (policy.lower if policy.exact else policy.value_lower) - policy.value
    found = Bounded(value) if policy.exact else Bounded(value, value + off)
    evaluator = dataclasses.replace(
        policy.evaluator,
        plan=used,
        pair_value=worth,
        optimal=policy.optimal or plan,
        behind=None,
        ends=None,
        exact=False,
    )
    figures = dataclasses.replace(
        policy.figures,
        value=found,
        lower=value + off,
        **outcomes.tables(pairs.base, shape),
    )
    return evaluator, figures
