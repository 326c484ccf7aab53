"""Somebody's own recommender, valued on its market's tree beside the efficient policy."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import numpy as np
import numpy.typing as npt

from dynmech._checks import flag, instance, optional, takes
from dynmech._devices import Work
from dynmech._types import in_doubles
from dynmech.errors import InvalidArgument, TooLarge, describe, shown
from dynmech.market.cards import rounds_of
from dynmech.market.continued import Remembering
from dynmech.market.environment import RecommendationMDP
from dynmech.market.profiles import Profiles
from dynmech.market.values import ConstantValues
from dynmech.policy.base import AbstractPricedPolicy, Figures
from dynmech.policy.certified import certified_play, list_economies, played_policy, walk_play
from dynmech.policy.playable import Playable, untrained
from dynmech.policy.questions import AbstractEvaluator
from dynmech.policy.recommender import CALL, Recommend, Recommender, Repeated
from dynmech.solve.ceilings import make_ceilings
from dynmech.solve.prepare import wanted_profiles
from dynmech.solve.training import require_few
from solvers import Certificate, Status
from solvers.tree.estimate import Estimate

_CHUNK = 64


class GivenPolicy(AbstractPricedPolicy):
    """Somebody's own recommender: what it is worth, beside what is best.

    Where the market's tree fits its value is exact: `recommend` is called once at every node, and
    `upper` is W, solved on the same tree. Where it does not, and values are constant, V is
    simulated, with bounds for any law of what it yields, and W is bounded for certain, as under
    `Neural`. In both, `incentive_bound` = `upper` - `value_lower` certifies what any report planned
    at the outset can gain, and all that an `EfficientPolicy` answers is answered.

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
      by default. The walk takes the memory of `Exact()`. `certificate`: how hard to work for
      bounds where it does not; with one, the tree is walked up to `certificate.walk` cells only.

    What is drawn for a conversation is drawn by a hash of where it is; a simulation draws by its
    key.

    **Raises:** `OutsideSupport` and `InvalidArgument` for an answer that is no control, or another
    one to the same question; `TooLarge` where the tree does not fit and cannot be simulated.

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
    status: Status = eqx.field(static=True)

    def __init__(
        self,
        env: RecommendationMDP,
        recommend: Recommend | Any,
        *,
        memory: tuple[npt.ArrayLike, Callable[..., Any]] | None = None,
        batched: bool = False,
        name: str | None = None,
        initial: Profiles | None = None,
        certificate: Certificate | None = None,
    ):
        began = time.monotonic()
        if not isinstance(env, RecommendationMDP):
            must = "be a RecommendationMDP"
            raise InvalidArgument(describe("GivenPolicy(env=...)", must, type(env)))
        if not takes(recommend, 4):
            must = "be a function recommend(belief, memory, theta, period)"
            raise InvalidArgument(describe(CALL, must, shown(recommend)))
        if env.horizon == float("inf") or env.action_rule.lasts() is not None:
            must, do = "have a finite horizon", "cut it after as many rounds as matter"
            raise InvalidArgument(describe("GivenPolicy(env=...)", must, rounds_of(env), do))
        flag("GivenPolicy(batched=...)", batched)
        optional(instance(str, "a string"))("GivenPolicy(name=...)", name)
        label = name or getattr(recommend, "__name__", type(recommend).__name__)
        single, env = env.gamma.dtype == np.float32, in_doubles(env)
        if memory is not None:
            env = _remembering(env, memory)
        certificate = optional(instance(Certificate, "Certificate(...)"))(
            "GivenPolicy(certificate=...)", certificate
        )
        profiles, batch = wanted_profiles(env, initial)
        play = untrained(env, profiles, Recommender(env, recommend, batched), single)
        try:
            limit = None if certificate is None else certificate.walk
            found = walk_play(play, profiles, batch, f"given: {label}", limit)
        except TooLarge as why:
            settings = Certificate() if certificate is None else certificate
            play = dataclasses.replace(play, certificate=settings, chunk=_CHUNK)
            found = _play(play, profiles, batch, f"given: {label}", why)
        self.evaluator, self.figures = found.evaluator, found.figures
        self.profiles, self.batch = found.profiles, found.batch
        self.exact, self.confidence, self.solver = False, found.confidence, found.solver
        self.work, self.seconds = found.work, time.monotonic() - began
        self.status = found.status

    @property
    def env(self) -> RecommendationMDP:
        """The market."""
        return self.evaluator.env


def _remembering(env: RecommendationMDP, memory: Any) -> RecommendationMDP:
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
    rule = Remembering(env.action_rule, first, step, len(env.unaware))
    return eqx.tree_at(lambda market: market.action_rule, env, rule)


def _play(
    play: Playable, profiles: Profiles, batch: bool, label: str, why: TooLarge
) -> AbstractPricedPolicy:
    """Ask in simulated conversations alone. **Raises:** `why` where not even that can be."""
    env, began = play.env, time.monotonic()
    if not isinstance(env.values, ConstantValues):
        raise why
    known = np.flatnonzero(play.root.sum(axis=1) > 0)
    played = Profiles(profiles.theta[known], profiles.signals[known])
    require_few(len(known), "GivenPolicy")
    play = dataclasses.replace(play, profiles=played, root=play.root[known])
    ask = Repeated(play.laws)
    start = np.asarray(play.process.start())[None]
    for belief, theta in zip(play.root, played.theta, strict=True):
        ask(theta, (belief / belief.sum())[None], start, 0)
    ask.again()
    economies = list_economies(env, played, play.certificate.marginal_runs > 0)
    with jax.enable_x64(True):
        bounds_of = [make_ceilings(env, play.process, cases) for cases in economies]
    history, work = np.zeros((0, 5)), Work("GivenPolicy")
    found = certified_play(play, play.process, economies, bounds_of, history, label, work)
    note = f"{label}; simulated, gap of W {float(found.bounds.gap.max()):.3g}"
    note += f" at {play.certificate.confidence:.0%}"
    return played_policy(found, profiles, batch, note, time.monotonic() - began)


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
