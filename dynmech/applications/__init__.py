"""Real markets as inputs: what economists estimated, in the units that a mechanism needs."""

from typing import TYPE_CHECKING as _TYPE_CHECKING

from dynmech._late import suggesting as _suggesting
from dynmech.applications._cameras import cameras as cameras
from dynmech.applications._cars import cars as cars
from dynmech.applications._choice_models import in_money as in_money
from dynmech.applications._choice_models import mean_utilities as mean_utilities
from dynmech.applications._click_log import ClickLog as ClickLog
from dynmech.applications._click_log import ClickRates as ClickRates
from dynmech.applications._electricity import electricity as electricity
from dynmech.applications._market import Market as Market
from dynmech.applications._open_bandit import open_bandit as open_bandit

if not _TYPE_CHECKING:
    __getattr__ = _suggesting(globals())
