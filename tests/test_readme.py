"""The README's example runs as it stands, and names only what exists."""

import re

import dynmech as dm
from tests.helpers import ROOT


def test_example_runs(capsys):
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.S)
    assert len(block.strip().splitlines()) <= 20
    names: dict = {}
    exec(compile(block, "README.md", "exec"), names)
    printed = capsys.readouterr().out
    assert "incentives     HOLD" in printed
    assert "1983 USD" in printed
    assert names["chat"].period == 2


def test_commands_and_files_exist():
    text = (ROOT / "README.md").read_text()
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"(?:^|`)make ([a-z-]+)", text, flags=re.M):
        assert re.search(rf"^{target}:", makefile, flags=re.M), target
    for module in re.findall(r"python -m experiments\.(\w+)", text):
        assert (ROOT / "experiments" / f"{module}.py").exists() or (
            ROOT / "experiments" / module / "__main__.py"
        ).exists()
    for path in re.findall(r"`((?:dynmech|experiments|notebooks)/[\w./]+)`", text):
        assert (ROOT / path).exists(), path
    for picture in re.findall(r"\]\((\S+\.png)\)", text):
        assert (ROOT / picture).exists()


def test_names_in_the_tables_are_public():
    text = (ROOT / "README.md").read_text()
    for name in re.findall(r"`(?:dm\.)?([A-Z]\w+)`", text):
        places = (dm, dm.groves, dm.settlement)
        assert any(name in dir(place) for place in places), name
