"""One conversation drawn from the market: a taste, what the user does, what is heard, who pays."""

from dataclasses import dataclass
from typing import Any, cast

import jax.numpy as jnp
import numpy as np
import pandas as pd

import dynmech as dm
from experiments._demo_tables import NONE, action_law, product_label


@dataclass(frozen=True)
class Drawn:
    """A conversation that has ended, the taste it was drawn for, and the rating that settles it."""

    end: dm.Conversation
    omega: int
    rating: float | None
    tries: int

    @property
    def rounds(self) -> list[dm.Conversation]:
        """The conversation before each turn."""
        found, chat = [], self.end.previous
        while chat is not None:
            found.append(chat)
            chat = chat.previous
        return found[::-1]


def draw_conversation(
    policy: dm.EfficientPolicy, profile: int, rng: np.random.Generator, most: int = 100
) -> Drawn:
    """Draw conversations from a profile until one ends in a purchase, at most `most`.

    The taste is drawn from the belief given the profile's signals, so that taste and signals
    together are distributed as in the market; then actions and signals given the taste.
    """
    tries, bought, n = 0, policy.env.products, policy.env.products
    chat, omega = policy.start(profile=profile), 0
    while bought >= n and tries < most:
        tries, chat = tries + 1, policy.start(profile=profile)
        omega = int(rng.choice(len(chat.belief), p=chat.belief))
        while not chat.ended:
            chat = _turn(chat, omega, rng)
        bought = chat.turns[-1].action
    rating = None
    if bought < n:
        signal, utilities = policy.env.signals.settlement, policy.env.utilities
        who, taste = np.array([bought]), np.array([omega])
        rating = float(signal.draw(rng, utilities, who, taste, utilities[who, taste])[0])
    return Drawn(chat, omega, rating, tries)


def _turn(chat: dm.Conversation, omega: int, rng: np.random.Generator) -> dm.Conversation:
    env, n, shown = chat.policy.env, chat.policy.env.products, cast(int, chat.recommendation)
    law = action_law(chat, shown)[:, omega]
    action = int(rng.choice(n + 2, p=law / law.sum()))
    if action != n + 1 or chat.period == env.horizon:
        return chat.step(action)
    memory = jnp.asarray(env.action_rule.start(n, int(env.horizon)))
    for before in [*(cast(int, turn.recommendation) for turn in chat.turns), shown]:
        memory = env.action_rule.step(memory, jnp.asarray(before % (n + 1)), n)
    heard = env.signals.feedback.likelihood(
        memory, jnp.asarray(shown % (n + 1)), chat.period - 1, jnp.asarray(env.utilities)
    )
    heard = np.asarray(heard)[omega]
    joint = int(rng.choice(len(heard), p=heard / heard.sum()))
    return chat.step(action, np.array(np.unravel_index(joint, env.feedback_alphabet)))


def how_drawn(drawn: Drawn, seed: int) -> str:
    """Say how the conversation was found."""
    if drawn.rating is None:
        return f"The last of {drawn.tries} drawn with seed {seed}: none ended in a purchase."
    return f"Number {drawn.tries} drawn with seed {seed}, the first that ends in a purchase."


def effective_tastes(belief: np.ndarray) -> float:
    """exp of the entropy of a belief: 1 when the taste is known, m when all are alike."""
    mass = belief[belief > 0]
    return float(np.exp(-(mass * np.log(mass)).sum()))


def action_words(env: dm.RecommendationMDP, turn: Any) -> str:
    """What the user did, in words."""
    n = env.products
    if turn.action < n:
        return f"buys {env.names[turn.action]}"
    if turn.action == n:
        return "leaves"
    if turn.signals is None:
        return "asks again, but time is up"
    heard = f"rating {turn.signals[0] + 1} of {env.feedback_alphabet[0]}"
    return f"asks again, {heard}" if max(env.feedback_alphabet) > 1 else "asks again"


def belief_summary(chat: dm.Conversation, unit: str, top: int = 3) -> str:
    """How much is known, and the products with the highest expected value theta + u."""
    env, belief = chat.policy.env, chat.belief
    mean = env.utilities @ belief
    sd = np.sqrt((env.utilities - mean[:, None]) ** 2 @ belief)
    order = np.argsort(-(mean + chat.theta), kind="stable")[:top]
    parts = [f"{env.names[i]} {mean[i]:.3g} (sd {sd[i]:.3g})" for i in order]
    return (
        f"belief: {effective_tastes(belief):.1f} effective tastes of {env.tastes.size}; "
        f"mean utility in {unit}, highest with theta first: {'; '.join(parts)}"
    )


