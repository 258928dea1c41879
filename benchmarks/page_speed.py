"""From typing to results on the page over 10^5 items, in a browser.

    python benchmarks/page_speed.py --export_dir=savedmodels/NAME --items=100000

Random codes with the export's own text encoder; their images are 500 files of noise, 640 x 480.
A headless Chromium gets texts of three known words, letter by letter as fast as it takes them. The
time of a query is the browser's own, from the last letter to the second frame after its results
were put on the page, the pause for typing included; and to the frame at which all images in view
are there. The server's answer alone is measured beside it. Target: a median below 150 ms.
"""

from __future__ import annotations

import argparse
import shutil
import socket
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import dsprh_tf  # noqa: E402, F401 - quietens TensorFlow before its import

# isort: split
import numpy as np  # noqa: E402
import pyarrow as pa  # noqa: E402
import uvicorn  # noqa: E402
from PIL import Image  # noqa: E402

from dsprh_tf.index.hamming import HammingIndex  # noqa: E402
from dsprh_tf.index.items import SCHEMA  # noqa: E402
from dsprh_tf.serving.encoder import Encoder  # noqa: E402
from dsprh_tf.web.app import create_app  # noqa: E402
from dsprh_tf.web.searcher import Searcher  # noqa: E402

FILES = 500
TAGS = [f"tag{i:02}" for i in range(80)]
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--window-size=1280,900",
)  # fmt: skip
# The start page with its images is there: typing comes after looking.
READY = """
const images = [...document.querySelectorAll(".card img")];
const inView = images.filter((image) => image.getBoundingClientRect().top < innerHeight);
return images.length > 0 && inView.every((image) => image.complete);
"""
# Listens on the page; its numbers are read once the query's images are there.
WATCH = """
const [text] = arguments, words = document.getElementById("words");
const status = document.getElementById("status");
window.measured = { typed: 0, shown: 0, seen: 0 };
words.addEventListener("input", () => (measured.typed = performance.now()));
new MutationObserver((_, observer) => {
  if (!status.textContent.includes(`\\u201c${text}\\u201d`)) return;
  observer.disconnect();
  requestAnimationFrame(() => requestAnimationFrame(() => (measured.shown = performance.now())));
  const inView = [...document.querySelectorAll(".card img")].filter(
    (image) => image.getBoundingClientRect().top < innerHeight);
  Promise.all(inView.map((image) => image.decode())).then(
    () => (measured.seen = performance.now()));
}).observe(status, { childList: true, characterData: true, subtree: true });
"""


def build_index(folder: Path, encoder, count: int) -> HammingIndex:
    """An index on disk, as the page reads one."""
    rng = np.random.default_rng(0)
    paths = [str(folder / f"{i:03}.jpg") for i in range(FILES)]
    for path in paths:
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8))
        coarse.resize((640, 480), Image.Resampling.BICUBIC).save(path, quality=90)
    digests = [rng.bytes(32) for _ in paths]
    items = {
        "id": rng.choice(2**62, count, replace=False),
        "modality": ["image"] * count,
        "path": [paths[i % FILES] for i in range(count)],
        "text": [None] * count,
        "size": [1] * count,
        "sha256": [digests[i % FILES] for i in range(count)],
        "tags": [[TAGS[j] for j in row] for row in rng.integers(0, len(TAGS), (count, 3))],
    }
    index = HammingIndex(encoder.bits, fingerprint=encoder.info["fingerprint"])
    codes = rng.integers(0, 256, (count, encoder.bits // 8), np.uint8)
    index.add(codes, pa.table(items, SCHEMA))
    index.save(folder / "index")
    return HammingIndex.load(folder / "index")


def serve(app) -> tuple[uvicorn.Server, str]:
    """The page on a thread of this process: (server, address)."""
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True).start()
    while not server.started:
        time.sleep(0.01)
    return server, f"http://127.0.0.1:{bound.getsockname()[1]}/"


def open_browser(profile: Path):
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    return webdriver.Chrome(options, service)


def type_and_watch(browser, address: str, text: str) -> tuple[float, float]:
    """Milliseconds to results and to their images."""
    browser.get(address)
    while not browser.execute_script(READY):
        time.sleep(0.05)
    browser.execute_script(WATCH, text)
    browser.find_element("id", "words").send_keys(text)
    while True:
        found = browser.execute_script("return measured")
        if found["shown"] and found["seen"]:
            return found["shown"] - found["typed"], found["seen"] - found["typed"]
        time.sleep(0.02)


def answer_time(address: str, text: str) -> float:
    """Milliseconds of the server's answer, without the browser."""
    url = f"{address}api/search?{urllib.parse.urlencode({'text': text})}"
    start = time.perf_counter()
    with urllib.request.urlopen(url) as answer:
        answer.read()
    return 1e3 * (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--export_dir", required=True)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=30)
    args = parser.parse_args()
    encoders = [Encoder(args.export_dir, kind) for kind in ("text", "image")]
    rng = np.random.default_rng(1)
    texts = [" ".join(rng.choice(encoders[0].vocabulary, 3)) for _ in range(args.queries)]
    with tempfile.TemporaryDirectory() as folder:
        index = build_index(Path(folder), encoders[0], args.items)
        searcher = Searcher(index, *encoders, "speed")
        searcher.warm_up()
        server, address = serve(create_app(searcher))
        browser = open_browser(Path(folder) / "profile")
        try:
            type_and_watch(browser, address, texts[0])
            shown = np.array([type_and_watch(browser, address, text) for text in texts])
            answers = np.array([answer_time(address, text) for text in texts])
        finally:
            browser.quit()
            server.should_exit = True
    print(f"{args.items:,} items of {index.bits} bits, {args.queries} queries of three words")
    print(f"{'milliseconds':<34}{'median':>9}{'90 %':>9}{'most':>9}")
    for name, values in (("last letter to results", shown[:, 0]),
                         ("last letter to images in view", shown[:, 1]),
                         ("the server's answer", answers)):  # fmt: skip
        row = np.quantile(values, [0.5, 0.9, 1])
        print(f"{name:<34}" + "".join(f"{value:>9.1f}" for value in row))


if __name__ == "__main__":
    main()
