"""The page as a FastAPI application.

| request | answer |
|---|---|
| `GET /` and `/static/...` | the page: HTML, CSS, JavaScript |
| `GET /api/about` | the collection, see `Searcher.about` |
| `GET /api/search?text= &like= &values= &less=` `&find= &all= &any= &none= &offset= &count=` | see `Searcher.search`; without a query see `Searcher.browse`, with `&seed=` |
| `GET /api/tags?part= &offset= &count=` | `{"tags": [{"tag", "count"}], "total"}`, see `Collection.tags_with` |
| `POST /api/code`, the body an image file | `{"code": hexadecimal digits, "values": for a search}` |
| `GET /api/picture/ID/small`, `/large` | an indexed image as a JPEG file |
| `GET /api/picture/ID/file`, `/download` | the indexed file itself, to look at and to keep |
| `GET /api/export?ids=ID,ID &form=csv, json, zip` | a list of items, or an archive of their files; of `form=about` see `files.weigh` |

What is given of `text`, `like` (an item's id) and `values` is one query, their sum; `less` are ids of
items that it is moved away from. `all`, `any` and `none` are tags, in upper or lower case. All four
may be repeated. Of old addresses, `code` are the bits of a picture, `tag` is `all`, and `top` is `count`.

Errors are `{"error": one line}` with a status of 4xx or 5xx. A text without a known word is not an
error: its answer lists the unknown words and known words like them.
"""  # noqa: E501 - a table

import asyncio
import contextlib
from asyncio import get_running_loop as loop
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Optional  # FastAPI reads them; Python 3.9 has no "str | None"
from urllib.parse import quote

import anyio.to_thread
from fastapi import FastAPI, HTTPException, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import ClientDisconnect

from dsprh_tf.web import files
from dsprh_tf.web.accounts import Accounts
from dsprh_tf.web.guard import Guard
from dsprh_tf.web.searcher import Question, Searcher
from dsprh_tf.web.thumbnails import SIDES, Thumbnails
from dsprh_tf.web.watch import Watch

MAX_UPLOAD = 20 * 2**20
MAX_TOP = 240  # results of one answer
MAX_OFFSET = 10**6
_AT_ONCE = 2  # archives that are made at the same time
_STATIC = Path(__file__).with_name("static")
_MOST_VALUES = 2**15  # letters, of some 24,000 bits: servers refuse addresses beyond twice that
_Words = Annotated[Optional[str], Query(max_length=1000)]
_Tag = Annotated[str, Query(max_length=1000)]
_NO_TAGS: list[str] = []
_Offset = Annotated[int, Query(ge=0, le=MAX_OFFSET)]


