"""How often confidence statements are false, where chance hides what matters.

A policy is trained once for each of five small markets; its certificates and audits are then
repeated with fresh conversations, and every statement is compared with what is exactly true of that
policy, by enumerating all histories: bounds on W and on each W^{-i}, and the gains of misreports.

Run `python -m experiments.coverage --help`.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import numpy.typing as npt
import pandas as pd
import tyro

import dynmech as dm
from experiments._figures import RESULTS
from experiments._output import Output

UNIT = "units of money"
ROUNDING = 1e-9
POOR = dm.Neural(sweeps=1, runs=2, steps=1, batch=2, cases=2, chunk=128)


@dataclass(frozen=True)
class Options:
    """Repeat certificates and audits, and count what is false."""

    results: Path = RESULTS
    """Folder under which coverage/ is written."""
    markets: tuple[str, ...] = (
        "rare symbol",
        "rare taste",
        "heavy tail",
        "poor training",
        "ordinary",
    )
    """Names of the markets."""
    certificates: int = 400
    """Certificates of W and of each W^-i, and audits, of each market."""
    conversations: int = 128
    """Conversations of each certificate, and of each report in an audit."""
    confidence: float = 0.95
    """Level of every statement."""
    quick: bool = False
    """A tenth of the certificates."""
    seed: int = 0
    """Seed of the conversations."""


class Case:
    """A market by its tables: utilities (n, m), prior (m,), answers (n+1, m, Z)."""

    def __init__(
        self,
        utility: npt.ArrayLike,
        prior: npt.ArrayLike,
        answer: npt.ArrayLike,
        rounds: int,
        solver: dm.Neural = POOR,
    ):
        self.utility, self.prior = np.asarray(utility, float), np.asarray(prior, float)
        self.answer, self.rounds, self.solver = np.asarray(answer, float), rounds, solver

    def market(self, without: int | None = None) -> dm.RecommendationMDP:
        """The market, or what is left of it if a product is never shown."""
        n = len(self.utility)
        left = [j for j in range(n) if j != without]
        answer = self.answer[[*left, n]][..., None]
        for _ in left[1:]:
            answer = answer[..., None]
        values = [[0.5, 0.9]] if without is None else [[0.5]]
        return dm.RecommendationMDP(
            np.eye(len(left)),
            dm.TasteGrid(self.utility[left].T, self.prior),
            self.rounds,
            dm.LastShownOnly(dm.Threshold(), dm.ProductQuery([0.5] * len(left), none=0.9)),
            dm.SignalStructure(feedback=dm.ChannelFeedback(answer)),
            dm.ConstantValues(values * len(left)),
        )


def make_case(name: str) -> Case:
    """One of the five markets."""
    noisy = np.array([[0.7, 0.3], [0.3, 0.7]])
    if name in ("rare symbol", "rare taste"):
        # Two common tastes, and two rare ones at which much is at stake.
        chance = 2e-4
        utility = [[1.0, 1.02, 20.0, -20.0], [1.02, 1.0, -20.0, 20.0]]
        answer = np.zeros((3, 4, 3))
        answer[:, :2, :2] = noisy
        answer[:, 2:] = [0.0, 0.0, 1.0] if name == "rare symbol" else [[0.8, 0.2, 0], [0.2, 0.8, 0]]
        return Case(utility, [0.5 - chance, 0.5 - chance, chance, chance], answer, 3)
    rng = np.random.default_rng(3)
    prior, scale = np.full(8, 1 / 8), 1.0
    if name == "heavy tail":
        # Weights and worths of a law without a variance; ratings with noise of that kind.
        prior = 0.25 ** np.arange(8)
        prior, scale = prior / prior.sum(), 3.0 ** np.arange(8)
    utility = rng.normal(0.5, 1.0, size=(2, 8)) * scale
    cuts = np.array([0.0, 1.0])
    shown = np.concatenate([utility, np.zeros((1, 8))])
    below = 0.5 + np.arctan(2 * (cuts - shown[..., None])) / np.pi
    law = np.diff(np.concatenate([0 * below[..., :1], below, 0 * below[..., :1] + 1], axis=-1))
    trained = dm.Neural(sweeps=6, runs=16, steps=16, chunk=128)
    return Case(utility, prior, law, 3, trained if name == "ordinary" else POOR)


class Truth:
    """What is exactly true of a policy: every history, with the policy's own recommendations."""

    def __init__(self, env: dm.RecommendationMDP, policy: Any):
        self.env, self.policy, self.n = env, policy, env.products
        self.utility = np.asarray(env.utilities, float)

    def surplus(self, profile: int, reported: int) -> float:
        """Expected surplus at a profile if another one is reported, in doubles."""
        with jax.enable_x64(True):
            return self._surplus(profile, reported)

    def _surplus(self, profile: int, reported: int) -> float:
        theta = np.asarray(self.env.values.support, float)[
            np.arange(self.n), self.policy.profiles.theta[profile]
        ]
        memory = np.asarray(self.env.action_rule.start(self.n, int(self.env.horizon)))
        chat = self.policy.start(profile=reported)
        return self._walk(chat, theta, np.asarray(self.env.tastes.weights, float), memory, 0)

    def _walk(
        self, chat: Any, theta: np.ndarray, belief: np.ndarray, memory: np.ndarray, t: int
    ) -> float:
        rule, shown = self.env.action_rule, chat.recommendation
        control = self.n if shown < 0 else shown
        after = np.asarray(rule.step(memory, control, self.n))
        law = np.asarray(rule.probabilities(after, control, self.utility), float)
        total = float((law[: self.n] * (theta[:, None] + self.utility)).sum(axis=0) @ belief)
        if t == self.env.horizon - 1:
            return total
        feedback = self.env.signals.feedback
        answers = np.asarray(feedback.likelihood(after, control, t, self.utility), float)
        for z in range(answers.shape[1]):
            later = belief * law[-1] * answers[:, z]
            if later.sum() > 0:
                next_ = chat.step("query", {"platform": z})
                total += self._walk(next_, theta, later, after, t + 1)
        return total


