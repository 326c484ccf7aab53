"""Groves terms, `dynmech.groves.Participation()` and its kind: what is charged in total."""

from dynmech._data_driven import DataDriven as DataDriven
from dynmech._data_driven import WindowComparison as WindowComparison
from dynmech._groves import AbstractGroves as AbstractGroves
from dynmech._groves import ExAnte as ExAnte
from dynmech._groves import NoSubsidy as NoSubsidy
from dynmech._groves import OwnTables as OwnTables
from dynmech._groves import Participation as Participation
from dynmech._groves import WindowCeiling as WindowCeiling
from dynmech._groves import WindowFloor as WindowFloor
from dynmech._groves import Zero as Zero
