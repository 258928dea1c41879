"""How every program starts and ends: `--help` by groups, errors as one line with exit code 2."""

from __future__ import annotations

import contextlib
import importlib
import logging as python_logging
import os
import select
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence

from absl import flags, logging

import dsprh_tf
from dsprh_tf.data.files import require_regular

# Each is a module of this package with a `PROGRAM`.
PROGRAMS = {
    "train": "trains a model and evaluates it",
    "evaluate": "evaluates a trained run in all directions",
    "baseline": "evaluates LSH, CCA + ITQ, signs or the features that are not hashed",
    "reproduce": "trains all trials of the paper's tables and figures and writes reports",
    "export": "exports both encoders of a run for TensorFlow Serving",
    "encode": "encodes a collection of images or texts",
    "index": "builds and changes an index of codes",
    "sync": "brings an index up to date with a folder of images",
    "search": "searches an index, or the database of a run",
    "serve_demo": "serves a web page that searches an index",
    "make_scenes": "draws the data set of the demo",
    "convert_weights": "converts PyTorch weights",
}


_HELP = ("--help", "-h", "-help", "--helpshort")
_FLAG_FILE = 2**20  # bytes of a flag file
_LONGEST_NAME = 100  # characters of a flag's name
_NESTED = 20  # flag files in flag files


class Program:
    """A command-line program.

    Args:
        doc: the text of `--help`; its commands begin with `dsprh NAME`.
        main: called once the flags are parsed, with the command if there are any; returns an exit
            code, or None for 0.
        flag_values: the program's own flags; absl's global ones are left alone.
        groups: title -> flag names, the order of `--help`; flags that are not named come last.
        commands: word -> what it does. One of them is then the program's first argument.
        hidden: flags that flag files of other programs may hold, and that `--help` does not list.
        other_programs: commands that are programs of their own, with their flags and `--help`.
        positional: the flag whose value may also stand alone, as the first argument.
        about: what `--help` is to show of the other arguments given with it: a function without
            arguments, called once these are parsed, that returns name -> text of a flag, and the
            groups.

    Attributes:
        typed: names of the flags that stand on the command line itself, not in a flag file.
    """

    def __init__(
        self,
        doc: str,
        main: Callable,
        flag_values: flags.FlagValues,
        groups: Mapping[str, Sequence[str]] | None = None,
        commands: Mapping[str, str] | None = None,
        hidden: Sequence[str] = (),
        other_programs: Sequence[str] = (),
        positional: str | None = None,
        about: Callable[[], tuple[dict, dict]] | None = None,
    ):
        self.doc = doc
        self.typed: frozenset[str] = frozenset()
        self._main = main
        self._flags = flag_values
        self._groups = dict(groups or {})
        self._commands = dict(commands or {})
        self._hidden = frozenset(hidden)
        self._other_programs = other_programs
        self._positional = positional
        self._about = about

    def run(self, name: str, arguments: Sequence[str], called: str) -> int:
        """Parses the arguments and runs the program.

        Args:
            name: the program's name, which begins its error lines.
            arguments: what follows the program's name on the command line.
            called: how the user calls the program, for `--help`.

        Returns:
            The exit code: 0, what `main` returns, 2 for an error, 130 for Ctrl+C, 141 where the
            reader of the output has gone (`dsprh ... | head -1`), as of a program that this ends.
        """
        logging.set_verbosity("error")
        python_logging.getLogger("tensorflow").setLevel("ERROR")
        arguments, chosen = list(arguments), []
        if arguments and arguments[0] in self._other_programs:
            word = arguments[0]
            return load(word).run(word, arguments[1:], f"{called} {word}")
        try:
            rest = [a for a in arguments if a not in _HELP]
            if len(rest) < len(arguments):
                if self._about is not None:
                    self._parse(rest)
                print(self.help().replace(f"dsprh {name}", called), flush=True)
                return 0
            if self._commands:
                chosen = [self._command(arguments)]
                arguments = arguments[1:]
            self._parse(arguments)
            code = self._main(*chosen) or 0
            sys.stdout.flush()  # a reader that has gone is noticed here, not at the very end
            return code
        except BrokenPipeError as error:
            if not _reader_gone():
                print(f"{name}: {_one_line(error)}", file=sys.stderr)
                return 2
            return 141
        except (ValueError, OSError, MemoryError, flags.Error, *_tensorflow_errors()) as error:
            print(f"{name}: {_one_line(error)}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print("\ninterrupted; the same command goes on from there", file=sys.stderr)
            return 130

    def _command(self, arguments: Sequence[str]) -> str:
        word = arguments[0] if arguments else None
        if word not in self._commands:
            got = "no command" if word is None else f"{word!r}"
            raise ValueError(
                f"got {got}, expected one of {', '.join(self._commands)} before all flags"
            )
        return word

    def _parse(self, arguments: Sequence[str]) -> None:
        arguments = list(arguments)
        if self._positional and arguments and not arguments[0].startswith("-"):
            arguments[0] = f"--{self._positional}={arguments[0]}"
        _check_flag_files(arguments)
        self._flags.unparse_flags()  # a former call in the same process
        try:
            rest = self._flags([sys.argv[0], *arguments])[1:]
        except RecursionError as error:
            raise ValueError("got a flag with an endless name, expected --flag=value") from error
        if len(rest) == 1 and self._positional and not self._flags[self._positional].present:
            self._flags[self._positional].value = rest.pop()
            self._flags[self._positional].present = 1
        if rest:
            raise ValueError(f"got {rest[0]!r}, expected only --flag=value")
        names = (a.lstrip("-").split("=")[0] for a in arguments if a.startswith("-"))
        self.typed = frozenset(names)

    def help(self) -> str:
        """The text of `--help`."""
        named = [name for names in self._groups.values() for name in names]
        rest = [n for n in self._flags if n not in named and n not in self._hidden]
        texts: Mapping[str, str] = {}
        sections: dict[str, Sequence[str]] = dict(self._groups)
        if self._about is not None:
            texts, sections = self._about()
        if rest:
            sections["other" if self._groups else "flags"] = rest
        lines = [self.doc.strip(), ""]
        if self._commands:
            lines += ["commands:", *(f"  {w:22} {text}" for w, text in self._commands.items()), ""]
        for title, names in sections.items():
            lines.append(f"{title}:")
            for name in names:
                flag = self._flags[name]
                default = "" if flag.default is None else f" [{flag.default_as_str.strip(chr(39))}]"
                text = texts.get(name, flag.help).split(";\n")[0]  # absl adds how flags repeat
                lines.append(f"  --{name:20} {text}{default}")
            lines.append("")
        lines.append("Every flag may stand in a file, one per line, given as --flagfile=FILE.")
        return "\n".join(lines)


def _check_flag_files(arguments: Sequence[str]) -> None:
    """Refuses flag files that absl would wait for, read without end, or pass over.

    Raises:
        ValueError: a file is missing, no file, no text in UTF-8, too large, or names itself.
    """
    for at, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        _check_name(name, "the command line")
        if name in ("--flagfile", "-flagfile"):
            following = arguments[at + 1] if at + 1 < len(arguments) else ""
            _check_flag_file((value if equals else following).strip(), ())


def _check_name(word: str, place: str) -> None:
    """Refuses names that absl would compare with those of all flags, for minutes."""
    if word.startswith("-") and len(word) > _LONGEST_NAME and " " not in word:
        raise ValueError(f"{place} has {word[:40]!r}..., expected only --flag=value")


def _check_flag_file(name: str, above: tuple[str, ...]) -> None:
    path = os.path.expanduser(name)
    if not path:
        return
    if path in above or len(above) > _NESTED:
        raise ValueError(f"--flagfile={name} names itself, by way of {', '.join(above)}")
    try:
        require_regular(path)
        if os.path.getsize(path) > _FLAG_FILE:
            raise ValueError(f"{path} has more than {_FLAG_FILE:,} bytes, expected lines of flags")
        with open(path, encoding="utf-8") as file:
            lines = file.read().split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"--flagfile: {path} is not text in UTF-8 ({error})") from error
    except ValueError as error:
        raise ValueError(f"--flagfile: {error}") from error
    for line in lines:
        word, equals, value = line.partition("=")
        _check_name(word, path)
        if equals and word in ("--flagfile", "-flagfile"):
            _check_flag_file(value.strip(), (*above, path))


