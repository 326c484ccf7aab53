"""The rules of the house, on the source tree itself: who imports whom, what a class may be."""

import ast
import importlib
import inspect
import os
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType

import equinox as eqx
import pytest

from solvers.host import Record
from tests.helpers import ROOT

PACKAGES = ("dynmech", "solvers")
PLAIN = (eqx.Module, Record)  # what every module extends
EXTRAS = ("matplotlib", "pandas", "pyblp", "rich", "tyro", "xlogit")
SLOW_TO_IMPORT = ("scipy.stats",)
LONGEST_FILE = 400
ECONOMICS = re.compile(
    r"(?<![a-z])(advertiser|payment|theta|groves|purchase)s?(?![a-z])", re.IGNORECASE
)
# Written so that this file does not match itself.
MACHINE_PATH = re.compile(r"(?<![\w.~$}])/(home|Users|wor[k]|far[m]|tm[p]|roo[t]|mnt|opt)/\w")
TEXT = {".cfg", ".csv", ".ipynb", ".json", ".md", ".py", ".sh", ".toml", ".txt", ".yaml", ".yml"}
NOT_SOURCE = {"build", "dist", "results", "node_modules"}


def python_files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def trees(*folders: str) -> Iterator[tuple[Path, ast.Module]]:
    for path in python_files(*folders):
        yield path.relative_to(ROOT), ast.parse(path.read_text(encoding="utf-8"))


def imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the line and the dotted name of everything imported, at any depth."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def called(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the line and the dotted name, as written, of everything called."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield node.lineno, ast.unparse(node.func)


def module_names() -> list[str]:
    found = []
    for package in PACKAGES:
        folder = str(ROOT / package)
        found += [package, *(m.name for m in pkgutil.walk_packages([folder], f"{package}."))]
    return sorted(found)


def our_modules() -> list[type]:
    """Return every `eqx.Module` subclass defined in the packages, each once."""
    for name in module_names():
        importlib.import_module(name)
    found, stack = [], [eqx.Module]
    while stack:
        for cls in stack.pop().__subclasses__():
            stack.append(cls)
            if cls.__module__.split(".")[0] in PACKAGES and cls not in found:
                found.append(cls)
    return found


def is_abstract(cls: type) -> bool:
    waiting = ("__abstractmethods__", "__abstractvars__", "__abstractclassvars__")
    return any(getattr(cls, name, None) for name in waiting)


def is_method(member: object) -> bool:
    return isinstance(member, FunctionType | property | classmethod | staticmethod) or (
        callable(member) and hasattr(member, "__wrapped__")  # a jitted method, for one
    )


@pytest.mark.parametrize("name", module_names())
def test_every_module_imports(name):
    importlib.import_module(name)


def test_solvers_never_imports_the_floors_above():
    above = {"dynmech", "experiments", "tests", "notebooks"}
    bad = [
        f"{path}:{line} imports {name}"
        for path, tree in trees("solvers")
        for line, name in imported(tree)
        if name.split(".")[0] in above
    ]
    assert not bad, bad


def import_graph(package: str) -> dict[str, set[str]]:
    """Modules of a package, and those that each names in any import: late, or of types alone."""
    paths = {".".join(path.with_suffix("").parts): path for path, _ in trees(package)}
    paths = {name.removesuffix(".__init__"): path for name, path in paths.items()}
    found = {}
    for name, path in paths.items():
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        named = {target for _, target in imported(tree)}
        named |= {target.rpartition(".")[0] for target in named - set(paths)}
        found[name] = (named & set(paths)) - {name}
    return found | {package: set()}  # the list of public names names everything


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_have_no_circle(package):
    waiting = import_graph(package)
    while free := {name for name, needs in waiting.items() if not needs & set(waiting)}:
        waiting = {name: needs for name, needs in waiting.items() if name not in free}
    assert not waiting, waiting


