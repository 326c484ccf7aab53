"""What Groves terms need of each advertiser's own alternatives, for long horizons.

For a profile of the others' reports, every own value and signal of advertiser i: what the policy
attains there, what it leaves the others (D_i), and bounds on both economies without her.

A total must not move with her own report. Hence every number here is a function of the profile it
belongs to and of nothing else: each profile is simulated with the same noise, and the economies
without i, from which her value is absent, are bounded by a search of their own (in a search shared
with other economies, her value could change how deep it gets).
"""

import dataclasses

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Float

from dynmech._types import Record
from dynmech.bounded import Bounded, simulated
from dynmech.errors import TooLarge, describe
from dynmech.market.environment import RecommendationMDP
from dynmech.market.profiles import Profiles
from dynmech.market.roots import signal_likelihood
from dynmech.payments.settlement import Estimator
from dynmech.policy.bias import largest_bias
from dynmech.policy.guide import AbstractGuide
from dynmech.policy.playable import told_of
from dynmech.policy.player import Player
from dynmech.problem.moving import PlayedProcess
from dynmech.problem.tasks import Pairs, make_pairs
from dynmech.solve.ceilings import make_ceilings
from dynmech.solve.certificates import make_case
from solvers import AbstractCeiling, AbstractCritic, Case, Certificate, Root
from solvers.certify import attained, certify, hidden
from solvers.told.rounded import data_room

_MOST_PAIRS = 1024
_SEED = 5
_PARTS = "value", "lower", "upper", "error", "unseen"


class OwnBounds(Record):
    """Along own alternatives; money, per profile; NaN where its signals are impossible.

    - `pairs`: the profiles, P of them, and which are whose alternatives. `root` (R, m).
    - `surplus` (P,): of the policy, simulated. `contribution` (P, n): D_i, from the products of
      the others.
    - `marginal`, `displayable`: bounds (B, n, Z) on W^{-i} and Wd^{-i}, by own signal.
    """

    pairs: Pairs
    root: Float[np.ndarray, "R m"]
    surplus: Bounded
    contribution: Bounded
    marginal: Bounded
    displayable: Bounded


class Economy(Record):
    """Cases of one belief, with their told-omega bounds; `entries`: where (b, i, z) they go."""

    root: int = eqx.field(static=True)
    cases: tuple[Case, ...]
    ceilings: tuple[AbstractCeiling, ...]
    entries: tuple[tuple[int, int, int], ...] = eqx.field(static=True)


class Alternatives(Record):
    """What has to be solved for own alternatives: every profile, and every economy without one."""

    pairs: Pairs
    root: Float[np.ndarray, "R m"]
    everyone: tuple[Economy, ...]
    others: tuple[Economy, ...]

    def training_roots(self) -> list[Root]:
        """Where training starts beside the profiles asked for."""
        asked = set(self.pairs.base.tolist())
        more = [economy for economy in self.everyone if economy.entries[0][0] not in asked]
        economies = [*more, *self.others]
        return [
            Root(_unit(self.root[economy.root]).astype(np.float32), case, ceiling, False)
            for economy in economies
            for case, ceiling in zip(economy.cases, economy.ceilings, strict=True)
        ]


