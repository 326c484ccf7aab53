"""The run-time type checker finds what it is there to find, and nothing where it is off."""

import dataclasses

import jaxtyping
import numpy as np
import pytest
from jaxtyping import Float, TypeCheckError

import solvers

DRAWS = np.full((4, 2), 0.5)
TASK = solvers.Task(np.ones(2), np.ones(1), np.ones(3, bool), np.zeros(1, int), np.ones((3, 1)))


@jaxtyping.jaxtyped(typechecker=None)  # as the import hook writes it
def cut(draws: Float[np.ndarray, "N s"], size: int) -> Float[np.ndarray, "N s"]:
    return draws[:size]


@pytest.mark.parametrize(
    "call",
    [
        lambda: solvers.betting_lower(DRAWS, 0.0, "a tenth"),
        lambda: solvers.betting_lower(DRAWS.astype(int), 0.0, alpha=0.1),
        lambda: solvers.betting_lower(DRAWS, np.zeros(3), 0.1),
        lambda: dataclasses.replace(TASK, law=np.ones((2, 1))),
        lambda: solvers.Limits(seconds="a minute"),
        lambda: cut(DRAWS, 2),
    ],
    ids=["type", "dtype", "shape", "field shape", "field type", "returned shape"],
)
def test_what_does_not_fit_is_found(call):
    with pytest.raises(TypeCheckError):
        call()


def test_what_fits_passes():
    assert np.all(solvers.betting_lower(DRAWS, np.zeros(2), 0.1) <= 0.5)
    assert cut(DRAWS, 4).shape == DRAWS.shape


def test_it_can_be_turned_off(untyped):
    assert cut(DRAWS, 2).shape == (2, 2)
