"""A headless Chromium, as far as the tests of pages need one: what a reader sees, hears and can reach by keyboard."""

import json
import shutil
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from attrs import frozen
from selenium.webdriver import ActionChains, Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.expected_conditions import staleness_of
from selenium.webdriver.support.ui import WebDriverWait

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
HEIGHT_PIXELS = 844
PATIENCE_SECONDS = 60.0

PAINTED = """
const clear = color => color.startsWith('rgba(') && color.endsWith(', 0)');
const probe = document.createElement('i');
probe.style.color = 'Canvas';
document.body.append(probe);
const canvas = getComputedStyle(probe).color;
probe.remove();
const behind = element => {
  for (; element; element = element.parentElement) {
    const color = getComputedStyle(element).backgroundColor;
    if (!clear(color)) return color;
  }
  return canvas;
};
const seen = element => element.checkVisibility() && element.getClientRects().length;
"""
"""Functions in JavaScript: the colour behind an element, and whether it is seen."""

TEXTS = (
    PAINTED
    + """
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
const found = [];
while (walker.nextNode()) {
  const element = walker.currentNode.parentElement;
  if (walker.currentNode.data.trim() && seen(element))
    found.push([walker.currentNode.data, getComputedStyle(element).color, behind(element)]);
}
return found;
"""
)
BARS = (
    PAINTED
    + """
return [...document.querySelectorAll('tr')].flatMap(row => [...row.querySelectorAll('*')]
  .filter(e => seen(e) && !e.textContent && !clear(getComputedStyle(e).backgroundColor))
  .map(e => [row.textContent.trim(), e.getBoundingClientRect().width, getComputedStyle(e).backgroundColor,
    behind(e.parentElement)]));
"""
)
FOCUS = """
const style = getComputedStyle(document.activeElement);
return style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) > 0;
"""


@frozen
class Node:
    """What assistive technology is told about one thing on the page."""

    role: str
    name: str
    below: "tuple[Node, ...]" = ()

    def find(self, role: str) -> "list[Node]":
        """Return the things with that role, this one and those in it, in the order of reading."""
        return ([self] if self.role == role else []) + [found for node in self.below for found in node.find(role)]

    @property
    def text(self) -> str:
        """What is read out, in order."""
        return " ".join([self.name] if self.role == "StaticText" else [node.text for node in self.below]).strip()


@frozen
class Bar:
    """A painted box without text: the text of its row, its width in pixels, and its contrast with what is behind."""

    row: str
    width: float
    contrast: float


@frozen
class Browser:
    """One tab."""

    driver: Chrome

    def open(self, url: str) -> None:
        """Load a page."""
        self.driver.get(url)

    def show(self, width: int, theme: str) -> None:
        """Make the window *width* pixels wide, as on a telephone or a desk, for a reader who prefers *theme*."""
        size = {"width": width, "height": HEIGHT_PIXELS, "deviceScaleFactor": 1, "mobile": False}
        self._tell("Emulation.setDeviceMetricsOverride", **size)
        self._tell("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])

    def press(self, key: str) -> None:
        """Press a key."""
        ActionChains(self.driver).send_keys(key).perform()

    def follow(self, name: str) -> None:
        """Go to a link or button by keyboard, use it, and return when there is another page."""
        for _ in range(20):
            self.press(Keys.TAB)
            if self.focus == name:
                before = self.driver.find_element("tag name", "html")
                self.press(Keys.ENTER)
                WebDriverWait(self.driver, PATIENCE_SECONDS).until(staleness_of(before))
                return
        raise AssertionError(f"{name} cannot be reached by keyboard")

    @property
    def text(self) -> str:
        """What is seen on the page."""
        return self.driver.find_element("tag name", "body").text

    @property
    def tree(self) -> Node:
        """What a screen reader is told: the browser works it out some time after the page is loaded."""
        return WebDriverWait(self.driver, PATIENCE_SECONDS).until(lambda _: self._read_tree())

    def _read_tree(self) -> Node | Literal[False]:
        nodes = {node["nodeId"]: node for node in self._tell("Accessibility.getFullAXTree")["nodes"]}

        def below(node: dict[str, object]) -> tuple[Node, ...]:
            return tuple(found for key in _list(node["childIds"]) for found in read(nodes[key]))

        def read(node: dict[str, object]) -> tuple[Node, ...]:
            if node["ignored"]:
                return below(node)
            return (Node(_value(node, "role"), _value(node, "name"), below(node)),)

        (root,) = read(next(iter(nodes.values())))
        return root if root.below else False

    @property
    def focus(self) -> str:
        """The name of what the keyboard is on; it must be seen there."""
        assert self.driver.execute_script(FOCUS), "the focus is not seen"
        return self.driver.switch_to.active_element.accessible_name

    @property
    def overflow(self) -> int:
        """By how many pixels the page is wider than the window."""
        return int(
            self.driver.execute_script(
                "return document.scrollingElement.scrollWidth - document.scrollingElement.clientWidth"
            )
        )

    @property
    def faint(self) -> dict[str, float]:
        """The texts with less than the contrast that WCAG 2.2 wants (1.4.3, AA), with the contrast that they have."""
        found = {text: contrast(front, back) for text, front, back in self.driver.execute_script(TEXTS)}
        assert found, "the page is empty"
        return {text: ratio for text, ratio in found.items() if ratio < 4.5}

    @property
    def bars(self) -> list[Bar]:
        """The bars in tables."""
        found = self.driver.execute_script(BARS)
        return [Bar(row, width, contrast(front, back)) for row, width, front, back in found]

    def messages(self) -> list[str]:
        """Return what the console has said since the last time: errors of scripts, policies, missing files."""
        return [entry["message"] for entry in self._log("browser")]

    def hosts(self) -> set[str]:
        """Return where the things came from that were loaded since the last time: hosts with ports, "" for a file."""
        told = [json.loads(entry["message"])["message"] for entry in self._log("performance")]
        urls = [each["params"]["request"]["url"] for each in told if each["method"] == "Network.requestWillBeSent"]
        return {urlsplit(url).netloc for url in urls}

    def _log(self, name: str) -> list[dict[str, str]]:
        entries: list[dict[str, str]] = self.driver.get_log(name)  # type: ignore[no-untyped-call]  # selenium has no types for it
        return entries

    def _tell(self, command: str, **parameters: object) -> dict[str, list[dict[str, object]]]:
        answer: dict[str, list[dict[str, object]]] = self.driver.execute_cdp_cmd(command, parameters)
        return answer


def contrast(front: str, back: str) -> float:
    """Return the contrast of two colours as computed styles have them, from 1 to 21 (WCAG 2.2)."""
    darker, lighter = sorted(map(_luminance, (front, back)))
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(color: str) -> float:
    assert color.startswith("rgb("), color
    shares = (int(part) / 255 for part in color[4:-1].split(","))
    linear = (share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares)
    return sum(weight * share for weight, share in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def _list(value: object) -> Sequence[str]:
    assert isinstance(value, list)
    return value


def _value(node: dict[str, object], name: str) -> str:
    value = node.get(name, {})
    assert isinstance(value, dict)
    return str(value.get("value", ""))


@contextmanager
def browse(profile: Path) -> Generator[Browser, None, None]:
    """Run Chromium with a fresh profile while the block runs. Nothing is downloaded."""
    assert CHROMIUM
    assert DRIVER
    options = ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = Chrome(options, ChromeService(DRIVER))
    try:
        yield Browser(driver)
    finally:
        driver.quit()