def create_app(
    searcher: Searcher,
    accounts: Optional[Accounts] = None,
    loopback: bool = True,
    max_upload: int = MAX_UPLOAD,
    watch: Optional[Watch] = None,
) -> FastAPI:
    """The page over a collection.

    Index and encoders run on a thread of their own, so that only searches wait for searches.

    Args:
        searcher: the collection.
        accounts: accounts that may see the page; None for everybody.
        loopback: whether the page is served to this machine only, see `Guard`.
        max_upload: most bytes of an image to search by.
        watch: looks whether the index has changed, which the page then takes up; None for never.
    """
    worker = ThreadPoolExecutor(1, "searcher")
    thumbnails = Thumbnails()

    @contextlib.asynccontextmanager
    async def lifespan(app):
        following = asyncio.create_task(_follow(searcher, watch, worker)) if watch else None
        yield
        if following:
            following.cancel()
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
        return {
            **found,
            "max_upload": max_upload,
            "max_top": MAX_TOP,
            "max_export": files.MAX_ITEMS,
            "max_export_bytes": files.MAX_BYTES,
        }

    @app.get("/api/search")
    async def search(
        text: _Words = None,
        like: _Words = None,
        code: _Words = None,
        values: Annotated[Optional[str], Query(max_length=_MOST_VALUES)] = None,
        less: Annotated[list[_Tag], Query(max_length=50)] = _NO_TAGS,
        find: Annotated[Optional[str], Query(pattern="^(image|text)?$")] = None,
        tag: _Words = None,
        all_of: Annotated[list[_Tag], Query(alias="all", max_length=50)] = _NO_TAGS,
        any_of: Annotated[list[_Tag], Query(alias="any", max_length=50)] = _NO_TAGS,
        none_of: Annotated[list[_Tag], Query(alias="none", max_length=50)] = _NO_TAGS,
        offset: _Offset = 0,
        count: Annotated[Optional[int], Query(ge=1, le=MAX_TOP)] = None,
        top: Annotated[int, Query(ge=1, le=MAX_TOP)] = 24,
        seed: Annotated[Optional[int], Query(ge=0, lt=2**31)] = None,
    ):
        tags = [[name for name in names if name] for names in ([tag, *all_of], any_of, none_of)]
        where = searcher.collection.where(find or None, *tags)
        count = count or top
        question = Question(where, count, (text or "").strip(), like or "", code or "",
                            values or "", tuple(filter(None, less)), offset)  # fmt: skip
        if not question.asks:
            return await ask(searcher.browse, where, count, offset, seed)
        return await ask(searcher.search, question)

    @app.get("/api/tags")
    async def tags(
        part: _Words = None,
        offset: _Offset = 0,
        count: Annotated[int, Query(ge=1, le=MAX_TOP)] = 20,
    ):
        found, total = searcher.collection.tags_with((part or "").strip(), offset, count)
        return {"tags": [{"tag": name, "count": number} for name, number in found], "total": total}

    @app.post("/api/code")
    async def code_of(request: Request):
        content = await _body(request, max_upload)
        try:
            return await ask(searcher.encode_image, content)
        except HTTPException as error:
            if error.status_code == 400:
                raise HTTPException(415, error.detail) from error
            raise

    @app.get("/api/picture/{item}/{size}")
    async def picture(item: str, size: str):
        if size not in (*SIDES, "file", "download"):
            raise HTTPException(404, f"no size {size[:40]!r}, expected {' or '.join(SIDES)}")
        row = await ask(searcher.image_of, item)
        path, sha256 = row["path"], row["sha256"]
        try:
            if size in SIDES:
                content = await anyio.to_thread.run_sync(thumbnails.get, path, sha256, size)
                return Response(content, media_type="image/jpeg",
                                headers={"Cache-Control": "private, max-age=600"})  # fmt: skip
            file = await anyio.to_thread.run_sync(files.open_indexed, path, row["size"], sha256)
        except ValueError as error:
            raise HTTPException(410, str(error)) from error
        kind = files.media_type(path)
        inline = size == "file" and kind.startswith("image/")
        headers = {"Content-Length": str(row["size"]), **_kept_as(Path(path).name, inline)}
        return StreamingResponse(files.blocks(file), media_type=kind, headers=headers)

    free = _AT_ONCE

    @app.get("/api/export")
    async def export(
        ids: Annotated[str, Query(max_length=20 * files.MAX_ITEMS)],
        form: Annotated[str, Query(pattern="^(about|csv|json|zip)$")] = "csv",
    ):
        names = [name for name in ids.split(",") if name]
        if not 1 <= len(names) <= files.MAX_ITEMS:
            raise HTTPException(400, f"received {len(names):,} items, expected 1 to "
                                     f"{files.MAX_ITEMS:,}")  # fmt: skip
        rows = await ask(searcher.rows_of, names)
        if form in ("csv", "json"):
            content = (files.as_csv if form == "csv" else files.as_json)(rows)
            kind = "text/csv; charset=utf-8" if form == "csv" else "application/json"
            return Response(content, media_type=kind, headers=_kept_as(f"items.{form}"))
        weight = await anyio.to_thread.run_sync(files.weigh, rows)
        if form == "about":
            return weight
        if weight["bytes"] > files.MAX_BYTES:
            raise HTTPException(413, f"the archive would have {weight['bytes']:,} bytes, expected "
                                     f"at most {files.MAX_BYTES:,}: take fewer")  # fmt: skip
        nonlocal free
        if not free:
            raise HTTPException(429, "archives are being made: try again when they are done")
        free -= 1

        def done():
            nonlocal free
            free += 1

        return _Archive(files.as_zip(rows), done)

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


class _Archive(StreamingResponse):
    """An archive that is made while it is sent; `done` is called at the end, whatever it is."""

    def __init__(self, parts, done):
        super().__init__(parts, media_type="application/zip", headers=_kept_as("items.zip"))
        self._done = done

    async def __call__(self, scope, receive, send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._done()


def _kept_as(name: str, inline: bool = False) -> dict[str, str]:
    """The header that names a file and says whether it is to be saved or looked at."""
    kind = "inline" if inline else "attachment"
    return {"Content-Disposition": f"{kind}; filename*=UTF-8''{quote(name, safe='')}"}


async def _follow(searcher: Searcher, watch: Watch, worker: ThreadPoolExecutor) -> None:
    """Takes up every change of the index, until the page ends."""

    async def on_worker(function, *arguments):
        return await loop().run_in_executor(worker, function, *arguments)

    while True:
        await asyncio.sleep(watch.every)
        try:
            index = searcher.collection.index
            if watch.database:
                if await on_worker(watch.changed, index):
                    searcher.take_up(await on_worker(searcher.read, index))
            elif await anyio.to_thread.run_sync(watch.changed, index):
                # Read beside the searches, which go on with the index as it was.
                index = await anyio.to_thread.run_sync(watch.open)
                collection = await anyio.to_thread.run_sync(searcher.read, index)
                await on_worker(searcher.take_up, collection)
        except (ValueError, OSError) as error:
            searcher.notice = f"Shown as it was before a change that cannot be read: {error}"
