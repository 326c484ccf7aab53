"""Channels and settlement signals of every kind, to try estimators on."""

import numpy as np

import dynmech as dm
from dynmech.estimators.decoders import decode_utilities
from dynmech.estimators.posterior_mean import PosteriorMeanSettlement
from dynmech.estimators.settlement_signals import (
    AveragedSettlement,
    ChannelSettlement,
    OracleSettlement,
    QuantisedRatingSettlement,
    StoppedAverageSettlement,
)


def random_channel(rng, tastes, symbols):
    return rng.dirichlet(np.ones(symbols), tastes)


def signals_of(utilities, prior, rng):
    n, m = utilities.shape
    channel = random_channel(rng, m, m + 2)
    cuts = np.sort(rng.normal(size=(n, 4)), axis=1)
    return {
        "rating": dm.RatingSettlement(0.7),
        "oracle": OracleSettlement(),
        "average": AveragedSettlement(2, 3),
        "stopped": StoppedAverageSettlement(1.3, 0.2),
        "channel": ChannelSettlement(channel, decode_utilities(channel, utilities, prior=prior)),
        "symbols": QuantisedRatingSettlement(0.4, cuts),
        "two symbols": QuantisedRatingSettlement(0.4, [0.1]),
        "posterior": PosteriorMeanSettlement(1.1, prior),
    }


KINDS = tuple(signals_of(np.zeros((1, 2)), np.ones(2) / 2, np.random.default_rng(0)))
UNBIASED = ("rating", "oracle", "average", "channel")
