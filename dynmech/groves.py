"""Groves terms, `dynmech.groves.Participation()` and its kind: what is charged in total."""

from typing import TYPE_CHECKING as _TYPE_CHECKING

from dynmech._late import suggesting as _suggesting
from dynmech.payments.data_driven import DataDriven as DataDriven
from dynmech.payments.data_driven import WindowComparison as WindowComparison
from dynmech.payments.groves import AbstractGroves as AbstractGroves
from dynmech.payments.groves import ExAnte as ExAnte
from dynmech.payments.groves import NoSubsidy as NoSubsidy
from dynmech.payments.groves import OwnTables as OwnTables
from dynmech.payments.groves import Participation as Participation
from dynmech.payments.groves import RobustWindow as RobustWindow
from dynmech.payments.groves import WindowCeiling as WindowCeiling
from dynmech.payments.groves import WindowFloor as WindowFloor
from dynmech.payments.groves import Zero as Zero

if not _TYPE_CHECKING:
    __getattr__ = _suggesting(globals())
