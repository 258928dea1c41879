"""The page as a FastAPI application.

| request | answer |
|---|---|
| `GET /` and `/static/...` | the page: HTML, CSS, JavaScript |
| `GET /api/about` | the collection, see `Searcher.about` |
| `GET /api/search?text= or like= or code=` `&find= &tag= &top=` | see `Searcher.search`; without a query see `Searcher.browse` |
| `POST /api/code`, the body an image file | `{"code": hexadecimal digits}` |
| `GET /api/picture/ID/small`, `/large` | an indexed image as a JPEG file |

Errors are `{"error": one line}` with a status of 4xx or 5xx. A text without a known word is not an
error: its answer lists the unknown words and known words like them.
"""  # noqa: E501 - a table

import contextlib
from asyncio import get_running_loop as loop
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Optional  # FastAPI reads them; Python 3.9 has no "str | None"

import anyio.to_thread
from fastapi import FastAPI, HTTPException, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import ClientDisconnect

from dsprh_tf.index.interface import Where
from dsprh_tf.web.accounts import Accounts
from dsprh_tf.web.guard import Guard
from dsprh_tf.web.searcher import Question, Searcher
from dsprh_tf.web.thumbnails import SIDES, Thumbnails

MAX_UPLOAD = 20 * 2**20
MAX_TOP = 240
_STATIC = Path(__file__).with_name("static")
_Words = Annotated[Optional[str], Query(max_length=1000)]


def create_app(
    searcher: Searcher,
    accounts: Optional[Accounts] = None,
    loopback: bool = True,
    max_upload: int = MAX_UPLOAD,
) -> FastAPI:
    """The page over a collection.

    Index and encoders run on a thread of their own, so that only searches wait for searches.

    Args:
        searcher: the collection.
        accounts: accounts that may see the page; None for everybody.
        loopback: whether the page is served to this machine only, see `Guard`.
        max_upload: most bytes of an image to search by.
    """
    worker = ThreadPoolExecutor(1, "searcher")
    thumbnails = Thumbnails()

    @contextlib.asynccontextmanager
    async def lifespan(app):
        yield
        worker.shutdown(wait=False, cancel_futures=True)

    app = FastAPI(title="Search", lifespan=lifespan, docs_url=None, redoc_url=None,
                  openapi_url=None)  # fmt: skip
    app.add_middleware(Guard, accounts=accounts, loopback=loopback)
    app.mount("/static", StaticFiles(directory=_STATIC), "static")

    async def ask(function, *arguments):
        """Calls the searcher on its thread; errors become a status."""
        try:
            return await loop().run_in_executor(worker, function, *arguments)
        except LookupError as error:
            raise HTTPException(404, str(error)) from error
        except ValueError as error:
            raise HTTPException(400, str(error)) from error
        except OSError as error:
            raise HTTPException(503, f"the index cannot be read: {error}") from error

    @app.get("/")
    async def page():
        return FileResponse(_STATIC / "index.html")

    @app.get("/api/about")
    async def about():
        found = await ask(searcher.about)
        return {**found, "max_upload": max_upload, "max_top": MAX_TOP}

    @app.get("/api/search")
    async def search(
        text: _Words = None,
        like: _Words = None,
        code: _Words = None,
        find: Annotated[Optional[str], Query(pattern="^(image|text)?$")] = None,
        tag: _Words = None,
        top: Annotated[int, Query(ge=1, le=MAX_TOP)] = 24,
    ):
        where = Where(tag=tag or None, modality=find or None)
        kinds = {"text": (text or "").strip(), "like": like, "code": code}
        given = [(kind, value) for kind, value in kinds.items() if value]
        if len(given) > 1:
            raise HTTPException(400, "give one of text, like and code")
        if not given:
            return await ask(searcher.browse, where, top)
        ((kind, value),) = given
        return await ask(searcher.search, Question(kind, value, where, top))

    @app.post("/api/code")
    async def code_of(request: Request):
        content = await _body(request, max_upload)
        try:
            return {"code": await ask(searcher.encode_image, content)}
        except HTTPException as error:
            if error.status_code == 400:
                raise HTTPException(415, error.detail) from error
            raise

    @app.get("/api/picture/{item}/{size}")
    async def picture(item: str, size: str):
        if size not in SIDES:
            raise HTTPException(404, f"no size {size[:40]!r}, expected {' or '.join(SIDES)}")
        path, sha256 = await ask(searcher.image_of, item)
        try:
            content = await anyio.to_thread.run_sync(thumbnails.get, path, sha256, size)
        except ValueError as error:
            raise HTTPException(410, str(error)) from error
        return Response(content, media_type="image/jpeg",
                        headers={"Cache-Control": "private, max-age=600"})  # fmt: skip

    @app.exception_handler(StarletteHTTPException)
    async def refused(request, error):
        return JSONResponse({"error": error.detail}, error.status_code, error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request, error):
        first = error.errors()[0]
        line = f"{first['loc'][-1]} is {str(first.get('input'))[:40]!r}: {first['msg']}"
        return JSONResponse({"error": line}, 422)

    return app


async def _body(request: Request, most: int) -> bytes:
    """The body of a request; reading stops with an error after `most` bytes."""
    refusal = HTTPException(413, f"the picture is too large, expected at most {most:,} bytes")
    with contextlib.suppress(ValueError):
        if int(request.headers.get("content-length", "0")) > most:
            raise refusal
    content = bytearray()
    try:
        async for part in request.stream():
            content += part
            if len(content) > most:
                raise refusal
    except ClientDisconnect as error:
        raise HTTPException(400, "the picture broke off: send it again") from error
    return bytes(content)
