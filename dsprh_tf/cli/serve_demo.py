"""Serves a web page that searches an index by text, by an image, or by one of its items.

    dsprh serve_demo --index=indexes/photos --export_dir=savedmodels/coco-64
    dsprh serve_demo --make_auth=anna >> people.txt
    dsprh serve_demo --index=indexes/photos --export_dir=savedmodels/coco-64 \\
        --host=0.0.0.0 --auth_file=people.txt

Prints the address of the page. Only this machine can reach it unless --host says otherwise; then
--auth_file lists the users, who log in by HTTP Basic. That does not encrypt: use it within a
network that you trust, or behind a server that speaks HTTPS. The page follows the index: what
`dsprh index` changes is shown within seconds.
"""

from __future__ import annotations

import getpass
import ipaddress
import socket
import sys

from absl import flags

from dsprh_tf.cli.program import Program, quiet_imports

FLAGS = flags.FlagValues()
_INDEX = flags.DEFINE_string(
    "index", None, "Index to search: a folder, or the address of a database.", flag_values=FLAGS
)
_EXPORT_DIR = flags.DEFINE_string(
    "export_dir", None, "Encoders that the index was built with.", flag_values=FLAGS
)
_NAME = flags.DEFINE_string(
    "name", None, "Name of the collection on the page; the index's own name if not given.",
    flag_values=FLAGS,
)  # fmt: skip
_HOST = flags.DEFINE_string("host", "127.0.0.1", "Address to listen at.", flag_values=FLAGS)
_PORT = flags.DEFINE_integer(
    "port", 8008, "Port to listen at; 0 takes a free one.", 0, 65535, flag_values=FLAGS
)
_AUTH_FILE = flags.DEFINE_string(
    "auth_file", None, "File of users, with lines of --make_auth.", flag_values=FLAGS
)
_MAKE_AUTH = flags.DEFINE_string(
    "make_auth", None, "Print a line of --auth_file for this user name.", flag_values=FLAGS
)
_MAX_UPLOAD = flags.DEFINE_integer(
    "max_upload", 20, "Largest size of an uploaded image, in MB.", 1, flag_values=FLAGS
)
_VERIFY = flags.DEFINE_boolean(
    "verify", True, "Compare checksums first: a second per gigabyte.", flag_values=FLAGS
)

GROUPS = {
    "page": ["index", "export_dir", "name", "max_upload", "verify"],
    "network": ["host", "port", "auth_file", "make_auth"],
}


def main() -> None:
    """Serves the page, or prints a line of --auth_file."""
    if _MAKE_AUTH.value is not None:
        make_auth(_MAKE_AUTH.value)
        return
    if not _INDEX.value:
        raise ValueError("needs --index=FOLDER, built with `dsprh index`")
    loopback = is_loopback(_HOST.value)
    if not loopback and not _AUTH_FILE.value:
        raise ValueError(
            f"--host={_HOST.value} lets other machines in: list the users with --auth_file=FILE, "
            "whose lines `dsprh serve_demo --make_auth=NAME` prints"
        )
    with listen(_HOST.value, _PORT.value) as bound:
        serve(bound, loopback)


def is_loopback(host: str) -> bool:
    """Whether a host is reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listen(host: str, port: int) -> socket.socket:
    """A bound socket, so that a taken port is found before TensorFlow is loaded."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address, family=family)
    except OSError as error:
        raise ValueError(
            f"cannot listen at --host={host} --port={port} ({error.strerror}): give others"
        ) from error


def make_auth(name: str) -> None:
    """Asks for a password and prints a line of --auth_file."""
    from dsprh_tf.web.accounts import make_line

    if sys.stdin.isatty():
        password = getpass.getpass(f"password of {name}: ", sys.stderr)
        if getpass.getpass("once more: ", sys.stderr) != password:
            raise ValueError("the two passwords differ")
    else:
        password = sys.stdin.readline().rstrip("\n")
    print(make_line(name, password))


def serve(bound: socket.socket, loopback: bool) -> None:
    """Serves the page on a bound socket until Ctrl+C."""
    with quiet_imports():
        import uvicorn

        from dsprh_tf.index.location import short_name
        from dsprh_tf.serving.encoder import load_encoder
        from dsprh_tf.web.accounts import Accounts
        from dsprh_tf.web.app import create_app
        from dsprh_tf.web.searcher import Searcher
        from dsprh_tf.web.watch import Watch

    accounts = Accounts(_AUTH_FILE.value) if _AUTH_FILE.value else None
    watch = Watch(_INDEX.value, _VERIFY.value)
    index = watch.open()
    text, image = (load_encoder(_EXPORT_DIR.value, kind) for kind in ("text", "image"))
    searcher = Searcher(index, text, image, _NAME.value or short_name(_INDEX.value))
    searcher.warm_up()
    app = create_app(searcher, accounts, loopback, _MAX_UPLOAD.value * 2**20, watch)
    settings = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False,
        timeout_graceful_shutdown=2,
    )  # fmt: skip
    host, port = bound.getsockname()[:2]
    print(f"http://{f'[{host}]' if ':' in host else host}:{port}/   (Ctrl+C ends)", flush=True)
    try:
        uvicorn.Server(settings).run(sockets=[bound])
    except KeyboardInterrupt:
        print(file=sys.stderr)


PROGRAM = Program(__doc__, main, FLAGS, GROUPS)
