"""Numbers of the pages are recorded with what makes them, and what moved is said."""

import json

import pytest

from experiments.rebuild import Options, read, rebuild
from tests.helpers import ROOT


def test_pages_print_what_is_recorded():
    commands, numbers = read()
    assert len(numbers) > 20
    for number in numbers:
        page = (ROOT / number.page).read_text(encoding="utf-8")
        assert page.count(number.words) == 1, number.says
        assert number.command in commands
        module = number.command.split()[0]
        assert (ROOT / "experiments" / f"{module}.py").exists()
    assert {number.command for number in numbers} == set(commands)


@pytest.fixture
def page(tmp_path):
    """A page of four numbers, one measured by a clock."""
    (tmp_path / "page.md").write_text("W is 0.25, revenue +1.50, share 12%, in 3 s.")
    row = {"command": "made --up", "table": "made/t.csv", "row": {"term": "a"}, "page": "page.md"}
    numbers = [
        {**row, "says": "W is {0.25},", "column": "W"},
        {**row, "says": "revenue {+1.50},", "column": "revenue"},
        {**row, "says": "share {12}%", "column": "share"},
        {**row, "says": "in {3} s", "column": "time", "share": 0.5},
    ]
    records = {"commands": {"made --up": {"date": "2026-01-01", "seconds": 1}}, "numbers": numbers}
    (tmp_path / "numbers.json").write_text(json.dumps(records))
    return tmp_path


def runner(W=0.2512, revenue=1.4963, share=11.6, time=4.1):
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
    return rebuild(Options((), write), page / "numbers.json", page, runner(**found))


def test_what_rounds_to_what_is_printed_has_not_moved(page, capsys):
    before = (page / "numbers.json").read_text()
    assert again(page) == 0
    assert "4 numbers, last made on 2026-01-01" in capsys.readouterr().out
    assert (page / "numbers.json").read_text() == before


def test_what_moved_is_said_and_written(page, capsys):
    found = {"W": -0.004, "revenue": 1.56, "time": 5.0}
    assert again(page, **found) == 3
    assert "'W is {0.25},' is -0.004 now" in capsys.readouterr().out
    assert "0.25" in (page / "page.md").read_text()
    assert again(page, write=True, **found) == 3
    assert (page / "page.md").read_text() == "W is 0.00, revenue +1.56, share 12%, in 5 s."
    assert again(page, **found) == 0
    made = json.loads((page / "numbers.json").read_text())["commands"]["made --up"]
    assert made["date"] > "2026-01-01"


def test_what_is_not_known_is_named(page):
    with pytest.raises(SystemExit, match="made --up"):
        rebuild(Options(("other",)), page / "numbers.json", page, runner())
    text = (page / "numbers.json").read_text().replace('"a"', '"c"')
    (page / "numbers.json").write_text(text)
    with pytest.raises(LookupError, match="0 rows"):
        again(page)
