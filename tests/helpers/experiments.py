"""Small sizes of every experiment, and the files that each one writes."""

SMALL = {
    "participation": {
        "markets": 1, "products": 2, "tastes": 8, "noises": (1.0,), "blurs": (0.1, 0.0),
    },
    "sweep": {"quick": True},
    "theorem1": {"markets": 1, "sizes": ((2, 2, 2),), "cars": 2, "rounds": 1, "profiles": 2},
    "reporting": {"markets": 1, "seed": 1, "rounds": 2, "cars": 2, "profiles": 2},
    "reports": {"markets": 1, "rounds": 2, "cars": 2, "tastes": 8, "profiles": 2},
    "approximate": {"markets": 1, "seed": 1, "rounds": 2, "shares": (0.1,)},
    "displays": {"products": 3, "tastes": 8, "sizes": (1, 2), "profiles": 2},
    "one_shot": {"tastes": 16, "symbols": 2},
    "two_rounds": {"markets": 1, "tastes": 8},
    "sellers": {"tastes": 8, "costs": (0.0, 0.2), "discounts": (0.0, 0.3)},
    "shopping_assistant": {
        "rounds": 2, "compared": (8, 16), "profiles": 1, "long": (3,), "draws": 4_000,
    },
    "quantising": {
        "products": 2, "tastes": 8, "symbols": (3,), "fine": 0, "settled": (2,), "profiles": 2,
    },
    "robustness": {"names": ("cars",), "quick": True},
    "choice_models": {"names": ("cereals",), "tastes": 8},
    "recommenders": {"quick": True},
    "real_case": {
        "products": 2, "tastes": 8, "rounds": 2, "pages": 3, "profiles": 2, "draws": 2,
    },
    "click_auction": {
        "values": (0.5, 0.8, 1.0), "decay": (1.0, 0.6), "agents": 3, "realised": 30,
        "grids": (3,), "kept": 2, "rivals": 2, "logged": 2, "chances": (0.5, 0.9), "shown": 5,
    },
    "static_statements": {"markets": 2, "draws": 20_000, "replications": 8},
    "procurement": {"samples": (400, 25_600), "replications": 8, "values": (0.9, 1.1)},
    "long_horizon": {
        "markets": ("learning",), "products": 2, "tastes": 6, "rounds": 3, "sweeps": 2, "runs": 4,
        "steps": 2, "conversations": 64, "marginal": 30, "work": 1e7, "relaxed": 30,
    },
}  # fmt: skip
FILES = {
    "participation": {
        "constructed.csv", "propositions.csv", "windows.csv", "corollary_1_limit.csv",
        "corollary_1_limit.png", "cars/informational_size.csv", "cars/informational_size.png",
    },
    "sweep": {"cars/means.csv", "cars/differences.csv", "cars/noise.png", "cars/report.txt"},
    "theorem1": {"random_markets.csv", "gains.png", "cars.csv"},
    "reporting": {"reporting.csv", "reporting.png", "charges.csv"},
    "reports": {"intervals.csv", "intervals.png", "constructed.csv", "structures.csv"},
    "approximate": {"bounds.csv", "bounds.png"},
    "displays": {"cars.csv", "electricity.csv", "displays.png"},
    "one_shot": {"payments.csv", "terms.csv", "lies.csv", "slacks.png"},
    "two_rounds": {"second_product.csv", "second_product.png"},
    "sellers": {"sellers.csv", "sellers.png"},
    "shopping_assistant": {
        "values.csv", "economies.csv", "convergence.csv", "long.csv", "incentives.csv",
        "impossibility.csv", "averages.csv", "forbidden.csv", "pivots.csv", "pivots_all.csv",
        "slip_5.csv", "values.png", "lies.png",
    },
    "quantising": {"welfare.csv", "settlement.csv", "quantising.png"},
    "robustness": {"robustness.csv", "robustness.png"},
    "choice_models": {"cereals.csv", "cereals_estimates.csv", "choice_models.png"},
    "recommenders": {"cars.csv", "electricity.csv", "recommenders.png"},
    "real_case": {
        "fits.csv", "fit_by_round.csv", "market.csv", "policies.csv", "payments.csv",
        "groves_terms.csv", "draws.csv", "real_case.png",
    },
    "click_auction": {
        "log.csv", "positions.csv", "rates.png", "click_prices.csv", "payments.csv", "payments.png",
        "slot_audits.csv", "realised.csv", "perturbed.csv", "converse.csv", "converse.png",
        "footnote_20.csv", "item_audits.csv", "equation_19.csv", "lotteries.csv", "lotteries.png",
        "real_auction.csv", "leaders.csv", "settled.csv",
    },
    "static_statements": {"statements.csv"},
    "procurement": {
        "costs.csv", "mechanisms.csv", "constructed.csv", "consistency.csv", "consistency.png",
        "cars.csv", "cars.png",
    },
    "long_horizon": {"certificates.csv", "baselines.csv", "training.png"},
}  # fmt: skip