def list_alternatives(
    env: RecommendationMDP, process: PlayedProcess, profiles: Profiles, others: bool = True
) -> Alternatives:
    """List every advertiser's own alternatives to a batch of profiles.

    **Arguments:** `others`: whether the economies without her are wanted.

    **Raises:** `TooLarge` where there are too many.
    """
    pairs = make_pairs(env, profiles)
    if len(pairs.root) > _MOST_PAIRS:
        must = f"have at most {_MOST_PAIRS} profiles with each advertiser's own alternatives"
        do = "pass fewer profiles, or use fewer values and signals"
        call = "solve_efficient_policy(initial=...)"
        raise TooLarge(describe(call, must, len(pairs.root), do))
    root = np.asarray(env.tastes.weights, float) * np.asarray(
        signal_likelihood(env, pairs.signals), float
    )
    support, n = np.asarray(env.values.support, float), env.products
    money = support[np.arange(n), pairs.theta]
    possible = root.sum(axis=1) > 0
    everyone, found, above = [], {}, {}
    with jax.enable_x64(True):
        for p, at in enumerate(pairs.root.tolist()):
            if possible[at]:
                case = process.posed(make_case(env, money[p]))
                key = np.asarray(case.coefficient).tobytes()
                if key not in above:
                    above[key] = tuple(make_ceilings(env, process, [case]))
                everyone.append(Economy(at, (case,), above[key], ((p, 0, 0),)))
        # Own values do not enter W^{-i}: the first value stands for all.
        for b, i, z in np.argwhere((pairs.own[:, :, 0] >= 0) & others).tolist():
            pair = pairs.own[b, i, 0, z]
            if possible[pairs.root[pair]]:
                key = (i, int(pairs.root[pair]), np.delete(pairs.theta[pair], i).tobytes())
                found.setdefault(key, []).append((b, i, z))
        alone = []
        for (i, at, _), entries in found.items():
            b, _, z = entries[0]
            theta = money[pairs.own[b, i, 0, z]]
            cases = [make_case(env, theta, i, shown) for shown in (False, True)]
            ceilings = make_ceilings(env, process, cases)
            alone.append(Economy(at, tuple(cases), tuple(ceilings), tuple(entries)))
    return Alternatives(pairs, root, tuple(everyone), tuple(alone))


def bound_alternatives(
    env: RecommendationMDP,
    process: PlayedProcess,
    network: AbstractCritic | None,
    listed: Alternatives,
    certificate: Certificate,
    chunk: int,
    chooser: AbstractGuide | None = None,
) -> OwnBounds:
    """Simulate and bound every alternative with `certificate.marginal_runs` conversations.

    `chooser`: whose policy it is with everybody there, as of `Player`.
    """
    pairs, n = listed.pairs, env.products
    runs = certificate.marginal_runs
    player = Player(env, process, network, chunk, runs, [certificate.seed, _SEED], chooser)
    money = np.asarray(env.values.support, float)[np.arange(n), pairs.theta]
    bias = largest_bias(env, env.signals.settlement)
    mean, error, unseen = np.full((3, len(pairs.root), n + 1), np.nan)
    for economy in listed.everyone:
        p = economy.entries[0][0]
        signals = pairs.signals[pairs.root[p]]
        played = player.play(money[p], signals, Estimator(), env.signals.settlement, stray=bias)
        left = played.left - played.excess  # what the others get, not what they are paid
        mean[p, 1:], error[p, 1:] = left.mean(axis=0), left.std(axis=0, ddof=1) / runs**0.5
        whose, start = (process, economy.ceilings[0]), process.outset(money[p])
        belief = _unit(listed.root[economy.root])
        room = data_room(*whose, belief, float(mean[p, 1:].min()), start)
        unseen[p, 1:] = hidden(left, played.left_reach + played.stray, played.going) + room
        told = None if chooser is None else chooser.outset(money[p], signals)
        if told is not None:
            told = told_of(*told, economy.cases, economy.ceilings)
        mean[p, 0], error[p, 0], unseen[p, 0] = attained(
            process, economy.cases[0], economy.ceilings[0], network, listed.root[economy.root],
            runs, [certificate.seed, _SEED + 1], chunk, chooser, told, start,
        )  # fmt: skip
    shape = (*pairs.own.shape[:2], pairs.own.shape[3])
    table = np.full((2, len(_PARTS), *shape), np.nan)
    share = dataclasses.replace(certificate, work=certificate.work / n)
    for economy in listed.others:
        belief = listed.root[economy.root]
        cases, ceilings = list(economy.cases), list(economy.ceilings)
        found = certify(process, cases, ceilings, network, belief, runs, share, chunk).both
        parts = np.stack([getattr(found, name) for name in _PARTS])
        for entry in economy.entries:
            table[(slice(None), slice(None), *entry)] = parts.T
    sure = certificate.confidence
    withdrawn, shown = (Bounded(*x[:4], confidence=sure, unseen=x[4]) for x in table)
    payoffs = simulated(mean, error, unseen, sure)
    return OwnBounds(
        pairs=pairs,
        root=listed.root,
        surplus=payoffs[:, 0],
        contribution=payoffs[:, 1:],
        marginal=withdrawn,
        displayable=shown,
    )


def _unit(belief: np.ndarray) -> np.ndarray:
    return belief / belief.sum()
