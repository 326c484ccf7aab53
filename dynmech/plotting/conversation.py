"""One conversation: what each recommendation was worth at each round, and how much was known."""

from typing import TYPE_CHECKING

import numpy as np

from dynmech._checks import checked, instance
from dynmech.errors import InvalidArgument, describe
from dynmech.market.displays import display, words
from dynmech.plotting.style import (
    GREY,
    TITLE,
    UNIT,
    bare,
    new_figure,
    plain,
    product_colours,
    shortened,
)
from dynmech.plotting.tree import product_label, signal_word
from dynmech.policy.conversation import Conversation

_LINES = 12  # controls that have a line where there are many

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@checked(
    conversation=instance(Conversation, "a `Conversation`, as policy.start()"),
    unit=UNIT,
    title=TITLE,
)
def plot_conversation(
    conversation: Conversation, *, unit: str = "money", title: str = ""
) -> "Figure":
    """Draw the rounds of a conversation: what each recommendation was worth, what was known.

    Above, expected surplus from each round on if a product is recommended then and the policy
    followed after; a ring marks the one made, and below the axis is what the user did. Beneath, the
    effective number of tastes exp(entropy of the belief), which falls as the platform learns.

    **Arguments:** `conversation`: with at least one turn; `unit`: of money.
    """
    if not conversation.turns:
        must, do = "have at least one turn", "step it first"
        raise InvalidArgument(describe("plot_conversation(conversation=...)", must, "none", do))
    rounds = history(conversation)
    policy = conversation.policy
    none = len(policy.env.controls) - 1
    options = _drawn(rounds)
    figure, (above, below) = new_figure(
        "plot_conversation", max(8.5, 3.2 + 2.2 * len(rounds)), 7.0,
        nrows=2, sharex=True, height_ratios=(3, 1),
    )  # fmt: skip
    x = np.arange(1, len(rounds) + 1)
    labels = words(policy.env)
    for control, colour in zip(options, product_colours(len(options)), strict=True):
        worth = [_expected(chat, control) for chat in rounds]
        label = shortened(labels[control])
        above.plot(x, worth, "-o", ms=4, lw=1.6, color=colour, label=label)
    nothing = [_expected(chat, none) for chat in rounds]
    above.plot(x, nothing, ":", lw=1.2, color=GREY, label="none")
    made = [chat.value for chat in rounds]
    above.plot(x, made, "o", ms=13, mfc="none", mec="black", mew=1.6, label="recommended")
    above.set_ylabel(f"expected surplus from\nhere on [{plain(unit)}]", fontsize=10)
    many = f"the {len(options)} best of {none}" if len(options) < none else None
    above.legend(
        title=many, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=9
    )
    beliefs = [*(chat.belief for chat in rounds), conversation.belief]
    known = [effective_tastes(belief) for belief in beliefs]
    below.bar(x, known[:-1], width=0.45, color="#9DB8C9")
    for where, value in zip(x, known, strict=False):
        below.annotate(
            f"{value:.0f}", (where, value), xytext=(0, 3), textcoords="offset points",
            ha="center", fontsize=9,
        )  # fmt: skip
    below.set_ylim(0, 1.25 * max(known))
    below.set_ylabel("effective number\nof tastes", fontsize=10)
    below.set_xticks(x, [_event(chat, conversation, k) for k, chat in enumerate(rounds)])
    below.set_xlim(0.6, len(rounds) + 0.4)
    for axes in (above, below):
        _grid(axes)
    figure.suptitle(
        plain(title) or "A conversation, round by round",
        x=0.01,
        ha="left",
        fontsize=14,
        weight="bold",
    )
    return figure


def _drawn(rounds: list[Conversation]) -> list[int]:
    """Controls that have a line: all, or of many those that rank highest in some round."""
    every = list(range(len(rounds[0].policy.env.controls) - 1))
    if len(every) <= _LINES:
        return every
    worth = np.array([[_expected(chat, control) for control in every] for chat in rounds])
    order = np.argsort(-np.nan_to_num(worth, nan=-np.inf), axis=1, kind="stable")
    rank = np.argsort(order, axis=1, kind="stable").min(axis=0)
    return sorted(np.argsort(rank, kind="stable")[:_LINES].tolist())


def _expected(chat: Conversation, control: int) -> float:
    """Expected surplus from here on; NaN, not drawn, where the solver did not look into it."""
    shown = display(chat.policy.env, control)
    return float(chat.belief @ chat.worth(shown)) if chat.considered(shown) else np.nan


def history(conversation: Conversation) -> list[Conversation]:
    """The conversation before each of its turns, first to last."""
    rounds: list[Conversation] = []
    chat: Conversation | None = conversation if not conversation.ended else conversation.previous
    while chat is not None:
        rounds.append(chat)
        chat = chat.previous
    return rounds[::-1]


def effective_tastes(belief: np.ndarray) -> float:
    """exp of the entropy of a belief: 1 when the taste is known, m when all are alike."""
    mass = belief[belief > 0]
    return float(np.exp(-(mass * np.log(mass)).sum()))


def _event(chat: Conversation, end: Conversation, k: int) -> str:
    shown = shortened(product_label(chat.policy, chat.recommendation))
    if k >= len(end.turns):
        return f"round {k + 1}\nshown: {shown}"
    turn, n = end.turns[k], chat.policy.env.products
    if turn.action < n:
        done = f"buys {shortened(chat.policy.env.names[turn.action])}"
    elif turn.action == n:
        done = "leaves"
    elif turn.signals is None:
        done = "asks again, time is up"
    else:
        done = "asks again"
        if max(chat.policy.env.feedback_alphabet) > 1:
            done += f", {signal_word(chat.policy)} {turn.signals[0] + 1}"
    return f"round {k + 1}\nshown: {shown}\n{done}"


def _grid(axes: "Axes") -> None:
    axes.grid(axis="y", color="#E5E5E5", lw=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(axis="x", length=0)
    bare(axes, "left", "bottom")
