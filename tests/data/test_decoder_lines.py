"""What decoders write themselves is kept off the screen; everything else stays on it."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading

import pytest
from image_files import encoded, picture

from dsprh_tf.data.decoder_lines import DecoderLines

LINES = [
    "Corrupt JPEG data: premature end of data segment",
    "Corrupt JPEG data: 23 extraneous bytes before marker 0xd9",
    "Premature end of JPEG file",
    "Bogus Huffman table definition",
    "Unsupported marker type 0x01",
    "Invalid SOS parameters for sequential JPEG",
    "libpng warning: iCCP: known incorrect sRGB profile",
    "Input file read error",
    "Fractional sampling not implemented yet",
]
OTHERS = ["2026-01-01 12:00:00 F tensorflow: a real message", "Killed", "encoding:  3%|#", ""]


def write(*lines: str) -> None:
    os.write(2, "".join(f"{line}\n" for line in lines).encode())


def test_lines_of_decoders_are_kept_and_others_handed_on(capfd):
    with DecoderLines() as lines:
        write(LINES[0], OTHERS[0], *LINES[1:], *OTHERS[1:])
        assert lines.so_far() == LINES
        os.write(2, b"the beginning of a line")
    assert capfd.readouterr().err == "\n".join([*OTHERS, "the beginning of a line"])
    write("after")
    assert capfd.readouterr().err == "after\n"


def test_contexts_overlap(capfd):
    """As in threads: the first one begins and the last one ends it."""
    first, second = DecoderLines(), DecoderLines()
    first.__enter__()
    write(LINES[0])
    second.__enter__()
    write(LINES[1])
    first.__exit__()
    write(LINES[2], "x")
    assert second.so_far() == LINES[1:3]
    second.__exit__()
    assert capfd.readouterr().err == "x\n"


def test_many_threads(capfd):
    found = []

    def work(number):
        for _ in range(30):
            with DecoderLines() as lines:
                write(LINES[0], f"thread {number}")
                found.append(LINES[0] in lines.so_far())

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(found) and len(found) == 180
    said = sorted(capfd.readouterr().err.split("\n"))
    assert said == sorted(["", *(f"thread {n}" for n in range(6) for _ in range(30))])


def test_an_error_ends_the_context(capfd):
    with pytest.raises(ValueError, match="bad"), DecoderLines():
        write(LINES[0])
        raise ValueError("bad")
    write("after")
    assert capfd.readouterr().err == "after\n"


def test_a_progress_bar_is_seen_at_once():
    """In a process of its own, whose standard error is the screen."""
    code = (
        "import os, sys\n"
        "from dsprh_tf.data.decoder_lines import DecoderLines\n"
        "screen = os.dup(2)\n"
        "with DecoderLines(live=True):\n"
        "    bar = sys.stderr\n"
        "    print('a bar', file=bar, end='\\r', flush=True)\n"
        "    os.write(2, b'Corrupt JPEG data: x\\nother\\n')\n"
        "    os.write(screen, b'now ')\n"
        "print('end', file=bar)\n"
        "print('end', file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stderr == b"a bar\rnow other\nend\nend\n"


def test_tensorflow_decodes_a_damaged_jpeg_in_silence(capfd):
    import tensorflow as tf

    content = encoded(picture(), "JPEG")
    damaged = content[:-300] + content[-2:]
    with DecoderLines() as lines:
        tf.io.decode_jpeg(content)
        assert lines.so_far() == []
        tf.io.decode_jpeg(damaged)
        assert lines.so_far() == [LINES[0]]
        with pytest.raises(tf.errors.InvalidArgumentError):
            tf.io.decode_jpeg(content[:400])
    assert capfd.readouterr().err == ""


def test_a_standard_error_that_is_no_file(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with DecoderLines(live=True) as lines:
        print("to memory", file=sys.stderr)
        write(LINES[0])
        assert lines.so_far() == LINES[:1]
    assert sys.stderr.getvalue() == "to memory\n"