def count(name: str, options: Options) -> list[dict[str, Any]]:
    """Repeat every statement about one market; one row a statement."""
    case, repeats = make_case(name), options.certificates // (10 if options.quick else 1)
    rows = []
    for without in (None, *range(len(case.utility))):
        env = case.market(without)
        exact = dm.solve_efficient_policy(env, progress=False)
        # Simulated, however small: nothing is walked.
        certificate = dm.Certificate(options.conversations, 30, walk=0)
        solver = replace(case.solver, certificate=certificate)
        policy = dm.solve_efficient_policy(env, solver, progress=False)
        truth, best = Truth(env, policy), float(exact.value.ravel()[0])
        value, outset = truth.surplus(0, 0), policy.start(profile=0)

        def again(
            k: int, outset: Any = outset, value: float = value, best: float = best
        ) -> tuple[bool, float]:
            setting = dm.Certificate(
                runs=options.conversations, confidence=options.confidence, work=1e6,
                seed=options.seed + k,
            )  # fmt: skip
            found = outset.certify(setting)
            lower, upper = float(found.lower[0]), float(found.upper[0])
            slack = ROUNDING * abs(best)
            return lower > value + slack or upper < best - slack, value - lower

        label = "W" if without is None else f"W^-{without}"
        rows.append(_row(name, label, again, repeats, best - value))
        if without is None:
            rows.append(_row(name, "gains", _audits(policy, truth, options), repeats, best - value))
    return rows


def _audits(
    policy: dm.EfficientPolicy, truth: Truth, options: Options
) -> Callable[[int], tuple[bool, float]]:
    """Audits, of which a statement is false if any of its bounds is."""
    mechanism = dm.DynamicTeamMechanism(policy, dm.groves.Zero())
    known: dict[tuple[Any, ...], float] = {}
    thetas = policy.profiles.theta

    def gain(profile: int, i: int, value: float) -> float:
        if (profile, i, value) not in known:
            index = int(np.argmin(np.abs(np.asarray(truth.env.values.support)[i] - value)))
            told = thetas[profile].copy()
            told[i] = index
            reported = int(np.argmax((thetas == told).all(axis=1)))
            lie = truth.surplus(profile, reported)
            known[profile, i, value] = lie - truth.surplus(profile, profile)
        return known[profile, i, value]

    def audit(k: int) -> tuple[bool, float]:
        key = jax.random.key(options.seed + k)
        found = mechanism.audit(conversations=options.conversations, key=key)
        gains = found.measured
        if gains is None:
            raise ValueError("coverage needs an audit that simulates")
        true = np.array([
            gain(int(b), int(i), float(value))
            for b, i, value in zip(gains.profile, gains.advertiser, gains.value, strict=True)
        ])  # fmt: skip
        slack = ROUNDING * max(1.0, float(np.abs(truth.utility).max()))
        false = (gains.gain.lower > true + slack) | (gains.gain.upper < true - slack)
        return bool(false.any()), float((true - gains.gain.lower).mean())

    return audit


def _row(
    market: str,
    statement: str,
    once: Callable[[int], tuple[bool, float]],
    repeats: int,
    lost: float,
) -> dict[str, Any]:
    begun = time.monotonic()
    found = [once(k) for k in range(repeats)]
    false, width = np.array(found, float).T
    return {
        "market": market,
        "statement": statement,
        "certificates": repeats,
        "false": int(false.sum()),
        "mean distance of the lower bound [money]": float(width.mean()),
        "lost by the policy [money]": lost,
        "minutes": (time.monotonic() - begun) / 60,
    }


def main(options: Options) -> None:
    """Run the experiment."""
    output = Output(options.results / "coverage", UNIT)
    rows = []
    for name in options.markets:
        rows += count(name, options)
        # Written after every market: a long run that is stopped keeps what it has.
        written = {"confidence": options.confidence, "statements": rows}
        text = json.dumps(written, indent=1) + "\n"
        (output.folder / "coverage.json").write_text(text, encoding="utf-8")
    output.heading("False statements")
    sure = f"{100 * options.confidence:g}%"
    output.table("coverage", pd.DataFrame(rows), f"Statements at {sure}, and how many are false")
    output.finish(options)


if __name__ == "__main__":
    dm.enable_compilation_cache()
    main(tyro.cli(Options))
