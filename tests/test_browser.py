"""The demo's page in a real browser: what Sam and Priya see and press, on real models, Chroma and Bolt.

`nightshift demo` runs once for the whole file, as a process of its own. Each test has a folder `screens` with a
picture of every step; `tests/bench/page.png` is the last one of the story.
"""

import os
import selectors
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.select import Select
from selenium.webdriver.support.wait import WebDriverWait

from storage import company

pytestmark = [pytest.mark.browser, pytest.mark.slow]

Seen = TypeVar("Seen")

PATIENCE = 90.0
"""Seconds until something that should happen at once counts as not happening."""

SAM, PRIYA = "U0SAM", "U0PRIYA"
HELP, REVIEW, HOME = "C0HELP", "C0REVIEW", "home"
DIRECT = "D0SAM"
HOTEL, PAYDAY = company.corrections()[:2]

FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --force-device-scale-factor=1 --window-size=1280,900"
)
MOUSE = "--blink-settings=primaryHoverType=2,availableHoverTypes=2,primaryPointerType=4,availablePointerTypes=4"
"""Headless Chromium takes itself for a telephone; this gives it a mouse."""

CONTROLS = {
    "button", "checkbox", "combobox", "link", "listbox", "menuitem", "option", "radio", "searchbox", "spinbutton",
    "textbox", "ToggleButton", "PopUpButton", "image", "dialog",
}  # fmt: skip
"""Roles of Chromium's accessibility tree whose nodes a screen reader must be able to name."""

TOO_WIDE = """
const wide = [document.scrollingElement, document.body, ...document.querySelectorAll("body *")].filter((node) =>
  node.checkVisibility() && node.scrollWidth > node.clientWidth + 1 && node.clientWidth > 1
  && !node.matches("pre, .table") && !["visible", "clip"].includes(getComputedStyle(node).overflowX)
  && getComputedStyle(node).textOverflow !== "ellipsis");
const out = [...document.querySelectorAll("body *")].filter((node) => node.checkVisibility({ visibilityProperty: true })
  && !node.closest("pre, .table, .hidden-text, option") && node.getBoundingClientRect().right > innerWidth + 1);
return [...wide, ...out].map((node) => `${node.tagName} ${node.id} ${node.className}: ${node.scrollWidth}`);
"""

AT_END = """
const list = document.getElementById("scroll");
return list.scrollTop + list.clientHeight > list.scrollHeight - 2;
"""

FAINT = """
const parsed = (text) => (text.match(/[\\d.]+/g) ?? []).map(Number);
const linear = (c) => c <= 10.3 ? c / 3294.6 : ((c / 255 + 0.055) / 1.055) ** 2.4;
const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
const ground = (node) => {
  for (let at = node; at; at = at.parentElement) {
    const style = getComputedStyle(at);
    if (style.backgroundImage !== "none" || Number(style.opacity) < 1) return null;
    const colour = parsed(style.backgroundColor);
    if (style.backgroundColor.startsWith("rgb") && (colour.length === 3 || colour[3] === 1)) return colour;
    if (colour.at(-1) !== 0) return null;
  }
  return null;
};
const found = [];
const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walk.nextNode()) {
  const node = walk.currentNode.parentElement;
  if (!walk.currentNode.data.trim() || node.closest(":disabled, script, noscript, .hidden-text")) continue;
  if (!node.checkVisibility({ visibilityProperty: true, opacityProperty: true })) continue;
  const below = ground(node);
  const ink = getComputedStyle(node).color;
  if (!below || !ink.startsWith("rgb(")) continue;
  const [dark, bright] = [light(parsed(ink)), light(below)].sort((a, b) => a - b);
  const ratio = (bright + 0.05) / (dark + 0.05);
  found.push([walk.currentNode.data.trim().slice(0, 40), Math.round(ratio * 100) / 100]);
}
return found;
"""


