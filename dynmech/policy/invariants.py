"""What the tables of a policy have to be, whoever made them: checked when one is made or read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dynmech.errors import InvalidArgument, describe
from dynmech.policy.kept import check_profiles
from solvers.kept import ROOM, refuse, require_alike

if TYPE_CHECKING:
    from dynmech.policy.priced import AbstractPriced

_FIGURES = "value", "marginal", "displayable", "earned", "utility", "purchase", "costs"
_FAR = 1e3  # of the market's money: what bounds of few runs may come to
_FEW = 1000
_ROUNDING = 1e-9  # of the market's scale of money
_BY_PROFILE = ("value", "lower", "upper", "round_costs")
_EXPECTED = "advertiser_value", "user_utility", "purchase"
_BY_PRODUCT = (
    "marginal_value", "displayable_marginal_value", "marginal_upper", "displayable_marginal_upper",
    *_EXPECTED,
)  # fmt: skip


def check_figures(policy: AbstractPriced) -> None:
    """Raise `ValueError` for money beyond the market's, and exact numbers with bounds apart."""
    check_profiles(policy.env, policy.profiles)
    figures, exact = policy.figures, policy.evaluator.walked and policy.exact
    money = policy.env.money_scale + float(np.abs(policy.env.costs).max(initial=0.0))
    most = _FAR * money * min(float(policy.env.horizon), _FAR)
    for name in _FIGURES:
        part = getattr(figures, name)
        for side in (part.value, part.lower, part.upper, part.error):
            if (np.abs(side[np.isfinite(side)]) > max(most, _FAR)).any():
                refuse(name, f"be money of at most {most:.3g}", np.abs(side).max())
        gap = part.gap[~np.isnan(part.value)]
        if exact and not (gap <= ROOM * max(most, 1.0)).all():
            refuse(name, "have bounds that rounding separates", gap.max())
    value = policy.evaluator.profile_value()
    if value is not None:
        require_alike("value", figures.value.value.reshape(-1), value)
    gap = (figures.upper - figures.lower)[~np.isnan(figures.value.value)]
    if exact and not (gap <= ROOM * most).all():
        refuse("upper", "be no more than rounding above lower", gap.max())


def check_tables(policy: AbstractPriced) -> None:
    """Raise `InvalidArgument` unless tables and plan fit the market, and bounds are in order.

    Numbers are NaN exactly where a profile's signals have probability zero.
    """
    env = policy.env
    shape = (len(policy.profiles),) if policy.batch else env.profile_shape
    for names, wanted in ((_BY_PROFILE, shape), (_BY_PRODUCT, (env.products, *shape))):
        for name in names:
            table = np.asarray(getattr(policy, name))
            if table.shape != wanted or np.isinf(table).any():
                _refuse(name, f"be finite numbers of shape {wanted}", f"shape {table.shape}")
    known = (policy.mass > 0).reshape(shape)
    for name in _BY_PROFILE + _EXPECTED:
        if (np.isnan(getattr(policy, name)) == known).any():
            _refuse(name, "be NaN exactly at profiles of probability zero", "others")
    crossed = (policy.lower - policy.upper)[known].max(initial=-np.inf)
    if crossed > _ROUNDING * env.money_scale:
        _refuse("lower", "be at most upper", f"{crossed:.3g} more")
    if not policy.evaluator.walked:
        return
    plan, count = policy.plan, len(policy.pairs.root)
    sizes = [(count, layer.nodes) for layer in plan.tree.layers]
    actions = plan.actions
    if len(sizes) != env.horizon or [x.shape for x in actions] != sizes:
        got = f"{len(actions)} rounds for a horizon of {env.horizon}"
        _refuse("plan", "have recommendations for every round and node", got)
    none = len(env.controls) - 1
    few = [x.ravel() for x in actions if x.size < _FEW]  # looked at together
    parts = [x for x in actions if x.size >= _FEW] + [np.concatenate(few or [actions[0].ravel()])]
    ends = [end for x in parts if x.size for end in (x.min(), x.max())]
    if ends and not 0 <= min(ends) <= max(ends) < plan.width:
        _refuse("plan", f"recommend controls 0..{none}, rows of env.controls", "others")


def _refuse(name: str, must: str, got: str) -> None:
    raise InvalidArgument(describe(f"EfficientPolicy({name}=...)", must, got))
