"""Markets for long-horizon mechanisms, small enough to be checked by brute force."""

import dataclasses

import jax
import numpy as np

import dynmech as dm
from dynmech.policy.certified import played_policy
from dynmech.policy.questions import Place

UNTRAINED = dm.Neural(sweeps=1, runs=2, steps=1, batch=2, cases=2, chunk=64)
# Profile 1 is profile 0 with another report of advertiser 0; profile 2 is 1 with one of 1.
THREE = dm.Profiles(np.array([[0, 1], [1, 1], [1, 0]]), np.array([[0, 0, 1], [0, 1, 1], [0, 1, 0]]))


def whispering(
    n=2,
    m=6,
    horizon=3,
    *,
    seed=2,
    values=2,
    interval=None,
    settlement=None,
    recall=False,
    **signals,
):
    """A match or none, a user who asks again when it is none, advertisers who know something.

    With `recall` the user remembers what was shown, so that order matters: a network is then free
    to be as wrong as it likes.
    """
    rng = np.random.default_rng(seed)
    gamma, omega = rng.normal(size=(n, 2)), rng.normal(size=(m, 2))
    support = np.sort(rng.uniform(0.2, 1.0, (n, values)), axis=1)
    query = dm.FallingQuery(level=1.4, location=0.2, slope=0.5, low=0.05, high=0.9)
    initial = dm.GaussianSignals(**{"advertisers": 0.8, "symbols": 2, **signals})
    return dm.RecommendationMDP(
        gamma=gamma,
        tastes=dm.TasteGrid(omega, rng.dirichlet(np.full(m, 4.0))),
        horizon=horizon,
        action_rule=(dm.PerfectRecall if recall else dm.LastShownOnly)(dm.Logit(0.3), query),
        signals=dm.SignalStructure(
            initial=initial,
            feedback=dm.RatingFeedback(noise=0.7, symbols=2),
            settlement=settlement or dm.RatingSettlement(0.5),
        ),
        values=dm.ConstantValues(support, interval=interval),
    )


def every(env):
    """All initial profiles, as a batch."""
    n = env.products
    index = np.indices(env.profile_shape).reshape(2 * n + 1, -1).T
    return dm.Profiles(index[:, :n], index[:, n:])


def simulated(certificate, **changes):
    """The same certificate for a policy whose tree is never walked."""
    return dataclasses.replace(certificate, walk=0, **changes)


def solve(env, solver=UNTRAINED, certificate=None, *, marginal=True, **options):
    """A policy that is simulated, whatever its size; a batch of all profiles by default."""
    certificate = certificate or dm.Certificate(runs=300, marginal_runs=200, rounds=env.horizon)
    fewer = {} if marginal else {"marginal_runs": 0}
    solver = dataclasses.replace(solver, certificate=simulated(certificate, **fewer))
    if "initial" not in options:
        options["initial"] = every(env)
    return dm.solve_efficient_policy(env, solver, progress=False, **options)


def scrambled(policy, size=1.5, seed=0):
    """The same policy with a network that is wrong, and its own certified bounds."""
    rng = np.random.default_rng(seed)
    shaken = jax.tree.map(
        lambda x: x + (size * rng.normal(size=x.shape)).astype(x.dtype), policy.player.critic
    )
    play = dataclasses.replace(policy.player, critic=shaken)
    worse = dataclasses.replace(policy.evaluator, play=play)
    start = np.asarray(play.process.start())
    found = [
        worse.certify(Place(1, theta, root, start), None)
        for theta, root in zip(play.profiles.theta, play.root, strict=True)
    ]
    bounds = jax.tree.map(lambda *x: np.concatenate(x), *found)
    worse = dataclasses.replace(worse, bounds=bounds)
    return played_policy(worse, policy.profiles, True, policy.solver, 0.0)
