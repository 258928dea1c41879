"""How every program starts and ends: `--help` by groups, errors as one line with exit code 2."""

from __future__ import annotations

import logging as python_logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import dsprh_tf  # noqa: E402, F401 - quietens TensorFlow before its import

# isort: split
from absl import app, flags, logging  # noqa: E402


def run(main, groups: dict | None = None, commands: dict | None = None) -> None:
    """Runs a program: `--help` by groups, and errors as one line with exit code 2.

    Args:
        main: called with the parsed flags in `flags.FLAGS`; with the command, if there are any.
        groups: title -> flag names, the order of `--help`; flags not named come last.
        commands: word -> what it does. One of them is then the program's first argument.
    """
    main_module = sys.modules["__main__"]
    chosen = []
    logging.set_verbosity("error")
    python_logging.getLogger("tensorflow").setLevel("ERROR")

    def parse(arguments):
        if any(a in ("--help", "-h", "-help", "--helpshort") for a in arguments[1:]):
            print(_help_text(main_module, groups or {}, commands or {}))
            sys.exit(0)
        if commands:
            word = arguments[1] if len(arguments) > 1 else None
            if word not in commands:
                got = "no command" if word is None else f"{word!r}"
                fail(f"got {got}, expected one of {', '.join(commands)} before all flags")
            chosen.append(word)
            arguments = [arguments[0], *arguments[2:]]
        try:
            return flags.FLAGS(arguments)
        except (flags.Error, OSError) as error:
            return fail(error)

    def guarded(arguments):
        if len(arguments) > 1:
            fail(f"got {arguments[1]!r}, expected only --flag=value")
        try:
            main(*chosen)
        except (ValueError, OSError, MemoryError, *_tensorflow_errors()) as error:
            fail(error)
        except KeyboardInterrupt:
            print("\ninterrupted; the same command goes on from there", file=sys.stderr)
            sys.exit(130)

    app.run(guarded, flags_parser=parse)


def fail(error) -> None:
    """Ends the program with one line on stderr and exit code 2."""
    message = str(error)
    if isinstance(error, _tensorflow_errors()) and "ValueError: " in message:
        # A picture that went bad after the check at load time: the loader's own line.
        message = message.split("ValueError: ", 1)[1].split("\n", 1)[0]
    print(f"{Path(sys.argv[0]).stem}: {' '.join(message.split())[:1500]}", file=sys.stderr)
    sys.exit(2)


def _tensorflow_errors() -> tuple:
    """TensorFlow's errors, if the program uses it at all."""
    tensorflow = sys.modules.get("tensorflow")
    return (tensorflow.errors.OpError,) if tensorflow else ()


def _help_text(main_module, groups: dict, commands: dict) -> str:
    by_name = {f.name: f for f in flags.FLAGS.get_key_flags_for_module(main_module.__name__)}
    by_name.update({n: flags.FLAGS[n] for names in groups.values() for n in names})
    named = {name for names in groups.values() for name in names}
    rest = [n for n in by_name if n not in named]
    sections = list(groups.items())
    sections += [("other", rest)] if rest and groups else [("flags", rest)] if rest else []
    lines = [main_module.__doc__.strip(), ""]
    if commands:
        lines += ["commands:", *(f"  {word:22} {text}" for word, text in commands.items()), ""]
    for title, names in sections:
        lines.append(f"{title}:")
        for name in names:
            flag = by_name[name]
            default = "" if flag.default is None else f" [{flag.default_as_str.strip(chr(39))}]"
            lines.append(f"  --{name:20} {flag.help}{default}")
        lines.append("")
    lines.append("Every flag may stand in a file, one a line, given as --flagfile=FILE.")
    return "\n".join(lines)
