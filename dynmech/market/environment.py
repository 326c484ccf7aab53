"""The recommendation problem: products, tastes, behaviour, signals, values (paper C, section 3)."""

import math
import os
from collections.abc import Sequence
from typing import Any, Self

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from dynmech._checks import (
    Labels,
    chances,
    distinct,
    generator,
    in_order,
    instance,
    labelled,
    shaped,
    whole,
)
from dynmech._html import as_html, portrait
from dynmech._types import Given, Numbers, Record, with_fields
from dynmech.errors import InvalidArgument, describe, require_finite, shown
from dynmech.market.cards import market
from dynmech.market.channels import as_channel, require_shape
from dynmech.market.displays import Displays, controls_of, members_of
from dynmech.market.feedback import AbstractFeedback, NoFeedback, TabulatedFeedback
from dynmech.market.heard import Heard
from dynmech.market.part import history_count
from dynmech.market.profiles import Profiles, draw_profiles
from dynmech.market.rewards import Toll, toll
from dynmech.market.rewards import exit_value as _exit_value
from dynmech.market.rewards import round_cost as _round_cost
from dynmech.market.rules import AbstractActionRule, Tabulated
from dynmech.market.settlements import AbstractSettlementSignal, TabulatedSettlement
from dynmech.market.shown import require_displays
from dynmech.market.signals import JointSignals, SignalStructure
from dynmech.market.tables import write_market
from dynmech.market.tastes import TasteGrid
from dynmech.market.values import ConstantValues, MarkovValues, Values, check_theta, reportable

_CALL = "RecommendationMDP"
_MOST_DRAWN, _MOST_ROUNDS = 10**7, 10**6