@dataclass(frozen=True)
class Window:
    """One person's window, and what a person does in it. Every action brings the window to the front first."""

    driver: webdriver.Chrome
    url: str
    handle: str
    screens: Path

    def front(self) -> None:
        if self.driver.current_window_handle != self.handle:
            self.driver.switch_to.window(self.handle)

    def goes(self, user: str, place: str = HELP, theme: str = "light") -> None:
        self.front()
        self.driver.get(f"{self.url}?user={user}&channel={place}&theme={theme}")
        self.until(lambda: self.all("#places button[aria-current]"), f"{place} of {user}")
        if place == HOME:
            self.text("#home", "My corrections")

    def all(self, selector: str) -> list[WebElement]:
        self.front()
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector: str) -> WebElement:
        """The element, as soon as it is there to be seen."""
        found: WebElement = self.until(
            lambda: next(filter(WebElement.is_displayed, self.all(selector)), None), selector
        )
        return found

    def button(self, within: str, label: str) -> WebElement:
        buttons = f"{within} button"
        found: WebElement = self.until(lambda: next((e for e in self.all(buttons) if e.text == label), None), label)
        return found

    def text(self, selector: str, expected: str) -> str:
        """The text of the first such element, as soon as it holds what is expected."""
        found = self.until(lambda: next((e.text for e in self.all(selector) if expected in e.text), ""), expected)
        return str(found)

    def until(self, seen: Callable[[], Seen], what: str) -> Any:
        self.front()
        wait = WebDriverWait(self.driver, PATIENCE, 0.1, ignored_exceptions=[StaleElementReferenceException])
        return wait.until(lambda _: seen(), f"not seen within {PATIENCE:.0f} seconds: {what}")

    def script(self, source: str) -> Any:
        self.front()
        return self.driver.execute_script(source)

    def press(self, *keys: str) -> None:
        self.front()
        self.driver.switch_to.active_element.send_keys(*keys)

    def keeps(self, name: str) -> None:
        """Take a picture."""
        self.front()
        number = len(list(self.screens.iterdir())) + 1
        assert self.driver.save_screenshot(str(self.screens / f"{number:02}-{name}.png"))

    def asks(self, question: str) -> str:
        """Ask Nightshift by a mention; gives its answer, which the page opens as a thread beside the channel."""
        self.one("#composer").click()
        self.press(f"@Nightshift {question}", Keys.ENTER)
        self.text("#thread-messages li:first-child", question)
        return self.answer(1)

    def answer(self, count: int) -> str:
        """The last answer in the open thread, once there are so many of them."""
        with_thumbs = "#thread-messages li[data-user='U0BOT']:has(.feedback)"
        return str(self.until(lambda: len(held := self.all(with_thumbs)) >= count and held[-1].text, "an answer"))

    def corrects(self, right: company.ProposedCorrection) -> None:
        """Press the thumb down under the answer in the thread and fill the modal."""
        self.one("#thread .thumb.down").click()
        Select(self.one("#modal-reason-value")).select_by_visible_text("It is outdated")
        assert self.one("#modal-question-value").get_attribute("value") == right.question
        for name, value in (("answer", right.answer), ("source", right.source)):
            self.one(f"#modal-{name}-value").clear()
            self.one(f"#modal-{name}-value").send_keys(value)
        self.keeps("modal")
        self.button("#modal", "Send").click()
        self.text("#thread-messages .ephemeral", "was sent for review")
        self.until(lambda: not self.all("dialog[open]"), "the modal closes")


# --- what runs: the demo, the browser, a window ---


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a demo that runs as long as this file's tests."""
    folder = tmp_path_factory.mktemp("demo")
    command = [str(Path(sys.executable).with_name("nightshift")), "--home", str(folder / "home"), "demo", "--port", "0"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("NIGHTSHIFT_", "SLACK_"))}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        yield first_line(process, folder / "log")
        process.terminate()
        assert process.wait(60) == 0, (folder / "log").read_text()[-2000:]
    finally:
        process.kill()
        process.communicate()


def first_line(process: "subprocess.Popen[str]", log: Path) -> str:
    """What the demo prints when it is ready; fails with its log when it ends or takes longer than three minutes."""
    assert process.stdout is not None
    with selectors.DefaultSelector() as ready:
        ready.register(process.stdout, selectors.EVENT_READ)
        line = process.stdout.readline().strip() if ready.select(180) else ""
    assert line.startswith("http://127.0.0.1:"), log.read_text()[-2000:]
    return line