def start(name: str) -> None:
    """Runs a program with this process's arguments, and ends the process with its exit code.

    Args:
        name: one of `PROGRAMS`.
    """
    called = f"python {sys.argv[0]}"
    sys.exit(load(name).run(name, sys.argv[1:], called))


def main() -> None:
    """The program `dsprh`: its first argument names one of `PROGRAMS`."""
    word, *arguments = sys.argv[1:] or ["--help"]
    if word in ("--help", "-h", "help"):
        width = max(map(len, PROGRAMS))
        print("Cross-modal hashing in TensorFlow.\n\n    dsprh PROGRAM --flag=value ...\n")
        print("\n".join(f"  {name:{width}}  {text}" for name, text in PROGRAMS.items()))
        print("\n`dsprh PROGRAM --help` lists the flags of a program.")
        sys.exit(0)
    if word == "--version":
        print(dsprh_tf.__version__)
        sys.exit(0)
    if word not in PROGRAMS:
        print(f"dsprh: got {word!r}, expected one of {', '.join(PROGRAMS)}", file=sys.stderr)
        sys.exit(2)
    sys.exit(load(word).run(word, arguments, f"dsprh {word}"))


def load(name: str) -> Program:
    """The program of a name; only its own module is imported, since many need no TensorFlow."""
    with quiet_imports():
        return importlib.import_module(f"dsprh_tf.cli.{name}").PROGRAM


@contextlib.contextmanager
def quiet_imports() -> Iterator[None]:
    """Keeps off the screen what TensorFlow 2.21 writes on import before it reads any setting."""
    sys.stderr.flush()
    stderr = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


def _reader_gone() -> bool:
    """Whether nothing reads the output any more; if so, what is left of it goes nowhere."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), select.POLLOUT)
    if not any(event & select.POLLERR for _, event in poll.poll(0)):
        return False
    # Python flushes once more at its end, and would complain.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True


def _one_line(error: BaseException) -> str:
    message = str(error)
    if isinstance(error, _tensorflow_errors()) and "ValueError: " in message:
        # An image that went bad after the check at load time: the loader's own line.
        message = message.split("ValueError: ", 1)[1].split("\n", 1)[0]
    return " ".join(message.split())[:1500]


def _tensorflow_errors() -> tuple:
    """TensorFlow's errors, if the program uses it at all."""
    tensorflow = sys.modules.get("tensorflow")
    return (tensorflow.errors.OpError,) if tensorflow else ()
