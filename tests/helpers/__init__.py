"""What several test files share."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The root of the repository."""

CASES = ROOT / "tests" / "cases"
"""The brute-force cases: inputs and answers found by enumerating whole history trees."""
