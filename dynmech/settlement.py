"""Settlements, `dynmech.settlement.Estimator()` and its kind: what a purchase is settled with."""

from dynmech._settlement import AbstractSettlement as AbstractSettlement
from dynmech._settlement import ChargeOnReach as ChargeOnReach
from dynmech._settlement import Estimator as Estimator
from dynmech._settlement import GeneralizedSecondPrice as GeneralizedSecondPrice
from dynmech._settlement import MessageDriven as MessageDriven
from dynmech._settlement import NoTransfers as NoTransfers
from dynmech._settlement import PerPurchaseSecondPrice as PerPurchaseSecondPrice
from dynmech._settlement import Situation as Situation
