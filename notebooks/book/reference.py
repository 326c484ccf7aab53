"""The reference: every public name, found with `dir`, its docstring read as Markdown.

    ```{public} verbs
    ```

lists a group of the names of `dynmech`, or, given the name of a module, the names of that one.
Every name is in a group, and every group has a page, so that the reference is whole.
"""

import importlib
import inspect
import re
from collections.abc import Callable
from functools import cache, cached_property
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

import dynmech

PACKAGES = ("dynmech", "solvers")
MODULE = "modules"
SOLVER = "solver"
TOOLS = "tools"
ROOMS = {
    "market": "market",
    "files": "market",
    "estimators": "estimators",
    "reduce": "policies",
    "policy": "policies",
    "solve": "policies",
    "payments": "mechanism",
    "mechanism": "mechanism",
    "play": "mechanism",
    "audit": "audit",
    "bounded": "audit",
    "logs": "logs",
}
GROUPS = ("verbs", *dict.fromkeys(ROOMS.values()), SOLVER, TOOLS, "errors", "bases", MODULE)


def group_of(name: str, thing: Any) -> str:
    """Say under which heading a name of `dynmech` stands."""
    if isinstance(thing, ModuleType):
        return MODULE
    if not inspect.isclass(thing):
        return "verbs"
    if issubclass(thing, Exception):
        return "errors"
    if name.startswith("Abstract"):
        return "bases"
    package, room, *_ = f"{thing.__module__}.".split(".")
    return SOLVER if package == "solvers" else ROOMS.get(room, TOOLS)


def names_of(where: str) -> list[tuple[str, str, Any]]:
    """Return the full name, the short name and the thing, for each name of a group or module."""
    inside = where not in GROUPS
    module = importlib.import_module(where) if inside else dynmech
    known = getattr(module, "__all__", None) or dir(module)
    found = [(name, getattr(module, name)) for name in sorted(known) if not name.startswith("_")]
    if inside:
        ours = [
            (name, thing)
            for name, thing in found
            if (inspect.isclass(thing) or inspect.isroutine(thing))
            and thing.__module__.split(".")[0] in PACKAGES
            and getattr(dynmech, name, None) is not thing
        ]
    else:
        ours = [(name, thing) for name, thing in found if group_of(name, thing) == where]
    return [(f"{module.__name__}.{name}", name, thing) for name, thing in ours]


def as_markdown(doc: str) -> str:
    """Fence the doctests of a docstring as what they are; the rest is Markdown already."""
    doc = re.sub(r"```python(?=\n>>>)", "```pycon", inspect.cleandoc(doc))
    parts = re.split(r"(?ms)^(```.*?^```)$", doc)
    bare = r"(?m)^>>> (?:.|\n)*?(?=\n\n|\Z)"
    parts[::2] = [re.sub(bare, lambda m: f"```pycon\n{m[0]}\n```", part) for part in parts[::2]]
    return "".join(parts)


def _default(value: Any) -> str:
    plain = value is None or isinstance(value, bool | int | float | str | tuple)
    return repr(value) if plain else f"{type(value).__name__}()"


def signature(thing: Callable) -> str:
    """Arguments with their defaults, without types: those are in the docstring."""
    try:
        found = inspect.signature(thing)
    except (ValueError, TypeError):
        return "()"
    empty = inspect.Parameter.empty
    plain = [
        p.replace(annotation=empty, default=empty if p.default is empty else _Shown(p.default))
        for name, p in found.parameters.items()
        if name not in {"self", "cls"}
    ]
    return str(inspect.Signature(plain))


class _Shown:
    def __init__(self, value: Any):
        self.value = value

    def __repr__(self) -> str:
        return _default(self.value)


def members(cls: type) -> list[tuple[str, str, Any]]:
    """Kind, name and object of every documented public member of the class itself."""
    found = []
    for name, raw in vars(cls).items():
        thing = getattr(raw, "__func__", raw)
        thing = getattr(thing, "__wrapped__", thing)
        if name.startswith("_") or not getattr(thing, "__doc__", None):
            continue
        if isinstance(raw, property | cached_property):
            found.append(("property", name, raw))
        elif isinstance(thing, FunctionType):
            kind = {classmethod: "classmethod", staticmethod: "staticmethod"}
            found.append((kind.get(type(raw), "method"), name, thing))
    return found


@cache
def examples() -> dict[str, str]:
    """The example of each name that has one of its own page, as fenced doctests.

    A heading of `examples/*.md` lists the names that the block under it is for.
    """
    found = {}
    for path in sorted((Path(__file__).parent / "examples").glob("*.md")):
        for names, block in re.findall(r"(?ms)^## (.*?)\n\n(```pycon\n.*?^```)$", path.read_text()):
            found |= dict.fromkeys(names.split(", "), block)
    return found


def describe(full: str, thing: Any) -> list[str]:
    """One name as a directive of the Python domain, in Markdown."""
    doc = as_markdown(thing.__doc__ or "")
    if (own := examples().get(full.rsplit(".", 1)[-1])) is not None:
        doc += f"\n\n**Example**\n\n{own}"
    if not inspect.isclass(thing):
        return [f":::::{{py:function}} {full}{signature(thing)}", doc, ":::::", ""]
    kind = "exception" if issubclass(thing, Exception) else "class"
    args = (
        ""
        if kind == "exception" or full.rsplit(".", 1)[-1].startswith("Abstract")
        else signature(thing)
    )
    lines = [f"::::::{{py:{kind}}} {full}{args}", doc, ""]
    for what, name, member in members(thing):
        options = "" if what in {"method", "property"} else f":{what}:\n"
        directive = "property" if what == "property" else "method"
        args = "" if what == "property" else signature(member)
        lines += [
            f":::::{{py:{directive}}} {name}{args}",
            options,
            as_markdown(member.__doc__),
            ":::::",
            "",
        ]
    return [*lines, "::::::", ""]


class Public(SphinxDirective):
    """`{public} GROUP` or `{public} MODULE`."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        where = self.arguments[0]
        lines = []
        for full, _, thing in names_of(where):
            lines += describe(full, thing)
        if not lines:
            raise self.error(f"the reference finds nothing under {where}")
        self.env.note_dependency(__file__)
        return self.parse_text_to_nodes("\n".join(lines))


def check_whole(app: Sphinx) -> None:
    """Raise unless every group, and every public module, has its page."""
    pages = "".join(p.read_text() for p in (Path(app.srcdir) / "reference").glob("*.md"))
    modules = [full for full, name, _ in names_of(MODULE) if name != "audit"]  # its own group
    missing = [x for x in (*GROUPS[:-1], *modules, "solvers") if f"{{public}} {x}\n" not in pages]
    if missing:
        raise ExtensionError(f"no page of the reference lists {', '.join(missing)}")


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", check_whole)
    app.add_directive("public", Public)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