def test_each_room_uses_those_above_it_alone():
    """The table of rooms in CONTRIBUTING.md, from top to bottom."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rooms = re.findall(r"(?m)^\| `(\w+)/` \|", text)
    folders = {
        path.name for path in (ROOT / "dynmech").iterdir() if (path / "__init__.py").exists()
    }
    assert set(rooms) == folders
    bad = [
        f"{name} imports {needed}"
        for name, needs in import_graph("dynmech").items()
        for needed in needs
        if name.count(".") > 0 and needed.count(".") > 0
        for here, there in [(name.split(".")[1], needed.split(".")[1])]
        if here in rooms and there in rooms and rooms.index(there) > rooms.index(here)
    ]
    assert not bad, bad


def test_dynmech_never_imports_experiments():
    bad = [
        f"{path}:{line} imports {name}"
        for path, tree in trees("dynmech")
        for line, name in imported(tree)
        if name.split(".")[0] in {"experiments", "tests", "notebooks"}
    ]
    assert not bad, bad


def test_experiments_use_public_names_of_dynmech_only():
    bad = [
        f"{path}:{line} imports {name}"
        for path, tree in trees("experiments")
        for line, name in imported(tree)
        if name.split(".")[0] == "solvers"
        or (name.startswith("dynmech.") and re.search(r"\._[a-z]", name))
    ]
    assert not bad, bad


def test_solvers_speaks_no_economics():
    bad = [
        f"{path.relative_to(ROOT)}:{number} says {match.group()}"
        for path in python_files("solvers")
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if (match := ECONOMICS.search(line))
    ]
    assert not bad, bad


@pytest.mark.parametrize("package", PACKAGES)
def test_import_is_light(package):
    names = [*EXTRAS, *SLOW_TO_IMPORT]
    code = f"import sys, {package}; print([n for n in {names!r} if n in sys.modules])"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_late_names_are_those_that_type_checkers_see():
    """A package whose names load on first use names them twice; both lists must agree."""
    source = (ROOT / "dynmech" / "__init__.py").read_text(encoding="utf-8")
    block = next(node for node in ast.parse(source).body if isinstance(node, ast.If))
    seen = {
        alias.asname: (node.module, alias.name)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    package = importlib.import_module("dynmech")
    assert set(package.__all__) == set(seen)
    listed = {name for name in dir(package) if not name.startswith("_")}
    assert listed < set(seen)
    assert 50 <= len(listed) <= 70  # what one begins with; the rest is in the reference
    for name, (module, there) in seen.items():
        if module == "dynmech":
            assert getattr(package, name) is importlib.import_module(f"dynmech.{name}")
        else:
            assert getattr(package, name) is getattr(importlib.import_module(module), there)
    with pytest.raises(AttributeError, match="'dynmech' has no attribute 'nothing'"):
        _ = package.nothing


def test_importing_dynmech_loads_no_numerics():
    code = (
        "import sys, dynmech; print([n for n in ('jax', 'numpy', 'solvers') if n in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout.strip() == "[]"


def test_classes_are_abstract_or_final():
    ours = our_modules()
    bad = [
        f"{cls.__qualname__} extends {base.__qualname__}, which is concrete"
        for cls in ours
        for base in cls.__mro__[1:]
        if issubclass(base, eqx.Module) and base not in PLAIN and not is_abstract(base)
    ]
    assert ours
    assert not bad, bad


def test_no_concrete_method_is_overridden():
    bad = []
    for cls in our_modules():
        for name, member in vars(cls).items():
            if (name.startswith("__") and name != "__call__") or not is_method(member):
                continue
            for base in cls.__mro__[1:]:
                inherited = vars(base).get(name)
                if (
                    base not in {object, *PLAIN}
                    and is_method(inherited)
                    and not getattr(inherited, "__isabstractmethod__", False)
                    and not getattr(inherited, "has_default", False)
                ):
                    bad.append(f"{cls.__qualname__}.{name} overrides {base.__qualname__}.{name}")
    assert not bad, bad


def test_packages_call_neither_super_nor_hasattr():
    bad = [
        f"{path}:{line} calls {name}"
        for path, tree in trees(*PACKAGES)
        for line, name in called(tree)
        if name in {"super", "hasattr"}
    ]
    assert not bad, bad


def test_packages_set_no_configuration():
    sets = re.compile(
        r"(^|\.)config\.update$|environ\.(update|setdefault|pop|popitem|clear)$"
        r"|(^|\.)(putenv|unsetenv)$"
    )
    bad = [
        f"{path}:{line} calls {name}"
        for path, tree in trees(*PACKAGES)
        for line, name in called(tree)
        if sets.search(name) and path.name != "_programs.py"  # whose one function users call for it
    ]
    bad += [
        f"{path}:{node.lineno} writes {ast.unparse(node)}"
        for path, tree in trees(*PACKAGES)
        for node in ast.walk(tree)
        if isinstance(node, ast.Subscript)
        and not isinstance(node.ctx, ast.Load)
        and ast.unparse(node.value).endswith("environ")
    ]
    assert not bad, bad


def test_files_are_short():
    lengths = {
        path: len(path.read_text(encoding="utf-8").splitlines())
        for path in python_files("dynmech", "solvers", "experiments", "tests")
    }
    bad = {str(path.relative_to(ROOT)): n for path, n in lengths.items() if n > LONGEST_FILE}
    assert not bad, bad


def test_public_names_are_documented():
    bad = []
    for package in PACKAGES:
        module = importlib.import_module(package)
        for name in getattr(module, "__all__", None) or dir(module):
            value = getattr(module, name)
            ours = getattr(value, "__module__", "").split(".")[0] in PACKAGES
            public = not name.startswith("_") and ours
            if public and (inspect.isclass(value) or callable(value)) and not value.__doc__:
                bad.append(f"{package}.{name}")
    assert not bad, bad


def test_tree_carries_no_path_of_one_machine():
    bad = []
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [
            name
            for name in folders
            if name not in NOT_SOURCE and (not name.startswith(".") or name == ".ci")
        ]
        for name in files:
            path = Path(folder, name)
            if path.suffix not in TEXT and name not in {"Makefile", "run", "LICENSE"}:
                continue
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                if match := MACHINE_PATH.search(line):
                    bad.append(f"{path.relative_to(ROOT)}:{number} {match.group()}")
    assert not bad, bad


def own_kinds() -> set[str]:
    """Concrete classes of what answers for itself, by name."""
    our_modules()
    import dynmech as dm

    bases = [
        dm.AbstractSolver, dm.AbstractPolicy, dm.AbstractActionRule, dm.AbstractChoice,
        dm.AbstractQuery, dm.AbstractGroves, dm.AbstractSettlement, dm.AbstractSettlementSignal,
        dm.AbstractFeedback, dm.AbstractInitialSignals, dm.AbstractCritic,
    ]  # fmt: skip
    found, stack = set(), list(bases)
    while stack:
        for cls in stack.pop().__subclasses__():
            stack.append(cls)
            if cls.__module__.split(".")[0] in PACKAGES and not is_abstract(cls):
                found.add(cls.__name__)
    return found


# Who asks all the same, and why.
ASKED = {
    ("dynmech/market/beside.py", "_cut_alike"): "cut points travel between readings of one kind",
}


def asks_for_kind(node: ast.AST, kinds: set[str]) -> bool:
    """Whether this is `isinstance`, `issubclass`, a class pattern or a comparison of classes."""
    if isinstance(node, ast.Call) and ast.unparse(node.func) in {"isinstance", "issubclass"}:
        return any(ast.unparse(x).split(".")[-1] in kinds for x in ast.walk(node.args[1]))
    if isinstance(node, ast.MatchClass):
        return ast.unparse(node.cls).split(".")[-1] in kinds
    if isinstance(node, ast.Compare):
        parts = [ast.unparse(x) for x in (node.left, *node.comparators)]
        plain = any(part in {"bool", "int", "str", "float", "dict", "tuple"} for part in parts)
        plain |= any(part.startswith(("(bool", "(tuple")) for part in parts)
        named = any(part.startswith("type(") or part.endswith("__name__") for part in parts)
        return named and not plain
    return isinstance(node, ast.Name | ast.Attribute) and ast.unparse(node).endswith(
        "singledispatch"
    )


def test_nothing_asks_for_a_kind():
    """Solvers, policies, rules, payments and feedback answer for themselves, one's own too."""
    kinds, found = own_kinds(), set()
    assert {"Neural", "LastShownOnly", "TabulatedFeedback", "Participation"} <= kinds
    for path, tree in trees(*PACKAGES):
        for function in ast.walk(tree):
            if not isinstance(function, ast.FunctionDef):
                continue
            if any(asks_for_kind(node, kinds) for node in ast.walk(function)):
                found.add((str(path), function.name))
    assert found == set(ASKED), found ^ set(ASKED)
