"""Exact and bounded solvers for decision problems with a static hidden parameter.

A problem is a process: what can end it, what is seen while it goes on, what a memory keeps. Two
doors, a prize behind one of them and a penalty behind the other, and listening, which misleads
with chance .15 and costs 1 each time; three rounds:

```python
>>> import jax, jax.numpy as jnp, numpy as np, solvers
>>> class Doors(solvers.AbstractProcess):
...     horizon, controls, orderless = 3, 4, True  # open left, open right, listen, do nothing
...     reward = np.array([[10.0, -100.0], [-100.0, 10.0], [-1.0, -1.0]])  # by place of the prize
...     tolls = 1  # the last outcome, listening, ends nothing
...     def start(self):
...         return np.zeros(1, int)
...     def step(self, memory, control):
...         return memory
...     def ends(self, memory, control):  # chances of either door, rate of the toll, going on
...         rows = jnp.array([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 1], [0, 0, 0, 0]])
...         return rows[control][:, None] * jnp.ones(2)
...     def symbols(self, memory, control, period):
...         return jnp.array([[0.85, 0.15], [0.15, 0.85]])
>>> problem, tasks = solvers.pose(Doors()), solvers.one_task(Doors(), [0.5, 0.5])
>>> with jax.enable_x64(True):
...     found = solvers.Exact().solve(problem, tasks, solvers.Limits(), False)
>>> found.lower.round(6).tolist(), found.status.name
([2.975], 'EXACT')

```

`solvers.testing.check` tries a solver of one's own.
"""