def narrate(drawn: Drawn, ledger: dm.Ledger, unit: str) -> list[str]:
    """Tell the conversation turn by turn: belief, recommendation, action, every transfer."""
    env, lines = drawn.end.policy.env, []
    for k, (chat, turn) in enumerate(zip(drawn.rounds, drawn.end.turns, strict=True)):
        lines.append(
            f"Round {turn.period}. {belief_summary(chat, unit)}.\n"
            f"  recommended: {product_label(env, turn.recommendation)} "
            f"(expected surplus from here on {chat.value:.4g} {unit})\n"
            f"  the user {action_words(env, turn)}\n"
            f"  transfers: {_transfers(ledger, k)}"
        )
    last, n = drawn.end.turns[-1], env.products
    if last.action < n and drawn.rating is not None:
        name, true = env.names[last.action], env.utilities[last.action, drawn.omega]
        surplus = last.theta[last.action] + drawn.rating
        lines.append(
            f"After the purchase she rates {name} at {drawn.rating:.4g} {unit} (its utility to her "
            f"is {true:.4g}; nobody but her knows). That rating, as drawn, settles the purchase: "
            f"theta + rating = {surplus:+.4g} is paid to each of the others, the rating to {name}; "
            "who is paid a negative amount pays."
        )
    return lines


DECODED = (
    "The Groves totals are decoded from the signal that follows the ending: here f at her taste, "
    "without the noise that a real signal adds; they are charged with the ending."
)


def decoded_totals(
    mechanism: dm.DynamicTeamMechanism, profile: int, omega: int
) -> np.ndarray | None:
    """Each advertiser's total at the taste drawn (n,), where totals are decoded; else None."""
    if not isinstance(mechanism.groves, dm.groves.DataDriven):
        return None
    return mechanism.groves.function(mechanism.own)[profile, :, omega]


def _transfers(ledger: dm.Ledger, k: int) -> str:
    def listed(row: np.ndarray) -> str:
        return ", ".join(f"{x} {v:+.3g}" for x, v in zip(ledger.names, row, strict=True) if v != 0)

    parts = []
    if (ledger.groves[k] != 0).any():
        parts.append(f"Groves terms {listed(ledger.groves[k])}")
    bought = np.isfinite(ledger.estimate[k])
    parts.append(f"core {listed(ledger.core[k]) or 'all zero'}" if bought else "core all zero")
    return "; ".join(parts)


def turns_table(drawn: Drawn) -> pd.DataFrame:
    """One row a round: belief, recommendation, action, signal."""
    env, rows = drawn.end.policy.env, []
    for chat, turn in zip(drawn.rounds, drawn.end.turns, strict=True):
        belief, r = chat.belief, turn.recommendation
        rows.append(
            {
                "round": turn.period,
                "effective tastes [1]": effective_tastes(belief),
                "recommendation": product_label(env, r),
                "mean utility of it [money]": float(env.utilities[r] @ belief) if r != NONE else 0,
                "expected surplus [money]": chat.value,
                "action": action_words(env, turn),
                "platform symbol": -1 if turn.signals is None else int(turn.signals[0]),
            }
        )
    return pd.DataFrame(rows)


def ledger_table(
    drawn: Drawn, ledger: dm.Ledger, mechanism: dm.DynamicTeamMechanism, profile: int
) -> pd.DataFrame:
    """The final ledger, one row an advertiser: what she earned, paid and keeps; and expected to."""
    bought = drawn.end.turns[-1].action
    earned = np.where(np.arange(len(ledger.names)) == bought, drawn.end.turns[-1].theta, 0.0)
    expected = (mechanism.agent_payoff - mechanism.groves_total)[:, profile]
    groves, core = ledger.groves.sum(axis=0), ledger.core.sum(axis=0)
    table = pd.DataFrame(
        {
            "advertiser": ledger.names,
            "theta earned [money]": earned,
            "Groves term [money]": groves,
            "core transfer, last round [money]": core,
            "paid [money]": groves + core,
            "keeps [money]": earned - groves - core,
            "expected to keep [money]": expected,
        }
    )
    total = table.select_dtypes("number").sum()
    return pd.concat(
        [table, pd.DataFrame([{"advertiser": "sum (paid: platform revenue)", **total}])],
        ignore_index=True,
    )
