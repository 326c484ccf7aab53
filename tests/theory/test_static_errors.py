"""What a user may get wrong in the static theory: one clear error each."""

import numpy as np
import pytest

import dynmech as dm
from dynmech import DynmechError, TasteGrid
from dynmech import static as st

STATES = TasteGrid([[0.2], [0.8]], [0.5, 0.5])
ITEMS = np.eye(2)
VALUES = [[1.0, 2.0], [1.5, 2.5]]
COIN = [[0.8, 0.2], [0.2, 0.8]]


def payoff(i, x, omega, theta):
    return theta * omega[0] * x[i]


def environment(**changes):
    given = {"allocations": ITEMS, "states": STATES, "theta": VALUES, **changes}
    return st.StaticEnvironment(changes.pop("payoff", payoff), **given)


ENV = environment()
REACHING = np.zeros((2, 2, 1, 2, 2))
REACHING[:, 0, 0, 0, 0] = REACHING[:, 1, 0, 1, 1] = 1.0

MISTAKES = {
    "allocations=": lambda: environment(allocations=[1.0, 2.0]),
    "theta=": lambda: environment(theta=[1.0, 2.0]),
    "finite": lambda: environment(theta=[[1.0], [np.nan]]),
    "signals=": lambda: environment(signals=st.PrivateSignals.independent([COIN])),
    "priors=.*shape": lambda: environment(priors=[[0.5, 0.5]]),
    "priors=.*strictly": lambda: environment(priors=[[[1.0, 0.0]], [[0.5, 0.5]]]),
    "names=": lambda: environment(names=["a"]),
    "payoff=.*finite": lambda: st.StaticEnvironment(
        lambda i, x, w, t: t / (w[0] - 0.2), ITEMS, STATES, VALUES
    ),
    "payoff=.*scalar": lambda: st.StaticEnvironment(
        lambda i, x, w, t: t * x, ITEMS, STATES, VALUES
    ),
    "type profiles": lambda: environment(theta=np.ones((2, 9000))),
    "table=.*shape": lambda: st.PrivateSignals(np.ones((2, 2))),
    "table=.*sum to 1": lambda: st.PrivateSignals(np.ones((2, 1, 1, 2, 1))),
    "table=.*structure of agent 0": lambda: st.PrivateSignals(REACHING),
    "channels=.*same m": lambda: st.PrivateSignals.independent([COIN, np.ones((3, 1))]),
    "maps=.*shape": lambda: st.PrivateSignals.from_maps([[[0], [1]]], [0.5, 0.5]),
    "maps=.*integers": lambda: st.PrivateSignals.from_maps([[[0.5], [1.0]]], [1.0]),
    "points=.*shape": lambda: st.Estimator([0.1, 0.2], COIN),
    "kernel=.*shape": lambda: st.Estimator([[0.1], [0.2], [0.3]], COIN),
    "kernel=.*sum to 1": lambda: st.Estimator([[0.1], [0.2]], [[0.5, 0.6], [0.5, 0.5]]),
    "kernel=.*states and alloc": lambda: st.data_driven_vcg(
        ENV, st.Estimator([[0.0], [1.0]], [[0.5, 0.5]] * 3)
    ),
    "points=.*coordinates": lambda: st.data_driven_vcg(ENV, st.Estimator([[0.0, 1.0]] * 2, COIN)),
    "rates=": lambda: st.Estimator.frequency(TasteGrid([[1.2]], [1.0]), 3),
    "samples=": lambda: st.Estimator.frequency(STATES, 0),
    "deviation=": lambda: st.Estimator.gaussian(STATES, -1.0),
    "channel=": lambda: st.Estimator.posterior_mean(STATES, [[1.0]]),
    "estimators=.*at least one": lambda: st.Estimator.average([]),
    "estimators=.*two agents": lambda: st.Estimator.leave_one_out(
        [st.Estimator([[0.0], [1.0]], COIN)]
    ),
    "at most": lambda: st.Estimator.average([st.Estimator.frequency(STATES, 999)] * 3),
    "data=": lambda: st.data_driven_vcg(ENV, [st.IdealData()] * 3),
    "groves=.*'pivot'": lambda: st.data_driven_vcg(ENV, groves="clarke"),
    "groves=.*function of": lambda: st.data_driven_vcg(ENV, groves=dm.groves.DataDriven()),
    "groves=.*own types": lambda: st.message_vcg(ENV, dm.groves.ExAnte()),
    "groves=.*Groves term": lambda: st.message_vcg(ENV, "zero"),
    "groves.*one table for each": lambda: st.data_driven_vcg(ENV, groves=[]),
    "groves.0.=.*own": lambda: st.data_driven_vcg(ENV, groves=[np.zeros((2, 2, 2))] * 2),
    "allocation=.*integers": lambda: st.DirectMechanism(ENV, np.zeros((2, 2)), [0.0, 0.0]),
    "allocation=.*0..1": lambda: st.DirectMechanism(ENV, np.full((2, 2), 5), [0.0, 0.0]),
    "transfer.0.=": lambda: st.DirectMechanism(ENV, np.zeros((2, 2), int), [np.zeros(3)] * 2),
    "estimate=": lambda: st.realised_transfers(ENV, (0, 0), [0.1, 0.2]),
    "profile=": lambda: st.realised_transfers(ENV, (0, 7), [0.1]),
    "message_vcg.groves": lambda: st.message_vcg(ENV, "none"),
    "common prior": lambda: st.message_vcg(
        environment(priors=[[[0.5, 0.5], [0.1, 0.9]], [[0.5, 0.5], [0.3, 0.7]]])
    ),
    "utilities=": lambda: st.mezzetti_transfers([[1.0]]),
    "beliefs=": lambda: st.separate([0.5, 0.5]),
    "beliefs=.*sum": lambda: st.separate([[0.5, 0.6]]),
    "depend on the allocation": lambda: st.check_relevance(
        ENV, st.Estimator([[0.0], [1.0]], [COIN, np.eye(2)])
    ),
    "prediction.theta": lambda: st.JointPrediction([1.0], [1.0]),
    "noise=.*shape": lambda: st.JointPrediction([1.0, 2.0], [1.0]),
    "noise=.*positive var": lambda: st.JointPrediction([1.0, 2.0], [1.0, 0.0]),
    "noise=.*positive definite": lambda: st.JointPrediction([1.0, 2.0], np.ones((2, 2))),
    "prior_variance=": lambda: st.JointPrediction([1.0, 2.0], [1.0, 1.0], 0.0),
    "signals=.*length 2": lambda: st.JointPrediction([1.0, 2.0], [1.0, 1.0]).allocation([1.0]),
    "agent=": lambda: st.JointPrediction([1.0, 2.0], [1.0, 1.0]).message_lie(2, [0.0, 0.0]),
}


@pytest.mark.parametrize("message", MISTAKES)
def test_mistakes_are_named(message):
    with pytest.raises(DynmechError, match=f"(?i){message}"):
        MISTAKES[message]()