from solvers import testing as testing
from solvers.bounded import Bounded as Bounded
from solvers.bounded import margin as margin
from solvers.bounded import simulated as simulated
from solvers.bounded import stack as stack
from solvers.certify import Certificate as Certificate
from solvers.certify import Worth as Worth
from solvers.certify import attained as attained
from solvers.certify import certify as certify
from solvers.certify import hidden as hidden
from solvers.certify import in_float64 as in_float64
from solvers.certify import simplify as simplify
from solvers.checkpoint import Checkpoint as Checkpoint
from solvers.checkpoint import Unkept as Unkept
from solvers.chooser import AbstractChooser as AbstractChooser
from solvers.chooser import draw_controls as draw_controls
from solvers.confidence.betting import bernstein_lower as bernstein_lower
from solvers.confidence.betting import betting_lower as betting_lower
from solvers.confidence.betting import betting_upper as betting_upper
from solvers.devices import agree as agree
from solvers.devices import check_mesh as check_mesh
from solvers.devices import from_first as from_first
from solvers.devices import shares as shares
from solvers.devices import spread as spread
from solvers.devices import spread_runs as spread_runs
from solvers.files import fingerprint as fingerprint
from solvers.follow import write_out as write_out
from solvers.host import on_host as on_host
from solvers.listing import one_task as one_task
from solvers.listing import pose as pose
from solvers.neural.checkpoint import NeuralCheckpoint as NeuralCheckpoint
from solvers.neural.critic import AbstractCritic as AbstractCritic
from solvers.neural.learner import AbstractLearner as AbstractLearner
from solvers.neural.learner import Learned as Learned
from solvers.neural.learner import Root as Root
from solvers.neural.learner import learning_mark as learning_mark
from solvers.neural.neural import Diverged as Diverged
from solvers.neural.neural import Neural as Neural
from solvers.neural.neural import begin as begin
from solvers.neural.neural import train as train
from solvers.neural.rollout import Play as Play
from solvers.neural.rollout import decide as decide
from solvers.neural.rollout import rollout as rollout
from solvers.neural.value_network import ValueNetwork as ValueNetwork
from solvers.points.point_based import PointBased as PointBased
from solvers.points.point_based import improve_points as improve_points
from solvers.points.point_based import solve_point_based as solve_point_based
from solvers.points.points import PointSets as PointSets
from solvers.points.starts import root_beliefs as root_beliefs
from solvers.problem import Structure as Structure
from solvers.problem import Tables as Tables
from solvers.problem import Task as Task
from solvers.problem import TaskList as TaskList
from solvers.problem import Tasks as Tasks
from solvers.process import AbstractCeiling as AbstractCeiling
from solvers.process import AbstractProcess as AbstractProcess
from solvers.process import Case as Case
from solvers.process import Listed as Listed
from solvers.process import Problem as Problem
from solvers.programs import as_program as as_program
from solvers.programs import unshared as unshared
from solvers.progress import deferred as deferred
from solvers.search.branch_and_bound import BranchAndBound as BranchAndBound
from solvers.search.branch_and_bound import solve_branch_and_bound as solve_branch_and_bound
from solvers.search.endless import BestFirst as BestFirst
from solvers.search.endless import search_endless as search_endless
from solvers.search.endless_plan import EndlessPlan as EndlessPlan
from solvers.search.merged_search import merged_search as merged_search
from solvers.solution import AbstractPlan as AbstractPlan
from solvers.solution import AbstractSolver as AbstractSolver
from solvers.solution import Limits as Limits
from solvers.solution import Node as Node
from solvers.solution import Solution as Solution
from solvers.solution import Status as Status
from solvers.solution import TooFine as TooFine
from solvers.solution import Unsuited as Unsuited
from solvers.solution import close_enough as close_enough
from solvers.stationary import Stationary as Stationary
from solvers.table import Answer as Answer
from solvers.table import Grown as Grown
from solvers.table import PlanTable as PlanTable
from solvers.tabular import tabulate as tabulate
from solvers.ties import fits as fits
from solvers.ties import foreseen as foreseen
from solvers.told.bounds import told_parameter as told_parameter
from solvers.told.dominance import Choices as Choices
from solvers.told.dominance import Removal as Removal
from solvers.told.dominance import eliminate as eliminate
from solvers.told.dominance import told_ahead as told_ahead
from solvers.told.enumerated import EnumeratedCeiling as EnumeratedCeiling
from solvers.told.enumerated import enumerate_ceilings as enumerate_ceilings
from solvers.told.enumerated import list_memories as list_memories
from solvers.told.lookahead import lookahead as lookahead
from solvers.told.plans import with_plan as with_plan
from solvers.told.relaxation import relaxation as relaxation
from solvers.told.rounded import Rounded as Rounded
from solvers.told.rounded import data_room as data_room
from solvers.told.rounded import gaining as gaining
from solvers.told.rounded import widened as widened
from solvers.tree.backward import backward as backward
from solvers.tree.exact import Estimate as Estimate
from solvers.tree.exact import Exact as Exact
from solvers.tree.exact import plan_tree as plan_tree
from solvers.tree.exact import solve_exact as solve_exact
from solvers.tree.lattice import drift as drift
from solvers.tree.lattice import relations as relations
from solvers.tree.misled import REACH as REACH
from solvers.tree.misled import Told as Told
from solvers.tree.misled import follow as follow
from solvers.tree.parametric import Sweep as Sweep
from solvers.tree.parametric import sweep_coefficient as sweep_coefficient
from solvers.tree.plan import Plan as Plan
from solvers.tree.plan import Visits as Visits
from solvers.tree.plan import afterwards as afterwards
from solvers.tree.plan import evaluate as evaluate
from solvers.tree.plan import rows_after as rows_after
from solvers.tree.plan import unfold as unfold
from solvers.tree.plan import visit as visit
from solvers.tree.tree import Layer as Layer
from solvers.tree.tree import Tree as Tree
from solvers.tree.tree import bound_nodes as bound_nodes
from solvers.tree.tree import build_tree as build_tree
from solvers.tree.tree import ratios as ratios
from solvers.truncation import Truncation as Truncation
from solvers.truncation import endless_cycle as endless_cycle
from solvers.truncation import truncate as truncate
from solvers.truncation import truncation_gaps as truncation_gaps
from solvers.truncation import unroll as unroll
