"""The page's server: its answers, and what it refuses to whom."""

from __future__ import annotations

import base64
import io
import re
import shutil
import sys
import threading
import time
import zipfile
from pathlib import Path

import anyio
import numpy as np
import pyarrow as pa
import pytest
from fastapi.testclient import TestClient
from helpers import ROOT, png_header
from index_helpers import dots
from PIL import Image
from starlette.responses import JSONResponse

from dsprh_tf.data.images import checked_bytes, shrunk_bytes
from dsprh_tf.index.hamming import HammingIndex
from dsprh_tf.index.items import SCHEMA
from dsprh_tf.serving.encoder import Encoder
from dsprh_tf.web import thumbnails as thumbnails_module
from dsprh_tf.web.accounts import Accounts, make_line
from dsprh_tf.web.app import create_app
from dsprh_tf.web.guard import Guard
from dsprh_tf.web.searcher import Searcher
from dsprh_tf.web.thumbnails import Thumbnails
from dsprh_tf.web.values import as_text, from_text
from dsprh_tf.web.watch import Watch

BITS = 16
HOST = "http://127.0.0.1"
STATIC = sorted(path.name for path in (ROOT / "dsprh_tf/web/static").iterdir())


@pytest.fixture(scope="module")
def library(collection):
    """The index's folder, and that of the pictures."""
    return collection / "index", collection / "scenes"


@pytest.fixture(scope="module")
def encoders(exported):
    return [Encoder(exported, kind) for kind in ("text", "image")]


@pytest.fixture(scope="module")
def index(library):
    return HammingIndex.load(library[0])


@pytest.fixture(scope="module")
def searcher(index, encoders):
    return Searcher(index, *encoders, "scenes")


@pytest.fixture(scope="module")
def client(searcher):
    with TestClient(create_app(searcher, max_upload=200_000), HOST) as client:
        yield client


@pytest.fixture(scope="module")
def items(index):
    """All of the index: id -> (item, code)."""
    ids = index.ids_where()
    rows = index.items_of(ids).to_pylist()
    return {str(row["id"]): (row, code) for row, code in zip(rows, index.codes_of(ids))}


@pytest.fixture(scope="module")
def picture(items):
    """The id of an indexed picture."""
    return next(name for name, (item, _) in items.items() if item["modality"] == "image")


def check_answer(answer, items, values, top, admits=lambda item: True, own=()):
    """Right up to rounding, by the definition, every item as it is; images and texts in turn."""
    names = [name for name, (item, _) in items.items() if admits(item) and name not in own]
    true = dict(zip(names, dots([items[name][1] for name in names], values)))
    best = [
        sorted((true[name] for name in names if items[name][0]["modality"] == kind), reverse=True)
        for kind in ("image", "text")
    ]
    expected = [each[i] for i in range(max(map(len, best))) for each in best if i < len(each)]
    found = answer["results"]
    np.testing.assert_allclose([r["similarity"] for r in found], expected[:top], atol=1e-4)
    assert answer["total"] == len(expected)
    assert len({r["id"] for r in found}) == len(found)
    for result in found:
        item, own_code = items[result["id"]]
        assert result["id"] not in own
        assert admits(item)
        assert result["similarity"] == pytest.approx(true[result["id"]], abs=1e-4)
        assert result["distance"] == np.sum(np.unpackbits(own_code) != (values >= 0))
        assert result["code"] == own_code.tobytes().hex()
        assert (result.get("path"), result.get("text")) == (item["path"], item["text"])
        assert result["tags"] == item["tags"]
        assert result["gone"] is False


def signs(code):
    return 2.0 * np.unpackbits(code) - 1


def known_word(encoders) -> str:
    return encoders[0].vocabulary[0]


