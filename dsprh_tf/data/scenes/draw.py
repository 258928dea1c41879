"""A small drawn world: JPEG images with captions, noisy tags and labels, made from a seed.

Real collections need a download and a licence; a demo and tests must run without either. A scene
is a *place* (a painted background with its palette and textures) with *objects* standing, floating
or flying in it, some of them borrowed from other places, some hidden by others. What is large
enough to be noticed becomes a label; the text names most labels, by one of several synonyms, among
words that have nothing to do with the image. A random pair shares a label in 10-20 % of cases.
The images are written in the `pairs` layout, and read back by `dsprh_tf.data.pairs`.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from dsprh_tf.data.files import write_json
from dsprh_tf.data.scenes.objects import COLOURS, KINDS, Thing, draw_object
from dsprh_tf.data.scenes.places import PLACES, Stage

_VERSION = 1  # part of what decides whether a folder is reused: raise it when drawings change
_OVERSAMPLING = 2  # objects are drawn this many times larger, then reduced: smooth edges
_JPEG_QUALITY = 88
_SALIENT_AREA = 0.028  # an object is labelled when it covers this share of the image ...
_SALIENT_PART = 0.45  # ... and this share of the object is neither hidden nor cut off
_SALIENT_KINDS = 2  # at most so many kinds of object are labels of one image
_LOOK_AREA = 0.05  # the colour or pattern of the largest object is a label from this share on
_SHADOW = [a * 7 // 20 for a in range(256)]  # look-up tables of an alpha channel
_SOLID = [255 * (a > 127) for a in range(256)]
_LIGHT = {"sunset": (1.06, 0.92, 0.8), "night": (0.78, 0.8, 0.98), "grey": (0.95, 0.97, 1.0)}

_PLACE_PHRASES = {
    "beach": ("on the beach", "by the shore", "at the seaside", "on the coast"),
    "mountains": ("in the mountains", "in the alps", "below the peaks"),
    "city": ("in the city", "in town", "in front of the skyline", "downtown"),
    "meadow": ("in a meadow", "in the field", "on the grassland"),
    "underwater": ("underwater", "in the ocean", "in an aquarium"),
    "desert": ("in the desert", "among dunes", "in the sahara"),
    "forest": ("in the forest", "in the woods", "in a woodland"),
    "kitchen": ("in the kitchen", "on the table", "at breakfast"),
    "harbour": ("in the harbour", "at the port", "near the docks", "in a marina"),
    "road": ("on the road", "beside the street", "along a highway"),
    "space": ("in space", "in a galaxy", "in the cosmos", "in the universe"),
    "market": ("at the market", "at a stall", "in the bazaar"),
    "room": ("in a room", "in the bedroom", "indoors"),
    "sky": ("in the sky", "above the clouds", "high up in the air"),
}
_NOUNS = {
    "umbrella": ("umbrella", "parasol", "sunshade"), "ball": ("ball", "beachball", "toy"),
    "boat": ("boat", "ship", "vessel", "sailboat"), "palm": ("palm", "coconut palm"),
    "bird": ("bird", "gull", "pigeon"), "pine": ("pine", "fir", "conifer"),
    "tree": ("tree", "oak", "beech"), "house": ("house", "cottage", "home", "cabin"),
    "car": ("car", "automobile", "vehicle"), "moon": ("moon", "full moon"),
    "star": ("star", "starlet"), "lamp": ("lamp", "lantern", "streetlight"),
    "flower": ("flower", "blossom", "bloom"), "butterfly": ("butterfly", "moth"),
    "fish": ("fish", "goldfish", "trout"), "coral": ("coral", "reef"),
    "cactus": ("cactus", "succulent"), "tent": ("tent", "camp"),
    "mushroom": ("mushroom", "toadstool"), "cup": ("cup", "mug"),
    "fruit": ("fruit basket", "fruit bowl", "basket of fruit"), "clock": ("clock", "timepiece"),
    "lighthouse": ("lighthouse", "beacon"), "sign": ("sign", "signpost"),
    "planet": ("planet", "world"), "rocket": ("rocket", "spaceship", "shuttle"),
    "balloon": ("balloon", "hot-air balloon"), "cake": ("cake", "pie"),
}  # fmt: skip
_TEXTURE_WORDS = {
    "striped": ("striped", "stripy"), "dotted": ("dotted", "spotted"),
    "checked": ("checked", "chequered"), "brick": ("brick", "bricks"), "waves": ("waves", "water"),
    "sand": ("sand", "sandy"), "snow": ("snow", "snowy"),
}  # fmt: skip
_IRREGULAR = {
    "cactus": "cacti", "butterfly": "butterflies", "beech": "beeches",
    "basket of fruit": "baskets of fruit",
}  # fmt: skip
_NOISE_TAGS = (
    "nikon", "canon", "sony", "holiday", "2019", "2021", "photo", "art", "travel", "nice", "family",
    "explore", "weekend", "favourite", "landscape", "macro", "friends", "memories", "drawing",
    "colourful", "beautiful", "light", "geotagged", "best", "blue", "green",
)  # fmt: skip

LABELS: tuple[str, ...] = (*PLACES, *KINDS, *COLOURS, *_TEXTURE_WORDS)
"""Every label that a scene can have: places, objects, colours, textures."""


@dataclass(frozen=True)
class Scene:
    """One image with what is said about it: `image` RGB, `text`, `labels` in LABELS' order."""

    image: Image.Image
    text: str
    labels: tuple[str, ...]


