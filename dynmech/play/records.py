"""Records of simulated conversations, one row each."""

from __future__ import annotations

import equinox as eqx
import numpy as np
from jaxtyping import Float, Int

from dynmech import files
from dynmech._types import Record
from dynmech.errors import import_extra
from dynmech.logs.log import Log
from dynmech.logs.reading import BUY, EXIT, QUERY
from solvers.kept import require_indices, require_numbers


class Simulation(files.Kept, Record):
    """Records of N simulated conversations; money unless said otherwise.

    - `profile` (N,): index into the policy's profiles; `omega` (N,): taste point drawn.
    - `recommendation`, `action`, `symbol` (N, T): -1 for none shown; action codes, -1 after
      the end; what was heard after a query, numbered by `env.heard`, -1 where nothing was. Where
      several products are shown at once `recommendation` is (N, T, K), -1 in empty places.
    - `heard` (N, T): the platform's part of `symbol`, -1 where none came or there is but one.
    - `first` (N, 1+n), `reported` (N, T, n): symbols of period 1, and values, money, as reported;
      the platform's own symbol first; NaN after the end.
    - `rating` (N,): the settlement signal as it came, NaN where none did; `estimate` (N,): what it
      counts as utility of the product bought, NaN where nothing was.
    - `core`, `groves` (N, n): transfers paid. `earned` (N, n): values from purchases.
    - `user_utility` (N,): utility of the product bought, relative to leaving; `round_costs` (N,):
      what her queries cost.
    - `settled_at_mean`: True where the settlement's noise is not known to the market.

    Where the last of T rounds stands for all that follow, it is entered once, with its end.
    """

    names: tuple[str, ...] = eqx.field(static=True)
    profile: Int[np.ndarray, " N"]
    omega: Int[np.ndarray, " N"]
    recommendation: Int[np.ndarray, "N T ..."]
    action: Int[np.ndarray, "N T"]
    symbol: Int[np.ndarray, "N T"]
    heard: Int[np.ndarray, "N T"]
    first: Int[np.ndarray, "N n1"]
    reported: Float[np.ndarray, "N T n"]
    rating: Float[np.ndarray, " N"]
    estimate: Float[np.ndarray, " N"]
    core: Float[np.ndarray, "N n"]
    groves: Float[np.ndarray, "N n"]
    earned: Float[np.ndarray, "N n"]
    user_utility: Float[np.ndarray, " N"]
    round_costs: Float[np.ndarray, " N"]
    settled_at_mean: bool = eqx.field(static=True)

    def check_kept(self) -> None:
        """Raise `ValueError` for codes that nothing has, and money that is not finite."""
        n = len(self.names)
        for name in ("profile", "omega"):
            require_indices(name, getattr(self, name), 1 << 31)
        for name in ("symbol", "heard", "first"):
            require_indices(name, getattr(self, name), 1 << 31, -1)
        require_indices("recommendation", self.recommendation, n, -1)
        require_indices("action", self.action, n + 2, -1)
        for name in ("core", "groves", "earned", "user_utility", "round_costs"):
            require_numbers(name, getattr(self, name))
        for name in ("reported", "rating", "estimate"):
            require_numbers(name, getattr(self, name), blank=True)

    @property
    def payment(self) -> Float[np.ndarray, "N n"]:
        """Everything each advertiser pays."""
        return self.core + self.groves

    @property
    def payoff(self) -> Float[np.ndarray, "N n"]:
        """What each advertiser earns less what she pays."""
        return self.earned - self.payment

    @property
    def surplus(self) -> Float[np.ndarray, " N"]:
        """Values earned plus the user's utility, less what her queries cost."""
        return self.earned.sum(axis=1) + self.user_utility - self.round_costs

    @property
    def length(self) -> Int[np.ndarray, " N"]:
        """Rounds that took place."""
        return (self.action >= 0).sum(axis=1)

    def mean(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard error of a record: "payment", "surplus", "payoff", ..."""
        values = np.asarray(getattr(self, name), float)
        error = values.std(axis=0, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
        return np.asarray(values.mean(axis=0)), np.broadcast_to(error, values.shape[1:])

    def to_log(self) -> Log:
        """What a platform would have logged: recommendations, actions, ratings that came, reports.

        Ratings after purchases are in money, `scale=(0, 1)`; after a query the platform's symbol
        is logged. First signals are in columns `signal_platform`, `signal_NAME`, reported values
        in `theta_NAME`. A conversation that ends with a query has no end in the log. A last round
        that stands for all that follow is one row, with its end: queries in between are not there.

        **Returns:** a `Log`, which `Log.from_frame(log.to_frame(), ...)` reads back.
        """
        live = self.action >= 0
        row, turn = np.nonzero(live)
        last = turn == self.length[row] - 1
        n, action = len(self.names), self.action[row, turn]
        kind = np.where(action < n, BUY, np.where(action == n, EXIT, QUERY))
        parties = ("platform", *self.names)
        held = [k for k in range(n + 1) if self.first[:, k].any()]
        columns = ("conversation", "round", "shown", "action", "bought", "rating", "signal")
        return Log(
            conversations=np.arange(len(self.profile)),
            offsets=np.concatenate([[0], np.cumsum(self.length)]),
            products=self.names,
            shown=self.recommendation[row, turn].reshape(len(row), -1),
            kind=kind,
            bought=np.where(kind == BUY, action, -1),
            rating=np.where(last, self.rating[row], np.nan),
            signal=self.heard[row, turn],
            first=self.first if held else None,
            reports=self.reported[row, turn],
            first_columns=tuple(f"signal_{x}" for x in parties) if held else (),
            reporters=self.names,
            scale=(0.0, 1.0),
            columns=tuple((name, name) for name in columns),
        )

    def to_frame(self):
        """Labelled pandas table: one row a conversation and advertiser."""
        pandas = import_extra("pandas", "experiments", "Simulation.to_frame")
        count, n = self.core.shape
        words = np.array([*self.names, "exit", "query", ""], dtype=object)
        last = self.action[np.arange(count), self.length - 1]
        return pandas.DataFrame(
            {
                "conversation": np.repeat(np.arange(count), n),
                "profile": np.repeat(self.profile, n),
                "rounds": np.repeat(self.length, n),
                "ended_by": np.repeat(words[last], n),
                "estimate": np.repeat(self.estimate, n),
                "advertiser": np.tile(np.array(self.names, dtype=object), count),
                "earned": self.earned.ravel(),
                "core_transfer": self.core.ravel(),
                "groves_term": self.groves.ravel(),
                "payment": self.payment.ravel(),
                "user_utility": np.repeat(self.user_utility, n),
                "round_costs": np.repeat(self.round_costs, n),
            }
        )
