"""Audits: exact checks of incentives, participation, no subsidy and budget, with witnesses."""

from dynmech.audit._bounds import GapBound as GapBound
from dynmech.audit._gains import MeasuredGains as MeasuredGains
from dynmech.audit._intervals import wants_interval as wants_interval
from dynmech.audit._long import LongAudit as LongAudit
from dynmech.audit._long import NodeBound as NodeBound
from dynmech.audit._long import run_long_audit as run_long_audit
from dynmech.audit._report import Audit as Audit
from dynmech.audit._report import run_audit as run_audit
from dynmech.audit._strategies import BestResponse as BestResponse
from dynmech.audit._strategies import best_responses as best_responses
from dynmech.audit._witness import Witness as Witness
