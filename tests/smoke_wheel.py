"""Try the installed wheel as its first user would: import it, solve a market, check the value.

Run by `make check` from an empty folder, with the unpacked wheel on the path and the root of
the repository as the only argument: `python -P smoke_wheel.py ROOT`. Packages that are no core
dependency of the wheel are hidden, as on a machine without the extras.
"""

import itertools
import re
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import PathFinder
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def core_distributions(root: str) -> set[str]:
    """Return `root` and all that it needs, directly or not, without any extra."""
    found, stack = set(), [root]
    while stack:
        name = normalised(stack.pop())
        if name in found:
            continue
        found.add(name)
        try:
            lines = requires(name) or []
        except PackageNotFoundError:  # needed on another platform only
            continue
        plain = [line for line in lines if not re.search(r";.*\bextra\s*==", line)]
        stack += [match.group() for line in plain if (match := re.match(r"[\w.-]+", line))]
    return found


class CoreOnly(MetaPathFinder):
    """Find modules as Python does, but none of a distribution that is no core dependency."""

    def __init__(self, core: set[str]):
        self.hidden = {
            package
            for package, owners in packages_distributions().items()
            if not core & {normalised(owner) for owner in owners}
        }

    def find_spec(self, fullname, path=None, target=None):
        if fullname.split(".")[0] in self.hidden:
            return None
        return PathFinder.find_spec(fullname, path, target)

    def find_distributions(self, context):
        return PathFinder.find_distributions(context)


def solve_two_products() -> tuple[list[float], list[float]]:
    """Solve a market of two products and two rounds; return the values found and expected.

    The user wants one of two products, which only she knows. Shown it, she buys; shown the other
    she asks again with probability q, and is then known to want the other one. So
    W = max_r pi_r (theta_r + g) + q (1 - pi_r) (theta_other + g), with g her gain.
    """
    import numpy as np

    import dynmech

    gain, again, prior = 2.0, 0.75, np.array([0.6, 0.4])
    wants = np.eye(2)
    law = np.zeros((3, 4, 2))  # shown 0, 1 or none; buy 0, buy 1, exit, query; by taste
    law[[0, 1], [0, 1]] = wants
    law[:2, 3] = again * (1 - wants)
    law[:2, 2] = (1 - again) * (1 - wants)
    law[2, 2:] = [[1 - again], [again]]
    shown = [h[-1] for t in (1, 2) for h in itertools.product(range(3), repeat=t)]
    theta = np.array([[0.0, 1.0], [0.5, 3.0]])
    env = dynmech.RecommendationMDP.from_tables(
        gain * wants,
        wants,
        prior,
        2,
        law[shown],
        np.ones((len(shown), 2, 1, 1, 1)),
        np.ones((2, 1, 1, 1)),
        theta,
        np.full((2, 2), 0.5),
        np.broadcast_to(np.eye(2), (3, 2, 2, 2)),
    )
    policy = dynmech.solve_efficient_policy(env, progress=False)
    surplus = np.stack(np.meshgrid(*theta, indexing="ij")) + gain
    share = prior[:, None, None]
    expected = (share * surplus + again * (1 - share) * surplus[::-1]).max(axis=0)
    return np.ravel(policy.value).tolist(), np.ravel(expected).tolist()


def main() -> None:
    root = Path(sys.argv[1]).resolve()
    finder = CoreOnly(core_distributions("dynmech"))
    sys.meta_path[:] = [finder if found is PathFinder else found for found in sys.meta_path]
    assert {"pandas", "pytest"} <= finder.hidden, "the packages of the extras are not hidden"
    import dynmech
    import solvers

    for package in (dynmech, solvers):
        folder = Path(package.__file__).resolve().parent
        assert folder.parent != root, f"imported the source tree, {folder}"
        assert (folder / "py.typed").exists(), f"{package.__name__} ships no py.typed"
    found, expected = solve_two_products()
    assert len(found) == len(expected)
    worst = max(abs(f - e) for f, e in zip(found, expected, strict=True))
    assert worst < 1e-5, f"values {found}, expected {expected}"
    print(f"wheel: {dynmech.__name__} solves a two-product market; largest error {worst:.1e}")


if __name__ == "__main__":
    main()
