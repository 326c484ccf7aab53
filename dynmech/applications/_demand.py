"""The demand for new cars of Berry, Levinsohn and Pakes (1995), solved year by year.

Shopper a gets from car j the utility, in utils,

  u_ja = xi_j + sum_c x_jc (beta_c + sigma_c nu_ac) - alpha_a p_j,     alpha_a = 43.501 / income_a,

plus a logit shock; x = (1, hpwt, air, mpd, space), beta, sigma and 43.501 as published. The mean
utilities solve predicted shares = observed shares (the contraction of their equation 6.8), and
costs solve the first-order conditions of firms that price all their cars at once.
"""

import importlib.util
import os
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.linalg

from dynmech.applications._choice_models import choice_chances, mean_utilities
from dynmech.applications._market import read_columns, require_between, shipped
from dynmech.errors import InvalidArgument, MissingExtra, describe

TRAITS = ("hpwt", "air", "mpd", "space")
BETA = np.array([-7.061, 2.883, 1.521, -0.122, 3.460])
SIGMA = np.array([3.612, 4.628, 1.818, 1.050, 2.056])
INCOME_EFFECT = 43.501
NODES = tuple(f"nodes{c}" for c in range(5))
FILES = ("cars_products.csv", "cars_agents.csv")


def _pairs(text: str) -> dict[str, str]:
    words = text.split()
    return {code: name.replace("-", " ") for code, name in zip(words[::2], words[1::2])}


# Codes are make, model and first year of its design; a model with no name here keeps its code.
_MAKES = (
    "AC Acura AD Audi AM AMC AR Alfa-Romeo BK Buick BW BMW CD Cadillac CR Chrysler CV Chevrolet "
    "DG Dodge DT Datsun EG Eagle FD Ford FT Fiat GO Geo HD Honda HY Hyundai HN Honda IN Infiniti "
    "IS Isuzu JG Jaguar LN Lincoln LX Lexus MB Mercedes MC Mercury MT Mitsubishi MZ Mazda "
    "NI Nissan OD Oldsmobile PG Peugeot PL Plymouth PS Porsche PT Pontiac RN Renault SA Saab "
    "SB Subaru TY Toyota VV Volvo VW Volkswagen YG Yugo"
)
_MODELS = (
    "ACCO Accord ACCL Acclaim BONN Bonneville BROU Brougham CAMA Camaro CAMR Camry CAPR Caprice "
    "CAVA Cavalier CELE Celebrity CELI Celica CENT Century CIVI Civic CONT Continental "
    "CORO Corolla CORS Corsica CORV Corvette COUG Cougar CTLS Cutlass DAYT Daytona DEVI DeVille "
    "DYNA Dynasty ECLI Eclipse ELDO Eldorado ESCO Escort EXCE Excel FEST Festiva FIRE Firebird "
    "GALA Galant GRAN Grand GRND Grand-Marquis INTE Integra JETT Jetta LEBA LeBaron LEGA Legacy "
    "LEGE Legend LEMA LeMans LESA LeSabre LTDC LTD-Crown-Victoria LUMI Lumina MARK Mark "
    "MAXI Maxima METR Metro MIRA Mirage MUST Mustang NYRK New-Yorker PARK Park-Avenue PREL Prelude "
    "PRIZ Prizm PROB Probe REGA Regal RIVI Riviera SABL Sable SENT Sentra SEVI Seville "
    "SHAD Shadow SKYL Skylark SONA Sonata SPIR Spirit STAN Stanza STOR Storm SUNB Sunbird "
    "SUND Sundance TAUR Taurus TEMP Tempo TERC Tercel THND Thunderbird TOPA Topaz TOWN Town-Car "
    "TRAC Tracer MX5M Miata CIER Cutlass-Ciera IMPA Impala 88RO 88-Royale 98RE 98-Regency "
    "GOLF Golf PASS Passat CABR Cabriolet PULS Pulsar CRES Cressida SUPR Supra "
    "240S 240SX 300Z 300ZX LS40 LS400 ES25 ES250"
)
MAKES = _pairs(_MAKES)
MODELS = _pairs(_MODELS)


