"""Real browsers, and the page over an index as a visitor sees it."""

from __future__ import annotations

import shutil
import time

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
PATIENCE = 120  # seconds, on a machine that has much else to do


def until(condition):
    """What a condition gives once it gives something."""
    end = time.monotonic() + PATIENCE
    while not (value := condition()):
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.05)
    return value


def open_browser(profile):
    """A browser with its own profile folder, which keeps its logs; `quit` it."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    driver.set_page_load_timeout(PATIENCE)
    return driver


class Page:
    """The page as a visitor sees it."""

    def __init__(self, browser, address):
        self.browser, self.address = browser, address

    def open(self, query: str = "") -> Page:
        self.browser.get(self.address + query)
        until(lambda: self.status and not self.busy)
        return self

    def all(self, selector):
        return self.browser.find_elements("css selector", selector)

    def one(self, selector):
        return until(lambda: self.all(selector))[0]

    def script(self, text, *arguments):
        return self.browser.execute_script(f"return {text}", *arguments)

    @property
    def status(self) -> str:
        return self.script("document.getElementById('status').textContent")

    @property
    def busy(self) -> bool:
        return self.script("document.getElementById('results').hasAttribute('aria-busy')")

    @property
    def ids(self) -> list[str]:
        return self.script("[...document.querySelectorAll('.card')].map(card => card.dataset.id)")

    @property
    def distances(self) -> list[int]:
        """Hamming distances of the results."""
        shown = "[...document.querySelectorAll('.distance')].map(d => d.dataset.distance)"
        return [int(text) for text in self.script(shown)]

    @property
    def similarities(self) -> list[float]:
        shown = "[...document.querySelectorAll('.distance')].map(d => d.textContent)"
        return [float(text) for text in self.script(shown)]

    def says(self, text: str) -> None:
        until(lambda: text in self.status and not self.busy)

    def press(self, *keys) -> None:
        """Keys to whatever has the focus."""
        from selenium.webdriver import ActionChains

        ActionChains(self.browser).send_keys(*keys).perform()

    @property
    def focused(self) -> str:
        """The focused element's id, class and label."""
        return self.script(
            "(e => [e.id, e.className, e.getAttribute('aria-label')].join(' '))"
            "(document.activeElement)"
        )

    def tab_to(self, wanted: str, most: int = 60) -> None:
        from selenium.webdriver.common.keys import Keys

        for _ in range(most):
            self.press(Keys.TAB)
            if self.focused.startswith(f"{wanted} "):
                return
        raise AssertionError(f"{wanted} cannot be reached by the keyboard")
