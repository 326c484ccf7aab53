"""Every public name has an example in the reference, and the examples hold."""

import doctest
import inspect
import re

import pytest

import dynmech as dm
import solvers
from tests.helpers import ROOT

FOLDER = ROOT / "notebooks" / "book" / "examples"
PAGES = sorted(path for path in FOLDER.glob("*.md") if path.stem != "shared")
MODULES = (
    dm, dm.applications, dm.audit, dm.groves, dm.settlement, dm.plotting, dm.static, solvers,
)  # fmt: skip
BLOCK = re.compile(r"(?ms)^## (.*?)\n\n```pycon\n(.*?)^```$")


def examples(page):
    return [(names.split(", "), block) for names, block in BLOCK.findall(page.read_text())]


def public(module):
    names = getattr(module, "__all__", None) or [x for x in dir(module) if not x.startswith("_")]
    return [name for name in names if not inspect.ismodule(getattr(module, name))]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_every_public_name_has_an_example(module):
    given = {name: block for page in PAGES for names, block in examples(page) for name in names}
    names = public(module)
    assert len(names) > 6
    told = {name: getattr(module, name).__doc__ for name in names}
    assert [name for name in names if ">>>" not in told[name] and name not in given] == []
    unused = [name for name, block in given.items() if not re.search(rf"\.{name}\b", block)]
    assert unused == []


def test_no_example_is_of_a_name_that_is_gone():
    known = {name for module in MODULES for name in public(module)}
    assert {name for page in PAGES for names, _ in examples(page) for name in names} <= known


def run(block: str, names: dict, where: str) -> dict:
    test = doctest.DocTestParser().get_doctest(block, names, where, where, 0)
    assert test.examples
    runner = doctest.DocTestRunner()
    said: list[str] = []
    runner.run(test, out=said.append, clear_globs=False)
    assert runner.failures == 0, "".join(said)
    return test.globs


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_examples_hold(page, untyped):
    shared = (FOLDER / "shared.md").read_text().split("```pycon\n")[1].split("```")[0]
    start = run(shared, {}, "shared.md")
    for names, block in examples(page):
        run(block, dict(start), f"{page.name}: {', '.join(names)}")
