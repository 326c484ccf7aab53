"""The page in a real browser: what a reader sees is what the library says."""

import re
import shutil

import pytest

import dynmech as dm
from tests.helpers.explorer import data_of, plain

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium is installed")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    mechanism = plain()
    path = tmp_path_factory.mktemp("page") / "page.html"
    dm.report(mechanism, path, unit="dollars")
    return mechanism, path


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def opened(browser, made):
    """Open the page, at an address, in a context; nothing may be complained of or asked for."""
    said, contexts = [], []

    def go(address: str = "", **settings):
        context = browser.new_context(offline=True, **settings)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(5000)
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda asked: said.append(asked.url))
        page.goto(made[1].as_uri() + address)
        assert said.pop(0) == made[1].as_uri()
        return page

    yield go
    for context in contexts:
        context.close()
    assert said == []


def part(page, name: str):
    return page.locator(f'[data-part="{name}"]')


def bill_of(page) -> dict[str, list[str]]:
    rows = part(page, "bill").locator("tbody tr").all()
    return {x.locator("th").inner_text(): x.locator("td").all_inner_texts() for x in rows}


def near(text: str, number: float) -> bool:
    return float(text) == pytest.approx(number, rel=6e-4, abs=1e-9)


def test_a_conversation_played_by_keys_pays_what_the_library_settles(opened, made):
    mechanism, page = made[0], opened()
    names, chat = mechanism.policy.env.names, mechanism.policy.start(profile=0)
    why = mechanism.policy.explain(chat)
    now = part(page, "now").inner_text()
    assert f"Recommended\n{names[chat.recommendation]}" in now
    numbers = [float(x) for x in re.findall(r"(-?[\d.e-]+) dollars", now)]
    assert numbers == pytest.approx([chat.value, why.lead, why.learning], rel=6e-4)
    first = data_of(made[1].read_text(encoding="utf-8"))["reports"][0]["nodes"][0]
    part(page, "choices").locator("button").first.focus()
    page.keyboard.press("2")
    chat = chat.step("query", first["answers"][1][0])
    assert f"Recommended\n{names[chat.recommendation]}" in part(page, "now").inner_text()
    assert page.evaluate("document.activeElement.tagName") == "BUTTON"  # the focus was not lost
    page.get_by_role("button", name=f"She buys {names[chat.recommendation]}").press("Enter")
    slider = page.get_by_role("slider", name="Her rating afterwards")
    for key in ("Home", "ArrowRight", "End"):
        slider.press(key)
        rating = float(slider.input_value())
        paid = mechanism.settle(chat.step(chat.recommendation), estimate=rating).transfer
        found = bill_of(page)
        assert all(near(found[x][3], money) for x, money in zip(names, paid.sum(axis=0)))
    address = page.evaluate("window.location.hash")
    page.keyboard.press("Tab")
    part(page, "back").press("ArrowLeft")
    assert bill_of(page) == {}
    again = opened(address)  # the same place, from its address alone
    assert bill_of(again) == found
    assert float(again.get_by_role("slider").input_value()) == rating


def test_what_if_another_value_is_reported(opened, made):
    mechanism, page = made[0], opened()
    names, told = mechanism.policy.env.names, page.get_by_label("What is reported")
    values = data_of(made[1].read_text(encoding="utf-8"))["reports"][2]["theta"]
    told.select_option("2")
    part(page, "choices").get_by_role("button", name="She leaves").click()
    chat = mechanism.policy.start(dict(zip(names, values)), (0, 0, 0)).step("exit")
    paid = mechanism.settle(chat).transfer.sum(axis=0)
    assert all(near(bill_of(page)[x][3], money) for x, money in zip(names, paid))
    assert page.evaluate("window.location.hash").startswith("#play=2!")
    page.get_by_role("button", name="Start again").click()
    assert told.input_value() == "0"


@pytest.mark.parametrize("address", ["#play=9", "#play=0.7", "#play=0!99", "#nonsense"])
def test_an_address_that_leads_nowhere_shows_the_beginning(opened, address):
    page = opened(address)
    assert "1 of at most 2" in part(page, "now").inner_text()


def test_it_is_read_in_the_dark_on_a_narrow_screen_and_aloud(opened):
    light, dark = opened(), opened(color_scheme="dark", viewport={"width": 360, "height": 740})
    paper = [x.evaluate("getComputedStyle(document.body).backgroundColor") for x in (light, dark)]
    assert paper == ["rgb(255, 255, 255)", "rgb(22, 24, 28)"]
    assert dark.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert light.locator("svg").count() == light.get_by_role("img").count() == 3
    for picture in light.get_by_role("img").all():
        assert len(picture.get_attribute("aria-label")) > 20
    for control in light.locator("button, select, input").all():
        assert control.evaluate("x => x.innerText || x.labels.length > 0")
    assert light.get_by_role("status").count() == 2
    name = "x => { x.textContent = 'w'.repeat(200) }"  # the numbers beside it stay in sight
    light.locator("td:first-child").evaluate_all(f"all => all.forEach({name})")
    sections = light.locator("section").all()
    assert sections
    assert all(x.evaluate("x => x.scrollWidth <= x.clientWidth") for x in sections)


RENDER = """async ([source, body, data]) => {
  const address = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
  const { default: widget } = await import(address);
  const el = document.body.appendChild(document.createElement("div"));
  return typeof widget.render({ model: { get: (name) => ({ body, data })[name] }, el });
}"""


def test_the_widget_is_played_like_the_page(browser, made):
    """As a notebook does: twice on one page, each with a part of its own."""
    pytest.importorskip("anywidget")
    page = browser.new_page()
    page.set_default_timeout(5000)
    for _ in range(2):
        widget = dm.explore(made[0], unit="dollars")
        given = [widget._esm, widget.body, widget.data]
        assert page.evaluate(RENDER, given) == "function"  # called when the cell goes
    first, second = (page.locator(".dynmech-report").nth(k) for k in range(2))
    first.get_by_role("button", name="She leaves").click()
    assert first.locator('[data-part="bill"] table').count() == 1
    assert second.locator('[data-part="bill"] table').count() == 0
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map((x) => x.id)")
    assert len(ids) == len(set(ids)) > 0
    page.close()
