"""Serves a web page that searches an index by words, by a picture, or by one of its items.

    python scripts/serve_demo.py --index=indexes/photos --export_dir=savedmodels/coco-64
    python scripts/serve_demo.py --make_auth=anna >> people.txt
    python scripts/serve_demo.py --index=indexes/photos --export_dir=savedmodels/coco-64 \\
        --host=0.0.0.0 --auth_file=people.txt

Prints the address of the page. Only this machine can reach it unless --host says otherwise; then
--auth_file names who may, by HTTP Basic. That does not encrypt: use it within a network you trust,
or behind a server that speaks HTTPS. The page shows the index as it was when this program started.
"""

from __future__ import annotations

import getpass
import ipaddress
import socket
import sys

import program
from absl import flags

_INDEX = flags.DEFINE_string("index", None, "What scripts/index.py built: a folder, or an address.")
_EXPORT_DIR = flags.DEFINE_string("export_dir", None, "The encoders that the index was built with.")
_NAME = flags.DEFINE_string("name", None, "Of the collection, on the page; that of the index.")
_HOST = flags.DEFINE_string("host", "127.0.0.1", "Address to listen at.")
_PORT = flags.DEFINE_integer("port", 8008, "0 takes a free one.", 0, 65535)
_AUTH_FILE = flags.DEFINE_string("auth_file", None, "Who may see the page, lines of --make_auth.")
_MAKE_AUTH = flags.DEFINE_string("make_auth", None, "Print a line of --auth_file for this name.")
_MAX_UPLOAD = flags.DEFINE_integer("max_upload", 20, "MB of a picture to search by.", 1)
_VERIFY = flags.DEFINE_boolean("verify", True, "Compare checksums first, a second a gigabyte.")

GROUPS = {
    "page": ["index", "export_dir", "name", "max_upload", "verify"],
    "network": ["host", "port", "auth_file", "make_auth"],
}


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listen(host: str, port: int) -> socket.socket:
    """A socket that is bound, so that a taken port is found before TensorFlow is loaded."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address, family=family)
    except OSError as error:
        raise ValueError(
            f"cannot listen at --host={host} --port={port} ({error.strerror}): give others"
        ) from error


def make_auth(name: str) -> None:
    from dsprh_tf.web.accounts import make_line

    if sys.stdin.isatty():
        password = getpass.getpass(f"password of {name}: ", sys.stderr)
        if getpass.getpass("once more: ", sys.stderr) != password:
            raise ValueError("the two passwords differ")
    else:
        password = sys.stdin.readline().rstrip("\n")
    print(make_line(name, password))


def serve(bound: socket.socket, loopback: bool) -> None:
    import encoders
    import uvicorn

    from dsprh_tf.index.location import open_index, short_name
    from dsprh_tf.web.accounts import Accounts
    from dsprh_tf.web.app import create_app
    from dsprh_tf.web.searcher import Searcher

    accounts = Accounts(_AUTH_FILE.value) if _AUTH_FILE.value else None
    index = open_index(_INDEX.value, verify=_VERIFY.value)
    both = [encoders.load_encoder(_EXPORT_DIR.value, kind) for kind in ("text", "image")]
    searcher = Searcher(index, *both, _NAME.value or short_name(_INDEX.value))
    searcher.warm_up()
    app = create_app(searcher, accounts, loopback, _MAX_UPLOAD.value * 2**20)
    settings = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False,
                              timeout_graceful_shutdown=2)  # fmt: skip
    host, port = bound.getsockname()[:2]
    print(f"http://{f'[{host}]' if ':' in host else host}:{port}/   (Ctrl+C ends)", flush=True)
    try:
        uvicorn.Server(settings).run(sockets=[bound])
    except KeyboardInterrupt:
        print(file=sys.stderr)


def main() -> None:
    if _MAKE_AUTH.value is not None:
        make_auth(_MAKE_AUTH.value)
        return
    if not _INDEX.value:
        raise ValueError("needs --index=FOLDER, built with scripts/index.py")
    loopback = is_loopback(_HOST.value)
    if not loopback and not _AUTH_FILE.value:
        raise ValueError(
            f"--host={_HOST.value} lets other machines in: say who with --auth_file=FILE, whose "
            "lines scripts/serve_demo.py --make_auth=NAME prints"
        )
    with listen(_HOST.value, _PORT.value) as bound:
        serve(bound, loopback)


if __name__ == "__main__":
    program.run(main, GROUPS)
