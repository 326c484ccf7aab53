"""Settlements, `dynmech.settlement.Estimator()` and its kind: what a purchase is settled with."""

from typing import TYPE_CHECKING as _TYPE_CHECKING

from dynmech._late import suggesting as _suggesting
from dynmech.payments.settlement import AbstractSettlement as AbstractSettlement
from dynmech.payments.settlement import ChargeOnReach as ChargeOnReach
from dynmech.payments.settlement import Estimator as Estimator
from dynmech.payments.settlement import GeneralizedSecondPrice as GeneralizedSecondPrice
from dynmech.payments.settlement import MessageDriven as MessageDriven
from dynmech.payments.settlement import NoTransfers as NoTransfers
from dynmech.payments.settlement import PerPurchaseSecondPrice as PerPurchaseSecondPrice
from dynmech.payments.settlement import Situation as Situation

if not _TYPE_CHECKING:
    __getattr__ = _suggesting(globals())
