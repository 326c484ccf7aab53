"""Audits: exact checks of incentives, participation, no subsidy and budget, with witnesses."""

from typing import TYPE_CHECKING as _TYPE_CHECKING

from dynmech._late import suggesting as _suggesting
from dynmech.audit.bounds import GapBound as GapBound
from dynmech.audit.gains import MeasuredGains as MeasuredGains
from dynmech.audit.record import Audit as Audit
from dynmech.audit.record import NodeBound as NodeBound
from dynmech.audit.several import AuditsUnder as AuditsUnder
from dynmech.audit.strategies import BestResponse as BestResponse
from dynmech.audit.witness import Witness as Witness

if not _TYPE_CHECKING:
    __getattr__ = _suggesting(globals())
