"""Two markets: what is true and what a mechanism believes; cases by brute force, and small ones."""

import numpy as np

import dynmech as dm
from dynmech.market.channels import prior_quantiles
from tests.helpers import CASES

NAMES = sorted(path.stem for path in (CASES / "wrong_model").glob("*.npz"))


class Case:
    """Both markets of a case, the policy of the one solved, and what is expected."""

    def __init__(self, name: str):
        data = dict(np.load(CASES / "wrong_model" / f"{name}.npz"))
        self.expected = {key[9:]: x for key, x in data.items() if key.startswith("expected_")}
        self.true, self.solved = (self._market(data, f"{side}_") for side in ("true", "solved"))
        self.policy = dm.solve_efficient_policy(self.solved, progress=False)
        self.mechanism = dm.DynamicTeamMechanism(self.policy, groves=dm.groves.Zero())
        self.audit = self.mechanism.audit(under=self.true)

    def _market(self, data, side: str) -> dm.RecommendationMDP:
        given = {key[len(side) :]: x for key, x in data.items() if key.startswith(side)}
        return dm.RecommendationMDP.from_tables(**(given | {"horizon": int(given["horizon"])}))

    def same(self, got, name: str) -> None:
        atol = 1e-9 * self.true.money_scale
        np.testing.assert_allclose(got, self.expected[name], atol=atol, rtol=0, err_msg=name)


def prior_of(env: dm.RecommendationMDP) -> np.ndarray:
    """Prior probability of every initial profile, on the axes P."""
    return dm.solve_efficient_policy(env, progress=False).probability()


def market(
    scale=0.5, query=0.6, noise=0.7, prior=None, seed=0, initial=True
) -> dm.RecommendationMDP:
    rng = np.random.default_rng(seed)
    gamma, points = rng.normal(size=(2, 2)), rng.normal(size=(6, 2))
    return dm.RecommendationMDP(
        gamma=gamma,
        tastes=dm.TasteGrid(points, np.full(6, 1 / 6) if prior is None else prior),
        horizon=2,
        action_rule=dm.LastShownOnly(dm.Logit(scale), query),
        signals=dm.SignalStructure(
            initial=dm.GaussianSignals(None, 0.8, 2) if initial else dm.NoSignals(),
            feedback=dm.RatingFeedback(noise, 2),
            settlement=dm.RatingSettlement(0.5),
        ),
        values=dm.ConstantValues([[0.4, 0.9], [0.3, 0.7]]),
    )


def cuts_of(readings):
    utilities = market().utilities
    weights = np.full(6, 1 / 6)
    targets = (
        utilities
        if isinstance(readings, dm.RatingFeedback)
        else np.concatenate([utilities.mean(axis=0, keepdims=True), utilities])
    )
    return prior_quantiles(targets, weights, 2)
