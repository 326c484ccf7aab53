"""One conversation under a long-horizon policy; there is no tree, so nothing is looked up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Float, Int

from dynmech._types import NONE, join_symbols, query_code
from dynmech.errors import ImpossibleProfile, InvalidArgument, describe
from dynmech.policy.conversation import Turn, action_code, read_symbols, theta_index
from dynmech.solve.certificates import Bounds, Certificate, certify, in_float64, make_case
from solvers import decide

if TYPE_CHECKING:
    from dynmech.policy.long_horizon import LongPolicy


class LongConversation(eqx.Module):
    """A conversation at truthful reports; `step` and `undo` return new ones.

    `period` counts from 1; `belief` (m,): posterior weights of the tastes; `memory`: what the
    action rule remembers; `turns`: what happened so far; `ended`.
    """

    policy: LongPolicy
    profile: int = eqx.field(static=True)
    period: int = eqx.field(static=True)
    belief: Float[np.ndarray, " m"]
    memory: Int[np.ndarray, " d"]
    turns: tuple[Turn, ...]
    ended: bool = eqx.field(static=True)
    previous: LongConversation | None

    @property
    def actions(self) -> tuple[int, ...]:
        """Action codes so far."""
        return tuple(turn.action for turn in self.turns)

    @property
    def theta(self) -> Float[np.ndarray, " n"]:
        """Values in force, money."""
        return self.policy.theta(self.profile)

    @property
    def recommendation(self) -> int:
        """The product recommended now, -1 for none."""
        self._require_progress("recommendation")
        control = self._control()
        return NONE if control == self.policy.env.products else control

    @property
    def value(self) -> float:
        """Expected surplus from here on under the policy, money, by simulation; 0 once ended.

        Its standard error and the bounds on W_t are those of `certify`, which it is read from.
        """
        return 0.0 if self.ended else float(self.certify().value[0])

    def certify(self, certificate: Certificate | None = None) -> Bounds:
        """Bound W at this node, for its belief: arrays of one entry.

        The gap bounds what a single-period misreport, or any reporting strategy, can gain from
        here on, as long as the past is truthful and the estimate unbiased (paper C, Theorem 1).
        """
        self._require_progress("certify(...)")
        policy = self.policy
        certificate = policy.certificate if certificate is None else certificate
        if not isinstance(certificate, Certificate):
            must = "be Certificate(...)"
            call = "LongConversation.certify(certificate=...)"
            raise InvalidArgument(describe(call, must, type(certificate)))
        case, ceiling = make_case(self.theta), policy.ceilings[self.profile]
        return certify(
            policy.process, [case], [ceiling], policy.network, self.belief, certificate.runs,
            certificate, policy.chunk, self.memory, self.period - 1,
        )  # fmt: skip

    def step(self, action: int | str, signals: Any = None, theta: Any = None) -> LongConversation:
        """Go on with what the user did.

        **Arguments:** `action`: "query", "exit", a product label, or a code; `signals`: after a
        query, symbols (1+n,), or a mapping from "platform" and labels to symbols; `theta`: None,
        or the values in force, as in `start`: values are constant.

        **Raises:** `InvalidArgument`, `OutsideSupport`, `ImpossibleProfile` when what happened
        has probability zero.
        """
        self._require_progress("step(...)")
        if theta is not None:
            known = self.policy.profiles.theta[self.profile]
            if (theta_index(self.policy.env, theta) != known).any():
                must = "stay what they are where values are constant"
                raise InvalidArgument(describe("LongConversation.step(theta=...)", must, theta))
        env, process, t = self.policy.env, self.policy.process, self.period - 1
        code, n = action_code(env, action), env.products
        control = self._control()
        again = code == query_code(n)
        goes_on = again and self.period < process.horizon
        with jax.enable_x64(True):
            after = process.step(self.memory, control)
            ends = np.asarray(process.ends(after, control), float)
            law = np.asarray(process.symbols(after, control, t), float) if goes_on else None
        rest = np.clip(1 - ends.sum(axis=0), 0.0, 1.0)
        chance = ends[n] if again else rest if code == n else ends[code]
        if chance @ self.belief <= 0:
            must = "be something the user does here with positive probability"
            raise ImpossibleProfile(describe("LongConversation.step(action=...)", must, action))
        belief, symbols = self.belief * chance, None
        if law is not None:
            symbols = read_symbols(env, signals, initial=False)
            belief = belief * law[:, int(join_symbols(symbols, env.feedback_alphabet))]
        if belief.sum() <= 0:
            must = "have positive probability after this history"
            raise ImpossibleProfile(describe("LongConversation.step(signals=...)", must, signals))
        shown = NONE if control == n else control
        turn = Turn(self.period, shown, code, self.theta, symbols, -1)
        return LongConversation(
            self.policy,
            self.profile,
            self.period + int(goes_on),
            belief / belief.sum(),
            np.asarray(after),
            (*self.turns, turn),
            not goes_on,
            self,
        )

    def undo(self) -> LongConversation:
        """Return to before the last step.

        **Raises:** `InvalidArgument` before the first.
        """
        if self.previous is None:
            must = "follow at least one step"
            raise InvalidArgument(describe("LongConversation.undo()", must, "none"))
        return self.previous

    def _control(self) -> int:
        policy = self.policy
        with jax.enable_x64(True):
            found = decide(
                policy.process,
                make_case(self.theta),
                policy.ceilings[self.profile],
                in_float64(policy.network),
                self.belief[None],
                np.asarray(self.memory)[None],
                self.period - 1,
            )
        return int(found[0])

    def _require_progress(self, what: str) -> None:
        if self.ended:
            must, do = "be asked of a conversation in progress", "start another"
            raise InvalidArgument(describe(f"LongConversation.{what}", must, "ended", do))
