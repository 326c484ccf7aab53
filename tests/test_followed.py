"""Pages as they are followed in a fresh environment: no cell is lost, and each can be run."""

import pytest

from experiments.followed import cells, pages

PAGES = pages()


@pytest.mark.parametrize("name", PAGES)
def test_no_cell_of_a_page_is_lost(name):
    found, text = cells(PAGES[name]), PAGES[name].read_text(encoding="utf-8")
    if PAGES[name].suffix == ".md":
        assert len(found) == text.count("\n```py" if name == "README" else "\n```{code-cell}")
    compile("\n\n".join(found), name, "exec")


def test_the_readme_and_the_second_page_are_followed():
    assert "long_work" not in PAGES  # shows code that needs a cluster, and runs none
    assert {"README", "first_conversation", "mechanism", "demo_market"} <= set(PAGES)
    assert any('read_market("tents")' in cell for cell in cells(PAGES["mechanism"]))
    assert any(".audit(" in cell for cell in cells(PAGES["mechanism"]))
