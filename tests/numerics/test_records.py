"""Records are frozen modules: pytrees, with defaults, converters and checks of their own."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import numpy as np
import pytest

import dynmech as dm


class Fee(dm.AbstractSettlement):
    """A class of a user's own, with all that a module of Equinox may have."""

    amount: float = eqx.field(converter=float)
    table: Any
    kind: str = eqx.field(static=True, default="flat")

    def payoff(self, at):
        return at.utility[:, None, :, None]

    def charge(self, at):
        return np.full((len(at.cost), 1), self.amount)

    def __check_init__(self):
        if self.amount < 0:
            raise ValueError("amount must be at least 0")


def test_records_are_frozen_pytrees():
    fee = Fee("2", np.arange(3.0))
    assert fee.amount == 2.0
    assert fee.kind == "flat"
    doubled = jax.tree.map(lambda x: 2 * x, fee)
    assert doubled.amount == 4.0
    np.testing.assert_array_equal(doubled.table, [0, 2, 4])
    assert jax.tree.structure(doubled) == jax.tree.structure(fee)
    assert dataclasses.replace(fee, kind="steep").kind == "steep"
    for name in ("amount", "payoff", "other"):
        with pytest.raises(dataclasses.FrozenInstanceError, match=name):
            setattr(fee, name, 1.0)


def test_what_is_no_record_is_refused():
    with pytest.raises(ValueError, match="at least 0"):
        Fee(-1, np.zeros(1))
    with pytest.raises(TypeError, match="table"):
        Fee(1)
    with pytest.raises(TypeError, match="abstract"):
        dm.AbstractSettlement()
    with pytest.raises(TypeError, match="names"):
        dm.audit.constraints.AbstractAudit()
    with pytest.raises(AttributeError, match="value"):
        type("Empty", (dm.Bounded,), {"__init__": lambda self: None})()