def draw_scene(seed: int, index: int, size: tuple[int, int] = (160, 160)) -> Scene:
    """The scene number `index` of a seed: the same whichever other scenes are drawn.

    Args:
        seed: non-negative integer.
        index: number of the scene, from 0.
        size: width and height in pixels, 32 to 1024 each.
    """
    rng = np.random.default_rng([seed, index])
    place = str(rng.choice(list(PLACES)))
    stage = Stage(rng, *size)
    PLACES[place].paint(stage)
    image, things = _populate(rng, place, stage)
    image = _expose(rng, image, stage.mood)

    pixels = stage.art[0].size * _OVERSAMPLING**2
    seen = [t for t in things if t.seen > _SALIENT_PART * t.drawn]
    area = dict.fromkeys((t.kind for t in seen), 0.0)
    for thing in seen:
        area[thing.kind] += thing.seen / pixels
    ranked = sorted(area, key=lambda kind: -area[kind])
    salient = [kind for kind in ranked if area[kind] >= _SALIENT_AREA][:_SALIENT_KINDS]
    labels = {place, *salient, *stage.textures}
    heroes = [next(t for t in seen if t.kind == kind) for kind in salient]
    if heroes and area[salient[0]] >= _LOOK_AREA:
        hero, nature = heroes[0], KINDS[salient[0]]
        if hero.pattern == "plain" and len(nature.bodies) > 1:
            labels |= {hero.colour} & set(COLOURS)
        elif len(nature.patterns) > 1:
            labels |= {hero.pattern} - {"plain"}
    text = _describe(rng, place, labels, seen, [*filter(None, [stage.mood]), *stage.words])
    return Scene(image, text, tuple(name for name in LABELS if name in labels))