class RecommendationMDP(Record):
    """A market: n products shown over T rounds to a user of hidden, static taste omega.

    User utility of product i is u_i(omega) = <gamma_i, omega>, in the money of theta, relative
    to an outside option of utility 0. What she does follows from u alone. What counts as surplus is

        sum over purchases of theta_j + u_j(omega) - x(omega), less round_cost for every query,

    with x what leaving is worth: relative to leaving at once.

    **Arguments**

    - `gamma`: shape (n, k), characteristics. A pandas frame carries labels, products as its index
      and characteristics as its columns: those of `names`, `tastes` and `values`, in any order.
    - `tastes`: `TasteGrid` with points (m, k) and weights (m,): the common prior F_0.
    - `horizon`: T rounds, from 1 to 10^6, or `math.inf`.
    - `action_rule`: how the user behaves (`PerfectRecall`, `ImperfectRecall`,
      `LastShownOnly`, `Tabulated`, or your own `AbstractActionRule`).
    - `signals`: `SignalStructure(initial=..., feedback=..., settlement=...)`.
    - `values`: `ConstantValues` or `MarkovValues`, money per purchase.
    - `names`: product labels, carried into every table and picture: strings that can be told
      apart. By default those that `gamma` or `values` carry.
    - `displays`: `Displays(size, ordered, of)`, several products on the screen at once; None: one.
    - `round_cost`: >= 0, money that a query costs the user, in the last round too: a number, or
      shape (C,) or (C, m), a row for each of `controls`. Every advertiser is charged it.
    - `exit_value`: x, money that leaving is worth to the user, a last query included: a number, or
      shape (m,). Utilities in results, and estimates that settle, are of u_j - x.

    **Raises:** a `DynmechError` naming the argument; `InvalidArgument` (shape, range),
    `NotFinite`, `InvalidProbability`, and, from `solve_efficient_policy`, `UnseenPurchase`.

    **References:** paper C (From Conversations to Mechanisms), section 3.
    """

    gamma: Float[np.ndarray, "n k"]
    tastes: TasteGrid
    horizon: int | float = eqx.field(static=True)
    action_rule: AbstractActionRule
    signals: SignalStructure
    values: Values
    names: tuple[str, ...] = eqx.field(static=True)
    displays: Displays | None
    round_cost: Float[Numbers, "..."]
    exit_value: Float[Numbers, "..."]

    def __init__(
        self,
        gamma: Given,
        tastes: TasteGrid,
        horizon: int | float,
        action_rule: AbstractActionRule,
        signals: SignalStructure,
        values: Values,
        names: Sequence[str] | None = None,
        displays: Displays | None = None,
        *,
        round_cost: Any = 0.0,
        exit_value: Any = 0.0,
    ):
        self.gamma, (rows, columns) = _characteristics(gamma)
        n, k = self.gamma.shape
        for name, given, kind, example in (
            ("tastes", tastes, TasteGrid, "a TasteGrid(points, weights)"),
            ("action_rule", action_rule, AbstractActionRule, "an AbstractActionRule"),
            ("signals", signals, SignalStructure, "a SignalStructure(...)"),
            ("values", values, ConstantValues | MarkovValues, "ConstantValues or MarkovValues"),
        ):
            instance(kind, example)(f"{_CALL}({name}=...)", given)
        if tastes.dimension != k:
            must = f"have points of shape (m, {k}), as gamma has {k} columns"
            raise InvalidArgument(describe(f"{_CALL}(tastes=...)", must, tastes.points.shape))
        if values.support.shape[0] != n:
            must = f"have a support for each of the {n} products"
            raise InvalidArgument(describe(f"{_CALL}(values=...)", must, values.support.shape))
        self.names = _names(
            next((x for x in (names, rows, values.names) if x is not None), None), n
        )
        self.gamma = in_order(f"{_CALL}(gamma=...)", self.gamma, 0, rows, self.names, "products")
        self.tastes, self.values = tastes.in_order(columns), values.in_order(self.names)
        instance(Displays | None, "Displays(size=2)")(f"{_CALL}(displays=...)", displays)
        self.displays = displays
        if isinstance(self.values, MarkovValues):
            self.values = self.values.by_control(len(self.controls))
        self.action_rule, self.horizon = action_rule, _horizon(horizon)
        told = action_rule.step, action_rule.probabilities, signals.feedback.likelihood
        for call in told:
            require_displays(call, self.controls.shape[1])
        for part in (action_rule, signals.initial, signals.feedback):
            part.check(n, tastes.size, self.horizon)
        self.check_histories(f"{_CALL}(action_rule=...)", signals.feedback)
        self.signals = _bound(signals, self.utilities, np.asarray(self.tastes.weights))
        points = self.tastes.size
        self.round_cost = _round_cost(
            f"{_CALL}(round_cost=...)", round_cost, len(self.controls), points
        )
        self.exit_value = _exit_value(f"{_CALL}(exit_value=...)", exit_value, points)
        self.check_settlement(f"{_CALL}(action_rule=...)", signals.settlement)

    def check_settlement(self, call: str, signal: AbstractSettlementSignal) -> None:
        """Raise unless purchases in this market can be settled with a signal."""
        self.check_histories(call, signal)
        signal.check(self.products, self.tastes.size, self.horizon)
        signal.check_ratings(self.gains)

    def check_histories(
        self, call: str, reader: AbstractFeedback | AbstractSettlementSignal
    ) -> None:
        """Raise unless memories are the histories by which this is read, if it is by any."""
        if reader.reads_history() and not self.action_rule.counts_histories():
            must = f"be Tabulated: {type(reader).__name__} reads its memory"
            raise InvalidArgument(describe(call, must, type(self.action_rule)))

    def __repr__(self) -> str:
        return portrait(self, market)

    def _repr_html_(self) -> str:
        return portrait(self, market, as_html)

    @property
    def products(self) -> int:
        """Number of products, n."""
        return self.gamma.shape[0]

    @property
    def utilities(self) -> Float[np.ndarray, "n m"]:
        """u_i(omega) on the grid, shape (n, m), money."""
        return self.gamma @ np.asarray(self.tastes.points).T

    @property
    def gains(self) -> Float[np.ndarray, "n m"]:
        """u_i(omega) - x(omega), what buying is worth to the user beyond leaving, (n, m), money."""
        return self.utilities - np.asarray(self.exit_value)

    @property
    def controls(self) -> Int[np.ndarray, "C K"]:
        """What can be shown, (C, K): products, n for an empty place; the last row shows none."""
        return controls_of(self.displays, self.names)

    @property
    def members(self) -> Bool[np.ndarray, "C n"]:
        """Which products each control shows, (C, n)."""
        return members_of(self.displays, self.names)

    @property
    def unaware(self) -> Int[np.ndarray, " d"]:
        """What the action rule remembers before anything is shown."""
        size = self.controls.shape[1]
        return np.asarray(self.action_rule.begin(self.products, self.horizon, size))

    @property
    def costs(self) -> Float[np.ndarray, "C m"]:
        """What a query costs after each control given omega, (C, m), money."""
        given = np.asarray(self.round_cost)
        given = given[:, None] if given.ndim == 1 else given
        return np.broadcast_to(given, (len(self.controls), self.tastes.size))

    @property
    def toll(self) -> Toll | None:
        """`costs` as an outcome of the solvers' problem; None where queries are free."""
        costs = self.costs
        return toll(costs) if costs.any() else None

    @property
    def money_scale(self) -> float:
        """Largest |theta + u - x| over all reports and the grid: the unit of every tolerance."""
        theta, utilities = reportable(self.values), self.gains
        top, bottom = theta.max(1) + utilities.max(1), theta.min(1) + utilities.min(1)
        return float(max(np.abs(top).max(), np.abs(bottom).max()))

    @property
    def initial_alphabet(self) -> tuple[int, ...]:
        """Number of initial symbols of the platform and each advertiser, (Zp, Z1, ..., Zn)."""
        return tuple(self.signals.initial.alphabet(self.products))

    @property
    def feedback_alphabet(self) -> tuple[int, ...]:
        """Number of symbols after a query, (Zp, Z1, ..., Zn)."""
        return tuple(self.signals.feedback.alphabet(self.products))

    @property
    def heard(self) -> Heard:
        """How what is heard after a query is numbered: of that many numbers, not of all tuples."""
        return Heard(self.feedback_alphabet, self.signals.feedback.readers(self.controls))

    @property
    def profile_shape(self) -> tuple[int, ...]:
        """P = (K,)*n + (Zp, Z1, ..., Zn): axes of every table over initial profiles."""
        n, values = self.values.support.shape
        return (values,) * n + self.initial_alphabet

    def sample_profiles(self, key: jax.Array, count: int) -> Profiles:
        """Draw initial profiles (values, signals) from the prior; the key is consumed.

        **Returns:** `Profiles` of `count` draws, for `solve_efficient_policy(initial=...)`.
        """
        count = whole(1, _MOST_DRAWN)("sample_profiles(count=...)", count)
        env, rng = self.with_cuts_found_anew(), generator("sample_profiles(key=...)", key)
        parts = env.values, env.tastes, env.signals.initial, env.utilities
        return draw_profiles(rng, *parts, count)

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the market to a folder of tables that `read_market` reads back.

        **Arguments:** `path`: a folder; files of a market in it are replaced.

        **Raises:** `InvalidArgument` for parts that are not of this package: they are code.
        """
        write_market(self, path)

    def without_feedback(self) -> Self:
        """The same market when nothing but the query itself is learned.

        Its efficient policy is the best fixed sequence of recommendations.
        """
        return eqx.tree_at(lambda env: env.signals.feedback, self, NoFeedback())

    def with_cuts_found_anew(self) -> Self:
        """The same market with every cut point that was left to it found from its own numbers.

        What solves a market or draws from it calls this first, so that a market whose fields
        were replaced one by one (`equinox.tree_at`) never keeps the cut points of another.
        """
        bound = _bound(self.signals, self.utilities, np.asarray(self.tastes.weights))
        return with_fields(self, signals=bound)

    @classmethod
    def from_tables(
        cls,
        gamma: Given,
        omega: Given,
        prior: Given,
        horizon: int,
        action: Given,
        feedback: Given,
        initial_signals: Given,
        theta_support: Given,
        theta_prior: Given,
        theta_kernel: Given,
        estimator: Given | None = None,
        names: Sequence[str] | None = None,
        *,
        round_cost: Any = 0.0,
        exit_value: Any = 0.0,
    ) -> Self:
        """Build a market from tables over all ordered histories of recommendations.

        H runs over histories of length 1..T: shorter first, then lexicographic, each entry
        0..n-1 or n for none.

        **Arguments**

        - `gamma` (n, k), `omega` (m, k), `prior` (m,), `horizon`.
        - `action`: (H, n+2, m); rows 0..n-1 buy j, row n exit, row n+1 query; sums to 1.
        - `feedback`: (H, m, Zp, Z1, ..., Zn): joint law of the next signals after a query.
        - `initial_signals`: (m, Zp, Z1, ..., Zn).
        - `theta_support`, `theta_prior`: (n, K), money and probabilities.
        - `theta_kernel`: (n+1, n, K, K), first axis the recommendation just made.
        - `estimator`: (H, n, m, k), E[omega_hat | omega, product j bought after that history];
          omega itself by default. Its noise is unknown: simulation settles at the mean.
        - `round_cost`, `exit_value`: as in the constructor; x is subtracted from what settles.

        **Raises:** as the constructor.
        """
        gamma, (rows, columns) = _characteristics(gamma)
        n = gamma.shape[0]
        if names is None:
            names = rows
        elif rows is not None and distinct("from_tables(names=...)", names, n) != rows:
            must = f"be in the order of the rows of gamma, {', '.join(map(str, rows))}"
            raise InvalidArgument(describe("from_tables(names=...)", must, names))
        if _horizon(horizon) == math.inf:
            must = "be an integer: tables run over finitely many histories"
            raise InvalidArgument(describe("from_tables(horizon=...)", must, horizon))
        points, labels = labelled("from_tables(omega=...)", omega)
        points = shaped("m", gamma.shape[1])("from_tables(omega=...)", points)
        points = in_order(
            "from_tables(omega=...)", points, 1, labels[1], columns or labels[1], "columns of gamma"
        )
        weights = shaped(len(points))("from_tables(prior=...)", prior)
        tastes = TasteGrid(points, chances("from_tables(prior=...)", weights), None, columns)
        rows = history_count(n, int(_horizon(horizon)))
        call = "from_tables(action=...)"
        action = shaped(rows, n + 2, tastes.size)(call, action)
        action = chances(call, action, axis=1)
        call = "from_tables(feedback=...)"
        heard = TabulatedFeedback(as_channel(call, feedback, lead=2))
        require_shape(call, heard.table, (rows, tastes.size), n + 1)
        call = "from_tables(initial_signals=...)"
        initial = JointSignals(as_channel(call, initial_signals))
        leaving = _exit_value("from_tables(exit_value=...)", exit_value, tastes.size)
        if estimator is None:
            estimate = np.broadcast_to(gamma @ np.asarray(tastes.points).T, (rows, n, tastes.size))
        else:
            sizes = (rows, n, tastes.size, gamma.shape[1])
            estimator = np.asarray(shaped(*sizes)("from_tables(estimator=...)", estimator))
            estimate = np.einsum("jk,hjmk->hjm", gamma, estimator)
        check_theta(_names(names, n), theta_support, theta_prior)
        call = "from_tables(theta_kernel=...)"
        kernel = np.asarray(chances(call, shaped(n + 1, n, "K", "K")(call, theta_kernel)))
        values: Values = MarkovValues(theta_support, theta_prior, kernel)
        if (values.kernel == np.eye(kernel.shape[-1])).all():
            values = ConstantValues(theta_support, theta_prior)
        settled = TabulatedSettlement(np.array(estimate - np.asarray(leaving)))
        return cls(
            gamma, tastes, horizon, Tabulated(action), SignalStructure(initial, heard, settled),
            values, names, round_cost=round_cost, exit_value=exit_value,
        )  # fmt: skip


def _bound(signals: SignalStructure, utilities: np.ndarray, weights: np.ndarray) -> SignalStructure:
    """The signals completed for a market."""
    return SignalStructure(
        signals.initial.bind(utilities, weights),
        signals.feedback.bind(utilities, weights),
        signals.settlement,
    )


def _characteristics(gamma: Given) -> tuple[Float[np.ndarray, "n k"], tuple[Labels, ...]]:
    call = f"{_CALL}(gamma=...)"
    array, labels = labelled(call, gamma)
    array = np.asarray(array)
    if array.ndim != 2 or 0 in array.shape:
        must = "have shape (n, k) with at least one product and one characteristic"
        raise InvalidArgument(describe(call, must, f"shape {array.shape}"))
    require_finite(call, array)
    return array, labels


def _horizon(horizon: Any) -> int | float:
    call, must = f"{_CALL}(horizon=...)", "be an integer >= 1, or math.inf"
    if isinstance(horizon, int | float | np.integer | np.floating) and horizon == math.inf:
        return math.inf
    whole = isinstance(horizon, int | np.integer) and not isinstance(horizon, bool)
    if not whole and not (isinstance(horizon, float | np.floating) and horizon % 1 == 0):
        raise InvalidArgument(describe(call, must, shown(horizon), "pass the number of rounds"))
    if horizon < 1:
        raise InvalidArgument(describe(call, must, horizon, "pass the number of rounds"))
    if horizon > _MOST_ROUNDS:
        must = f"be at most {_MOST_ROUNDS}, or math.inf: every round is listed"
        raise InvalidArgument(describe(call, must, f"{horizon:.7g}", "pass math.inf"))
    return int(horizon)


def _names(names: Sequence[str] | None, n: int) -> tuple[str, ...]:
    if names is None:
        return tuple(f"product {i}" for i in range(n))
    return distinct(f"{_CALL}(names=...)", names, n, ("exit", "query", "platform", "none"))