class Demand(NamedTuple):
    """Hold the demand of one year: J cars in order of sales, I simulated shoppers."""

    ids: np.ndarray  # (J,) codes of the cars
    x: np.ndarray  # (J, 5), a constant and `TRAITS`
    prices: np.ndarray  # (J,)
    shares: np.ndarray  # (J,), observed
    nodes: np.ndarray  # (I, 5), nu
    alpha: np.ndarray  # (I,), price coefficients, positive
    weights: np.ndarray  # (I,), as published; they sum to less than one
    delta: np.ndarray  # (J,), mean utilities
    chances: np.ndarray  # (J, I), of buying each car among all of the year
    residual: float  # largest gap between predicted and observed shares
    markups: np.ndarray  # (J,)
    elasticities: np.ndarray  # (J,), own-price


def load(
    year: int, table: str | os.PathLike[str] | None
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Read one year's products and agents: from `table`, pyblp or the shipped tables, in turn."""
    require_between("cars(year=...)", year, 1971, 1990, whole=True)
    found = None if table is not None else importlib.util.find_spec("pyblp")
    if found is not None and found.origin is not None:
        data = Path(found.origin).parent / "data"
        paths = [data / "blp_products.csv", data / "blp_agents.csv"]
    else:
        folder = shipped("cars", table, FILES)
        paths = [] if folder is None else [folder / name for name in FILES]
    columns = (("shares", "prices", *TRAITS), ("weights", "income", *NODES))
    text = (("clustering_ids", "firm_ids"), ())
    parts = [read_columns(*given, market_ids=str(year)) for given in zip(paths, columns, text)]
    if not parts or min(len(part[numbers[0]]) for part, numbers in zip(parts, columns)) == 0:
        if table is None:
            raise MissingExtra(
                f"`cars(year={year})` needs the data in the package `pyblp`, which is not "
                "installed; run: pip install 'dynmech[data]', or pass as `table` a folder with "
                f"{' and '.join(FILES)}, such as `experiments/data` (1990 only)."
            )
        raise InvalidArgument(describe("cars(year=...)", "be a year of `table`", year))
    products, agents = parts
    bought, income = products["shares"], agents["income"]
    if not ((bought > 0).all() and bought.sum() < 1 and (income > 0).all()):
        raise InvalidArgument(
            describe(
                "cars(table=...)",
                "have positive incomes and positive shares with a sum below 1",
                f"a least income of {income.min():g}, a least share of {bought.min():g} and a sum "
                f"of {bought.sum():g}",
            )
        )
    return products, agents


def estimate(products: dict[str, np.ndarray], agents: dict[str, np.ndarray]) -> Demand:
    """Solve shares for mean utilities and first-order conditions for markups, cars by sales.

    Mean utilities by `mean_utilities`. Markups b solve shares + (D * owned by the same firm) b = 0,
    D_jk = d share_k / d price_j.
    """
    order = np.argsort(-products["shares"], kind="stable")
    products = {key: value[order] for key, value in products.items()}
    shares, prices, weights = products["shares"], products["prices"], agents["weights"]
    x = np.column_stack([np.ones(len(shares)), *(products[trait] for trait in TRAITS)])
    nodes = np.column_stack([agents[node] for node in NODES])
    alpha = INCOME_EFFECT / agents["income"]
    moved = x @ (nodes * SIGMA).T - np.outer(prices, alpha)
    delta = mean_utilities(shares, moved, weights)
    chances = choice_chances(delta, moved)
    slope = chances * (weights * alpha)
    jacobian = slope @ chances.T - np.diag(slope.sum(axis=1))
    same_firm = products["firm_ids"][:, None] == products["firm_ids"]
    return Demand(
        ids=products["clustering_ids"],
        x=x,
        prices=prices,
        shares=shares,
        nodes=nodes,
        alpha=alpha,
        weights=weights,
        delta=delta,
        chances=chances,
        residual=float(np.abs(chances @ weights - shares).max()),
        # NumPy's own solution waits for its threads, .3 s where other work has the cores.
        markups=scipy.linalg.solve(-jacobian * same_firm, shares),
        elasticities=np.diag(jacobian) * prices / shares,
    )


def labels(ids: np.ndarray) -> tuple[str, ...]:
    """Turn codes such as HDACCO90 (make, model, first year of its design) into labels."""
    found = []
    for code in ids.tolist():
        make, model = MAKES.get(code[:2], code[:2]), MODELS.get(code[2:-2], code[2:-2])
        found.append(f"{make} {model}")
    seen: Counter[str] = Counter()
    for i, label in enumerate(found):
        seen[label] += 1
        found[i] = label if seen[label] == 1 else f"{label} ({seen[label]})"
    return tuple(found)
