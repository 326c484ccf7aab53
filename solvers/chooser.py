"""Whoever says what to do, whatever the reason: a recommender of somebody's own, a table, a plan.

A chooser is host code, asked for the beliefs that are met and no others; nothing is assumed about
it, so that what it is worth is bounded by runs whose range is known (`solvers.confidence.chosen`).
"""

import abc

import numpy as np
from jaxtyping import Float, Int

from solvers.host import Record
from solvers.process import Case


class AbstractChooser(Record):
    """Laws over controls at beliefs."""

    @abc.abstractmethod
    def laws(
        self,
        case: Case,
        beliefs: Float[np.ndarray, "C m"],
        memories: Int[np.ndarray, "C d"],
        period: int,
        places: Int[np.ndarray, " C"],
    ) -> Float[np.ndarray, "C A"]:
        """The chance of each control at beliefs of mass 1; a single 1 where nothing is drawn.

        **Arguments:** `case`: what is told; `period`: rounds before this one; `places`: where the
        chooser says that each run is, see `follow`.
        """

    @abc.abstractmethod
    def follow(
        self,
        places: Int[np.ndarray, " C"],
        period: int,
        controls: Int[np.ndarray, " C"],
        symbols: Int[np.ndarray, " C"],
    ) -> Int[np.ndarray, " C"]:
        """Where runs are after a control and a symbol, in numbers of the chooser's own.

        One that knows its way by the belief needs no places, and returns those given.
        """


def draw_controls(
    laws: Float[np.ndarray, "C A"], uniform: Float[np.ndarray, " C"]
) -> Int[np.ndarray, " C"]:
    """Draw from each law by a number that is uniform on [0, 1)."""
    ladder = np.cumsum(laws, axis=1)
    below = (ladder <= uniform[:, None] * ladder[:, -1:]).sum(axis=1)
    return np.minimum(below, laws.shape[1] - 1)


def chosen(
    chooser: AbstractChooser,
    case: Case,
    beliefs: Float[np.ndarray, "C m"],
    memories: Int[np.ndarray, "C d"],
    period: int,
    places: Int[np.ndarray, " C"],
    uniform: Float[np.ndarray, " C"],
    controls: int,
) -> tuple[Int[np.ndarray, " C"], bool]:
    """What is done at C beliefs, the last control where one has no mass; whether any was drawn."""
    found, live = np.full(len(beliefs), controls - 1), np.flatnonzero(beliefs.any(axis=1))
    if not len(live):
        return found, False
    laws = chooser.laws(case, beliefs[live], memories[live], period, places[live])
    found[live] = draw_controls(laws, uniform[live])
    return found, bool((laws.max(axis=1) < laws.sum(axis=1)).any())