class TestSearch:
    def test_about(self, client, items):
        about = client.get("/api/about").json()
        pictures = sum(item["modality"] == "image" for item, _ in items.values())
        assert (about["images"], about["texts"]) == (pictures, len(items) - pictures)
        assert (about["items"], about["bits"], about["name"]) == (len(items), BITS, "scenes")
        tags = [tag for item, _ in items.values() for tag in item["tags"]]
        assert about["tag_count"] == len(set(tags))
        assert {t["tag"]: t["count"] for t in client.get("/api/tags?count=240").json()["tags"]} == {
            t: tags.count(t) for t in tags
        }
        counts = [t["count"] for t in about["tags"]]
        assert counts == sorted(counts, reverse=True)

    def test_words(self, client, items, encoders):
        text = " ".join(encoders[0].vocabulary[:2])
        values, code = encoders[0].encode_values([text])[0], encoders[0].encode([text])[0]
        answer = client.get("/api/search", params={"text": f"  {text} ", "top": 10}).json()
        assert answer["query"] == {"kind": "text", "code": code.tobytes().hex()}
        assert answer["unknown"] == []
        assert answer["message"] is None
        check_answer(answer, items, values, 10)

    @pytest.mark.parametrize("find", ["image", "text"])
    def test_filters(self, client, items, encoders, picture, find):
        tag = items[picture][0]["tags"][0]
        values = encoders[0].encode_values([known_word(encoders)])[0]
        answer = client.get("/api/search", params={
            "text": known_word(encoders), "find": find, "tag": tag, "top": 240}).json()  # fmt: skip
        check_answer(answer, items, values, 240,
                     lambda item: tag in item["tags"] and item["modality"] == find)  # fmt: skip

    def test_a_tag_that_nothing_has(self, client, encoders):
        for params in ({"text": known_word(encoders)}, {}):
            answer = client.get("/api/search", params={**params, "tag": "xyzzy"}).json()
            assert answer["results"] == []
            assert answer["message"] == "No item has the tag xyzzy."

    def test_more_like_this(self, client, items, picture):
        code = items[picture][1]
        answer = client.get("/api/search", params={"like": picture, "top": 12}).json()
        check_answer(answer, items, signs(code), 12, own=[picture])
        assert answer["query"]["item"]["id"] == picture
        assert answer["query"]["item"]["path"] == items[picture][0]["path"]
        assert answer["query"]["item"]["distance"] is None

    def test_a_picture(self, client, items, picture, encoders):
        content = Path(items[picture][0]["path"]).read_bytes()
        found = client.post("/api/code", content=content).json()
        assert found["code"] == items[picture][1].tobytes().hex()
        answer = client.get("/api/search", params={"values": found["values"], "top": 5}).json()
        assert answer["query"] == {"kind": "values", "code": found["code"]}
        values = encoders[1].encode_values([content])[0]
        carried = from_text(found["values"], BITS)
        np.testing.assert_allclose(carried, values, atol=0.004)
        check_answer(answer, items, carried, 5)
        assert answer["results"][0]["distance"] == 0

    def test_a_code_of_an_old_address(self, client, items, picture):
        code = items[picture][1]
        answer = client.get("/api/search", params={"code": code.tobytes().hex(), "top": 5}).json()
        check_answer(answer, items, signs(code), 5)
        assert answer["query"] == {"kind": "code", "code": code.tobytes().hex()}

    def test_a_picture_and_words(self, client, items, picture, encoders):
        """One query, the sum of both; moved away from what is not wanted."""
        content = Path(items[picture][0]["path"]).read_bytes()
        values = client.post("/api/code", content=content).json()["values"]
        word = known_word(encoders)
        both = from_text(values, BITS) + encoders[0].encode_values([word])[0]
        params = {"values": values, "text": word, "count": 20}
        answer = client.get("/api/search", params=params).json()
        assert answer["query"]["kind"] == "together"
        check_answer(answer, items, both, 20)
        less = [answer["results"][3]["id"], answer["results"][0]["id"]]
        answer = client.get("/api/search", params={**params, "less": less}).json()
        away = np.mean([signs(items[name][1]) for name in less], axis=0)
        check_answer(answer, items, both - 0.15 * away, 20, own=less)
        assert [item["id"] for item in answer["query"]["less"]] == less
        answer = client.get("/api/search", params={**params, "text": "xyzzyq"}).json()
        check_answer(answer, items, from_text(values, BITS), 20)
        assert (answer["query"]["kind"], answer["unknown"][0]["word"]) == ("values", "xyzzyq")

    def test_an_item_and_words(self, client, items, picture, encoders):
        params = {"like": picture, "text": known_word(encoders), "less": [picture], "count": 20}
        answer = client.get("/api/search", params=params).json()
        values = encoders[0].encode_values([known_word(encoders)])[0]
        values = values + (1 - 0.15) * signs(items[picture][1])
        check_answer(answer, items, values, 20, own=[picture])
        assert answer["query"]["item"]["id"] == answer["query"]["less"][0]["id"] == picture

    def test_a_picture_of_another_kind(self, client, items, picture, encoders):
        buffer = io.BytesIO()
        with Image.open(items[picture][0]["path"]) as image:
            image.convert("P").save(buffer, "GIF")
        answer = client.post("/api/code", content=buffer.getvalue())
        assert answer.status_code == 200
        assert len(answer.json()["code"]) == BITS // 4

    def test_without_a_query_some_items_are_shown(self, client, items):
        answer = client.get("/api/search", params={"find": "image", "top": 7}).json()
        assert answer["query"] is None
        assert len({r["id"] for r in answer["results"]}) == 7
        for result in answer["results"]:
            item, code = items[result["id"]]
            assert item["modality"] == "image"
            assert (result["path"], result["distance"]) == (item["path"], None)
            assert result["code"] == code.tobytes().hex()

    def test_unknown_words(self, client, encoders):
        word = max(encoders[0].vocabulary, key=len)
        wrong = word[:-1] + "q"
        answer = client.get("/api/search", params={"text": f"{wrong} of"}).json()
        assert answer["results"] == []
        assert answer["query"] is None
        assert answer["message"] == "No word of this is known."
        assert [u["word"] for u in answer["unknown"]] == [wrong]
        assert word in answer["unknown"][0]["near"]

    @pytest.mark.parametrize(
        "text", ["the {} of xyzzyq", "“{}”,XYZZYQ’s", "<b>{}</b>&nbsp;Ｘyzzyq", "#{}/xyz\u00adzyq"]
    )
    def test_unknown_words_beside_known_ones(self, client, encoders, text):
        text = text.format(known_word(encoders))
        answer = client.get("/api/search", params={"text": text}).json()
        assert len(answer["results"]) == 24
        assert answer["unknown"] == [{"word": "xyzzyq", "near": []}]

    def test_a_large_collection_is_not_looked_through(self, index, encoders, monkeypatch):
        monkeypatch.setattr("dsprh_tf.web.collection.LISTED", 100)
        with TestClient(create_app(Searcher(index, *encoders, "large")), HOST) as client:
            assert client.get("/api/about").json()["tags"] == []
            assert "Type words" in client.get("/api/search").json()["message"]
            answer = client.get("/api/search", params={"text": known_word(encoders)}).json()
            assert len(answer["results"]) == 24
            near = [result["similarity"] for result in answer["results"]]
            assert near == sorted(near, reverse=True)  # not in turn

    @pytest.mark.parametrize("kind", ["text", "like", "code", "values", None])
    @pytest.mark.parametrize("find", ["", "image"])
    def test_pages_to_the_end(self, client, items, encoders, picture, kind, find):
        """Every item once, and what a page holds does not depend on the others."""
        value = {"text": known_word(encoders), "like": picture,
                 "code": items[picture][1].tobytes().hex(), None: "",
                 "values": as_text(np.linspace(-1, 1, BITS))}[kind]  # fmt: skip
        params = {kind: value, "find": find} if kind else {"find": find}

        def page(offset, count):
            place = {"offset": offset, "count": count, "seed": 7}
            return client.get("/api/search", params={**params, **place}).json()

        whole = page(0, 240)
        expected = {name for name, (item, _) in items.items()
                    if find in ("", item["modality"])
                    and (kind, name) != ("like", picture)}  # fmt: skip
        assert whole["total"] == len(expected)
        pages, size = [], 37
        for offset in range(0, whole["total"], size):
            answer = page(offset, size)
            assert (answer["offset"], answer["total"]) == (offset, whole["total"])
            pages.append(answer["results"])
        shown = [result for results in pages for result in results]
        assert {result["id"] for result in shown} == expected
        assert len(shown) == len(expected)
        assert all(len(results) == size for results in pages[:-1])
        assert page(whole["total"], size)["results"] == []
        ids = [result["id"] for result in shown[:240]]
        assert ids == [result["id"] for result in whole["results"]]
        if kind is None:
            assert whole["seed"] == 7
            other = client.get("/api/search", params={**params, "count": 24, "seed": 8}).json()
            assert [result["id"] for result in other["results"]] != ids[:24]

    def test_several_tags(self, client, items):
        tags = [item["tags"] for item, _ in items.values() if len(item["tags"]) > 1]
        (one, two), out = tags[0][:2], tags[-1][0]
        for params, admits in (
            ({"all": [one.upper(), two]}, lambda t: one in t and two in t),
            ({"any": [one, two]}, lambda t: one in t or two in t),
            ({"none": [out.title()]}, lambda t: out not in t),
            ({"tag": one, "all": two}, lambda t: one in t and two in t),
            ({"any": [one, two], "none": [out]}, lambda t: (one in t or two in t) and out not in t),
        ):
            answer = client.get("/api/search", params={**params, "count": 240}).json()
            expected = {name for name, (item, _) in items.items() if admits(item["tags"])}
            assert answer["total"] == len(expected)
            assert {result["id"] for result in answer["results"]} <= expected
            assert len(answer["results"]) == min(240, len(expected))
        answer = client.get("/api/search", params={"all": ["xyzzy", one]}).json()
        assert answer["message"] == "No item has these tags."

    def test_tags_by_a_part(self, client, items):
        tags = sorted({tag for item, _ in items.values() for tag in item["tags"]})
        part = tags[0][1:3].upper()
        found = client.get("/api/tags", params={"part": part, "count": 240}).json()
        assert {t["tag"] for t in found["tags"]} == {t for t in tags if part.lower() in t}
        assert found["total"] == len(found["tags"])


