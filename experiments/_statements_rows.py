"""Rows of the table of statements: what was checked, on how many markets, and the verdict."""

from dataclasses import dataclass

EXACT = 1e-9
HOLDS, FAILS, BROKEN = "holds", "fails as stated", "NOT REPRODUCED"


@dataclass(frozen=True)
class Row:
    """One check of one numbered statement of paper D."""

    statement: str
    checked: str
    markets: int
    figure: float
    required: str
    verdict: str


def small(
    statement: str, checked: str, markets: int, error: float, limit: float = EXACT, of: str = ""
) -> Row:
    """Record a check that holds if an error is at most a limit."""
    verdict = HOLDS if error <= limit else BROKEN
    return Row(statement, checked, markets, float(error), f"<= {limit:.3g}{of}", verdict)


def large(statement: str, checked: str, markets: int, figure: float, floor: float) -> Row:
    """Record a check that holds if a figure, such as a gain that must exist, reaches a floor."""
    verdict = HOLDS if figure >= floor else BROKEN
    return Row(statement, checked, markets, float(figure), f">= {floor:.3g}", verdict)


def equal(
    statement: str, checked: str, markets: int, figure: float, value: float, by: float = EXACT
) -> Row:
    """Record a check that holds if a figure is a closed form's value."""
    verdict = HOLDS if abs(figure - value) <= by else BROKEN
    return Row(statement, checked, markets, float(figure), f"= {value:.6g} by {by:.0e}", verdict)


def refuted(
    statement: str, checked: str, markets: int, figure: float, value: float, by: float = EXACT
) -> Row:
    """Record a counterexample: the statement fails by a figure that is known in closed form."""
    verdict = FAILS if value > by and abs(figure - value) <= by else BROKEN
    return Row(statement, checked, markets, float(figure), f"= {value:.6g} by {by:.0e}", verdict)
