"""What a policy found, as labelled tables of other packages."""

from __future__ import annotations

import numpy as np

from dynmech.errors import import_extra
from dynmech.market.displays import named
from dynmech.policy.conversation import start_conversation
from dynmech.policy.priced import BOUNDED, AbstractPriced


def policy_frame(policy: AbstractPriced):
    """See `EfficientPolicy.to_frame`."""
    pandas = import_extra("pandas", "experiments", "EfficientPolicy.to_frame")
    env, n, count = policy.env, policy.env.products, len(policy.profiles)
    shown = [
        named(env.names, start_conversation(policy, None, None, b).recommendation)
        if known
        else "none"
        for b, known in enumerate(policy.possible)
    ]
    columns = {
        "profile": np.repeat(np.arange(count), n),
        "product": np.tile(np.array(env.names, dtype=object), count),
        "theta": env.values.support[np.arange(n), policy.profiles.theta].ravel(),
        "signal": policy.profiles.signals[:, 1:].ravel(),
        "platform_signal": np.repeat(policy.profiles.signals[:, 0], n),
        "first_recommendation": np.repeat(shown, n),
        "confidence": policy.confidence,
    }
    columns |= {
        name: np.broadcast_to(table.reshape(-1, count), (n, count)).T.ravel()
        for name, table in _tables(policy).items()
    }
    return pandas.DataFrame(columns)


def policy_dataset(policy: AbstractPriced):
    """See `EfficientPolicy.to_xarray`."""
    xarray = import_extra("xarray", "experiments", "EfficientPolicy.to_xarray")
    env, known = policy.env, policy.profiles
    names, n = list(env.names), env.products
    support = np.asarray(env.values.support)
    money = support[np.arange(n), known.theta]
    thetas = [f"theta {name}" for name in names]
    heard = [f"signal {name}" for name in ("platform", *names)]
    coordinates: dict[str, object] = {"product": names}
    if policy.value.ndim == 1:
        axes = ["profile"]
        coordinates["profile"] = np.arange(len(known))
        for labels, columns in ((thetas, money.T), (heard, known.signals.T)):
            coordinates |= {x: (axes, column) for x, column in zip(labels, columns, strict=True)}
    else:
        axes, sizes = [*thetas, *heard], policy.value.shape[n:]
        coordinates |= dict(zip(thetas, support, strict=True))
        coordinates |= {label: np.arange(k) for label, k in zip(heard, sizes, strict=True)}
    shape = policy.value.shape
    labelled = {
        name: (axes if part.shape == shape else ["product", *axes], part)
        for name, part in _tables(policy).items()
    }
    notes = {"solver": policy.solver, "exact": int(policy.exact), "confidence": policy.confidence}
    return xarray.Dataset(labelled, coordinates, notes)


def _tables(policy: AbstractPriced) -> dict[str, np.ndarray]:
    """Every table, P or (n, *P), by the name of its column."""
    tables = {
        "W": policy.value, "W_error": policy.figures.value.error, "W_lower": policy.lower,
        "W_upper": policy.upper,
    }  # fmt: skip
    for name in BOUNDED[1:]:
        table = policy.bounded(name)
        parts = {"": table.value, "_error": table.error, "_lower": table.lower}
        tables |= {name + end: part for end, part in {**parts, "_upper": table.upper}.items()}
    return tables
