"""The page in a real browser, served by the program `serve_demo`."""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
import time
from pathlib import Path

import pytest
from PIL import Image

from dsprh_tf.index.hamming import HammingIndex
from dsprh_tf.serving.encoder import Encoder

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER),
    reason="needs a browser: apt-get install -y chromium chromium-driver",
)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
PATIENCE = 120  # seconds, on a machine that has much else to do


@pytest.fixture(scope="module")
def address(process, collection, exported, tmp_path_factory):
    """Of the page, served by the program."""
    log = tmp_path_factory.mktemp("served") / "log"
    server = process("serve_demo", f"--index={collection}/index", f"--export_dir={exported}",
                     "--port=0", "--max_upload=1", log=log)  # fmt: skip
    try:
        yield until(lambda: re.search(r"http://127\.0\.0\.1:\d+/", said(server, log)))[0]
        assert server.poll() is None
    finally:
        server.send_signal(signal.SIGINT)
        code = server.wait(PATIENCE)
    assert code == 0
    lines = log.read_text().strip().splitlines()
    assert len(lines) == 1, lines  # the address, and no traceback


def said(server, log) -> str:
    assert server.poll() is None, log.read_text()
    return log.read_text()


def until(condition):
    """What a condition gives once it gives something."""
    end = time.monotonic() + PATIENCE
    while not (value := condition()):
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.05)
    return value


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    driver.set_page_load_timeout(PATIENCE)
    yield driver
    driver.quit()


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
        links = self.script("[...document.querySelectorAll('.shot')].map(a => a.search)")
        return [re.search(r"like=(\d+)", link)[1] for link in links]

    @property
    def distances(self) -> list[int]:
        found = self.script("[...document.querySelectorAll('.distance')].map(d => d.textContent)")
        return [int(text) for text in found]

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


@pytest.fixture
def page(browser, address):
    """The start page; what the browser logs meanwhile must be nothing."""
    for log in ("browser", "performance"):
        browser.get_log(log)
    browser.set_window_size(1280, 900)
    yield Page(browser, address).open()
    assert [entry["message"] for entry in browser.get_log("browser")] == []


@pytest.fixture(scope="module")
def encoder(exported):
    return Encoder(exported, "text")


@pytest.fixture(scope="module")
def index(collection):
    return HammingIndex.load(collection / "index")


def nearest(index, code, k=24):
    return index.search(code, k).distances[0].tolist()


def test_typing_shows_results(page, index, encoder):
    """Without pressing Enter; with distances, tags, and bits that agree with them."""
    assert "at random" in page.status
    text = " ".join(encoder.vocabulary[:2])
    page.one("#words").send_keys(text)
    page.says(f"24 items for “{text}”")
    assert page.distances == nearest(index, encoder.encode([text]))
    rows = {str(row["id"]): row for row in index.items_of([int(i) for i in page.ids]).to_pylist()}
    for card, item in zip(page.all(".card"), page.ids):
        shown = [button.text for button in card.find_elements("css selector", ".tags button")]
        assert shown[:3] == rows[item]["tags"][:3]
    labels = page.script("[...document.querySelectorAll('.card .bits')].map(b => b.ariaLabel)")
    assert labels == [
        f"Code of 16 bits, {distance} of them differ from the query" for distance in page.distances
    ]
    cells = page.script(
        "[...document.querySelectorAll('.card .bits')].map(b => "
        "[...b.querySelectorAll('.differs')].map(p => p.getAttribute('d')).join('')"
        ".split('z').length - 1)"
    )
    assert cells == page.distances
    until(lambda: page.script("[...document.querySelectorAll('.card img')].slice(0, 3)"
                              ".every(i => i.complete && i.naturalWidth > 0)"))  # fmt: skip


def test_unknown_words_and_suggestions(page, encoder):
    word = max(encoder.vocabulary, key=len)
    page.one("#words").send_keys(word[:-1] + "q\n")
    page.says("No word of this is known.")
    assert page.all(".card") == []
    link = next(a for a in page.all("#hint a") if a.text == word)
    link.click()
    page.says(f"items for “{word}”")
    assert page.one("#words").get_property("value") == word
    page.browser.back()
    page.says("No word of this is known.")


def test_upload(page, index, collection):
    item = next(row for row in index.items_of(index.ids_where()).to_pylist() if row["path"])
    page.one("#file").send_keys(item["path"])
    page.says("24 items like your picture")
    code = index.codes_of([item["id"]])
    assert page.distances == nearest(index, code)
    assert page.one("#query img").get_attribute("src").startswith("blob:")
    # The address holds the code: it survives a reload, without the picture.
    page.browser.refresh()
    page.says("24 items like your picture")
    assert page.distances == nearest(index, code)
    assert page.all("#query img") == []


