"""Every numbered statement of paper D that the static theory covers, one by one, with a verdict.

Examples, claims, lemmas, propositions, theorems, corollaries, and the footnotes and equations that
assert something: what was checked, on how many markets, the figure found, what it must be. A
statement that is false as printed is shown failing by the amount of its counterexample, beside
what does hold. Click auctions (section 5.1) and shopping assistants (5.2) have their own scripts.

Run `python -m experiments.static_statements --help`.
"""

from dataclasses import dataclass
from pathlib import Path

import jax
import pandas as pd
import tyro

from experiments import _statements_core as core
from experiments import _statements_limits as limits
from experiments import _statements_rivals as rivals
from experiments._figures import RESULTS
from experiments._output import Output
from experiments._statements_rows import BROKEN, FAILS, HOLDS, Row

ORDER = (
    "Example 1", "Example 2", "Proposition 1", "Example 3", "footnote 9", "Theorem 1", "Example 4",
    "Theorem 2", "footnote 10", "(10)", "footnote 12", "footnote 13", "(11), (13)", "(14)",
    "Definition 7", "section 4.4", "Remark 1", "(20)", "Corollary 1", "Lemma 1", "Lemma 2",
    "Lemma 3", "Lemma 4", "Claim 1, Example 5", "Claim 2, Example 6", "Proposition 5",
    "Proposition 6", "Proposition 7", "Lemma 5", "Corollary 2", "Definition 11", "Proposition 8",
    "Lemma 6", "Example 7",
)  # fmt: skip


@dataclass(frozen=True)
class Options:
    """Check every statement and print the table; stop with an error if one is not reproduced."""

    results: Path = RESULTS
    """Folder; the table goes to its `static_statements` subfolder."""
    markets: int = 12
    """Random markets for each statement that is checked on random markets."""
    draws: int = 200_000
    """Draws of the simulation of Example 3."""
    replications: int = 30
    """Demand estimates for each sample size of Corollary 1."""
    seed: int = 0
    """Seed of the simulation."""


def check(options: Options) -> list[Row]:
    """Run every check, in the order of the paper; float64."""
    count = options.markets
    rows = [
        *core.prediction(count, options.draws, options.seed),
        *core.auctions(count),
        *core.exact(count),
        *core.extensions(),
        *core.groves_form(),
        *limits.bounds(count),
        *limits.consistent(),
        *limits.posteriors(),
        *rivals.messages(count),
        *rivals.lotteries(count),
        *rivals.two_stages(count),
        *rivals.spot_market(count, options.replications),
    ]
    return sorted(rows, key=lambda row: ORDER.index(row.statement))


def main(options: Options) -> None:
    """Check, print, and complain about what was not reproduced."""
    out = Output(options.results / "static_statements", "the market's own unit")
    with jax.enable_x64(True):
        rows = check(options)
    table = pd.DataFrame(
        {
            "statement": [row.statement for row in rows],
            "checked": [row.checked for row in rows],
            "markets": [row.markets for row in rows],
            "figure [as checked]": [row.figure for row in rows],
            "must be": [row.required for row in rows],
            "verdict": [row.verdict for row in rows],
        }
    )
    out.heading("Statements of paper D, sections 2 to 4 and 5.3 and the appendices")
    out.say(
        "Gains, errors and epsilon are in the market's own money, or over its scale where said."
    )
    out.table("statements", table, "", show=False)
    figures = [f"{row.figure:.3g}" for row in rows]
    out.show(table.assign(**{"figure [as checked]": figures}), "One row a check")
    told = {
        verdict: list(dict.fromkeys(row.statement for row in rows if row.verdict == verdict))
        for verdict in (HOLDS, FAILS, BROKEN)
    }
    wrong = told[FAILS] + told[BROKEN]
    clean = [name for name in told[HOLDS] if name not in wrong]
    out.heading("Verdict")
    out.bullets(
        [
            f"{len(rows)} checks of {len({row.statement for row in rows})} statements.",
            f"Hold as stated ({len(clean)}): {'; '.join(clean)}.",
            f"Fail as stated, hold as corrected ({len(told[FAILS])}): {'; '.join(told[FAILS])}.",
        ]
    )
    out.finish(options)
    if told[BROKEN]:
        raise SystemExit(f"not reproduced: {'; '.join(told[BROKEN])}")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
