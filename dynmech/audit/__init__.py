"""Audits: exact checks of incentives, participation, no subsidy and budget, with witnesses."""

from dynmech.audit.bounds import GapBound as GapBound
from dynmech.audit.gains import MeasuredGains as MeasuredGains
from dynmech.audit.intervals import wants_interval as wants_interval
from dynmech.audit.long import run_long_audit as run_long_audit
from dynmech.audit.record import Audit as Audit
from dynmech.audit.record import NodeBound as NodeBound
from dynmech.audit.report import run_audit as run_audit
from dynmech.audit.several import AuditsUnder as AuditsUnder
from dynmech.audit.strategies import BestResponse as BestResponse
from dynmech.audit.strategies import best_responses as best_responses
from dynmech.audit.witness import Witness as Witness