def test_uploads_that_are_refused(page, browser, tmp_path):
    (tmp_path / "words.jpg").write_text("no picture")
    page.one("#file").send_keys(str(tmp_path / "words.jpg"))
    page.says("is no JPEG, PNG, GIF, BMP, WebP or TIFF")
    (tmp_path / "huge.jpg").write_bytes(b"x" * (2**20 + 1))
    page.one("#file").send_keys(str(tmp_path / "huge.jpg"))
    page.says("huge.jpg is too large: at most 1 MB")
    refused = browser.get_log("browser")  # the browser itself logs every status of 4xx
    assert len(refused) == 1
    assert "415" in refused[0]["message"]


def test_dropping_a_picture(page, tmp_path):
    Image.new("RGB", (40, 30), "green").save(tmp_path / "green.png")
    page.browser.execute_async_script(
        """
        const done = arguments[0];
        const canvas = document.createElement("canvas");
        canvas.toBlob((blob) => {
          const carried = new DataTransfer();
          carried.items.add(new File([blob], "drawn.png", { type: "image/png" }));
          for (const kind of ["dragenter", "drop"]) {
            dispatchEvent(new DragEvent(kind, { dataTransfer: carried, cancelable: true }));
          }
          done();
        });
        """
    )
    page.says("24 items like your picture")
    assert "drawn.png" in page.one("#query").text


def test_more_like_this(page, index):
    first = page.ids[0]
    page.one(".shot").click()
    page.says("like this one")
    assert first not in page.ids
    code = index.codes_of([int(first)])
    found = index.search(code, 25)
    expected = [d for d, i in zip(found.distances[0].tolist(), found.ids[0]) if str(i) != first]
    assert page.distances == expected[:24]
    assert "More like this" in page.one("#query").text
    page.browser.back()
    page.says("at random")


def test_filters_and_more(page, index, encoder):
    page.open(f"?text={encoder.vocabulary[0]}")
    tag = page.one(".tags button").text
    page.one(".tags button").click()
    until(lambda: page.one("#tag").get_property("value") == tag and not page.busy)
    page.one("input[name=find][value=image] + span").click()
    until(lambda: "find=image" in page.browser.current_url and not page.busy)
    rows = index.items_of([int(i) for i in page.ids]).to_pylist()
    assert rows
    assert all(tag in row["tags"] and row["modality"] == "image" for row in rows)
    page.one("#untag").click()
    until(lambda: len(page.ids) == 24 and not page.busy)
    page.one("#more").click()
    page.says("48 items")
    assert len(page.ids) == 48
    assert page.focused.startswith(" shot")


def test_keyboard_only(page, encoder):
    from selenium.webdriver.common.keys import Keys

    text = encoder.vocabulary[1]
    assert page.focused.startswith("words")  # from the start
    page.press(text, Keys.ENTER)
    page.says(f"items for “{text}”")
    page.tab_to(" shot")
    assert page.script("document.activeElement.matches(':focus-visible')")
    assert page.script("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.press(Keys.ENTER)
    page.says("like this one")
    for name in ("choose", "tag", "bits", "more"):
        page.open(f"?text={text}")
        page.tab_to(name, 200)
        assert page.script("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.press(Keys.ENTER)
    page.says("48 items")
    page.one("#bits").send_keys(Keys.SPACE)
    assert not page.one(".card .bits").is_displayed()


def test_a_vanished_picture_is_shown_as_such(page, index):
    item = next(row for row in index.items_of(index.ids_where()).to_pylist() if row["path"])
    path = Path(item["path"])
    path.rename(path.with_suffix(".away"))
    try:
        page.open(f"?code={index.codes_of([item['id']]).tobytes().hex()}&find=image&top=120")
        card = page.all(".card")[page.ids.index(str(item["id"]))]
        assert "No longer on disk" in card.text
        assert "no longer on disk" in card.find_element("css selector", "a").accessible_name
    finally:
        path.with_suffix(".away").rename(path)


@pytest.mark.parametrize("width", [360, 414])
def test_a_phone(page, browser, encoder, width):
    size = {"width": width, "height": 740, "deviceScaleFactor": 2, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        for query in ("", f"?text={encoder.vocabulary[0]}+xyzzyq", f"?like={page.ids[0]}"):
            page.open(query)
            assert page.script("innerWidth") == width
            assert page.script("document.documentElement.scrollWidth") <= width
            columns = page.script(
                "new Set([...document.querySelectorAll('.card')]"
                ".map(c => c.getBoundingClientRect().left)).size"
            )
            assert columns == 2
            for name in ("#words", "#choose", "#tag", ".shot"):
                box = page.one(name).rect
                assert box["height"] >= 36
                assert box["x"] >= 0
                assert box["x"] + box["width"] <= width
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_no_request_leaves_the_machine(page, browser, address, encoder):
    import json

    page.open(f"?text={encoder.vocabulary[0]}")
    page.one(".shot").click()
    page.says("like this one")
    asked = set()
    for entry in browser.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        with contextlib.suppress(KeyError):
            if message["method"] == "Network.requestWillBeSent":
                asked.add(message["params"]["request"]["url"])
    assert any("/api/search" in url for url in asked)
    assert [url for url in asked if not url.startswith((address, "blob:"))] == []
