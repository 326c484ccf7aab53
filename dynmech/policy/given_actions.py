"""A policy with other recommendations on the same tree: what it is worth, not what is best."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import equinox as eqx
import numpy as np

from dynmech.errors import InvalidArgument, OutsideSupport, describe
from dynmech.policy.outcomes import expected_outcomes

if TYPE_CHECKING:
    from dynmech.policy.efficient import EfficientPolicy


def with_actions(policy: EfficientPolicy, actions) -> EfficientPolicy:
    """See `EfficientPolicy.with_actions`."""
    plan, env, pairs = policy.plan, policy.env, policy.pairs
    call = "EfficientPolicy.with_actions(actions=...)"
    shapes = [np.shape(taken) for taken in actions]
    if shapes != [taken.shape for taken in plan.actions]:
        must = f"have shapes {[taken.shape for taken in plan.actions]}"
        raise InvalidArgument(describe(call, must, shapes))
    top = max(int(np.max(taken)) for taken in actions)
    if min(int(np.min(taken)) for taken in actions) < 0 or top > env.products:
        raise OutsideSupport(describe(call, f"be in 0..{env.products}", top))
    for t, (layer, taken) in enumerate(zip(plan.tree.layers[:-1], actions, strict=False)):
        nodes = np.arange(layer.nodes)
        if (layer.child[nodes, np.asarray(taken), 0] < 0).any():
            must = "take only recommendations that the solver followed"
            do = "solve with Exact(), which follows all"
            raise InvalidArgument(describe(call, must, f"others in period {t + 1}", do))
    used = eqx.tree_at(
        lambda p: p.actions,
        plan,
        tuple(np.asarray(new, old.dtype) for new, old in zip(actions, plan.actions, strict=True)),
    )
    outcomes = expected_outcomes(used, env.values.support, pairs, np.arange(len(pairs.root)))
    worth = (outcomes.earned + outcomes.utility).sum(axis=1)
    n, shape = env.products, policy.value.shape
    value = worth[pairs.base].reshape(shape)
    return dataclasses.replace(
        policy,
        plan=used,
        value=value,
        lower=value + (policy.lower - policy.value),
        pair_value=worth,
        advertiser_value=outcomes.earned[pairs.base].T.reshape(n, *shape),
        user_utility=outcomes.utility[pairs.base].T.reshape(n, *shape),
        purchase=outcomes.purchase[pairs.base].T.reshape(n, *shape),
        optimal=policy.optimal or plan,
        solver="given actions",
    )
