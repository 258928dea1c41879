"""Runs docs/tutorial.md as it stands: its commands in a folder, and its pictures in a browser.

    python tests/tutorial.py --write

draws the pictures of the tutorial and README's page.jpg anew, and puts the outputs of today into
the text blocks. A line of a text block stands for the first line of the real output that it equals
but for numbers, and "..." for any lines; so what is shown is chosen in the tutorial itself. Look
at every picture before you commit it.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

import dsprh_tf  # noqa: E402, F401 - quietens TensorFlow before its import

# isort: split
from browser_helpers import CHROMIUM, PATIENCE, Page, open_browser, until  # noqa: E402
from helpers import ROOT  # noqa: E402
from page_helpers import commands, page_text, program_of, run_command, within  # noqa: E402
from PIL import Image  # noqa: E402

PAGE = ROOT / "docs" / "tutorial.md"
SERVERS = {"dsprh serve_demo": 8008, "tensorboard": 6006}  # and their usual ports
HOME = "/home/me/try"  # what stands for the folder in the tutorial
QUERY = "a palm on the beach"  # typed into the page
# Clicks the (i) of TensorBoard's fourth curve; whether what it says is seen. All in shadow roots.
INFO = """
const all = (root) => [...root.querySelectorAll("*")].flatMap(
  (e) => [e, ...(e.shadowRoot ? all(e.shadowRoot) : [])]);
const found = all(document).filter((e) => e.title === "Show summary description");
found[3]?.click();
return found.length > 3;
"""
DIALOG = """
const all = (root) => [...root.querySelectorAll("*")].flatMap(
  (e) => [e, ...(e.shadowRoot ? all(e.shadowRoot) : [])]);