def _populate(
    rng: np.random.Generator, place: str, stage: Stage
) -> tuple[Image.Image, list[Thing]]:
    """Draws the objects into the background, far ones first; counts what stays visible of each."""
    width, height = (side * _OVERSAMPLING for side in stage.art.shape[:0:-1])
    image = stage.image().resize((width, height), Image.Resampling.BILINEAR)
    owner = Image.new("L", image.size)  # number of the object that each pixel shows
    native = PLACES[place].kinds
    kinds = list(rng.choice(native, min(len(native), int(rng.choice([1, 2, 2, 3]))), replace=False))
    if rng.random() < 0.22:  # something borrowed
        kinds[-1] = rng.choice(sorted(set(KINDS) - set(native)))
    cast = []
    for rank, name in enumerate(map(str, kinds)):
        kind = KINDS[name]
        top, bottom = PLACES[place].zones[kind.zone]
        colour, pattern = str(rng.choice(kind.bodies)), str(rng.choice(kind.patterns))
        for _ in range(1 + int(rng.integers(kind.most) * rng.random())):
            depth = rng.random()
            scale = rng.uniform(*kind.size) * (0.85 + 0.35 * depth) * (0.8 if rank else 1.1)
            cast.append((top + (bottom - top) * depth, scale, Thing(name, colour, pattern)))
    cast.sort(key=lambda entry: entry[0])
    taken: list[float] = []
    for number, (y, scale, thing) in enumerate(cast, start=1):
        tile = draw_object(rng, thing, max(8, round(scale * height)))
        spots = rng.uniform(0.1, 0.9, 4)  # the freest of some random spots
        x = max(spots, key=lambda spot: min([abs(spot - t) for t in taken], default=0))
        taken.append(x)
        above = 0.5 if KINDS[thing.kind].zone == "air" else 1.0
        corner = (round(x * width - tile.width / 2), round(y * height - above * tile.height))
        alpha = tile.getchannel("A")
        if KINDS[thing.kind].zone == "ground":
            shadow = alpha.resize((tile.width, max(1, tile.height // 5))).point(_SHADOW)
            foot = (corner[0], corner[1] + tile.height - shadow.height // 2)
            image.paste((20, 20, 30), foot, shadow)
        image.paste(tile.convert("RGB"), corner, alpha)
        solid = alpha.point(_SOLID)
        owner.paste(number, corner, solid)
        thing.drawn = np.count_nonzero(np.asarray(solid))
    counts = np.bincount(np.asarray(owner).ravel(), minlength=len(cast) + 1)
    for number, (_, _, thing) in enumerate(cast, start=1):
        thing.seen = int(counts[number])
    return image, [thing for _, _, thing in cast]


def _expose(rng: np.random.Generator, image: Image.Image, mood: str) -> Image.Image:
    """Reduces to the final size under the light of the hour, uneven and a little noisy."""
    pixels = np.asarray(image.reduce(_OVERSAMPLING), np.float32)
    slope = np.linspace(-1, 1, pixels.shape[1], dtype=np.float32)[None, :, None]
    light = np.array(_LIGHT.get(mood, (1, 1, 1)), np.float32)
    pixels = pixels * light * rng.uniform(0.85, 1.12)
    pixels = pixels * (1 + rng.uniform(-0.12, 0.12) * slope)
    pixels = pixels + 4 * rng.standard_normal(pixels.shape[:2], dtype=np.float32)[..., None]
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _describe(
    rng: np.random.Generator, place: str, labels: set[str], seen: list[Thing], moods: list[str]
) -> str:
    """A caption and some tags: they name most of the labels, and other things as well."""
    pick = lambda words: str(rng.choice(words))  # noqa: E731
    phrase = pick(_PLACE_PHRASES[place]) if rng.random() < 0.88 else ""
    nouns, told = [], {place} if phrase else set()
    for kind in dict.fromkeys(thing.kind for thing in seen):
        if rng.random() > (0.9 if kind in labels else 0.35):
            continue
        group = [thing for thing in seen if thing.kind == kind]
        adjectives = []
        for name in (group[0].pattern, group[0].colour):
            if name not in COLOURS and name not in _TEXTURE_WORDS:
                continue
            if rng.random() < (0.85 if name in labels else 0.3):
                adjectives.append(pick(_TEXTURE_WORDS.get(name, (name,))))
                told.add(name)
        nouns.append(_noun_phrase(rng, adjectives, pick(_NOUNS[kind]), len(group)))
        told.add(kind)
    if not nouns and not phrase:
        phrase = pick(_PLACE_PHRASES[place])
    things = " and ".join(nouns) or pick(("a view", "a scene", "a quiet day"))
    caption = pick(("{t} {p}", "{t} {p}", "a picture of {t} {p}", "{p}: {t}", "i saw {t} {p}"))
    caption = caption.format(t=things, p=phrase or pick(("here", "today", "again")))

    words = {**_PLACE_PHRASES, **_NOUNS, **_TEXTURE_WORDS}
    tags = []
    for name in sorted(labels):
        if rng.random() < (0.25 if name in told else 0.75):
            tags.append(pick(words.get(name, (name,))).split()[-1])
    tags += [mood for mood in moods if rng.random() < 0.4]
    tags = list(rng.permutation(tags)[:3]) + list(rng.choice(_NOISE_TAGS, 2, replace=False))
    if rng.random() < 0.08:  # a tag that is simply wrong
        tags.append(pick(LABELS))
    return f"{caption} " + " ".join(map(str, rng.permutation(tags)))


def _noun_phrase(rng: np.random.Generator, adjectives: list[str], noun: str, number: int) -> str:
    words = " ".join([*adjectives, noun])
    if number == 1:
        return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"
    if noun not in ("fish", "goldfish", "trout"):
        noun = _IRREGULAR.get(noun, f"{noun}s")
    words = " ".join([*adjectives, noun])
    count = ("two", "three", "four", "five")[number - 2]
    return f"{count if rng.random() < 0.7 else 'some'} {words}"


def relevant_share(label_sets: list[tuple[str, ...]]) -> float:
    """Share of pairs of different images that have a label in common; 0 for fewer than two."""
    if len(label_sets) < 2:
        return 0.0
    names = {name: column for column, name in enumerate(LABELS)}
    marks = np.zeros((len(label_sets), len(names)), np.float32)
    for row, labels in enumerate(label_sets):
        marks[row, [names[name] for name in labels]] = 1
    shared = np.count_nonzero(marks @ marks.T > 0) - len(label_sets)
    return shared / (len(label_sets) * (len(label_sets) - 1))


def write_scenes(
    folder: str | os.PathLike,
    count: int = 2000,
    seed: int = 0,
    size: tuple[int, int] = (160, 160),
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> Path:
    """Draws scenes into a folder in the `pairs` layout, or finds them finished there.

    `folder` gets `images/000000.jpg` ..., `manifest.csv` (columns id, image, text, labels; labels
    joined by ";") and `scenes.json` (arguments, total bytes, `chance`: the share of random pairs
    that are relevant). It appears in one piece: the work happens in `.FOLDER.partial` beside it,
    which a killed run leaves behind and the next one replaces.

    Args:
        folder: where to write. Finished scenes of the same count, seed and size are reused; other
            or incomplete scenes are replaced; a folder with anything else in it is an error.
        count: number of images, at least 1.
        seed: non-negative integer; the same seed gives the same bytes.
        size: width and height in pixels, 32 to 1024 each.
        progress: wraps the range of images, such as a tqdm bar.

    Returns:
        Path of the manifest.

    Raises:
        ValueError: a bad count, seed or size, or a folder that holds other files.
    """
    manifest = Path(folder) / "manifest.csv"
    folder = Path(folder).resolve()  # "." has no name, and a link must stay one
    if count < 1 or seed < 0:
        raise ValueError(f"count={count}, seed={seed}: expected count >= 1 and seed >= 0")
    if len(size) != 2 or not all(32 <= side <= 1024 for side in size):
        raise ValueError(f"size={tuple(size)}: expected width and height from 32 to 1024 pixels")
    wanted = {"version": _VERSION, "count": count, "seed": seed, "size": list(size)}
    if _is_finished(folder, wanted):
        return manifest

    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "images").mkdir(parents=True)
    try:
        labels = _write_pairs(partial, count, seed, size, progress)
        record = {**wanted, "bytes": _total_bytes(partial), "chance": relevant_share(labels)}
        write_json(partial / "scenes.json", record)
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(partial, folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return manifest


def _write_pairs(folder: Path, count: int, seed: int, size, progress) -> list[tuple[str, ...]]:
    """Writes images and manifest; returns the labels of each image."""

    def draw(index: int) -> tuple[str, tuple[str, ...]]:
        scene = draw_scene(seed, index, size)
        scene.image.save(folder / "images" / f"{index:06d}.jpg", quality=_JPEG_QUALITY)
        return scene.text, scene.labels

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # NumPy and Pillow release the lock
        drawn = [scene for _, scene in zip(progress(range(count)), pool.map(draw, range(count)))]
    with open(folder / "manifest.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("id", "image", "text", "labels"))
        for index, (text, labels) in enumerate(drawn):
            name = f"{index:06d}"
            writer.writerow((name, f"images/{name}.jpg", text, ";".join(labels)))
    return [labels for _, labels in drawn]


def _is_finished(folder: Path, wanted: dict) -> bool:
    """Whether the folder holds exactly the wanted scenes; refuses a folder of something else."""
    if not folder.exists():
        return False
    entries = {entry.name for entry in folder.iterdir()} if folder.is_dir() else {folder.name}
    foreign = entries - {"images", "manifest.csv", "scenes.json"}
    if entries and (foreign or "scenes.json" not in entries):
        raise ValueError(
            f"{folder} holds {', '.join(sorted(foreign or entries)[:3])}: not drawn scenes, which "
            "could be replaced; give a new or empty folder"
        )
    try:
        record = json.loads((folder / "scenes.json").read_text())
        expected = {**wanted, "bytes": _total_bytes(folder)}
    except (OSError, ValueError):
        return False
    return isinstance(record, dict) and record == {**record, **expected}


def _total_bytes(folder: Path) -> int:
    """Size of manifest and images: a missing or cut file shows."""
    files = [folder / "manifest.csv", *(folder / "images").iterdir()]
    return sum(file.stat().st_size for file in files)
