"""Conversations of a mechanism under a long-horizon policy: who reports, who is charged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import equinox as eqx
import jax
import numpy as np

from dynmech._checks import key as one_key
from dynmech.errors import require_whole
from dynmech.payments.data_driven import DataDriven
from dynmech.play.long_simulate import simulate_long
from dynmech.play.simulate import Simulation, Strategy, by_advertiser
from dynmech.policy.conversation import profile_index
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
    lies, batch = by_advertiser(policy.env.names, strategies), len(policy.profiles)
    if profile is not None:
        profile = profile_index(policy, "simulate", profile)
    drawn, key = jax.random.split(one_key("simulate(key=...)", key))
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
