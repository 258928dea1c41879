"""Checks of every request to the page, and headers of every answer."""

from __future__ import annotations

import re

import anyio
import anyio.to_thread
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse

from dsprh_tf.web.accounts import Accounts

_LOOPBACK = re.compile(r"(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d+)?", re.IGNORECASE)
_HEADERS = {
    # Nothing is loaded from or sent to other servers, and no other site can frame the page.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_WAITING = 16  # guesses of a password, beside the one that is being checked


class Guard:
    """ASGI middleware that refuses strangers and adds the headers that keep the page private.

    Args:
        app: the application to guard.
        accounts: accounts for HTTP Basic; None to admit everybody.
        loopback: whether only this machine reaches the server. The Host of a request is then one
            of this machine's own names: another one belongs to a web site whose name was made to
            point here (DNS rebinding) so that its scripts can read the answers.
    """

    def __init__(self, app, accounts: Accounts | None = None, loopback: bool = True):
        self._app, self._accounts, self._loopback = app, accounts, loopback
        self._one_guess: anyio.CapacityLimiter | None = None  # made within the event loop
        self._guesses = 0

    async def __call__(self, scope, receive, send) -> None:
        """Answers a request, as ASGI defines it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message):
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        answer = await self._refusal(Headers(scope=scope)) or self._app
        await answer(scope, receive, send_with_headers)

    async def _refusal(self, headers: Headers) -> JSONResponse | None:
        host = headers.get("host", "")
        if self._loopback and not _LOOPBACK.fullmatch(host):
            line = f"the host is {host[:80]!r}, expected localhost or 127.0.0.1"
            return JSONResponse({"error": line}, 421)
        foreign = headers.get("sec-fetch-site") == "cross-site"
        if foreign and headers.get("sec-fetch-mode") != "navigate":  # a link may lead here
            return JSONResponse({"error": "requests of other sites are refused"}, 403)
        if self._accounts is None:
            return None
        sent = headers.get("authorization")
        known = self._accounts.recalls(sent)
        if known is None:
            # One thread hashes, and none of those that make thumbnails, so that users who are
            # known already do not wait for somebody who tries passwords.
            if self._guesses > _WAITING:
                line = "too many passwords are waiting to be checked: try again in a second"
                return JSONResponse({"error": line}, 429, {"Retry-After": "1"})
            known = await self._guess(self._accounts, sent)
        if known:
            return None
        asking = {"WWW-Authenticate": 'Basic realm="pictures", charset="UTF-8"'}
        return JSONResponse({"error": "name and password are needed"}, 401, asking)

    async def _guess(self, accounts: Accounts, sent: str | None) -> bool:
        if self._one_guess is None:
            self._one_guess = anyio.CapacityLimiter(1)
        self._guesses += 1
        try:
            return await anyio.to_thread.run_sync(accounts.knows, sent, limiter=self._one_guess)
        finally:
            self._guesses -= 1
