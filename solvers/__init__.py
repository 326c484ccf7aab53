"""Exact and bounded solvers for decision problems with a static hidden parameter."""

from solvers._backward import backward as backward
from solvers._exact import Answer as Answer
from solvers._exact import Estimate as Estimate
from solvers._exact import Exact as Exact
from solvers._exact import estimate as estimate
from solvers._exact import solve_exact as solve_exact
from solvers._parametric import Sweep as Sweep
from solvers._parametric import sweep_coefficient as sweep_coefficient
from solvers._plan import Keys as Keys
from solvers._plan import Plan as Plan
from solvers._plan import Visits as Visits
from solvers._plan import evaluate as evaluate
from solvers._plan import unfold as unfold
from solvers._plan import visit as visit
from solvers._problem import Structure as Structure
from solvers._problem import Tables as Tables
from solvers._problem import Tasks as Tasks
from solvers._tree import Tree as Tree
from solvers._tree import bound_nodes as bound_nodes
from solvers._tree import build_tree as build_tree
