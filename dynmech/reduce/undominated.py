"""Which of many candidate products can matter: the others are removed with a proof.

Where the user responds to what is on the screen alone, a round's yield and what may follow it
depend on the product shown, not on the past, and W_t(theta, b) = max_r Q_t(r, theta, b). Product k
can go if at every belief b that any reports can lead to, in every period, whatever the values,
some mixture of other products is as good,

    Q_t(k, theta, b) <= sum_j w_j Q_t(j, theta, b),

and in the marginal economies, for every i, some mixture without i. The lemma that bounds both
sides by inner products with b, and the proof that products may go one after another, are in
`solvers.told.dominance`; pay_k is (theta_k + u_k) y_k at the highest theta_k of the support and
pay_j at the lowest theta_j, both less what a query costs.

*What follows.* Let the products kept be K. For every initial profile of values and signals, at
every belief and in every period:
(1) W of the market of K is W of the full market, and so are W^{-i} and Wd^{-i} for i in K: in
    either economy i is never needed, a removed k is covered by products other than i, and told
    and least values are taken over all economies.
(2) An efficient policy of the market of K is efficient in the full one. Where products are tied
    to the last digit, the full market's own rule (lowest index) may name another.
(3) For removed k, W^{-k} = W: the market of K is a market without k. Where `displayable[k]`, also
    Wd^{-k} = W; elsewhere showing k at no cost to the others might pay, and only W <= Wd^{-k} is
    known. A removed advertiser sells nothing whatever she reports; what she knows of the user is
    kept as information of the platform (`reduce`), whose truthful reports her Groves payments
    must secure if she is asked for them: with Wd^{-k} = W or not, W^{-k} = W and expected core
    transfers of -W leave her an expected payoff of zero.
"""

import math
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from dynmech._checks import choice
from dynmech._types import Numbers, Record, in_doubles, precision
from dynmech.errors import InvalidArgument, TooLarge, UnseenPurchase, describe, import_extra
from dynmech.market.environment import RecommendationMDP
from dynmech.market.feedback import AbstractFeedback
from dynmech.market.profiles import Profiles
from dynmech.market.roots import check_profiles, signal_likelihood
from dynmech.market.rules import AbstractActionRule
from dynmech.market.shown import acts, answers
from dynmech.market.values import MarkovValues, reportable
from dynmech.problem.compile import next_memories
from dynmech.reduce.submarket import fold, submarket
from solvers.programs import as_program
from solvers.told.dominance import Choices, Removal, eliminate, told_ahead

_VERB = "undominated"
_MOST_BELIEFS = 512
_MOST_BYTES = 4e9
_DIGITS = 13
_AT_ONCE = 64
_SEVERAL = "displays are declared: a product that another dominates may belong in the best display"
_LASTS = "the last round stands for all that follow: ask of the market without a last round"
_REMEMBERS = "the action rule remembers more than what is on the screen, so all are kept"


class Undominated(Record):
    """The products that can matter, and a witness for each of the others.

    - `kept` (K,), `removed` (n - K,): indices. `removals`: in the order found, per product removed
      the mixtures that do at least as well: the first, and others without each of its members.
    - `displayable` (n,): for removed products, whether Wd^{-k} = W is certified too.
    - `beliefs`: those certified, "reachable" or "any". `reason`: why nothing could be tried, else
      None.
    """

    env: RecommendationMDP
    removals: tuple[Removal, ...]
    beliefs: str = eqx.field(static=True)
    reason: str | None = eqx.field(static=True)
    seconds: float = eqx.field(static=True)

    @property
    def removed(self) -> Int[np.ndarray, " l"]:
        return np.array(sorted(removal.control for removal in self.removals), np.int64)

    @property
    def kept(self) -> Int[np.ndarray, " K"]:
        return np.setdiff1d(np.arange(self.env.products), self.removed)

    @property
    def displayable(self) -> Bool[np.ndarray, " n"]:
        found = np.zeros(self.env.products, bool)
        found[[removal.control for removal in self.removals if removal.free]] = True
        return found

    def reduce(self) -> RecommendationMDP:
        """The market of the products kept; what the other advertisers know is the platform's.

        W, W^{-i}, Wd^{-i} of the products kept are those of the full market at every profile.

        **Raises:** `InvalidArgument` where a rule or signal of your own would have to be taken
        apart; `TooLarge` when what advertisers know does not fit into one table.
        """
        return submarket(self.env, self.kept)

    def profiles(self, profiles: Profiles) -> Profiles:
        """Initial profiles of the full market, as the reduced one names them."""
        profiles = check_profiles(self.env, profiles)
        kept = self.kept
        return Profiles(profiles.theta[:, kept], fold(self.env, kept, profiles.signals))

    def summary(self) -> str:
        """One paragraph: how many are kept, and on what grounds."""
        n, kept = self.env.products, len(self.kept)
        where = "at every belief that reports can lead to"
        where = where if self.beliefs == "reachable" else "at every belief on the grid"
        text = f"{kept} of {n} products kept in {self.seconds:.1f} s, certified {where}"
        return f"{text}; {self.reason}" if self.reason else text

    def to_frame(self):
        """Labelled pandas table: one row a product, with what does at least as well, money."""
        pandas = import_extra("pandas", "experiments", "Undominated.to_frame")
        names, found = [*self.env.names, "none"], {r.control: r for r in self.removals}
        rows = []
        for k in range(self.env.products):
            mixtures = found[k].mixtures if k in found else ()
            words = [
                " + ".join(
                    names[j] if w == 1 else f"{w:.3g} {names[j]}"
                    for j, w in zip(m.member.tolist(), m.weight.tolist(), strict=True)
                )
                for m in mixtures
            ]
            margin = min((m.margin for m in mixtures), default=np.nan)
            first, spare = (words[0], "; ".join(words[1:])) if words else ("", "")
            rows.append((names[k], k not in found, first, spare, margin))
        frame = pandas.DataFrame(rows, columns=["product", "kept", "instead", "spare", "margin"])
        return frame.assign(displayable=self.displayable)


