"""Somebody's own recommender, valued on its market's tree beside the efficient policy."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import equinox as eqx
import numpy as np
import numpy.typing as npt
from jaxtyping import Float, Int

from dynmech._checks import flag, instance, optional, takes
from dynmech._types import NONE, in_doubles
from dynmech.errors import InvalidArgument, OutsideSupport, TooLarge, describe, shown
from dynmech.market.continued import Remembering
from dynmech.market.displays import control_of
from dynmech.market.environment import RecommendationMDP
from dynmech.market.profiles import Profiles
from dynmech.policy.base import AbstractPricedPolicy, Figures, with_actions
from dynmech.policy.nodes import recommendations
from dynmech.policy.playable import money_of
from dynmech.policy.questions import AbstractEvaluator
from dynmech.policy.solved import solve_remembered
from dynmech.solve.prepare import wanted_profiles
from solvers import Estimate

Recommend = Callable[[np.ndarray, np.ndarray, np.ndarray, int], Any]
_CALL = "GivenPolicy(recommend=...)"
_ASKED_AGAIN = 64
_MOST_CALLS = 2_000_000


class GivenPolicy(AbstractPricedPolicy):
    """Somebody's own recommender: what it is worth, beside what is best.

    Its value is exact: the market's tree is walked, and `recommend` called once at every node.
    `upper` is W, solved on the same tree, so that `incentive_bound` = W - V certifies what any
    report planned at the outset can gain under it. It has everything that an `EfficientPolicy` has.

    **Arguments**

    - `env`: the market, of a finite horizon.
    - `recommend(belief, memory, theta, period)`: a function of its arguments, never traced:
      belief (m,) of mass 1, the action rule's memory (d,), values as reported now (n,), money,
      the round from 1; it returns a control, 0..n-1, or n (or -1) for none, where displays are
      declared a row of `env.controls` or a tuple of products; or a law over all controls, floats
      that sum to 1, from which one is drawn. Where the mechanism thinks a history impossible none
      is shown and nothing is asked.
    - `memory`: `(start, step)` of a recommender that remembers more than the rule: integers (d',),
      and a traceable function `step(memory, control)` of them; they follow the rule's memory in
      what `recommend` is given.
    - `batched`: it is asked for a whole round at once: belief (C, m), memory (C, d), theta (C, n);
      it returns (C,), or laws (C, n+1).
    - `name`: what it is called, that of the function by default. `initial`: profiles, all of them
      by default. The walk takes the memory of `Exact()`.

    What is drawn for a conversation is drawn by a hash of where it is; a simulation draws by its
    key.

    **Raises:** `OutsideSupport` and `InvalidArgument` for an answer that is no control, or another
    one to the same question; `TooLarge` where the tree does not fit.

    ```python
    >>> import dynmech as dm, numpy as np
    >>> env = dm.RecommendationMDP(
    ...     gamma=np.eye(2),
    ...     tastes=dm.TasteGrid(np.array([[1.0, 0.1], [-0.2, 0.8]]), np.array([0.5, 0.5])),
    ...     horizon=1,
    ...     action_rule=dm.LastShownOnly(dm.Logit(0.5), query=0.0),
    ...     signals=dm.SignalStructure(),
    ...     values=dm.ConstantValues([0.5, 0.6]),
    ... )
    >>> likes = lambda belief, memory, theta, period: int(np.argmax(env.utilities @ belief))
    >>> policy = dm.GivenPolicy(env, likes, name="best expected utility")
    >>> bool(policy.value <= policy.upper)
    True

    ```
    """

    evaluator: AbstractEvaluator
    figures: Figures
    profiles: Profiles
    batch: bool = eqx.field(static=True)
    exact: bool = eqx.field(static=True)
    confidence: float = eqx.field(static=True)
    solver: str = eqx.field(static=True)
    work: Estimate
    seconds: float = eqx.field(static=True)

    def __init__(
        self,
        env: RecommendationMDP,
        recommend: Recommend | Any,
        *,
        memory: tuple[npt.ArrayLike, Callable] | None = None,
        batched: bool = False,
        name: str | None = None,
        initial: Profiles | None = None,
    ):
        began = time.monotonic()
        if not isinstance(env, RecommendationMDP):
            must = "be a RecommendationMDP"
            raise InvalidArgument(describe("GivenPolicy(env=...)", must, type(env)))
        if not takes(recommend, 4):
            must = "be a function recommend(belief, memory, theta, period)"
            raise InvalidArgument(describe(_CALL, must, shown(recommend)))
        if env.horizon == float("inf"):
            must, do = "have a finite horizon", "cut it after as many rounds as matter"
            raise InvalidArgument(describe("GivenPolicy(env=...)", must, env.horizon, do))
        flag("GivenPolicy(batched=...)", batched)
        optional(instance(str, "a string"))("GivenPolicy(name=...)", name)
        label = name or getattr(recommend, "__name__", type(recommend).__name__)
        env = in_doubles(env)
        if memory is not None:
            env = _remembering(env, memory)
        profiles, batch = wanted_profiles(env, initial)
        efficient, memories = solve_remembered(env, profiles, batch)
        asked = _Asked(efficient.env, recommend, batched)
        cells = sum(taken.size for taken in efficient.actions)
        if cells > _MOST_CALLS:
            must = f"be asked at most {_MOST_CALLS} times: nodes times profiles with alternatives"
            do = "pass initial=env.sample_profiles(key, 16), or reduce rounds or symbols"
            raise TooLarge(describe(_CALL, must, cells, do))
        actions = recommendations(efficient.plan, efficient.pairs, memories, asked)
        asked.again()
        found = with_actions(efficient, actions, f"given: {label}", asked.table)
        self.evaluator, self.figures = found.evaluator, found.figures
        self.profiles, self.batch = found.profiles, found.batch
        self.exact, self.confidence, self.solver = False, 1.0, found.solver
        self.work, self.seconds = found.work, time.monotonic() - began

    @property
    def env(self) -> RecommendationMDP:
        """The market."""
        return self.evaluator.env


def _remembering(env: RecommendationMDP, memory) -> RecommendationMDP:
    """The market with a rule that keeps the recommender's memory beside its own."""
    call = "GivenPolicy(memory=...)"
    start, step = memory if isinstance(memory, tuple) and len(memory) == 2 else (None, None)
    try:
        first = np.asarray(start)
    except Exception:  # ragged lists, and whatever a foreign __array__ raises
        first = np.zeros(())
    if first.ndim != 1 or first.dtype.kind not in "iu" or not callable(step):
        must = "be (start, step): integers (d,) and a function step(memory, control) of them"
        raise InvalidArgument(describe(call, must, shown(memory)))
    kept = len(np.asarray(env.action_rule.start(env.products, env.horizon)))
    rule = Remembering(env.action_rule, first, step, kept)
    return eqx.tree_at(lambda market: market.action_rule, env, rule)


class _Asked:
    """A recommender and its answers, checked. Laws get numbers, n+1 and on, as they are met."""

    def __init__(self, env: RecommendationMDP, recommend: Recommend, batched: bool):
        self.env, self.recommend, self.batched = env, recommend, batched
        self.questions: list[tuple] = []
        self.laws: dict[bytes, int] = {}

    def __call__(self, theta: Int[np.ndarray, " n"], belief, memory, period: int) -> np.ndarray:
        money = money_of(self.env, theta)
        if self.batched:
            said = self.recommend(belief, memory, np.tile(money, (len(belief), 1)), period + 1)
            taken = np.asarray(said)
            if taken.shape[:1] != (len(belief),) or taken.ndim > 2:
                must = f"return one control or law each, for {len(belief)} at once"
                raise InvalidArgument(describe(_CALL, must, f"shape {taken.shape}"))
            found = np.array([self._control(one) for one in taken])
        else:
            found = np.array(
                [
                    self._control(self.recommend(b, h, money, period + 1))
                    for b, h in zip(belief, memory, strict=True)
                ]
            )
        if len(self.questions) < _ASKED_AGAIN:
            self.questions.append((belief[:1], memory[:1], money, period + 1, int(found[0])))
        return found

    @property
    def table(self) -> Float[np.ndarray, "L A"] | None:
        """The laws met, by their numbers; None where nothing is drawn."""
        if not self.laws:
            return None
        return np.stack([np.frombuffer(law) for law in self.laws])

    def again(self) -> None:
        """Ask a few questions again. **Raises:** `InvalidArgument` for other answers."""
        for belief, memory, money, period, first in self.questions:
            if self.batched:
                said = np.asarray(self.recommend(belief, memory, money[None], period))[0]
            else:
                said = self.recommend(belief[0], memory[0], money, period)
            if self._control(said) != first:
                must, do = "be a function of its arguments", "return a law, do not draw from it"
                got = f"two answers, {said} the second, at one belief in period {period}"
                raise InvalidArgument(describe(_CALL, must, got, do))

    def _control(self, said) -> int:
        none = len(self.env.controls) - 1
        if isinstance(said, tuple) and self.env.displays is not None:
            return control_of(_CALL, self.env, said)
        answer = np.asarray(said)
        if answer.ndim == 0 and answer.dtype.kind in "iu":
            if not NONE <= answer <= none:
                must = f"return a control 0..{none - 1}, or {none} for none"
                raise OutsideSupport(describe(_CALL, must, int(answer)))
            return none if answer == NONE else int(answer)
        law = answer.astype(float) if answer.dtype.kind in "iuf" else np.zeros(0)
        fits = law.shape == (none + 1,) and np.isfinite(law).all() and law.min() >= 0
        if not fits or abs(law.sum() - 1) > 1e-9:
            must = f"return one control, an integer in 0..{none}, or a law over {none + 1} of them"
            raise InvalidArgument(describe(_CALL, must, shown(said)))
        if law.max() == law.sum():
            return int(law.argmax())
        law = law / law.sum()
        return none + 1 + self.laws.setdefault(law.tobytes(), len(self.laws))


def read_policy(call: str, policy: Any) -> AbstractPricedPolicy:
    """What a user passes as a policy: one that is priced, or a recommender, which is priced here.

    **Raises:** `InvalidArgument` for anything else.
    """
    if isinstance(policy, AbstractPricedPolicy):
        return policy
    env, recommend = (getattr(policy, name, None) for name in ("env", "recommend"))
    if isinstance(env, RecommendationMDP) and callable(recommend):
        return GivenPolicy(env, recommend, name=type(policy).__name__)
    must = "be a policy: of solve_efficient_policy, a GivenPolicy, or with `env` and `recommend`"
    do = "solve the market first: solve_efficient_policy(env)"
    raise InvalidArgument(describe(call, must, type(policy), do))
