"""Conversations of a mechanism under a long-horizon policy: who reports, who is charged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import equinox as eqx
import jax
import numpy as np

from dynmech.errors import OutsideSupport, describe, require_whole
from dynmech.payments.data_driven import DataDriven
from dynmech.play.long_simulate import simulate_long
from dynmech.play.simulate import Simulation, Strategy
from dynmech.policy.long_horizon import LongPolicy

if TYPE_CHECKING:
    from dynmech.mechanism.team import DynamicTeamMechanism


def simulate_reports(
    mechanism: DynamicTeamMechanism,
    policy: LongPolicy,
    key: jax.Array,
    conversations: int,
    strategies: Mapping[int | str, Strategy] | None,
    profile: int | None,
) -> Simulation:
    """See `DynamicTeamMechanism.simulate`; profiles from the prior, or evenly from a batch."""
    require_whole("simulate(conversations=...)", conversations, 1)
    names, lies = policy.env.names, {}
    for who, strategy in (strategies or {}).items():
        if who not in names and who not in range(len(names)):
            must = f"be keyed by {', '.join(names)} or their indices"
            raise OutsideSupport(describe("simulate(strategies=...)", must, who))
        lies[names.index(who) if isinstance(who, str) else int(who)] = strategy
    batch = len(policy.profiles)
    if profile is not None:
        require_whole("simulate(profile=...)", profile, 0)
        if profile >= batch:
            must = f"be in 0..{batch - 1}"
            raise OutsideSupport(describe("simulate(profile=...)", must, profile))
    drawn, key = jax.random.split(key)
    seed = np.asarray(jax.random.key_data(drawn)).ravel().tolist()
    chances = None if policy.batch else policy.probability() / policy.probability().sum()
    asked = np.random.default_rng(seed).choice(batch, size=conversations, p=chances)
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
        table, omega = mechanism.groves.function(mechanism.own), records.omega
    else:
        table, omega = policy.flat(mechanism.groves_total).T[:, :, None], 0
    if not lies:
        return table[records.profile, :, omega]
    profiles = np.concatenate([policy.profiles.theta, policy.profiles.signals[:, 1:]], axis=1)
    platform = policy.profiles.signals[:, 0]
    same = (profiles[None] == reports[:, None]).all(axis=2)
    same &= platform[None] == platform[records.profile][:, None]
    known = same.any(axis=1)
    charged = np.where(known[:, None], table[same.argmax(axis=1), :, omega], np.nan)
    if len(lies) == 1:
        (liar,) = lies
        charged[:, liar] = table[records.profile, liar, omega]
    return charged
