"""The kit for a solver of one's own: small problems whose answers are known by brute force.

    import solvers.testing
    solvers.testing.check(MySolver())

Every problem is a random process with a memory; the reference walks over all histories of
controls and symbols, merges nothing, and uses nothing of any solver.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from solvers.listing import pose
from solvers.problem import Numbers, Task, TaskList, Tasks
from solvers.process import AbstractProcess, Problem
from solvers.solution import AbstractPlan, AbstractSolver, Limits, Node, Solution, Status

_SLACK = 1e-9


class RandomProcess(AbstractProcess):
    """A process whose memory is one of few classes; every law is a table of random numbers.

    `following` (C, A): the next class; `chance` (C, A, n+1, m), `law` (C, A, m, Z): after it.
    """

    horizon: int = eqx.field(static=True)
    controls: int = eqx.field(static=True)
    reward: Float[Numbers, "n m"]
    orderless: bool = eqx.field(static=True)
    tolls: int = eqx.field(static=True)
    following: Int[np.ndarray, "C A"]
    chance: Float[np.ndarray, "C A n1 m"]
    law: Float[np.ndarray, "C A m Z"]

    def start(self):
        return np.zeros(1, np.int64)

    def step(self, memory: Int[Numbers, " d"], control: Numbers | int):
        return jnp.asarray(self.following)[memory[0], control][None]

    def ends(self, memory: Int[Numbers, " d"], control: Numbers | int):
        return jnp.asarray(self.chance)[memory[0], control]

    def symbols(self, memory: Int[Numbers, " d"], control: Numbers | int, period: Numbers | int):
        return jnp.asarray(self.law)[memory[0], control]


def random_process(
    rng: np.random.Generator,
    rounds: int = 3,
    classes: int = 3,
    controls: int = 3,
    outcomes: int = 2,
    symbols: int = 2,
    points: int = 3,
) -> RandomProcess:
    """Draw a process with one toll; the last control, "do nothing", ends in no outcome."""
    share = rng.dirichlet(np.ones(outcomes + 2), (classes, controls, points)).swapaxes(2, 3)
    toll = rng.uniform(0.0, 0.2, (classes, controls, 1, points))
    chance = np.concatenate([share[:, :, :outcomes], toll, share[:, :, outcomes:-1]], axis=2)
    chance[:, -1, : outcomes + 1] = 0.0
    law = rng.dirichlet(np.ones(symbols), (classes, controls, points))
    following = rng.integers(0, classes, (classes, controls))
    reward = rng.normal(size=(outcomes + 1, points))
    return RandomProcess(rounds, controls, reward, False, 1, following, chance, law)


def random_tasks(rng: np.random.Generator, process: AbstractProcess, roots: int = 2) -> TaskList:
    """Draw roots, and at each of them tasks that count and allow everything, or not."""
    n, points = np.shape(process.reward)
    counted = np.ones((roots, 3, n))
    counted[:, 1, 0] = 0.0
    coefficient = rng.normal(size=(roots, 3, n)) * counted
    allowed = np.ones((roots, 3, process.controls), bool)
    allowed[:, 2, 0] = False
    root = rng.dirichlet(np.ones(points), roots) * rng.uniform(0.2, 1.0, (roots, 1))
    return TaskList([Tasks(root, coefficient, counted, allowed, 3)])


class _Known:
    """The answers of a problem, each asked for once: what follows a memory and a control."""

    def __init__(self, problem: Problem):
        self.problem, self.kept = problem, {}

    def __call__(self, memory: np.ndarray, control: int, period: int):
        key = memory.tobytes(), control, period
        if key not in self.kept:
            given = memory, control, period
            parts = self.problem.reward(*given), self.problem.likelihood(*given)
            self.kept[key] = (*parts, self.problem.step(memory, control).astype(np.int64))
        return self.kept[key]


def best_value(problem: Problem, task: Task) -> float:
    """W of a task with constant weights, by a walk over every history; unnormalised."""
    return _best(_Known(problem), task)


def attained_value(problem: Problem, task: Task, plan: AbstractPlan, number: int) -> float:
    """What a plan attains in a task, number `number`, by a walk over every history it leads to."""
    return _attained(_Known(problem), task, plan, number)


def _best(known: _Known, task: Task) -> float:
    start = np.asarray(known.problem.start(), np.int64)
    with jax.enable_x64(True):
        return _walk(known, task, None, 0, start, task.root, (), 0)


def _attained(known: _Known, task: Task, plan: AbstractPlan, number: int) -> float:
    start = np.asarray(known.problem.start(), np.int64)
    with jax.enable_x64(True):
        return _walk(known, task, plan, 0, start, task.root, (), number)


def _walk(
    known: _Known,
    task: Task,
    plan: AbstractPlan | None,
    period: int,
    memory: np.ndarray,
    belief: np.ndarray,
    history: tuple[tuple[int, int], ...],
    number: int,
) -> float:
    if period == known.problem.horizon or not belief.any():
        return 0.0
    controls = np.flatnonzero(task.allowed)
    if plan is not None:
        control = int(plan.act(Node(number, period, memory, belief, history)))
        assert control in controls, f"act() gave control {control}, the task allows {controls}"
        controls = np.array([control])
    found = []
    for control in controls:
        reward, following, after = known(memory, int(control), period)
        pay = float(task.weights @ reward @ belief)
        for z, column in enumerate(following):
            then = (*history, (int(control), z))
            pay += _walk(known, task, plan, period + 1, after, belief * column, then, number)
        found.append(pay)
    return max(found)


def check(
    solver: AbstractSolver, problems: int = 3, seed: int = 0, limits: Limits | None = None
) -> list[Solution]:
    """Try a solver on random problems of a few rounds, against brute force.

    Bounds must hold the true value of every task and not cross; where the status says exact they
    must be within rounding; a plan must use controls that its task allows, attain no less than
    `lower` says and what `value` says, at confidence 1; and asking twice must give one answer.

    **Arguments:** `problems`: how many, `seed`: which; `limits`: what is asked of the solver.

    **Returns:** what the solver found, problem by problem.

    **Raises:** `AssertionError` that names the problem, the task and both numbers.
    """
    limits, found = limits or Limits(), []
    for k in range(problems):
        rng = np.random.default_rng([seed, k])
        process = random_process(rng)
        tasks, problem = random_tasks(rng, process), pose(process)
        with jax.enable_x64(True):
            solution = solver.solve(problem, tasks, limits, False)
        for name in ("lower", "upper"):
            shape = np.shape(getattr(solution, name))
            assert shape == (len(tasks),), f"problem {k}: `{name}` has shape {shape}"
        known = _Known(problem)
        for number, task in enumerate(tasks):
            _check_task(f"problem {k}, task {number}", known, task, number, solution)
        found.append(solution)
    return found


def _check_task(where: str, known: _Known, task: Task, number: int, solution: Solution) -> None:
    true = _best(known, task)
    low, high = float(solution.lower[number]), float(solution.upper[number])
    assert low <= true + _SLACK, f"{where}: lower bound {low}, and the best value is {true}"
    assert high >= true - _SLACK, f"{where}: upper bound {high}, and the best value is {true}"
    assert low <= high + _SLACK, f"{where}: bounds {low} and {high} cross"
    if solution.status is Status.EXACT:
        assert high - low <= _SLACK, f"{where}: exact, and bounds {low} and {high}"
    attained = _attained(known, task, solution.plan, number)
    assert attained == _attained(known, task, solution.plan, number), (
        f"{where}: act() answers the same question in two ways"
    )
    if solution.confidence < 1:
        return
    assert attained >= low - _SLACK, f"{where}: the plan attains {attained}, below {low}"
    if solution.value is not None:
        said = float(solution.value[number])
        assert abs(attained - said) <= _SLACK, f"{where}: attains {attained}, `value` is {said}"
