"""The examples of README and the tutorial, read from the pages and run as they stand."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
from pathlib import Path

from helpers import ROOT, Outcome, call_program


def page_text(page: str, section: str = "") -> str:
    """A page, or the part of it below a heading up to the next one of its level or above."""
    text = (ROOT / page).read_text("utf-8")
    if not section:
        return text
    level = len(section) - len(section.lstrip("#"))
    return re.split(rf"\n#{{2,{level}}} ", text.split(f"{section}\n")[1])[0]


def blocks(text: str, language: str) -> list[str]:
    """The contents of a page's code blocks in a language."""
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def commands(block: str) -> list[str]:
    """The commands of a block, each in one line."""
    lines = block.replace("\\\n", " ").splitlines()
    return [line for line in lines if line and line[0] != "#"]


def program_of(command: str) -> tuple[str, list[str]] | None:
    """(name, arguments) of `dsprh NAME ...` or `python scripts/NAME.py ...`, None of others."""
    words = shlex.split(command, comments=True)
    if words[0] == "dsprh":
        return words[1], words[2:]
    if words[0] == "python" and (script := re.fullmatch(r"scripts/(\w+)\.py", words[1])):
        return script[1], words[2:]
    return None


def run_command(command: str, more: dict | None = None) -> Outcome:
    """Runs a command in the current folder: the project's programs in this process, others by sh.

    Args:
        command: one line of a page.
        more: name of a program -> further arguments for it.
    """
    if found := program_of(command):
        name, arguments = found
        return call_program(name, *arguments, *(more or {}).get(name, []))
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    return Outcome(done.returncode, done.stdout, done.stderr)


@contextlib.contextmanager
def within(folder: Path):
    """As `contextlib.chdir`, which Python 3.11 brought."""
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
