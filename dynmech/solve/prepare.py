"""What is settled before a solve starts: solver, profiles, roots, and whether it will fit."""

import math
from typing import Any

import numpy as np
from jaxtyping import Float

from dynmech.errors import InvalidArgument, NotFinite, TooLarge, describe, is_number, shown
from dynmech.market.environment import RecommendationMDP
from dynmech.market.profiles import Profiles
from dynmech.market.roots import (
    LEAST_CHANCE,
    all_profiles,
    check_profiles,
    possible_profiles,
    signal_likelihood,
)
from dynmech.market.values import MarkovValues, reportable
from dynmech.problem.tasks import Pairs
from solvers import AbstractSolver

_VERB = "solve_efficient_policy"
_MOST_PROFILES = 2_000_000
_MOST_MOVES = 5e8
_MOST_AXES = 60
MEMORY = 8e9  # bytes that a solve may take where nobody says
_COPIES = 3  # of profiles with own alternatives while they are told apart
_DRAW = "pass initial=env.sample_profiles(jax.random.key(0), 16)"
_LEAST_MONEY, _MOST_MONEY = 1e-290, 1e290  # sums and products still have room beyond


def check_solver(solver: object) -> None:
    """Raise unless this is a solver, or None."""
    if solver is None:
        return
    if not isinstance(solver, AbstractSolver):
        must = "be an AbstractSolver, such as Exact() or BranchAndBound(), or None"
        raise InvalidArgument(describe(f"{_VERB}(solver=...)", must, solver))


def check_tolerance(verb: str, tolerance: Any) -> None:
    """Raise unless a tolerance is a number that bounds can be compared with."""
    if not (is_number(tolerance) and tolerance >= 0):
        must = "be >= 0, a number, in money"
        raise InvalidArgument(describe(f"{verb}(tolerance=...)", must, shown(tolerance)))


def check_limits(verb: str, tolerance: Any, relative: Any, memory: Any, seconds: Any) -> None:
    """Raise unless limits are numbers that a solve can be held to."""
    check_tolerance(verb, tolerance)
    if not (is_number(relative) and 0 <= relative < 1):
        must = "be a share of the upper bound, in [0, 1)"
        raise InvalidArgument(describe(f"{verb}(relative=...)", must, shown(relative)))
    for name, given, what in (("memory", memory, "bytes"), ("seconds", seconds, "seconds")):
        if given is not None and not (is_number(given) and 0 < given < math.inf):
            must = f"be a positive, finite number of {what}, or None"
            raise InvalidArgument(describe(f"{verb}({name}=...)", must, shown(given)))


def check_money(env: RecommendationMDP) -> None:
    """Raise where sums of the market's money could overflow or vanish."""
    with np.errstate(over="ignore", invalid="ignore"):
        amounts = reportable(env.values), env.gains, env.costs
        sizes = [float(np.abs(x).max()) for x in amounts]
    most = max(sizes)
    if not most <= _MOST_MONEY or 0 < most < _LEAST_MONEY:
        raise unit_of_money(most)


def check_found(env: RecommendationMDP, found: np.ndarray) -> None:
    """Raise where values that were found overflowed, or vanished."""
    money = np.concatenate([*map(np.ravel, (reportable(env.values), env.gains, env.costs))])
    small = bool(((money != 0) & (np.abs(money) < _LEAST_MONEY)).any())
    size = np.abs(found[~np.isnan(found)])
    wrong = size[(size > _MOST_MONEY) | ((size < _LEAST_MONEY) & ((size > 0) | small))]
    if len(wrong):
        raise unit_of_money(float(wrong[0]))


def unit_of_money(got: float) -> NotFinite:
    """An amount of money that float64 cannot add up, refused."""
    must = f"be of an ordinary size: every value 0, or from {_LEAST_MONEY} to {_MOST_MONEY} money"
    do = "write theta and gamma in another unit of money"
    call = "RecommendationMDP(values=..., gamma=...)"
    return NotFinite(describe(call, must, f"{got:.3g}", do))


def rounded_up(least: float) -> str:
    """Three digits that are no less than this: whoever passes them on is not refused again."""
    text = f"{least:.2e}"
    return text if float(text) >= least else f"{1.01 * least:.2e}"


def wanted_profiles(
    env: RecommendationMDP, initial: Profiles | None, memory: float | None = None
) -> tuple[Profiles, bool]:
    """The profiles to solve, and whether tables are (B,) over them instead of P.

    All of them where none are given: P up to 60 axes and 2e6 entries, else those of positive
    probability, listed.

    **Raises:** `TooLarge` where they, with every advertiser's own alternatives, do not fit.
    """
    if initial is not None:
        return check_profiles(env, initial), True
    count, axes = math.prod(env.profile_shape), len(env.profile_shape)
    listed = axes > _MOST_AXES or count > _MOST_PROFILES
    if not listed:
        _check_room(env, count, memory)
        return all_profiles(env), False
    try:
        profiles = possible_profiles(env, _MOST_PROFILES)
    except MemoryError as error:
        must = f"name the profiles when there are more than {_MOST_PROFILES}"
        raise TooLarge(describe(f"{_VERB}(initial=...)", must, str(error), _DRAW)) from error
    _check_room(env, len(profiles), memory)
    return profiles, True


def _check_room(env: RecommendationMDP, count: int, memory: float | None) -> None:
    """Raise where the profiles with own alternatives, values and symbols each, do not fit."""
    n, size = env.values.support.shape
    pairs = count * n * size * max(env.initial_alphabet[1:])
    need, memory = 8.0 * _COPIES * pairs * (2 * n + 1), memory or MEMORY
    if need > memory:
        must = f"name the profiles when all of them need more than {memory / 1e9:.3g} GB"
        got = f"{count} profiles with own alternatives: {need / 1e9:.3g} GB"
        raise TooLarge(describe(f"{_VERB}(initial=...)", must, got, _DRAW))


def check_values(env: RecommendationMDP) -> None:
    """Values that move can reach every profile of values: there must be few enough.

    At every node each of them may follow each other, after every control, in every economy.
    """
    n, size = env.values.support.shape
    joint = size**n
    moves = float(joint) ** 2 * len(env.controls) * (2 * n + 1)
    if isinstance(env.values, MarkovValues) and moves > _MOST_MOVES:
        must = f"have few profiles of values: at most {_MOST_MOVES:.0e} multiplications a node"
        got = f"{size}**{n} = {joint} of them, each of which can follow: {moves:.2g}"
        do = "use fewer values or advertisers, or ConstantValues"
        call = "RecommendationMDP(values=MarkovValues(...))"
        raise TooLarge(describe(call, must, got, do))


def root_beliefs(env: RecommendationMDP, pairs: Pairs) -> Float[np.ndarray, "R m"]:
    """Unnormalised belief at every root.

    **Raises:** `NotFinite` where so many symbols are heard together that chances of what is asked
    for leave the range of numbers.
    """
    likelihood = np.asarray(signal_likelihood(env, pairs.signals))
    belief = np.asarray(env.tastes.weights) * likelihood
    joint = float(np.log10(env.initial_alphabet).sum())
    if joint > -math.log10(LEAST_CHANCE) and not belief[pairs.root[pairs.base]].any(axis=1).all():
        must = f"leave profiles chances of {LEAST_CHANCE} or more"
        got = f"less for some of those asked for: about 1e{joint:.0f} joint symbols"
        do = "use fewer symbols, or let fewer advertisers read"
        raise NotFinite(describe("RecommendationMDP(signals=...)", must, got, do))
    return belief
