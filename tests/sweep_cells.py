"""Cells of sweeps that other processes import."""

import os
from pathlib import Path

import numpy as np

import dynmech as dm


def draws(seed, noise, shift=0.0):
    """The mean of draws that all settings share."""
    found = np.random.default_rng(seed).normal(size=50)
    return {"mean": float((shift + noise * found).mean()), "most": float((noise * found).max())}


def dies(seed, noise, mark):
    """Kill the process at one setting always, at another the first time."""
    if noise == 2.0 or (noise == 1.0 and not Path(mark).exists()):
        Path(mark).touch()
        os._exit(1)
    return draws(seed, noise)


def welfare(seed, precision):
    """Expected surplus of a small market by the precision of the platform's context."""
    signals = dm.SignalStructure(initial=dm.GaussianSignals(platform=1 / precision, symbols=2))
    tastes = dm.TasteGrid([[1.0, 0.0], [0.0, 1.0]], [0.5, 0.5])
    rule = dm.LastShownOnly(dm.Logit(0.5), query=0.0)
    values = dm.ConstantValues(np.random.default_rng(seed).uniform(0.2, 0.4, (2, 1)))
    gamma = [[1.0, -1.0], [-0.3, 0.6]]
    env = dm.RecommendationMDP(gamma, tastes, 1, rule, signals, values)
    return {"W": dm.solve_efficient_policy(env, progress=False).ex_ante_value}