class TestPictures:
    def test_thumbnails(self, client, items, picture):
        sizes = {}
        for size in ("small", "large"):
            answer = client.get(f"/api/picture/{picture}/{size}")
            assert answer.headers["content-type"] == "image/jpeg"
            with Image.open(io.BytesIO(answer.content)) as image:
                sizes[size] = image.size
        with Image.open(items[picture][0]["path"]) as original:
            assert sizes["small"] == sizes["large"] == original.size  # small already

    def test_only_indexed_pictures(self, client, items, library):
        text = next(name for name, (item, _) in items.items() if item["modality"] == "text")
        inside = library[1] / "manifest.csv"
        for item in (text, "5", "-1", "x", "9" * 30, "%2e%2e%2fmanifest.csv", "..%5c..",
                     str(inside).replace("/", "%2f"), "²"):  # fmt: skip
            answer = client.get(f"/api/picture/{item}/small")
            assert answer.status_code == 404, item
            assert set(answer.json()) <= {"error"}
        for path in ("/static/../app.py", "/static/%2e%2e/app.py", "/static//etc/passwd",
                     "/api/picture", "/docs", "/openapi.json"):  # fmt: skip
            assert client.get(path).status_code == 404, path

    def test_a_vanished_picture(self, client, items, picture):
        path = Path(items[picture][0]["path"])
        path.rename(path.with_suffix(".away"))
        try:
            code = items[picture][1].tobytes().hex()
            answer = client.get("/api/search", params={"code": code, "top": 240}).json()
            gone = {r["id"] for r in answer["results"] if r["gone"]}
            assert gone == {picture}
            answer = client.get(f"/api/picture/{picture}/small")
            assert answer.status_code == 410
            assert "no longer on disk" in answer.json()["error"]
            like = client.get("/api/search", params={"like": picture}).json()
            assert like["query"]["item"]["gone"] is True
            assert len(like["results"]) == 24
        finally:
            path.with_suffix(".away").rename(path)

    def test_cache(self, tmp_path, monkeypatch):
        made = []

        def shrunk(path, side):
            made.append(Path(path).name)
            return b"x" * 100

        monkeypatch.setattr(thumbnails_module, "shrunk_bytes", shrunk)
        for name in "abc":
            (tmp_path / name).write_bytes(name.encode())
        cache = Thumbnails(250)

        def get(name, size="small"):
            return cache.get(str(tmp_path / name), name.encode(), size)

        for name in "aabab":
            assert get(name) == b"x" * 100
        assert made == ["a", "b"]
        get("c")  # takes the place of a, which was asked for longest ago
        assert len(cache) == 2
        get("b")
        assert made == ["a", "b", "c"]
        get("a")
        assert made == ["a", "b", "c", "a"]
        (tmp_path / "a").write_bytes(b"changed")
        get("a")
        get("a", "large")
        assert made[4:] == ["a", "a"]

    def test_shrunk(self, tmp_path):
        pixels = np.zeros((600, 300, 3), np.uint8)
        pixels[:300, :, 0] = 255
        exif = Image.Exif()
        exif[0x0112] = 3  # upside down
        Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=exif, quality=95)
        with Image.open(io.BytesIO(shrunk_bytes(tmp_path / "a.jpg", 60))) as image:
            assert (image.format, image.size) == ("JPEG", (30, 60))
            assert image.getpixel((15, 50))[0] > 240
            assert image.getpixel((15, 10))[0] < 15
        (tmp_path / "b.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:700])
        with pytest.raises(ValueError, match=r"b\.jpg"):
            shrunk_bytes(tmp_path / "b.jpg", 60)


class TestFiles:
    def test_an_indexed_file(self, client, items, picture):
        path = Path(items[picture][0]["path"])
        for size, kind in (("file", "inline"), ("download", "attachment")):
            answer = client.get(f"/api/picture/{picture}/{size}")
            assert answer.content == path.read_bytes()
            assert answer.headers["content-type"] == "image/jpeg"
            assert answer.headers["content-length"] == str(path.stat().st_size)
            assert answer.headers["content-disposition"] == f"{kind}; filename*=UTF-8''{path.name}"
            assert answer.headers["x-content-type-options"] == "nosniff"

    def test_only_what_was_indexed(self, client, items, picture):
        path = Path(items[picture][0]["path"])
        kept = path.read_bytes()
        text = next(name for name, (item, _) in items.items() if item["modality"] == "text")
        try:
            path.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
            for size in ("file", "download"):
                answer = client.get(f"/api/picture/{picture}/{size}")
                assert answer.status_code == 410
                assert "no longer the one that was indexed" in answer.json()["error"]
                assert client.get(f"/api/picture/{text}/{size}").status_code == 404
                assert client.get(f"/api/picture/12/{size}").status_code == 404
        finally:
            path.write_bytes(kept)

    def test_a_selection(self, client, items, picture):
        text = next(name for name, (item, _) in items.items() if item["modality"] == "text")
        ids = f"{picture},{text},{picture}"
        about = client.get("/api/export", params={"ids": ids, "form": "about"}).json()
        size = Path(items[picture][0]["path"]).stat().st_size
        assert about == {"items": 2, "files": 1, "gone": 0, "bytes": size}
        found = client.get("/api/export", params={"ids": ids, "form": "json"})
        assert [row["id"] for row in found.json()] == [picture, text]
        assert found.headers["content-disposition"].endswith("items.json")
        found = client.get("/api/export", params={"ids": ids}).text.splitlines()
        assert found[0] == "id,path,text,tags"
        assert found[1].startswith(f"{picture},{items[picture][0]['path']},")
        found = client.get("/api/export", params={"ids": ids, "form": "zip"})
        with zipfile.ZipFile(io.BytesIO(found.content)) as archive:
            assert len(archive.namelist()) == 2
            assert len(archive.read(archive.namelist()[0])) == size

    def test_selections_that_are_refused(self, client, picture, monkeypatch):
        def refused(status, problem, **params):
            answer = client.get("/api/export", params=params)
            assert answer.status_code == status
            assert problem in answer.json()["error"]

        refused(400, "expected 1 to 500", ids="")
        refused(400, "expected 1 to 500", ids="1," * 501)
        refused(422, "ids is", ids="1" * 10_001)
        refused(404, "no item has the id", ids="../etc/passwd")
        refused(404, "no item of the index has the id 12", ids="12")
        refused(422, "form is", ids=picture, form="tar")
        monkeypatch.setattr("dsprh_tf.web.files.MAX_BYTES", 10)
        refused(413, "at most 10: take fewer", ids=picture, form="zip")

    def test_few_archives_are_made_at_once(self, searcher, picture, monkeypatch):
        started, held = threading.Semaphore(0), threading.Event()

        def slow(rows):
            started.release()
            held.wait(60)
            yield b"PK"

        monkeypatch.setattr("dsprh_tf.web.files.as_zip", slow)
        url = f"/api/export?form=zip&ids={picture}"
        with TestClient(create_app(searcher), HOST) as client:
            statuses = []
            threads = [
                threading.Thread(target=lambda: statuses.append(client.get(url).status_code))
                for _ in range(2)
            ]
            try:
                for thread in threads:
                    thread.start()
                    assert started.acquire(timeout=60)
                assert client.get(url).status_code == 429
            finally:
                held.set()
                for thread in threads:
                    thread.join()
            assert statuses == [200, 200]
            assert client.get(url).status_code == 200


class TestChanges:
    def test_a_change_is_taken_up(self, library, encoders, tmp_path):
        shutil.copytree(library[0], tmp_path / "index")
        watch = Watch(str(tmp_path / "index"))
        watch.every = 0.05
        searcher = Searcher(watch.open(), *encoders, "changing")

        def until(condition):
            end = time.monotonic() + 60
            while not condition():
                assert time.monotonic() < end
                time.sleep(0.05)

        with TestClient(create_app(searcher, watch=watch), HOST) as client:
            about = client.get("/api/about").json()
            assert about["generation"] == 0
            writer = HammingIndex.load(tmp_path / "index", write=True)
            gone = writer.ids_where()[:100]
            writer.remove(gone)
            writer.commit()
            del writer
            until(lambda: client.get("/api/about").json()["generation"] == 1)
            assert client.get("/api/about").json()["items"] == about["items"] - 100
            assert client.get(f"/api/search?like={gone[0]}").status_code == 404
            (tmp_path / "index" / "index.json").write_text("{}")
            until(lambda: client.get("/api/about").json()["notice"])
            answer = client.get("/api/search", params={"text": known_word(encoders)}).json()
            assert "index.json is broken" in answer["notice"]
            assert answer["generation"] == 1
            assert len(answer["results"]) == 24


class TestRefusals:
    @pytest.mark.parametrize(
        ("content", "problem"),
        [
            (b"", "is empty"),
            (
                b"<script>alert(1)</script>" * 20,
                "is no JPEG, PNG, GIF, BMP, WebP, TIFF, HEIC or AVIF",
            ),
            (b"%PDF-1.4 no picture", "is no JPEG"),
            (png_header(9000, 9000), "is too large (9000 x 9000 pixels; at most 64,000,000"),
            (png_header(60_000, 1), "is too large"),
            (png_header(16, 16), "the picture"),
            ("half", "is truncated"),
        ],
    )
    def test_uploads_that_are_no_picture(self, client, items, picture, content, problem):
        if content == "half":
            content = Path(items[picture][0]["path"]).read_bytes()[:1500]
        answer = client.post("/api/code", content=content)
        assert answer.status_code == 415
        assert problem in answer.json()["error"]
        assert "choose another" in answer.json()["error"]

    def test_a_huge_upload_is_not_read(self, client):
        read = []

        def parts():
            for part in range(1000):
                read.append(part)
                yield b"x" * 50_000

        for content in (b"x" * 200_001, parts()):
            answer = client.post("/api/code", content=content)
            assert answer.status_code == 413
            assert "at most 200,000 bytes" in answer.json()["error"]

    def test_an_upload_that_breaks_off(self, client):
        """The browser went away: nothing is raised, which the server would print as a traceback."""
        scope = {"type": "http", "method": "POST", "path": "/api/code", "raw_path": b"/api/code",
                 "headers": [(b"host", b"127.0.0.1")], "query_string": b"", "root_path": "",
                 "scheme": "http", "http_version": "1.1"}  # fmt: skip
        received = iter([{"type": "http.request", "body": b"\xff\xd8\xff", "more_body": True}])
        sent = []

        async def receive():
            return next(received, {"type": "http.disconnect"})

        async def send(message):
            sent.append(message)

        anyio.run(client.app, scope, receive, send)
        assert sent[0]["status"] == 400
        assert b"broke off" in sent[1]["body"]

    @pytest.mark.parametrize(
        ("params", "status", "problem"),
        [
            ({"like": "12"}, 404, "no item of the index has the id 12"),
            ({"like": "x"}, 404, "no item has the id 'x'"),
            ({"like": str(2**64)}, 404, "no item has the id"),
            ({"code": "zz"}, 400, "expected 4 hexadecimal digits"),
            ({"code": "ff" * 3}, 400, "expected 4 hexadecimal digits"),
            ({"values": "zz"}, 400, "values are 'zz', expected 22 characters"),
            ({"values": "+" * 22}, 400, "expected 22 characters of the base64 of addresses"),
            ({"values": "a" * 40_000}, 422, "values is"),
            ({"code": "ffff", "less": "12"}, 404, "no item of the index has the id 12"),
            ({"code": "ffff", "less": ["1"] * 51}, 422, "less is"),
            ({"text": "a" * 1001}, 422, "text is"),
            ({"top": "0"}, 422, "top is '0'"),
            ({"top": "1000000"}, 422, "top is"),
            ({"find": "video"}, 422, "find is 'video'"),
            ({"offset": "-1"}, 422, "offset is '-1'"),
            ({"count": "241"}, 422, "count is '241'"),
            ({"all": ["a"] * 51}, 422, "all is"),
            ({"seed": "x"}, 422, "seed is 'x'"),
        ],
    )
    def test_questions(self, client, params, status, problem):
        answer = client.get("/api/search", params=params)
        assert answer.status_code == status
        assert problem in answer.json()["error"]
        assert "\n" not in answer.json()["error"]

    def test_an_index_that_fails_on_the_way(self, index, encoders, monkeypatch):
        searcher = Searcher(index, *encoders, "scenes")

        def fail(*_, **__):
            raise OSError("the database is down")

        monkeypatch.setattr(searcher, "search", fail)
        with TestClient(create_app(searcher), HOST) as client:
            answer = client.get("/api/search", params={"text": "a"})
        assert answer.status_code == 503
        assert "the database is down" in answer.json()["error"]

    def test_other_encoders(self, encoders):
        index = HammingIndex(BITS, fingerprint="0" * 64)
        table = pa.table({**{name: [None] for name in SCHEMA.names}, "id": [1],
                          "modality": ["image"], "path": ["/a.jpg"]}, SCHEMA)  # fmt: skip
        index.add(np.zeros((1, BITS // 8), np.uint8), table)
        with pytest.raises(ValueError, match="the text encoder is of other encoders"):
            Searcher(index, *encoders, "other")

    def test_an_empty_index(self, encoders):
        with pytest.raises(ValueError, match=r"nothing is empty: add codes"):
            Searcher(HammingIndex(BITS), *encoders, "nothing")


class TestGuard:
    def test_headers(self, client, picture):
        for path in ("/", "/static/page.js", "/api/about", f"/api/picture/{picture}/small",
                     "/api/picture/x/small"):  # fmt: skip
            headers = client.get(path).headers
            policy = headers["content-security-policy"]
            assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
            assert "http" not in policy
            assert "unsafe" not in policy
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["cross-origin-resource-policy"] == "same-origin"
            assert headers["referrer-policy"] == "no-referrer"

    def test_the_page_loads_nothing_from_elsewhere(self, client):
        """Everything that HTML, CSS and JavaScript name is served here."""
        for path in ("/", *(f"/static/{name}" for name in STATIC if name[-3:] in ("css", ".js"))):
            text = client.get(path).text.replace("http://www.w3.org/2000/svg", "")
            assert not re.search(r"https?:|//\w+\.\w", text), path
            for link in re.findall(r'(?:src|href)="([^"]+)"', text):
                assert client.get(link).status_code == 200, link
        assert not re.search(r"<style|style=|onclick=|<script>", client.get("/").text)

    @pytest.mark.parametrize(
        ("host", "status"),
        [("127.0.0.1:8008", 200), ("localhost", 200), ("LOCALHOST:1", 200), ("[::1]:8008", 200),
         ("evil.example", 421), ("127.0.0.1.evil.example", 421), ("localhost.evil", 421),
         ("evil.example:8008", 421), ("", 421)],
    )  # fmt: skip
    def test_dns_rebinding(self, client, host, status):
        answer = client.get("/api/about", headers={"host": host})
        assert answer.status_code == status
        assert ("bits" in answer.json()) == (status == 200)

    @pytest.mark.parametrize(
        ("site", "mode", "status"),
        [("cross-site", "no-cors", 403), ("cross-site", "cors", 403),
         ("cross-site", "navigate", 200), ("same-origin", "cors", 200), ("none", "navigate", 200)],
    )  # fmt: skip
    def test_other_sites(self, client, site, mode, status):
        headers = {"sec-fetch-site": site, "sec-fetch-mode": mode}
        assert client.get("/", headers=headers).status_code == status


def basic(text: str) -> dict:
    return {"authorization": "Basic " + base64.b64encode(text.encode()).decode()}


class TestAccounts:
    @pytest.fixture(scope="class")
    def people(self, tmp_path_factory):
        path = tmp_path_factory.mktemp("people") / "people.txt"
        lines = make_line("anna", "päss:word"), "# comment", "", make_line("bo", "2")
        path.write_text("\n".join(lines), "utf-8")
        return path

    def test_whom_it_lets_in(self, searcher, people):
        app = create_app(searcher, Accounts(people), loopback=False)
        with TestClient(app, "http://pictures.example") as client:
            for path in ("/", "/static/page.js", "/api/about", "/api/picture/1/small"):
                for headers in ({}, basic("anna:wrong"), basic("anna:"), basic("who:2"),
                                basic("anna"), basic("bo:päss:word"),
                                {"authorization": "Basic ###"}, {"authorization": "Bearer x"},
                                {"authorization": basic("bo:2")["authorization"][6:]}):  # fmt: skip
                    answer = client.get(path, headers=headers)
                    assert answer.status_code == 401, (path, headers)
                    assert answer.headers["www-authenticate"].startswith("Basic ")
                    assert "default-src 'none'" in answer.headers["content-security-policy"]
            for who in ("anna:päss:word", "bo:2", "bo:2"):
                assert client.get("/api/about", headers=basic(who)).status_code == 200

    def test_a_right_password_is_hashed_once(self, people, monkeypatch):
        accounts, calls = Accounts(people), []
        import hashlib

        scrypt = hashlib.scrypt
        monkeypatch.setattr(hashlib, "scrypt", lambda *a, **k: calls.append(a) or scrypt(*a, **k))
        for _ in range(3):
            assert accounts.knows(basic("bo:2")["authorization"])
        assert len(calls) == 1
        for _ in range(2):
            assert not accounts.knows(basic("nobody:2")["authorization"])
        assert len(calls) == 3  # an unknown name costs as much as a wrong password
        for header in (None, "Basic", "Basic ä", "Bearer x", basic("bo")["authorization"]):
            assert accounts.recalls(header) is False
            assert not accounts.knows(header)
        assert accounts.recalls(basic("bo:2")["authorization"])
        assert accounts.recalls(basic("bo:3")["authorization"]) is None
        assert len(calls) == 3

    def test_guesses_keep_nobody_waiting(self, people, monkeypatch):
        """One guess is looked at, 16 wait, more are refused; who is known passes them all."""
        accounts, held, looked_at = Accounts(people), threading.Event(), []
        assert accounts.knows(basic("bo:2")["authorization"])

        def slow(sent):
            looked_at.append(sent)
            held.wait()
            return False

        monkeypatch.setattr(accounts, "knows", slow)
        guard = Guard(JSONResponse({}), accounts, loopback=False)
        guesses = []

        async def ask(headers, answers):
            sent = []

            async def send(message):
                sent.append(message)

            pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
            await guard({"type": "http", "headers": pairs}, None, send)
            answers.append(sent)

        async def main():
            async with anyio.create_task_group() as group:
                try:
                    for _ in range(17):
                        group.start_soon(ask, basic("bo:3"), guesses)
                    await anyio.wait_all_tasks_blocked()
                    answers = []
                    for headers in (basic("bo:4"), basic("bo:2"), {}):
                        await ask(headers, answers)
                    assert guesses == []
                    assert len(looked_at) == 1
                finally:
                    held.set()  # or the pool's threads would never end
            return answers

        refused, known, stranger = anyio.run(main)
        assert [sent[0]["status"] for sent in (refused, known, stranger)] == [429, 200, 401]
        assert (b"retry-after", b"1") in refused[0]["headers"]
        assert b'{"error":"too many passwords are waiting' in refused[1]["body"]
        assert [sent[0]["status"] for sent in guesses] == [401] * 17

    def test_lines(self):
        line = make_line("anna", "secret")
        assert "secret" not in line
        assert line != make_line("anna", "secret")
        for name, password in (("", "x"), ("a:b", "x"), (" a", "x"), ("a\n", "x"), ("#a", "x"),
                               ("a", "")):  # fmt: skip
            with pytest.raises(ValueError, match="password is empty|expected one without"):
                make_line(name, password)

    @pytest.mark.parametrize(
        ("content", "problem"),
        [(None, "does not exist"), ("# nobody\n", "no account"), ("anna:secret", "line 1 is not"),
         (make_line("a", "b") + "\nbo:12:zz", "line 2 is not"),
         (make_line("a", "b")[:-2], "line 1 is not")],
        ids=["missing", "empty", "no hash", "no numbers", "cut off"],  # accounts have random salts
    )  # fmt: skip
    def test_broken_files(self, tmp_path, content, problem):
        path = tmp_path / "people.txt"
        if content is not None:
            path.write_text(content)
        with pytest.raises(ValueError, match=problem):
            Accounts(path)


class TestProgram:
    """The program `serve_demo` before it serves; test_browser.py runs it."""

    @pytest.mark.parametrize(
        ("flags", "problem"),
        [
            ([], "needs --index=FOLDER"),
            (["--index=/no/such"], "holds no index"),
            (["--index=INDEX"], "needs --export_dir=FOLDER"),
            (["--index=INDEX", "--export_dir=/no/such"], "no exported text encoder"),
            (["--index=INDEX", "--host=0.0.0.0"], "list the users with --auth_file=FILE"),
            (["--index=INDEX", "--host=nowhere.invalid", "--auth_file=x"], "cannot listen at"),
            (["--index=INDEX", "--auth_file=/no/such"], "/no/such does not exist"),
        ],
    )
    def test_one_line(self, program, library, flags, problem):
        flags = [flag.replace("INDEX", str(library[0])) for flag in flags]
        assert problem in program("serve_demo", "--port=0", *flags).line

    def test_a_taken_port(self, program, library):
        import socket

        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            outcome = program("serve_demo", f"--index={library[0]}", f"--port={port}")
            assert f"--port={port}" in outcome.line

    def test_an_empty_index(self, program, library, exported, tmp_path):
        shutil.copytree(library[0], tmp_path / "index")
        index = HammingIndex.load(tmp_path / "index", write=True)
        index.remove(index.ids_where())
        index.commit()
        del index
        outcome = program("serve_demo", f"--index={tmp_path}/index", f"--export_dir={exported}",
                          "--port=0")  # fmt: skip
        assert "index is empty: add codes" in outcome.line

    def test_make_auth(self, program, tmp_path, monkeypatch):
        monkeypatch.setattr(sys, "stdin", io.StringIO("open sesame\n"))
        outcome = program("serve_demo", "--make_auth=anna")
        assert outcome.code == 0, outcome.err
        (tmp_path / "people.txt").write_text(outcome.out)
        accounts = Accounts(tmp_path / "people.txt")
        assert accounts.knows(basic("anna:open sesame")["authorization"])
        assert not accounts.knows(basic("anna:open")["authorization"])
        monkeypatch.setattr(sys, "stdin", io.StringIO("\n"))
        assert "the password is empty" in program("serve_demo", "--make_auth=anna").line


def test_checked_bytes():
    buffer = io.BytesIO()
    Image.new("RGB", (20, 10), "red").save(buffer, "PNG")
    assert checked_bytes(buffer.getvalue(), "it") == buffer.getvalue()
    with pytest.raises(ValueError, match="it is too large .20 x 10 pixels; at most 199"):
        checked_bytes(buffer.getvalue(), "it", 199)
    again = checked_bytes(buffer.getvalue(), "it", as_png=True)
    with Image.open(io.BytesIO(again)) as image:
        assert (image.size, image.getpixel((3, 3))) == ((20, 10), (255, 0, 0))


@pytest.mark.parametrize("bits", [8, 16, 64, 136])
def test_values_in_an_address(bits):
    """Signs stay, also of the smallest; what is no such text is refused."""
    values = np.random.default_rng(bits).uniform(-1, 1, bits)
    values[:4] = 0, -1e-9, 1e-9, -0.0
    text = as_text(values)
    assert re.fullmatch(r"[\w-]+", text)
    found = from_text(text, bits)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found >= 0, values >= 0)
    np.testing.assert_allclose(found, values, atol=0.008)
    for wrong in (text[:-1], text + "A", text[:-1] + "=", text[:-1] + "é", ""):
        with pytest.raises(ValueError, match="characters of the base64 of addresses"):
            from_text(wrong, bits)


def test_static_files_are_part_of_the_package():
    assert {"index.html", "page.css", "page.js", "bits.js", "icon.svg"} <= set(STATIC)
    assert '"web/static/*"' in (ROOT / "pyproject.toml").read_text()
    assert (ROOT / "dsprh_tf/web/__init__.py").exists()
