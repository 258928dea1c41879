"""The page in a real browser, served by the program `serve_demo`."""

from __future__ import annotations

import contextlib
import re
import signal
from pathlib import Path

import axe_playwright_python
import numpy as np
import pytest
from browser_helpers import CHROMIUM, DRIVER, PATIENCE, Page, open_browser, until
from PIL import Image

from dsprh_tf.index.asymmetric import rank
from dsprh_tf.index.hamming import HammingIndex
from dsprh_tf.index.interface import Where
from dsprh_tf.serving.encoder import Encoder
from dsprh_tf.web.values import as_text, from_text

pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER),
    reason="needs a browser: apt-get install -y chromium chromium-driver",
)
AXE = Path(axe_playwright_python.__file__).with_name("axe.min.js")


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


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    driver = open_browser(tmp_path_factory.mktemp("profile"))
    yield driver
    driver.quit()


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


def nearest(index, values, k=24, without=()):
    """Distances of the first results: images and texts in turn."""
    near = []
    for kind in ("image", "text"):
        found = rank(index, values, k // 2 + len(without), Where(modality=kind))
        pairs = zip(found.ids[0].tolist(), found.distances[0].tolist())
        near.append([distance for name, distance in pairs if str(name) not in without][: k // 2])
    return [distance for both in zip(*near) for distance in both]


def found_serious(page) -> list:
    """What axe-core finds of the page as it is: serious and critical violations."""
    if not page.script("'axe' in window"):
        page.browser.execute_script(AXE.read_text("utf-8"))
    return page.browser.execute_async_script(
        """
        const done = arguments[0];
        axe.run({ resultTypes: ["violations"] }).then(({ violations }) => done(
          violations.filter(({ impact }) => impact === "serious" || impact === "critical")
            .map(({ id, nodes }) => [id, nodes[0].html, nodes[0].failureSummary])));
        """
    )


def test_typing_shows_results(page, index, encoder):
    """Without pressing Enter; with distances, tags, and bits that agree with them."""
    assert "in random order" in page.status
    text = " ".join(encoder.vocabulary[:2])
    page.one("#words").send_keys(text)
    page.says(f"{len(index)} items for “{text}”")
    assert page.distances == nearest(index, encoder.encode_values([text]))
    for place in (0, 1):  # images and texts in turn
        near = page.similarities[place::2]
        assert near == sorted(near, reverse=True)
    title = page.one(".distance").get_attribute("title")
    assert title.endswith(f"{page.distances[0]} of 16 bits differ")
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


def test_upload(page, index, collection, exported):
    item = next(row for row in index.items_of(index.ids_where()).to_pylist() if row["path"])
    page.one("#file").send_keys(item["path"])
    page.says(f"{len(index)} items like your picture")
    values = Encoder(exported, "image").encode_values([Path(item["path"]).read_bytes()])
    values = from_text(as_text(values[0]), 16)[np.newaxis]
    assert page.distances == nearest(index, values)
    assert page.one("#query img").get_attribute("src").startswith("blob:")
    # The address holds the values: they survive a reload, without the picture.
    page.browser.refresh()
    page.says(f"{len(index)} items like your picture")
    assert page.distances == nearest(index, values)
    assert page.all("#query img") == []
    # Addresses of before hold the code alone.
    code = index.codes_of([item["id"]])
    page.open(f"?code={code.tobytes().hex()}")
    page.says(f"{len(index)} items like your picture")
    assert page.distances == nearest(index, code)


def test_a_picture_and_words(page, index, encoder, tmp_path):
    """Words are added to a picture in a field of their own; the search field starts anew."""
    from selenium.webdriver.common.keys import Keys

    Image.new("RGB", (40, 30), "green").save(tmp_path / "green.png")
    page.one("#file").send_keys(str(tmp_path / "green.png"))
    page.says("items like your picture")
    text = encoder.vocabulary[0]
    page.one(".add input").send_keys(text, Keys.ENTER)
    page.says(f"{len(index)} items for “{text}” and like your picture")
    values = from_text(re.search("values=([^&]+)", page.browser.current_url)[1], 16)
    both = encoder.encode_values([text]) + values
    assert page.distances == nearest(index, both)
    assert page.one("#query img").get_attribute("src").startswith("blob:")
    assert page.one(".add input").get_property("value") == text
    assert page.one("#words").get_property("value") == ""
    page.one(".add input").clear()
    page.one(".add input").send_keys(f"xyzzyq {text}", Keys.ENTER)
    until(lambda: "“xyzzyq” is not a known word" in page.one("#hint").text)
    assert page.distances == nearest(index, both)
    page.browser.back()
    page.says(f"{len(index)} items for “{text}” and like your picture")
    page.one("#words").send_keys(text)
    page.says(f"{len(index)} items for “{text}”, nearest")
    assert page.all(".add") == []
    page.browser.back()
    page.says(f"{len(index)} items for “{text}” and like your picture")


def test_not_like_this(page, index, encoder):
    """On a card and in the larger view; taken back by its mark, and by the browser."""
    text = encoder.vocabulary[0]
    page.open("")
    assert page.all(".not") == []  # nothing is searched by
    page.open(f"?text={text}&find=image")
    first = page.ids[0]
    page.one(".not").click()
    page.says("not like 1 other")
    assert first not in page.ids
    second = page.ids[0]
    page.one(".shot").click()
    page.one("#view-less").click()
    page.says("not like 2 others")
    assert page.ids and not {first, second} & set(page.ids)
    codes = index.codes_of([int(first), int(second)])
    away = 2.0 * np.unpackbits(codes, axis=1).mean(axis=0) - 1
    values = encoder.encode_values([text]) - np.float32(0.15) * away
    found = rank(index, values, 26, Where(modality="image")).ids[0].tolist()
    assert page.ids == [str(name) for name in found if str(name) not in (first, second)][:24]
    assert len(page.all(".less a")) == 2
    page.one(".less a").click()
    page.says("not like 1 other")
    assert first in page.ids or second in page.ids
    page.browser.back()
    page.says("not like 2 others")


def test_uploads_that_are_refused(page, browser, tmp_path):
    (tmp_path / "words.jpg").write_text("no picture")
    page.one("#file").send_keys(str(tmp_path / "words.jpg"))
    page.says("is no JPEG, PNG, GIF, BMP, WebP, TIFF, HEIC or AVIF")
    (tmp_path / "huge.jpg").write_bytes(b"x" * (2**20 + 1))
    page.one("#file").send_keys(str(tmp_path / "huge.jpg"))
    page.says("huge.jpg is too large: at most 1 MB")
    refused = browser.get_log("browser")  # the browser itself logs every status of 4xx
    assert len(refused) == 1
    assert "415" in refused[0]["message"]


def test_dropping_a_picture(page, index, tmp_path):
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
    page.says(f"{len(index)} items like your picture")
    assert "drawn.png" in page.one("#query").text


def test_more_like_this(page, index):
    first = page.ids[0]
    page.one(".like").click()
    page.says(f"{len(index) - 1} items like this one")
    assert first not in page.ids
    code = index.codes_of([int(first)])
    assert page.distances == nearest(index, code, without=[first])
    assert "More like this" in page.one("#query").text
    page.browser.back()
    page.says("in random order")
    assert page.ids[0] == first  # the same order again


def test_unknown_words_never_stand_over_other_results(page, encoder):
    """While typing: dimmed at once, said within a second, and what was searched stands there."""
    known = encoder.vocabulary[0]
    page.one("#words").send_keys(known)
    page.says(f"items for “{known}”")
    page.browser.execute_script(
        """
        window.seen = [];
        const note = () => seen.push([
          performance.now(), document.getElementById("words").value,
          document.querySelector("#query h2")?.textContent ?? "",
          document.body.classList.contains("stale"), document.querySelectorAll(".card").length,
          document.getElementById("hint").textContent]);
        new MutationObserver(note).observe(
          document.body, { subtree: true, childList: true, attributes: true });
        document.getElementById("words").addEventListener("input", note);
        """
    )
    page.one("#words").send_keys("qq")
    until(lambda: f"“{known}qq” is not a known word" in page.one("#hint").text)
    page.says("No word of this is known.")
    assert page.all(".card") == []
    assert not page.one("#query").is_displayed()
    seen = page.script("seen")
    # Never another query's results at full strength under these words.
    for _, value, title, stale, cards, _ in seen:
        assert stale or not cards or title == f"“{value}”", (value, title)
    said = next(time for time, *_, hint in seen if f"{known}qq" in hint)
    assert said - min(time for time, value, *_ in seen if value == f"{known}qq") < 2000
    page.press(" ", known)
    page.says(f"items for “{known}”")  # without the other word
    until(lambda: f"“{known}qq” is not a known word" in page.one("#hint").text)
    assert page.one("#query h2").text == f"“{known}”"


def test_tags(page, index, encoder):
    """Of a result, typed in any case, of three kinds, from the address and away again."""
    from selenium.webdriver.common.keys import Keys

    page.open(f"?text={encoder.vocabulary[0]}")
    tag = page.one(".tags button").text
    page.one(".tags button").click()
    until(lambda: f"all={tag}" in page.browser.current_url and not page.busy)
    rows = index.items_of([int(i) for i in page.ids]).to_pylist()
    assert rows
    assert all(tag in row["tags"] for row in rows)
    other = next(t for row in rows for t in row["tags"] if t != tag)
    page.one("#how option[value=none]").click()
    page.one("#tag").send_keys(other.upper())
    until(lambda: other in page.script("[...document.querySelectorAll('#tags option')]"
                                       ".map(option => option.value)"))  # fmt: skip
    page.one("#tag").send_keys(Keys.ENTER)
    until(lambda: f"none={other.upper()}" in page.browser.current_url and not page.busy)
    rows = index.items_of([int(i) for i in page.ids]).to_pylist()
    assert all(tag in row["tags"] and other not in row["tags"] for row in rows)
    names = [chip.accessible_name for chip in page.all("#chips button")]
    assert names == [
        f"Remove the filter: with {tag}",
        f"Remove the filter: without {other.upper()}",
    ]
    page.one("#chips button").click()
    until(lambda: len(page.all("#chips button")) == 1 and not page.busy)
    page.browser.back()
    until(lambda: len(page.all("#chips button")) == 2 and not page.busy)
    page.one("input[name=find][value=image] + span").click()
    until(lambda: "find=image" in page.browser.current_url and not page.busy)
    rows = index.items_of([int(i) for i in page.ids]).to_pylist()
    assert all(row["modality"] == "image" for row in rows)
    page.open("?tag=xyzzy")  # of an old address
    assert page.status == "No item has the tag xyzzy."


def test_to_the_end_and_back(page, index, encoder):
    """Every result once; back, and a reload, bring the same ones to the same place."""
    page.open(f"?text={encoder.vocabulary[0]}&find=image")
    images = len(index.ids_where(Where(modality="image")))
    page.says(f"{images} items")
    while page.one("#more").is_displayed():
        before = len(page.ids)
        page.one("#more").click()
        until(lambda before=before: len(page.ids) > before)
        until(lambda: page.focused.startswith(" shot"))
    assert len(page.ids) == len(set(page.ids)) == images
    assert f"{images} of {images}" in page.one("#place").text
    ids, length = page.ids, page.script("document.documentElement.scrollHeight")
    page.browser.execute_script("scrollTo(0, arguments[0])", length // 2)
    until(lambda: page.script("history.state.y === scrollY && scrollY > 100"))
    place = page.script("scrollY")

    def there_again():
        until(lambda: not page.busy and len(page.ids) == images)
        until(lambda: abs(page.script("scrollY") - place) < 3)
        assert sorted(page.ids) == sorted(ids)

    page.one("input[name=find][value=text] + span").click()
    until(lambda: not page.busy and ids[0] not in page.ids)
    page.browser.back()
    there_again()
    assert page.ids == ids
    page.browser.refresh()
    there_again()


def test_the_larger_view(page, index, encoder):
    from selenium.webdriver.common.keys import Keys

    page.open(f"?text={encoder.vocabulary[0]}&find=image")
    ids = page.ids
    paths = {str(r["id"]): r["path"] for r in index.items_of([int(i) for i in ids]).to_pylist()}
    page.one(".shot").click()
    assert page.one("#view").is_displayed()
    assert page.one("#view-path").text == paths[ids[0]]
    page.press(Keys.ARROW_LEFT)  # the first one stays
    for _ in range(23):
        page.press(Keys.ARROW_RIGHT)
    page.press(Keys.ARROW_RIGHT)  # beyond the first page
    until(lambda: page.one("#view-place").text.startswith("25 of "))
    page.press(Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    until(lambda: page.one("#view-place").text.startswith("23 of "))
    assert page.one("#view-path").text == paths[ids[22]]
    picture = page.one("#view-content img")
    assert f"/{ids[22]}/large" in picture.get_attribute("src")
    assert picture.get_attribute("alt")
    assert page.one("#view-open").get_attribute("href").endswith(f"/api/picture/{ids[22]}/file")
    assert page.one("#view-download").get_attribute("href").endswith(f"/{ids[22]}/download")
    page.one("#view-copy").click()
    until(lambda: page.one("#view-said").text == "Path copied")
    within = set()
    for keys in ([Keys.TAB] * 12, [Keys.SHIFT, *[Keys.TAB] * 12, Keys.NULL]):
        for key in keys:
            page.press(key)
            within.add(page.script("!!document.activeElement.closest('#view')"))
    assert within == {True}
    page.press(Keys.ESCAPE)
    assert not page.one("#view").is_displayed()
    assert page.script("document.activeElement.closest('.card').dataset.id") == ids[22]


def test_a_selection(page, browser, tmp_path, encoder):
    import zipfile

    browser.execute_cdp_cmd(
        "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)}
    )
    page.open(f"?text={encoder.vocabulary[0]}&find=image")
    for box in page.all(".pick input")[:2]:
        box.click()
    first = page.ids[0]
    assert page.one("#picked-count").text == "2 selected"
    for form in ("csv", "json", "zip"):
        page.one(f"[data-form={form}]").click()
        until(lambda form=form: (tmp_path / f"items.{form}").exists())
    assert page.one("#picked-count").text.startswith("2 selected: 2 files, ")
    assert (tmp_path / "items.csv").read_text("utf-8").splitlines()[1].startswith(first)
    with zipfile.ZipFile(tmp_path / "items.zip") as archive:
        assert len(archive.namelist()) == 3
    page.one(".shot").click()
    page.one("#view-pick").click()  # off again
    page.one("#view-close").click()
    assert page.one("#picked-count").text == "1 selected"
    assert not page.one(".pick input").is_selected()
    page.one("#unpick").click()
    assert not page.one("#picked").is_displayed()
    assert page.all(".card.picked") == []


def test_a_long_query_is_folded(page, encoder):
    text = " ".join([encoder.vocabulary[0]] * 60)
    page.open(f"?text={text.replace(' ', '+')}")
    height = page.one("#query h2").rect["height"]
    assert height < 70
    assert len(page.browser.title) < 100
    page.one(".unfold").click()
    assert page.one(".unfold").get_attribute("aria-expanded") == "true"
    assert page.one("#query h2").rect["height"] > height


def test_keyboard_only(page, encoder):
    from selenium.webdriver.common.keys import Keys

    text = encoder.vocabulary[1]
    assert page.focused.startswith("words")  # from the start
    page.press(text, Keys.ENTER)
    page.says(f"items for “{text}”")
    ids = page.ids

    def at() -> int:
        return ids.index(page.script("document.activeElement.closest('.card').dataset.id"))

    page.press(Keys.ARROW_DOWN)
    assert at() == 0
    columns = page.script(
        "new Set([...document.querySelectorAll('.card')].map(c => c.offsetLeft)).size"
    )
    page.press(Keys.ARROW_RIGHT, Keys.ARROW_DOWN)
    assert at() == 1 + columns
    page.press(Keys.ARROW_LEFT, Keys.ARROW_UP, Keys.END)
    assert at() == 23
    page.press(Keys.HOME, Keys.ARROW_UP)
    assert page.focused.startswith("words")
    page.press(Keys.ARROW_DOWN, Keys.ENTER)
    assert page.one("#view").is_displayed()
    page.press(Keys.ESCAPE)
    assert at() == 0
    assert page.script("document.activeElement.matches(':focus-visible')")
    assert page.script("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.press("/", "x")
    assert page.one("#words").get_property("value") == "x"  # in the place of what was there
    page.open(f"?text={text}")
    for name in ("choose", "how", "tag", "bits", " like"):
        page.tab_to(name)
        assert page.script("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.browser.execute_script("document.querySelector('.card:last-child .like').focus()")
    page.tab_to("more")
    page.press(Keys.ENTER)
    until(lambda: len(page.ids) == 48)
    page.one("#bits").send_keys(Keys.SPACE)
    assert not page.one(".card .bits").is_displayed()


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "light"), (1280, "dark")])
def test_nothing_serious_for_screen_readers(page, browser, encoder, width, scheme):
    """axe-core, in every state; and nothing moves on its own."""
    known = encoder.vocabulary[0]
    size = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    wanted = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": wanted})
    try:
        page.open("")
        assert found_serious(page) == []
        page.open(f"?text={known}+xyzzyq&all={page.one('.tags button').text}")
        assert found_serious(page) == []
        page.one(".pick input").click()
        assert found_serious(page) == []
        page.one(".shot").click()
        assert page.one("#view").is_displayed()
        assert found_serious(page) == []
        page.one("#view-close").click()
        like = page.ids[0]
        for query in ("?text=xyzzyq", "?all=xyzzyq", f"?text={known}" + f"+{known}" * 60,
                      f"?like={like}&text={known}&less={page.ids[1]}"):  # fmt: skip
            page.open(query)
            assert found_serious(page) == [], query
            assert page.script("document.documentElement.scrollWidth") <= width
        page.open("")
        page.one("#words").send_keys(f"{known} xyzzyq")
        until(lambda: "xyzzyq" in page.one("#hint").text)
        moved = page.browser.execute_async_script(
            """
            const done = arguments[0];
            new PerformanceObserver((list) => done(list.getEntries()
              .filter(({ hadRecentInput }) => !hadRecentInput)
              .reduce((sum, { value }) => sum + value, 0)))
              .observe({ type: "layout-shift", buffered: true });
            setTimeout(() => done(0), 300);
            """
        )
        assert moved < 0.05
        page.open("?like=12")
        assert page.one("#status.error").text.startswith("no item of the index has the id")
        assert found_serious(page) == []
        refused = browser.get_log("browser")
        assert len(refused) == 1
        assert "404" in refused[0]["message"]
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_a_vanished_picture_is_shown_as_such(page, index):
    item = next(row for row in index.items_of(index.ids_where()).to_pylist() if row["path"])
    path = Path(item["path"])
    path.rename(path.with_suffix(".away"))
    try:
        page.open(f"?code={index.codes_of([item['id']]).tobytes().hex()}&find=image&top=120")
        card = page.all(".card")[page.ids.index(str(item["id"]))]
        assert "No longer on disk" in card.text
        assert "No longer on disk" in card.find_element("css selector", ".shot").accessible_name
    finally:
        path.with_suffix(".away").rename(path)


@pytest.mark.parametrize("width", [360, 390])
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
            for name in ("#words", "#choose", "#how", "#tag", ".pick", ".shot"):
                box = page.one(name).rect
                assert box["height"] >= 36
                assert box["x"] >= 0
                assert box["x"] + box["width"] <= width
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_no_request_leaves_the_machine(page, browser, address, encoder):
    import json

    page.open(f"?text={encoder.vocabulary[0]}")
    page.one(".like").click()
    page.says("like this one")
    page.one(".shot").click()
    asked = set()
    for entry in browser.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        with contextlib.suppress(KeyError):
            if message["method"] == "Network.requestWillBeSent":
                asked.add(message["params"]["request"]["url"])
    assert any("/api/search" in url for url in asked)
    assert [url for url in asked if not url.startswith((address, "blob:"))] == []