return all(document).some((e) => e.id === "descriptionDialog" && e.clientHeight > 100);
"""
MOST_BYTES = 150_000  # of a picture
_PARTS = re.compile(
    r"```(?P<language>bash|python)(?P<fails> fails)?\n(?P<code>.*?)```"
    r"(?:\n\n```text\n(?P<shown>.*?)```)?"
    r"|!\[[^\]]*\]\((?P<picture>[\w/.-]+)\)",
    re.DOTALL,
)


@dataclass
class Tutorial:
    """The tutorial under way.

    Args:
        folder: where its commands run.
        pictures: where its pictures are written, below docs/; None for none.
    """

    folder: Path
    pictures: Path | None
    servers: dict = field(default_factory=dict)
    names: dict = field(default_factory=dict)
    text: str = ""

    def run(self) -> str:
        """Runs all of it, and returns the tutorial with the outputs of this run."""
        text = page_text("docs/tutorial.md")
        try:
            with within(self.folder):
                self.text = _PARTS.sub(self._part, text)
        finally:
            self._stop()
        return self.text

    def _part(self, found: re.Match) -> str:
        if found["picture"]:
            self._picture(found["picture"])
            return found[0]
        run = self._bash if found["language"] == "bash" else self._python
        said = run(found["code"], bool(found["fails"])).replace(str(self.folder), HOME)
        if found["shown"] is None:
            return found[0]
        before, _, _ = found[0].partition("\n\n```text\n")
        return f"{before}\n\n```text\n{as_shown(found['shown'], said)}```"

    def _bash(self, block: str, fails: bool) -> str:
        said = []
        for command in commands(block):
            if command.startswith(tuple(SERVERS)):
                said.append(self._serve(command))
                continue
            outcome = run_command(command)
            # Progress bars are no lines of the output.
            lines = [line for line in outcome.err.split("\n") if line and "\r" not in line]
            said += [outcome.out, *(f"{line}\n" for line in lines)]
            expected = fails and command == commands(block)[-1]
            assert (outcome.code != 0) is expected, (command, outcome.code, outcome.err[-2000:])
        return "".join(said)

    def _python(self, block: str, fails: bool) -> str:
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(block, str(PAGE), "exec"), self.names)  # noqa: S102 - the tutorial's own
        return out.getvalue()

    def _serve(self, command: str) -> str:
        """Starts a server at a free port; what it says of its address is as if at its own."""
        name = next(server for server in SERVERS if command.startswith(server))
        found = program_of(command)
        start = ["-m", "dsprh_tf.cli", found[0]] if found else ["-m", "tensorboard.main"]
        arguments = found[1] if found else command.split()[1:]
        log = self.folder / f"{name.split()[-1]}.log"
        with open(log, "wb") as file:
            process = subprocess.Popen(
                [sys.executable, *start, *arguments, "--port=0"],
                stdout=file, stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )  # fmt: skip
        self.servers[name] = process

        def address():
            assert process.poll() is None, log.read_text()
            return re.search(r"http://[\w.]+:\d+/", log.read_text())

        self.servers[f"{name} address"] = until(address)[0]
        return re.sub(r":\d+/", f":{SERVERS[name]}/", log.read_text())

    def _stop(self) -> None:
        browser = self.servers.pop("browser", None)
        if browser:
            browser.quit()
        for process in self.servers.values():
            if isinstance(process, subprocess.Popen):
                process.send_signal(signal.SIGINT)
                process.wait(PATIENCE)

    # Pictures.

    def _picture(self, name: str) -> None:
        if self.pictures is None:
            return
        path = self.pictures / name
        path.parent.mkdir(parents=True, exist_ok=True)
        draw = getattr(self, "_draw_" + Path(name).stem.replace("-", "_"))
        draw().convert("RGB").save(path, quality=75, optimize=True)
        assert path.stat().st_size < MOST_BYTES, f"{path} has {path.stat().st_size:,} bytes"

    def _browser(self):
        if "browser" not in self.servers:
            self.servers["browser"] = open_browser(tempfile.mkdtemp(dir=self.folder))
        return self.servers["browser"]

    def _shot(self, width: int, height: int) -> Image.Image:
        """What the browser shows, once all images in view are there."""
        browser = self._browser()
        until(lambda: browser.execute_script(
            "return [...document.images].every(i => i.complete || i.loading === 'lazy' && "
            "i.getBoundingClientRect().top > innerHeight)"))  # fmt: skip
        picture = Image.open(io.BytesIO(browser.get_screenshot_as_png()))
        assert picture.size == (width, height), picture.size
        return picture

    def _size(self, width: int, height: int, phone: bool = False) -> None:
        self._browser().execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone},
        )
        self._browser().execute_cdp_cmd("Emulation.setScrollbarsHidden", {"hidden": True})

    def _page(self, width: int, height: int, phone: bool = False) -> Page:
        self._size(width, height, phone)
        return Page(self._browser(), self.servers["dsprh serve_demo address"])

    def _typed(self, page: Page, text: str) -> Page:
        page.open()
        page.one("#words").send_keys(text)
        page.says(f"items for “{text}”")
        return page

    def _draw_page(self) -> Image.Image:
        self._typed(self._page(1280, 800), QUERY)
        return self._shot(1280, 800)

    def _draw_phone(self) -> Image.Image:
        self._typed(self._page(390, 780, phone=True), QUERY)
        return self._shot(390, 780)

    def _draw_copies(self) -> Image.Image:
        """The larger view of an item that is there twice, once the page knows of it."""
        page = self._page(1280, 800)
        until(lambda: self._copies(page))
        self._browser().execute_script(
            "const e = document.getElementById('view-path');"
            "e.textContent = e.textContent.replaceAll(arguments[0], arguments[1])",
            str(self.folder), HOME,
        )  # fmt: skip
        return self._shot(1280, 800)

    def _copies(self, page: Page) -> bool:
        page.open("?text=beach&find=image")
        for card in page.all(".card"):
            if card.find_elements("css selector", ".places"):
                card.find_element("css selector", ".shot").click()
                return True
        return False

    def _draw_curves(self) -> Image.Image:
        (path,) = self.folder.glob("photos/runs/*/curves.png")
        picture = Image.open(path)
        picture.thumbnail((1000, 1000))
        return picture

    def _draw_found(self) -> Image.Image:
        picture = Image.open(self.folder / "found.png")
        picture.thumbnail((1000, 1000))
        return picture

    def _draw_tensorboard(self) -> Image.Image:
        self._size(1280, 800)
        browser = self._browser()
        shown = "#scalars&tagFilter=loss/(total%7CL_2)%7C/map&_smoothingWeight=0"
        browser.get(self.servers["tensorboard address"] + shown)
        until(lambda: browser.execute_script(INFO))
        until(lambda: browser.execute_script(DIALOG))
        return self._shot(1280, 800)


def masked(line: str) -> str:
    """A line without what differs from machine to machine: numbers, and the rows of results."""
    if re.match(r" +(\d\.\d+ +)?\d+ |\d+ /", line):
        return "row"
    return " ".join(re.sub(r"[\d.,:]*\d", "#", line).split())


def as_shown(shown: str, said: str) -> str:
    """The lines of the real output that a text block shows.

    Raises:
        AssertionError: a line of the block is not in the output, behind those before it.
    """
    if not shown.strip():
        return said
    left = iter(said.splitlines())
    lines = []
    for line in shown.splitlines():
        if line.strip() not in ("", "..."):
            real = next((real for real in left if masked(real) == masked(line)), None)
            assert real is not None, f"the tutorial shows {line!r}, but the output is\n{said}"
            line = real
        lines.append(line.rstrip())
    return "\n".join(lines) + "\n"


def main() -> None:
    """Runs the tutorial, and with --write brings it up to date."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write outputs and pictures to docs")
    write = parser.parse_args().write
    os.environ["COLUMNS"] = "200"
    with tempfile.TemporaryDirectory(prefix="dsprh_tutorial_") as folder:
        drawn = Path(folder) / "pictures"
        work = Path(folder) / "work"
        work.mkdir()
        text = Tutorial(work, drawn if CHROMIUM else None).run()
        if write:
            PAGE.write_text(text, "utf-8")
            shutil.copytree(drawn, PAGE.parent, dirs_exist_ok=True)


if __name__ == "__main__":
    main()
