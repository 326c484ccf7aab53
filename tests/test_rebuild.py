"""Numbers of the pages are recorded with what makes them, and what moved is said."""

import datetime as dt
import json
import re

import pytest

from experiments._recorded import printed_like
from experiments.rebuild import Options, dated, read, rebuild
from tests.helpers import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "notebooks").glob("*.md"))]
CODE = re.compile(r"(?ms)^```.*?^```$")
CELL = re.compile(r"[-+−]?\d[\d.,%−+-]*( ?(s|ms|MB|min|%))?(, [-+−]?\d[\d.,%]*)*( min)?")


def test_pages_print_what_is_recorded():
    commands, passages = read()
    assert sum(len(one.printed) for one in passages) > 200
    for one in passages:
        page = (ROOT / one.page).read_text(encoding="utf-8")
        assert page.count(one.plain) == 1, one.says
        assert one.printed
        assert len(one.places()) == len(one.printed)
        module = one.command.split()[0]
        assert (ROOT / "experiments" / f"{module}.py").exists()
        assert one.table.startswith(f"{module}/")
        day = dt.date.fromisoformat(commands[one.command]["date"])
        assert dated(page, one.command, dt.date(1, 1, 1)) != page, f"{one.page}: {one.command}"
        assert dated(page, one.command, day) == page, f"{one.page}: {one.command}"
    assert {one.command for one in passages} == set(commands)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_number_of_a_table_is_recorded(page):
    """Cells that are numbers; what a page computes stands in its outputs, not in its text."""
    text = page.read_text(encoding="utf-8")
    name = str(page.relative_to(ROOT))
    for one in read()[1]:
        text = text.replace(one.plain, "recorded") if one.page == name else text
    rows = [line for line in CODE.sub("", text).splitlines() if line.startswith("|")]
    assert [row for row in rows if any(CELL.fullmatch(x.strip()) for x in row.split("|"))] == []


TEXT = """W is 0.25, revenue +1.50, share 12%, in 3 s. Made on 1 January 2026 by `python -m
experiments.made --up`."""


@pytest.fixture
def page(tmp_path):
    """A page of four numbers, one measured by a clock."""
    (tmp_path / "page.md").write_text(TEXT)
    row = {"command": "made --up", "table": "made/t.csv", "row": {"term": "a"}, "page": "page.md"}
    numbers = [
        {**row, "says": "W is {0.25}, revenue {+1.50},", "column": ["W", "revenue"]},
        {**row, "says": "share {12}%", "column": "share", "factor": 0.5},
        {**row, "says": "in {3} s", "column": "time", "share": 0.5},
    ]
    records = {"commands": {"made --up": {"date": "2026-01-01", "seconds": 1}}, "passages": numbers}
    (tmp_path / "numbers.json").write_text(json.dumps(records))
    return tmp_path


def runner(W=0.2512, revenue=1.4963, share=23.4, time=4.1):
    def run(command, results):
        assert command == "made --up"
        (results / "made").mkdir()
        rows = [
            "term,W [dollars],revenue [dollars],share [%],time [s]",
            f"a,{W},{revenue},{share},{time}",
            "b,9,9,9,9",
        ]
        (results / "made" / "t.csv").write_text("\n".join(rows))

    return run


def again(page, write=False, **found):
    return rebuild(Options((), write=write), page / "numbers.json", page, runner(**found))


def test_what_rounds_to_what_is_printed_has_not_moved(page, capsys):
    before = (page / "numbers.json").read_text()
    assert again(page) == 0
    assert "4 numbers, last made on 2026-01-01 in 1 s" in capsys.readouterr().out
    assert (page / "numbers.json").read_text() == before


def test_what_moved_is_said_and_written(page, capsys):
    found = {"W": -0.004, "revenue": 1.56, "time": 5.0}
    assert again(page, **found) == 3
    assert "'W is {0.25}, revenue {+1.50},' is -0.004, 1.56 now" in capsys.readouterr().out
    assert (page / "page.md").read_text() == TEXT
    assert again(page, write=True, **found) == 3
    text = (page / "page.md").read_text()
    assert text.startswith("W is 0.00, revenue +1.56, share 12%, in 5 s. Made on ")
    assert "1 January 2026" not in text
    assert "by `python -m\nexperiments.made --up`" in text
    assert again(page, **found) == 0
    made = json.loads((page / "numbers.json").read_text())["commands"]["made --up"]
    assert made["date"] > "2026-01-01"


def test_long_commands_are_left_out(page, capsys):
    options = Options((), 0.5, True)
    assert rebuild(options, page / "numbers.json", page, runner(W=9.0)) == 0
    assert "left out" in capsys.readouterr().out
    assert (page / "page.md").read_text() == TEXT


@pytest.mark.parametrize(
    ("like", "value", "says"),
    [
        ("10,000", 9116.2, "9,116"), (".39", 0.4561, ".46"), ("−0.50", -0.495, "−0.49"),
        ("2e-7", 3.14e-9, "3e-9"), ("+0.5", 0.04, "+0.0"), ("0.10", -0.001, "0.00"),
    ],
)  # fmt: skip
def test_what_moved_is_printed_as_it_was(like, value, says):
    assert printed_like(like, value) == says


def test_what_is_not_known_is_named(page):
    with pytest.raises(SystemExit, match="made --up"):
        rebuild(Options(("other",)), page / "numbers.json", page, runner())
    text = (page / "numbers.json").read_text().replace('"a"', '"c"')
    (page / "numbers.json").write_text(text)
    with pytest.raises(LookupError, match="0 rows"):
        again(page)