@pytest.fixture(scope="module")
def chrome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    """One headless Chromium with a profile of its own."""
    driver_program = shutil.which("chromedriver")
    if driver_program is None and os.environ.get("CI") != "true":
        pytest.skip("no chromedriver here: install the package chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    for flag in (*FLAGS.split(), MOUSE, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(driver_program or "chromedriver"))
    yield driver
    driver.quit()


@pytest.fixture
def window(demo: str, chrome: webdriver.Chrome, tmp_path: Path) -> Iterator[Window]:
    """A fresh window; after the test the console of every window must be empty."""
    console(chrome)
    with another(chrome, demo, tmp_path / "screens") as opened:
        yield opened
        assert console(chrome) == []


def console(chrome: webdriver.Chrome) -> list[str]:
    """What the console of every window has said since the last look."""
    read: Callable[[str], list[dict[str, Any]]] = chrome.get_log
    return [f"{line['level']}: {line['message']}" for line in read("browser")]


@contextmanager
def another(chrome: webdriver.Chrome, url: str, screens: Path) -> Iterator[Window]:
    """A window beside the others, closed at the end."""
    screens.mkdir(exist_ok=True)
    before = chrome.current_window_handle
    chrome.switch_to.new_window("window")
    window = Window(chrome, url, chrome.current_window_handle, screens)
    try:
        yield window
    finally:
        window.front()
        chrome.close()
        chrome.switch_to.window(before)


def telephone(window: Window, width: int) -> None:
    """Make a window as wide as a telephone."""
    window.front()
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    window.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


# --- the story ---


def test_a_wrong_answer_is_corrected_approved_and_given_to_other_words(window: Window) -> None:
    sam = window
    sam.goes(SAM)
    wrong = sam.asks(HOTEL.question)
    sam.keeps("wrong-answer")
    assert "110" in wrong
    assert not company.answer_matches(wrong, HOTEL.keys)
    assert "Sources: Booking business travel > Hotels" in wrong
    assert "handbook.lumenpay.example/travel" in str(sam.one("#thread .content a").get_attribute("href"))

    sam.corrects(HOTEL)
    assert sam.one("#thread .thumb.down").get_attribute("aria-pressed") == "true"
    sam.keeps("sent-for-review")

    with another(sam.driver, sam.url, sam.screens) as priya:
        approve_as(priya)

    sam.text("#places li:has([data-focus='place-D0SAM'])", "1")
    right = sam.asks(HOTEL.unseen[2])
    sam.keeps("right-answer")
    assert HOTEL.unseen[2] != HOTEL.question
    assert company.answer_matches(right, HOTEL.keys)
    assert HOTEL.question in right
    assert sam.button("#thread", "Not my question").is_enabled()

    unsure = sam.asks(HOTEL.unseen[1])
    sam.keeps("did-you-mean")
    assert "Did you mean one of these?" in unsure
    assert HOTEL.question in unsure
    assert not company.answer_matches(unsure, HOTEL.keys)
    sam.button("#thread", "Show the answer").click()
    chosen = sam.answer(2)
    sam.keeps("chosen-answer")
    assert company.answer_matches(chosen, HOTEL.keys)
    assert f"Taught: {HOTEL.question}" in chosen


def approve_as(priya: Window) -> None:
    """Priya reads the card in the review channel and approves it."""
    priya.goes(PRIYA, REVIEW)
    card = priya.text("#messages li", HOTEL.question)
    for part in ("pending", HOTEL.answer, "The bot said", "110", "Written by @Sam Okafor", HOTEL.source):
        assert part in card
    priya.keeps("card")
    priya.button("#messages", "Approve").click()
    decided = priya.text("#messages li", "Approved by @Priya Nair")
    assert "approved" in decided
    assert not [e for e in priya.all("#messages .button") if e.text == "Approve"]
    priya.keeps("card-approved")


def test_the_home_of_an_admin_shows_the_queue(window: Window) -> None:
    sam = window
    sam.goes(SAM)
    sam.asks(PAYDAY.question)
    sam.corrects(PAYDAY)

    with another(sam.driver, sam.url, sam.screens) as priya:
        priya.goes(PRIYA, HOME)
        queue = priya.text("#home", "To review: 1")
        assert PAYDAY.question in queue
        assert PAYDAY.answer in queue
        priya.keeps("home")
        priya.button("#home", "Reject").click()
        priya.one("#modal-reason-value").send_keys("Finance has not decided it yet.")
        priya.keeps("reject")
        priya.button("#modal", "Reject").click()
        priya.text("#home", "Nothing waits for you.")

    sam.goes(SAM, HOME)
    assert PAYDAY.question in sam.text("#home", "rejected: Finance has not decided it yet.")


def test_a_reply_in_a_thread_needs_no_mention(window: Window) -> None:
    window.goes(SAM)
    window.asks("How do I get a new laptop?")
    window.one("#thread-composer").send_keys("How many days of paid annual leave do I have per year?", Keys.ENTER)
    window.answer(2)
    window.keeps("thread")
    assert [e.get_attribute("data-user") for e in window.all("#thread-messages li")] == [SAM, "U0BOT", SAM, "U0BOT"]


# --- the page itself ---


def test_a_modal_keeps_the_focus_and_escape_closes_it(window: Window) -> None:
    window.goes(SAM)
    window.asks("How do I book a train to Porto?")
    window.one("#thread .thumb.down").click()
    window.one("#modal-reason-value")

    reached = []
    for _ in range(9):
        window.press(Keys.TAB)
        reached.append(window.script("return document.activeElement.closest('dialog')?.id"))
    window.press(Keys.SHIFT, Keys.TAB)
    reached.append(window.script("return document.activeElement.closest('dialog')?.id"))
    assert reached == ["modal"] * 10

    window.press(Keys.ESCAPE)
    window.until(lambda: not window.all("dialog[open]"), "the modal closes")
    assert window.script("return document.activeElement.matches('#thread .thumb.down')")


def test_a_modal_that_lacks_something_says_so_at_the_field(window: Window) -> None:
    window.goes(SAM)
    window.asks("How do I book a train to Porto?")
    window.one("#thread .thumb.down").click()
    window.one("#modal-reason-value")
    window.button("#modal", "Send").click()
    window.one("#modal .field.wrong .error")
    window.keeps("missing")
    reason = window.one("#modal-reason-value")
    assert reason.get_attribute("aria-invalid") == "true"
    assert window.driver.switch_to.active_element == reason
    window.press(Keys.ESCAPE)
    window.until(lambda: not window.all("dialog[open]"), "the modal closes")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_nothing_is_wider_than_a_telephone_or_too_faint_to_read(window: Window, theme: str) -> None:
    telephone(window, 380)
    for name in places(window, theme):
        window.keeps(name)
        assert window.script("return [innerWidth, document.documentElement.scrollWidth]") == [380, 380], name
        assert window.script(TOO_WIDE) == [], name
        assert_readable(window, theme, name)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_desk_screen_is_filled_and_readable(window: Window, theme: str) -> None:
    for name in places(window, theme):
        window.keeps(name)
        assert window.script("return document.documentElement.scrollWidth <= innerWidth"), name
        assert window.script(TOO_WIDE) == [], name
        assert_readable(window, theme, name)


def test_every_control_has_a_name(window: Window) -> None:
    for name in places(window, "light"):
        nodes = window.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
        named = {
            node["nodeId"]: node.get("name", {}).get("value", "").strip()
            for node in nodes
            if not node["ignored"] and node["role"]["value"] in CONTROLS
        }
        assert len(named) >= 8, name
        assert [node for node in nodes if named.get(node["nodeId"]) == ""] == [], name


def test_the_page_refuses_what_is_not_its_own(window: Window) -> None:
    window.goes(SAM)
    assert console(window.driver) == []
    window.script("document.body.append(Object.assign(new Image(), {src: 'http://127.0.0.1:9/spy.png'}))")

    told = window.until(lambda: console(window.driver), "the console names the violation")
    assert "Content Security Policy" in told[0]


def places(window: Window, theme: str) -> Iterator[str]:
    """Go through every kind of place, ready to be looked at: channel, thread, modal, menu, DM, cards and Home."""
    window.goes(SAM, HELP, theme)
    if not window.all(".replies"):
        window.one("#composer").send_keys("@Nightshift How do I get a new laptop?", Keys.ENTER)
    window.one(".replies")
    window.until(lambda: window.script(AT_END), "the newest message is in sight")
    yield "channel"
    window.all(".replies")[-1].click()
    window.one("#thread .feedback")
    yield "thread"
    window.one("#thread .thumb.down").click()
    window.one("#modal-answer-value")
    yield "modal"
    window.press(Keys.ESCAPE)
    window.until(lambda: not window.all("dialog[open]"), "the modal closes")
    window.one("#close-thread").click()
    if window.script("return innerWidth < 800"):
        window.one("#open-menu").click()
        settled(window, "#sidebar")
        yield "menu"
    window.goes(SAM, DIRECT, theme)
    window.one(".prompts button")
    yield "direct"
    window.goes(PRIYA, REVIEW, theme)
    yield "review"
    window.goes(PRIYA, HOME, theme)
    yield "home"


def settled(window: Window, selector: str) -> None:
    """Wait until what moves in has come to rest."""
    node = window.one(selector)
    window.until(lambda: node.rect["x"] == 0, f"{selector} at rest")


def assert_readable(window: Window, theme: str, name: str) -> None:
    """Ground as light as the theme says, and text that stands out 4.5 : 1 from it, as WCAG 2.2 AA asks."""
    bright = window.script(
        "return getComputedStyle(document.body).backgroundColor.match(/\\d+/g).every((c) => c > 127)"
    )
    assert bright == (theme == "light"), name
    measured = window.script(FAINT)
    assert len(measured) >= 3, name
    assert [part for part in measured if part[1] < 4.5] == [], name