def undominated(env: RecommendationMDP, beliefs: str = "reachable") -> Undominated:
    """Find products that can matter under some reports, and remove the others with a proof.

    Product k is removed if Q_t(k, theta, b) <= sum_j w_j Q_t(j, theta, b) at every belief, in every
    period, at all values of the support (or interval), and likewise without any one of its
    members; see the module's proof. It needs a user who responds to what is on the screen alone
    (`LastShownOnly`, or one round) and one product at a time: what shows that a product is not
    needed by itself says nothing about displays. Else every product is kept, and `.reason` says so.

    **Arguments**

    - `env`: the market; any number of products.
    - `beliefs`: "reachable": every belief that any initial signals and any later symbols, true or
      reported, can lead to from the prior, where they are few enough to list; else, and with
      "any", every belief on the grid, so that the prior does not matter.

    **Returns:** `Undominated`: `.kept`, `.removals`, `.summary()`, `.to_frame()`, and `.reduce()`,
    the smaller market. Inequalities hold up to rounding: 1e-13 of the sizes of
    the yields compared.

    **Raises:** `InvalidArgument`; `UnseenPurchase`; `TooLarge` when the laws do not fit.

    ```python
    >>> import dynmech as dm
    >>> gamma, theta = [[1.0], [1.0], [1.0], [0.2]], [0.5, 0.6, 0.7, 0.1]
    >>> env = dm.RecommendationMDP(
    ...     gamma, dm.TasteGrid([[0.5], [1.5]], [0.5, 0.5]), horizon=3,
    ...     action_rule=dm.LastShownOnly(dm.Logit(0.5), query=0.6),
    ...     signals=dm.SignalStructure(), values=dm.ConstantValues(theta), names=list("abcd"),
    ... )
    >>> found = dm.undominated(env)
    >>> found.kept.tolist(), found.reduce().names
    ([1, 2], ('b', 'c'))

    ```
    """
    began = time.monotonic()
    if not isinstance(env, RecommendationMDP):
        must = "be a RecommendationMDP"
        raise InvalidArgument(describe(f"{_VERB}(env=...)", must, type(env)))
    choice("reachable", "any")(f"{_VERB}(beliefs=...)", beliefs)
    wide = in_doubles(env)
    with precision(np.zeros(())):
        lasts = env.action_rule.lasts() is not None
        memories = _memories(wide) if env.displays is None and not lasts else None
        if memories is None:
            why = _SEVERAL if env.displays is not None else _LASTS if lasts else _REMEMBERS
            return Undominated(env, (), beliefs, why, time.monotonic() - began)
        buy, query = _behaviour(wide, memories)
        law = _laws(wide, memories)
        column = query[:, None, :, None] * law
        cone = _reachable(wide, column) if beliefs == "reachable" else None
    if cone is None:
        beliefs, live = "any", np.asarray(wide.tastes.weights) > 0
        cone = np.eye(wide.tastes.size)[live]
    values, gains, costs = reportable(wide.values), wide.gains, query * wide.costs
    low = np.append((values.min(1)[:, None] + gains) * buy, 0 * buy[:1], axis=0) - costs
    high = np.append((values.max(1)[:, None] + gains) * buy, 0 * buy[:1], axis=0) - costs
    above, below = told_ahead(low, high, query, wide.horizon - 1)
    choices = Choices(low, high, column, above, below, cone, _groups(wide))
    return Undominated(env, tuple(eliminate(choices)), beliefs, None, time.monotonic() - began)


def _memories(env: RecommendationMDP) -> Int[np.ndarray, "n1 d"] | None:
    """The memory after each recommendation, if what came before does not matter; else None."""
    n, rule = env.products, env.action_rule
    after = np.asarray(next_memories(rule, env.unaware[None], env.controls, n))[0]
    if env.horizon == 1:
        return after
    for low in range(0, n + 1, _AT_ONCE):  # every pair of products, few first ones at a time
        part = np.minimum(np.arange(low, low + _AT_ONCE), n)
        if not (np.asarray(next_memories(rule, after[part], env.controls, n)) == after).all():
            return None
    return after


