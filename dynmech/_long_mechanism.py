"""Conversations of a mechanism under a long-horizon policy: who reports, who is charged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import equinox as eqx
import jax
import numpy as np

from dynmech._data_driven import DataDriven
from dynmech._errors import InvalidArgument, OutsideSupport, describe
from dynmech._long_horizon import LongPolicy
from dynmech._long_simulate import simulate_long
from dynmech._simulate import Simulation, Strategy

if TYPE_CHECKING:
    from dynmech._transfers import DynamicTeamMechanism


def simulate_reports(
    mechanism: DynamicTeamMechanism,
    policy: LongPolicy,
    key: jax.Array,
    conversations: int,
    strategies: Mapping[int | str, Strategy] | None,
    profile: int | None,
) -> Simulation:
    """See `DynamicTeamMechanism.simulate`; profiles are drawn evenly from the batch."""
    if conversations < 1:
        must = "be at least 1"
        raise InvalidArgument(describe("simulate(conversations=...)", must, conversations))
    names, lies = policy.env.names, {}
    for who, strategy in (strategies or {}).items():
        if who not in names and who not in range(len(names)):
            must = f"be keyed by {', '.join(names)} or their indices"
            raise OutsideSupport(describe("simulate(strategies=...)", must, who))
        lies[names.index(who) if isinstance(who, str) else int(who)] = strategy
    batch = len(policy.profiles)
    if profile is not None and not 0 <= profile < batch:
        must = f"be in 0..{batch - 1}"
        raise OutsideSupport(describe("simulate(profile=...)", must, profile))
    drawn, key = jax.random.split(key)
    seed = np.asarray(jax.random.key_data(drawn)).ravel().tolist()
    asked = np.random.default_rng(seed).integers(batch, size=conversations)
    if profile is not None:
        asked = np.full(conversations, profile)
    records, reports = simulate_long(policy, key, asked, mechanism.estimator, lies)
    totals = _charged(mechanism, policy, records, reports, lies)
    return eqx.tree_at(lambda s: s.groves, records, totals)


def _charged(mechanism, policy: LongPolicy, records: Simulation, reports, lies) -> np.ndarray:
    """Totals at the reported profile; NaN where it was not solved for.

    A total is constant in her own report, so a single liar is charged as if she told the truth. A
    data-driven total reads the taste, decoded without noise.
    """
    if isinstance(mechanism.groves, DataDriven):
        return mechanism.groves.function(mechanism.own)[records.profile, :, records.omega]
    total = policy.flat(mechanism.groves_total).T
    if not lies:
        return total[records.profile]
    profiles = np.concatenate([policy.profiles.theta, policy.profiles.signals[:, 1:]], axis=1)
    platform = policy.profiles.signals[:, 0]
    same = (profiles[None] == reports[:, None]).all(axis=2)
    same &= platform[None] == platform[records.profile][:, None]
    known = same.any(axis=1)
    charged = np.where(known[:, None], total[same.argmax(axis=1)], np.nan)
    if len(lies) == 1:
        (liar,) = lies
        charged[:, liar] = total[records.profile, liar]
    return charged
