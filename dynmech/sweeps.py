"""Sweeps: one figure over a grid of settings and seeds, on one core or many, restartable.

A *cell* is a function of settings and a seed that returns named numbers. Every seed is used at
every setting, so that differences between settings are paired: what both have in common (the
profiles drawn, the conversations simulated) cancels. A finished cell is a file named by what it
depends on; the same call goes on from there, whoever wrote it.
"""

import contextlib
import hashlib
import itertools
import json
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import equinox as eqx
import numpy as np

from dynmech import files
from dynmech._cells import Cell, Setting, Task, elsewhere, in_process
from dynmech._checks import path as as_path
from dynmech._checks import whole
from dynmech.errors import DynmechWarning, InvalidArgument, describe, import_extra, shown
from dynmech.files.writing import write
from solvers.files import read
from solvers.progress import Bar

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FORMAT = "dynmech sweep 2"
_MANIFEST = "sweep.json"


class Sweep(eqx.Module):
    """What a sweep found: one row a setting and seed.

    - `options`: names of the settings. `settings` (R,), `seeds` (R,): of each row, and the numbers
      found there, `numbers` (R, F), in the order of `measures` (F,).
    - `failures`: per cell that failed, its settings, its seed and what went wrong.
    """

    options: tuple[str, ...] = eqx.field(static=True)
    measures: tuple[str, ...] = eqx.field(static=True)
    settings: tuple[tuple[Setting, ...], ...] = eqx.field(static=True)
    seeds: tuple[int, ...] = eqx.field(static=True)
    numbers: np.ndarray
    failures: tuple[tuple[dict[str, Setting], int, str], ...] = eqx.field(static=True)

    def to_frame(self):
        """Labelled pandas table: one row a setting and seed."""
        pandas = import_extra("pandas", "experiments", "Sweep.to_frame")
        frame = pandas.DataFrame(list(self.settings), columns=list(self.options))
        frame["seed"] = self.seeds
        return frame.assign(**dict(zip(self.measures, self.numbers.T, strict=True)))

    def summary(self):
        """Labelled pandas table: per setting, means over seeds with standard errors, and counts."""
        pandas = import_extra("pandas", "experiments", "Sweep.summary")
        rows = []
        for setting in dict.fromkeys(self.settings):
            here = self.numbers[[k for k, one in enumerate(self.settings) if one == setting]]
            rows.append([*setting, len(here), *_moments(here)])
        return pandas.DataFrame(rows, columns=[*self.options, "seeds", *self._columns()])

    def differences(self, option: str, base: Setting):
        """Labelled pandas table: each value of an option less a base value, paired by seed.

        **Arguments:** `option`: name of a setting; `base`: the value that others are compared to,
        all other settings equal.

        **Raises:** `InvalidArgument` for an option or a value that the sweep does not have.
        """
        pandas = import_extra("pandas", "experiments", "Sweep.differences")
        call = "Sweep.differences({}=...)".format
        if option not in self.options:
            must = f"be one of {', '.join(self.options)}"
            raise InvalidArgument(describe(call("option"), must, option))
        at = self.options.index(option)
        values = list(dict.fromkeys(setting[at] for setting in self.settings))
        if base not in values:
            must = f"be one of {', '.join(map(repr, values))}"
            raise InvalidArgument(describe(call("base"), must, shown(base)))
        found = dict(zip(zip(self.settings, self.seeds, strict=True), self.numbers, strict=True))
        rows = []
        for setting in dict.fromkeys(self.settings):
            other = (*setting[:at], base, *setting[at + 1 :])
            pairs = [
                numbers - found[other, seed]
                for (one, seed), numbers in found.items()
                if one == setting and (other, seed) in found
            ]
            if setting[at] != base and pairs:
                rows.append([*setting, len(pairs), *_moments(np.array(pairs))])
        return pandas.DataFrame(rows, columns=[*self.options, "seeds", *self._columns()])

    def plot(self, option: str, measures: str | Sequence[str] | None = None) -> "Figure":
        """Draw means over seeds against an option, with intervals of two standard errors.

        **Arguments:** `option`: on the axis; `measures`: which to draw, a panel each, all by
        default. Other options are lines of their own.

        **Raises:** `InvalidArgument` for names that the sweep does not have.
        """
        from dynmech.plotting.style import PALETTE, bare, new_figure, plain

        call = "Sweep.plot({}=...)".format
        names = (measures,) if isinstance(measures, str) else tuple(measures or self.measures)
        for name, given, known in (
            ("option", (option,), self.options), ("measures", names, self.measures),
        ):  # fmt: skip
            wrong = [one for one in given if one not in known]
            if wrong:
                must = f"be of {', '.join(known)}"
                raise InvalidArgument(describe(call(name), must, ", ".join(wrong)))
        frame, columns = self.summary(), min(3, len(names))
        rows = -(-len(names) // columns)
        figure, grid = new_figure(
            "Sweep.plot", 1.0 + 3.6 * columns, 0.6 + 2.8 * rows,
            nrows=rows, ncols=columns, squeeze=False,
        )  # fmt: skip
        rest = [other for other in self.options if other != option]
        lines = frame.groupby(rest, sort=False) if rest else [((), frame)]
        for k, (key, part) in enumerate(lines):
            label = ", ".join(f"{n} {v}" for n, v in zip(rest, key, strict=True))
            for name, axes in zip(names, grid.flat, strict=False):
                axes.errorbar(
                    part[option], part[name], 2 * part[f"{name}_error"].fillna(0.0),
                    color=PALETTE[k % len(PALETTE)], label=plain(label), marker="o", ms=4,
                    capsize=3, lw=1.5,
                )  # fmt: skip
        for name, axes in zip(names, grid.flat, strict=False):
            axes.set_title(plain(name), loc="left", fontsize=11)
            axes.set_xlabel(plain(option))
            bare(axes, "left", "bottom")
        for axes in grid.flat[len(names) :]:
            axes.set_visible(False)
        if rest:
            grid[0, 0].legend(frameon=False, fontsize=9)
        return figure

    def _columns(self) -> list[str]:
        return [column for name in self.measures for column in (name, f"{name}_error")]


def sweep(
    cell: Cell,
    grid: Mapping[str, Iterable[Setting]],
    *,
    seeds: int | Iterable[int] = 8,
    folder: str | Path | None = None,
    workers: int = 1,
    executor: Executor | Any | None = None,
    progress: bool = True,
) -> Sweep:
    """Compute a cell at every combination of a grid and at every seed.

    **Arguments**

    - `cell`: a function called as `cell(seed=..., **settings)` that returns named finite numbers,
      the same names everywhere. With workers it must be importable: defined in a module.
    - `grid`: name of a setting to its values: numbers, strings, booleans or None.
    - `seeds`: how many (0, 1, ...), or which. Every setting gets the same ones.
    - `folder`: where finished cells are kept, one file each; the same call resumes, and several
      may work on one folder. None keeps nothing.
    - `workers`: local processes. `executor`: instead, whatever has `submit(function, *given)` that
      returns something with `result()`: an `Executor`, or `submitit.AutoExecutor(...)` for a
      cluster, whose workers see `folder`.
    - `progress`: show a bar when it takes more than two seconds.

    **Returns:** `Sweep`. Cells that fail are named in `.failures` and warned of; others go on. A
    cell whose process dies is tried once more, by itself.

    **Raises:** `InvalidArgument`: a grid that is empty, values that cannot be told apart, a folder
    of another sweep, no cell that could be computed.

    ```python
    >>> import dynmech as dm
    >>> def cell(seed, noise):
    ...     draws = np.random.default_rng(seed).normal(size=100)
    ...     return {"mean": float((1.0 + noise * draws).mean())}
    >>> found = dm.sweep(cell, {"noise": [0.5, 1.0]}, seeds=4)
    >>> found.summary()[["noise", "seeds"]].to_numpy().tolist()
    [[0.5, 4.0], [1.0, 4.0]]
    >>> (found.differences("noise", 0.5)["mean_error"] < found.summary()["mean_error"].max()).item()
    True

    ```
    """
    options, settings, numbers = _read(cell, grid, seeds)
    workers = whole(1)("sweep(workers=...)", workers)
    if executor is not None and not callable(getattr(executor, "submit", None)):
        must = "have submit(function, *given), as an Executor of concurrent.futures"
        raise InvalidArgument(describe("sweep(executor=...)", must, shown(executor)))
    mark = files.mark_of(cell)
    place = None if folder is None else _claim(as_path("sweep(folder=...)", folder), cell, mark)
    tasks = [(setting, seed) for setting in settings for seed in numbers]
    paths = {task: _file(place, options, mark, *task) for task in tasks}
    done = {task: found for task in tasks if (found := _kept(paths[task])) is not None}
    waiting, failed = [task for task in tasks if task not in done], {}

    def finish(task: Task, found: dict[str, float] | str) -> None:
        if isinstance(found, str):
            failed[task] = found
            return
        done[task], path = found, paths[task]
        if path is not None:
            content = {"settings": dict(zip(options, task[0], strict=True)), "seed": task[1]}
            content = {"format": _FORMAT, "cell": path.stem, **content, "numbers": found}
            write(path, json.dumps(files.sealed(content)), call="sweep(folder=...)")

    with Bar("sweep", "cell", progress, len(waiting)) as bar:
        run = in_process if workers == 1 and executor is None else elsewhere
        for task, found in run(cell, options, waiting, workers, executor):
            finish(task, found)
            bar(1)
    return _collect(options, tasks, done, failed)


def _read(
    cell: object, grid: object, seeds: object
) -> tuple[tuple[str, ...], list[tuple[Setting, ...]], list[int]]:
    call = "sweep({}=...)".format
    if not callable(cell):
        must = "be a function cell(seed=..., **settings) of named numbers"
        raise InvalidArgument(describe(call("cell"), must, shown(cell)))
    if not isinstance(grid, Mapping) or not grid:
        must = "be a mapping from names of settings to their values"
        raise InvalidArgument(describe(call("grid"), must, shown(grid)))
    values = []
    for name, given in grid.items():
        if not isinstance(name, str) or name == "seed":
            must = "name its settings by strings other than 'seed'"
            raise InvalidArgument(describe(call("grid"), must, shown(name)))
        here = [x.item() if isinstance(x, np.generic) else x for x in _listed(name, given)]
        fits = all(isinstance(x, bool | int | float | str | None) for x in here)
        finite = fits and all(not isinstance(x, float) or math.isfinite(x) for x in here)
        if not here or not finite or len({json.dumps(x) for x in here}) < len(here):
            must = f"give {name!r} finite numbers, strings, booleans or None, each once"
            raise InvalidArgument(describe(call("grid"), must, shown(here)))
        values.append(here)
    if isinstance(seeds, int | np.integer) and not isinstance(seeds, bool):
        numbers = list(range(whole(1)(call("seeds"), seeds)))
    else:
        numbers = [whole(0)(call("seeds"), seed) for seed in _listed("seeds", seeds)]
        if not numbers or len(set(numbers)) < len(numbers):
            must = "be a number of seeds, or different seeds"
            raise InvalidArgument(describe(call("seeds"), must, shown(numbers)))
    return tuple(grid), list(itertools.product(*values)), numbers


def _listed(name: str, given: object) -> list[Any]:
    try:
        if not isinstance(given, str | bytes):
            return list(cast("Iterable[Any]", given))
    except TypeError:  # arrays of no axis say so when they are read
        pass
    call = "sweep(seeds=...)" if name == "seeds" else "sweep(grid=...)"
    raise InvalidArgument(describe(call, f"list the values of {name!r}", shown(given)))


def _claim(folder: Path, cell: Cell, mark: str) -> Path:
    """The folder, with the mark of this sweep on it, or `InvalidArgument` where another's is."""
    call, name = "sweep(folder=...)", getattr(cell, "__qualname__", type(cell).__qualname__)
    manifest = folder / _MANIFEST
    text = json.dumps({"format": _FORMAT, "cell": name, "mark": mark})
    with contextlib.suppress(FileExistsError):  # of another worker, maybe just now: read it
        write(manifest, text, call=call, fresh=True)
    try:
        held = json.loads(read(manifest))
    except (OSError, ValueError, RecursionError):
        held = {}
    held = held if isinstance(held, dict) else {}
    if held.get("mark") != mark:
        must = "be a folder of this sweep alone"
        got = f"{folder}, of {held.get('cell', 'something else')!r} as it was then"
        raise InvalidArgument(describe(call, must, got, "choose another folder, or delete it"))
    return folder


def _file(
    folder: Path | None, options: Sequence[str], mark: str, setting: tuple[Setting, ...], seed: int
) -> Path | None:
    if folder is None:
        return None
    content = json.dumps([mark, dict(zip(options, setting, strict=True)), seed], sort_keys=True)
    return folder / f"{hashlib.sha256(content.encode()).hexdigest()[:24]}.json"


def _kept(path: Path | None) -> dict[str, float] | None:
    """The numbers of a finished cell; None where there are none, or they are not whole."""
    try:
        held = json.loads(read(path)) if path is not None else {}
    except (OSError, ValueError, RecursionError):
        return None
    if path is None or not isinstance(held, dict) or not files.is_whole(held):
        return None
    mine = held.get("format") == _FORMAT and held.get("cell") == path.stem
    return held["numbers"] if mine else None


def _collect(
    options: tuple[str, ...],
    tasks: list[Task],
    done: dict[Task, dict[str, float]],
    failed: dict[Task, str],
) -> Sweep:
    ordered = [task for task in tasks if task in done]
    if not ordered:
        setting, seed = tasks[0]
        where = ", ".join(f"{n}={v!r}" for n, v in zip(options, setting, strict=True))
        got = f"at {where}, seed={seed}: {failed[setting, seed]}"
        must = "return named finite numbers at some setting"
        raise InvalidArgument(describe("sweep(cell=...)", must, got))
    measures = tuple(done[ordered[0]])
    for task in ordered:
        if set(done[task]) != set(measures):
            failed[task] = f"it returned {sorted(done[task])}, others {sorted(measures)}"
    ordered = [task for task in ordered if task not in failed]
    failures = tuple(
        (dict(zip(options, setting, strict=True)), seed, failed[setting, seed])
        for setting, seed in tasks
        if (setting, seed) in failed
    )
    if failures:
        settings, seed, why = failures[0]
        text = f"{len(failures)} of {len(tasks)} cells failed, the first at {settings}, "
        text += f"seed {seed}: {why}; see `.failures`, and call again to try them again"
        warnings.warn(text, DynmechWarning, stacklevel=3)
    numbers = np.array([[done[task][name] for name in measures] for task in ordered], float)
    settings, seeds = zip(*ordered, strict=True)
    return Sweep(options, measures, settings, seeds, numbers, failures)


def _moments(numbers: np.ndarray) -> list[float]:
    """Mean and standard error of every column in turn; NaN errors of a single row."""
    mean, count = numbers.mean(axis=0), len(numbers)
    error = np.full_like(mean, np.nan)
    if count > 1:
        error = numbers.std(axis=0, ddof=1) / count**0.5
    return [x for pair in zip(mean.tolist(), error.tolist(), strict=True) for x in pair]