def _behaviour(
    env: RecommendationMDP, memories: np.ndarray
) -> tuple[Float[np.ndarray, "n m"], Float[np.ndarray, "n1 m"]]:
    """Chance that each product is bought when shown, and of a query after each recommendation."""
    n, rule, utilities = env.products, env.action_rule, jnp.asarray(env.utilities)
    if rule.alone(n, utilities) is not None:
        buy, query = (np.asarray(x) for x in _screen(rule, utilities))
        return buy[:n], query
    buy, query, other = (np.asarray(x) for x in _general(rule, memories, utilities))
    if (other > 0).any():
        must = "let the user buy only what has been recommended (Assumption 1)"
        got = f"a chance of {other.max():.3g} of buying a product that was not shown"
        raise UnseenPurchase(describe("RecommendationMDP(action_rule=...)", must, got))
    return buy[:n], query


@as_program
def _screen(rule: AbstractActionRule, utilities: Numbers):
    """As `_general`, where the rule itself says what one product alone brings."""
    return jax.lax.map(
        lambda shown: rule.alone(shown, utilities), jnp.arange(utilities.shape[0] + 1)
    )


@as_program
def _general(rule: AbstractActionRule, memories: Numbers, utilities: Numbers):
    n = utilities.shape[0]

    def one(at: tuple[Array, Array]):
        shown, memory = at
        law = acts(rule, memory, shown, utilities)
        own = jnp.where(jnp.arange(n) == shown, 1.0, 0.0)[:, None]
        return (law[:n] * own).sum(axis=0), law[n + 1], (law[:n] * (1 - own)).max()

    return jax.lax.map(one, (jnp.arange(n + 1), jnp.asarray(memories)))


def _laws(env: RecommendationMDP, memories: np.ndarray) -> Float[np.ndarray, "n1 P m Z"]:
    """Law of the symbols after each recommendation, in every period where it depends on it."""
    feedback = env.signals.feedback
    symbols = env.heard.count
    periods = int(env.horizon) if feedback.periodic() else 1
    size = 8.0 * (env.products + 1) * periods * env.tastes.size * symbols
    if size > _MOST_BYTES:
        must = f"have laws of at most {_MOST_BYTES / 1e9:.3g} GB"
        got = f"{symbols:.3g} joint symbols: {size / 1e9:.3g} GB"
        do = "let the platform alone see the feedback, or use fewer symbols"
        raise TooLarge(describe("SignalStructure(feedback=...)", must, got, do))
    return np.asarray(_laws_jit(feedback, memories, jnp.arange(periods), env.utilities))


@as_program
def _laws_jit(feedback: AbstractFeedback, memories: Numbers, periods: Numbers, utilities: Numbers):
    def one(at: tuple[Array, Array]):
        memory, shown = at
        law = jax.vmap(lambda t: answers(feedback, memory, shown, t, jnp.asarray(utilities)))
        return law(periods)

    return jax.lax.map(one, (jnp.asarray(memories), jnp.arange(len(memories))))


def _reachable(env: RecommendationMDP, column: np.ndarray) -> Float[np.ndarray, "g m"] | None:
    """Every belief of every period, of mass one; None if there are too many to list."""
    sizes = env.initial_alphabet
    count = math.prod(sizes)
    if env.horizon == math.inf or count > _MOST_BELIEFS:
        return None
    wide = [party for party, size in enumerate(sizes) if size > 1]
    symbols = np.zeros((count, len(sizes)), np.int64)
    if wide:
        symbols[:, wide] = np.indices([sizes[p] for p in wide]).reshape(len(wide), -1).T
    weights = np.asarray(env.tastes.weights)
    found = _directions(weights * np.asarray(signal_likelihood(env, symbols)))
    last = found
    steps = _directions(np.moveaxis(column, 3, 2).reshape(-1, len(weights)))
    for _ in range(int(env.horizon) - 1):
        if len(last) * len(steps) > 100 * _MOST_BELIEFS:
            return None
        last = _directions((last[:, None] * steps).reshape(-1, len(weights)))
        found = _directions(np.concatenate([found, last]))
        if len(found) > _MOST_BELIEFS:
            return None
    return found


def _directions(rows: np.ndarray) -> Float[np.ndarray, "g m"]:
    """Distinct rows up to scale, of mass one; rows of zeros are left out."""
    mass = rows.sum(axis=1, keepdims=True)
    rows = rows[mass[:, 0] > 0] / mass[mass[:, 0] > 0]
    _, first = np.unique(np.round(rows, _DIGITS) + 0.0, axis=0, return_index=True)
    return rows[np.sort(first)]


def _groups(env: RecommendationMDP) -> Int[np.ndarray, " A"]:
    """Products after which values move alike may stand for each other."""
    if not isinstance(env.values, MarkovValues):
        return np.zeros(env.products + 1, np.int64)
    kernel = env.values.kernel.reshape(env.products + 1, -1)
    return np.unique(kernel, axis=0, return_inverse=True)[1].reshape(-1)
