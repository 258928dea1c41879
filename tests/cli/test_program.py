"""How programs end."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from helpers import ROOT


@pytest.mark.parametrize("flags", [["--help"], ["--count=1", "--out={}/scenes"]])
def test_a_reader_that_has_gone_ends_it_quietly(flags, tmp_path):
    """As in `dsprh ... | head -1`."""
    reader, writer = os.pipe()
    os.close(reader)
    program = ROOT / "scripts" / "make_scenes.py"
    command = [sys.executable, program, *(flag.format(tmp_path) for flag in flags)]
    with open(writer, "wb") as out:
        ended = subprocess.run(command, stdout=out, stderr=subprocess.PIPE, text=True)
    assert ended.returncode == 141
    bars = [line for line in ended.stderr.split("\n") if line.strip()]
    assert all(line.startswith("drawing: ") for line in bars), bars
