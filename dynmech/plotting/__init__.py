"""Pictures of policies, payments, audits and conversations; needs the `experiments` extra.

Each function takes the library's own objects and returns a matplotlib `Figure`, which is closed
in pyplot: show it by leaving it last in a notebook cell, keep it with `.savefig(path)`. No
setting of matplotlib is changed. `import dynmech` does not import this module's dependencies,
nor does `import dynmech.plotting`: the first picture does.
"""

from typing import TYPE_CHECKING as _TYPE_CHECKING

from dynmech._late import suggesting as _suggesting
from dynmech.plotting.conversation import plot_conversation as plot_conversation
from dynmech.plotting.log import plot_log as plot_log
from dynmech.plotting.money import plot_incentives as plot_incentives
from dynmech.plotting.money import plot_payments as plot_payments
from dynmech.plotting.policy import plot_policy_tree as plot_policy_tree
from dynmech.plotting.tree import Branch as Branch
from dynmech.plotting.tree import branch_table as branch_table
from dynmech.plotting.tree import policy_tree as policy_tree

if not _TYPE_CHECKING:
    __getattr__ = _suggesting(globals())
