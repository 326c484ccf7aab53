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
from solvers.bounded import simulated as simulated
from solvers.bounded import stack as stack
from solvers.certify import Certificate as Certificate
from solvers.checkpoint import Unkept as Unkept
from solvers.chooser import AbstractChooser as AbstractChooser
from solvers.confidence.betting import betting_lower as betting_lower
from solvers.confidence.betting import betting_upper as betting_upper
from solvers.listing import one_task as one_task
from solvers.listing import pose as pose
from solvers.neural.critic import AbstractCritic as AbstractCritic
from solvers.neural.learner import AbstractLearner as AbstractLearner
from solvers.neural.learner import Learned as Learned
from solvers.neural.learner import Root as Root
from solvers.neural.neural import Neural as Neural
from solvers.points.point_based import PointBased as PointBased
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
from solvers.search.branch_and_bound import BranchAndBound as BranchAndBound
from solvers.search.endless import BestFirst as BestFirst
from solvers.solution import AbstractPlan as AbstractPlan
from solvers.solution import AbstractSolver as AbstractSolver
from solvers.solution import Limits as Limits
from solvers.solution import Node as Node
from solvers.solution import Solution as Solution
from solvers.solution import Status as Status
from solvers.solution import TooFine as TooFine
from solvers.solution import Unsuited as Unsuited
from solvers.stationary import Stationary as Stationary
from solvers.tree.exact import Exact as Exact
