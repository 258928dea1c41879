"""The objects of the drawn scenes: their palette, their patterns, and how each is drawn."""

from __future__ import annotations

import colorsys
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

COLOURS = {
    "red": (205, 40, 40), "orange": (240, 135, 30), "yellow": (245, 210, 50),
    "green": (60, 160, 70), "blue": (45, 95, 205), "purple": (130, 65, 170),
    "pink": (240, 130, 175), "white": (242, 240, 234),
}  # fmt: skip
PAINTS = {
    **COLOURS, "wood": (125, 82, 48), "leaf": (58, 130, 52), "pine": (28, 88, 58),
    "dark": (38, 36, 42), "grey": (135, 138, 145), "glass": (165, 210, 230),
    "gold": (250, 205, 85), "cream": (245, 232, 205), "rock": (112, 104, 104),
    "cactus": (72, 138, 76), "moon": (232, 228, 205), "foam": (225, 240, 245),
}  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """An object: how it is drawn (in the unit square, y down), where it stays.

    A drawing is a list of `shape paint numbers`; the paint `body` is the object's own colour and
    pattern, `alt` its second colour. Lines and arcs take their width first.
    """

    zone: str  # "ground" (stands), "water" (floats) or "air"
    size: tuple[float, float]  # share of the image's height
    most: int  # largest number of them in one image
    bodies: tuple[str, ...]  # colours it may have; a single one is its nature and no label
    patterns: tuple[str, ...]  # likewise
    drawing: str


_ANY = tuple(COLOURS)
_PLAIN = ("plain",)
KINDS = {
    "umbrella": Kind("ground", (0.36, 0.55), 2, _ANY, ("plain", "plain", "striped", "dotted"),
        "line wood .04 .5 .2 .5 1; pie body .0 .05 1 .95 180 360; oval dark .47 .01 .53 .08"),
    "ball": Kind("ground", (0.16, 0.34), 3, _ANY, ("plain", "striped", "dotted"),
        "oval body .02 .02 .98 .98; oval white .22 .15 .38 .3"),
    "boat": Kind("water", (0.26, 0.5), 3, _ANY, ("plain", "plain", "striped"),
        "line wood .035 .48 .03 .48 .75; poly white .51 .05 .93 .62 .51 .66;"
        "poly alt .45 .12 .45 .66 .1 .62; poly body .0 .7 1 .7 .84 1 .16 1;"
        "box white .1 .74 .9 .78"),
    "palm": Kind("ground", (0.45, 0.7), 2, ("leaf",), _PLAIN,
        "line wood .06 .42 1 .47 .7 .53 .4 .52 .25; poly body .52 .27 .3 .12 .05 .22 0 .42 .25 .28;"
        "poly leaf .52 .27 .72 .08 .95 .18 1 .4 .8 .25; poly body .52 .27 .33 .35 .2 .6 .4 .48;"
        "poly pine .52 .27 .75 .33 .85 .58 .65 .46; poly body .52 .28 .42 .0 .6 .0"),
    "bird": Kind("air", (0.14, 0.28), 4, ("white", "blue", "red", "grey"), _PLAIN,
        "oval body .15 .42 .75 .78; oval body .6 .28 .9 .58; poly body .2 .6 .0 .45 .0 .7;"
        "poly orange .88 .4 1 .46 .88 .5; oval dark .75 .36 .81 .43;"
        "poly alt .3 .55 .62 .55 .25 .05"),
    "pine": Kind("ground", (0.38, 0.66), 4, ("pine",), _PLAIN,
        "box wood .45 .82 .55 1; poly body .5 .35 .9 .88 .1 .88; poly leaf .5 .2 .82 .64 .18 .64;"
        "poly body .5 .0 .74 .4 .26 .4"),
    "tree": Kind("ground", (0.4, 0.66), 3, ("leaf",), _PLAIN,
        "poly wood .44 .5 .56 .5 .6 1 .4 1; oval body .05 .22 .55 .7; oval leaf .42 .2 .96 .68;"
        "oval body .2 .0 .8 .55; oval leaf .35 .06 .62 .3"),
    "house": Kind("ground", (0.36, 0.56), 2, _ANY, ("plain", "plain", "plain", "brick"),
        "box grey .68 .08 .78 .4; box body .1 .42 .9 1; poly alt .0 .46 .5 .05 1 .46;"
        "box wood .42 .68 .6 1; box glass .18 .54 .36 .72; box glass .66 .54 .84 .72"),
    "car": Kind("ground", (0.24, 0.4), 3, _ANY, _PLAIN,
        "poly body .2 .5 .32 .25 .7 .25 .84 .5; poly glass .27 .5 .35 .3 .49 .3 .49 .5;"
        "poly glass .53 .5 .53 .3 .67 .3 .76 .5; box body .0 .5 1 .82; oval dark .12 .68 .36 .98;"
        "oval dark .64 .68 .88 .98; oval grey .19 .76 .29 .9; oval grey .71 .76 .81 .9;"
        "oval gold .93 .56 1 .66"),
    "moon": Kind("air", (0.18, 0.32), 1, ("moon",), _PLAIN,
        "oval body .02 .02 .98 .98; oval grey .25 .3 .4 .45; oval cream .5 .55 .75 .8;"
        "oval grey .6 .2 .7 .3; oval cream .2 .6 .35 .75"),
    "star": Kind("air", (0.12, 0.3), 4, ("yellow", "orange", "pink", "white"), _PLAIN,
        "poly body .5 .0 .62 .36 1 .37 .7 .6 .81 .97 .5 .75 .19 .97 .3 .6 .0 .37 .38 .36"),
    "lamp": Kind("ground", (0.45, 0.65), 3, ("gold",), _PLAIN,
        "line dark .05 .5 .25 .5 1; box dark .38 .96 .62 1; oval cream .28 .0 .72 .4;"
        "oval body .36 .06 .64 .34; poly dark .33 .08 .67 .08 .5 -.02"),
    "flower": Kind("ground", (0.24, 0.46), 4, _ANY, _PLAIN,
        "line leaf .05 .5 .4 .5 1; oval leaf .5 .68 .85 .82; oval leaf .16 .78 .5 .9;"
        "oval body .34 .0 .66 .3; oval body .34 .3 .66 .62; oval body .12 .1 .46 .36;"
        "oval body .54 .1 .88 .36; oval body .14 .3 .46 .54; oval body .54 .3 .86 .54;"
        "oval gold .39 .2 .61 .42"),
    "butterfly": Kind("air", (0.16, 0.3), 3, _ANY, ("plain", "dotted"),
        "oval body .0 .1 .48 .55; oval body .52 .1 1 .55; oval alt .1 .48 .47 .88;"
        "oval alt .53 .48 .9 .88; oval dark .45 .2 .55 .85; line dark .02 .5 .22 .36 .02"),
    "fish": Kind("water", (0.18, 0.4), 4, _ANY, ("plain", "plain", "plain", "striped", "dotted"),
        "poly alt .25 .5 .0 .22 .04 .8; poly alt .4 .3 .6 .06 .7 .3; oval body .15 .2 1 .8;"
        "oval white .8 .36 .9 .48; oval dark .84 .39 .89 .46; arc dark .02 .55 .3 .75 .7 -60 60"),
    "coral": Kind("ground", (0.25, 0.45), 3, ("pink", "orange", "purple"), _PLAIN,
        "line body .1 .5 1 .5 .5 .4 .1; line body .08 .5 .8 .2 .55 .1 .2;"
        "line body .08 .5 .65 .8 .45 .9 .15; line alt .06 .5 .5 .68 .3 .66 .05;"
        "line alt .06 .28 .6 .3 .3 .24 .2; oval body .36 .06 .46 .16"),
    "cactus": Kind("ground", (0.35, 0.58), 3, ("cactus",), _PLAIN,
        "box body .4 .1 .6 1; oval body .4 .0 .6 .2; box body .12 .55 .45 .68;"
        "box body .12 .3 .25 .68; oval body .12 .24 .25 .38; box body .55 .45 .88 .57;"
        "box body .75 .2 .88 .57; oval body .75 .14 .88 .28; oval pink .45 -.02 .55 .06"),
    "tent": Kind("ground", (0.28, 0.48), 2, _ANY, ("plain", "striped"),
        "poly body .5 .08 1 1 .0 1; poly dark .5 .35 .66 1 .34 1; line wood .03 .5 .0 .5 .12"),
    "mushroom": Kind("ground", (0.2, 0.38), 3, ("red", "orange", "white"), ("dotted",),
        "poly cream .4 .5 .6 .5 .66 1 .34 1; pie body .0 .05 1 1.05 180 360;"
        "box alt .08 .53 .92 .57"),
    "cup": Kind("ground", (0.22, 0.4), 3, _ANY, ("plain", "striped", "dotted"),
        "arc body .07 .62 .4 .98 .82 -90 90; poly body .1 .3 .78 .3 .7 1 .18 1;"
        "oval cream .1 .22 .78 .38; oval wood .15 .25 .73 .35;"
        "line white .03 .35 .18 .4 .1 .34 .02"),
    "fruit": Kind("ground", (0.24, 0.42), 3, ("red", "orange", "yellow", "green"), _PLAIN,
        "oval body .0 .5 .4 .92; oval orange .32 .52 .7 .94; oval body .6 .5 1 .92;"
        "oval red .14 .22 .52 .64; oval body .46 .22 .84 .64; oval yellow .3 .0 .68 .38;"
        "line wood .03 .49 .06 .54 -.02; poly leaf .5 .05 .7 .0 .6 .1;"
        "poly wood .0 .8 1 .8 .9 1 .1 1"),
    "clock": Kind("air", (0.22, 0.36), 1, _ANY, _PLAIN,
        "oval body .0 .0 1 1; oval cream .1 .1 .9 .9; line dark .04 .5 .5 .5 .18;"
        "line dark .05 .5 .5 .72 .6; oval dark .46 .46 .54 .54; box dark .48 .1 .52 .16;"
        "box dark .48 .84 .52 .9; box dark .1 .48 .16 .52; box dark .84 .48 .9 .52"),
    "lighthouse": Kind("ground", (0.5, 0.72), 1, ("red", "blue", "white"), ("striped",),
        "poly body .38 .25 .62 .25 .7 1 .3 1; box gold .4 .12 .6 .25;"
        "poly dark .36 .13 .5 .0 .64 .13;"
        "box dark .35 .24 .65 .27; box dark .46 .82 .54 1"),
    "sign": Kind("ground", (0.5, 0.7), 2, ("red", "yellow", "blue"), _PLAIN,
        "line grey .06 .5 .3 .5 1; poly body .5 .0 .86 .32 .5 .64 .14 .32;"
        "poly white .5 .07 .79 .32 .5 .57 .21 .32; poly body .5 .13 .72 .32 .5 .51 .28 .32"),
    "planet": Kind("air", (0.26, 0.5), 2, _ANY, ("plain", "plain", "striped", "dotted"),
        "oval body .18 .18 .82 .82; arc gold .05 .0 .36 1 .66 -35 215; oval white .3 .26 .38 .34"),
    "rocket": Kind("air", (0.32, 0.52), 1, ("white", "red", "blue"), _PLAIN,
        "poly orange .38 .78 .62 .78 .5 1; poly alt .3 .5 .1 .82 .35 .76;"
        "poly alt .7 .5 .9 .82 .65 .76;"
        "oval body .3 .0 .7 .85; pie alt .3 .0 .7 .5 200 340; oval glass .41 .3 .59 .46"),
    "balloon": Kind("air", (0.3, 0.52), 3, _ANY, ("plain", "plain", "striped", "checked"),
        "oval body .1 .0 .9 .72; poly body .2 .5 .8 .5 .58 .8 .42 .8; line dark .015 .44 .8 .45 .9;"
        "line dark .015 .56 .8 .55 .9; box wood .42 .87 .58 1"),
    "cake": Kind("ground", (0.24, 0.4), 1, ("pink", "white", "yellow"), ("plain", "dotted"),
        "box body .1 .5 .9 .95; oval alt .1 .4 .9 .6; box white .0 .93 1 1; oval alt .1 .42 .9 .58;"
        "line blue .04 .35 .25 .35 .5; line red .04 .5 .22 .5 .5; line green .04 .65 .25 .65 .5;"
        "oval gold .32 .15 .38 .26; oval gold .47 .12 .53 .23; oval gold .62 .15 .68 .26"),
}  # fmt: skip


def _shapes(drawing: str) -> list[tuple[str, str, tuple[float, ...]]]:
    parts = (shape.split() for shape in drawing.split(";"))
    return [(name, paint, tuple(map(float, numbers))) for name, paint, *numbers in parts]


_DRAWINGS = {name: _shapes(kind.drawing) for name, kind in KINDS.items()}


def ink(colour: Iterable[float]) -> tuple[int, int, int]:
    """The colour as Pillow wants it."""
    red, green, blue = (int(c) for c in colour)
    return red, green, blue


def pattern_mask(name: str, y: np.ndarray, x: np.ndarray, repeats: float) -> np.ndarray:
    """Boolean mask of a pattern over coordinates in units of the drawn thing."""
    shape = np.broadcast_shapes(y.shape, x.shape)
    y, x = y * repeats, x * repeats
    if name == "striped":
        return np.broadcast_to(x % 1 < 0.5, shape)
    if name == "dotted":
        return (x % 1 - 0.5) ** 2 + (y % 1 - 0.5) ** 2 < 0.08
    if name == "checked":
        return (np.floor(x) + np.floor(y)) % 2 == 0
    if name == "brick":  # the mortar
        row = np.floor(2 * y)
        return ((2 * y) % 1 < 0.18) | ((x + 0.5 * (row % 2)) % 1 < 0.1)
    return np.zeros(shape, bool)


def vary(rng: np.random.Generator, colour: Iterable[float], amount: float = 1.0) -> np.ndarray:
    """The colour with a slightly different hue, saturation and value, float32 [3]."""
    hue, saturation, value = colorsys.rgb_to_hsv(*(c / 255 for c in colour))
    change = (amount * rng.standard_normal(3)).tolist()
    hue = (hue + 0.015 * change[0]) % 1
    saturation = min(max(saturation * (1 + 0.12 * change[1]), 0.0), 1.0)
    value = min(max(value * (1 + 0.08 * change[2]), 0.0), 1.0)
    return 255 * np.asarray(colorsys.hsv_to_rgb(hue, saturation, value), np.float32)


@dataclass
class Thing:
    """One object of an image: what it is, and how much of it can be seen (pixels)."""

    kind: str
    colour: str
    pattern: str
    drawn: int = 0
    seen: int = 0


def draw_object(rng: np.random.Generator, thing: Thing, pixels: int) -> Image.Image:
    """The object alone on a transparent RGBA tile, turned, mirrored and lit from one side.

    Args:
        rng: source of chance.
        thing: what to draw.
        pixels: height of the tile.
    """
    unit = np.linspace(0, 1, pixels, dtype=np.float32)
    others = [name for name in COLOURS if name != thing.colour]
    second = "white" if "white" in others and rng.random() < 0.5 else str(rng.choice(others))
    paints = {**PAINTS, "body": PAINTS[thing.colour], "alt": PAINTS[second]}
    used = dict.fromkeys(["body", "alt", *(paint for _, paint, _ in _DRAWINGS[thing.kind])])
    paints = {name: ink(vary(rng, paints[name], 0.6)) for name in used}
    tile = Image.new("RGBA", (pixels, pixels), paints["body"] + (0,))
    pen = ImageDraw.Draw(tile)
    axes = (unit[:, None], unit[None, :])
    upright = thing.pattern == "brick" or rng.random() < 0.5
    mask = pattern_mask(thing.pattern, *(axes if upright else axes[::-1]), rng.uniform(3.5, 6))
    alt, body = (np.array(paints[name], np.uint8) for name in ("alt", "body"))
    cover = Image.fromarray(np.where(mask[..., None], alt, body))
    for shape, paint, numbers in _DRAWINGS[thing.kind]:
        width = max(1, round(numbers[0] * pixels))
        points = [n * pixels for n in numbers]
        canvas, fill = pen, paints[paint]  # type: tuple[ImageDraw.ImageDraw, tuple | int]
        if paint == "body" and thing.pattern != "plain":
            stencil = Image.new("L", tile.size)
            canvas, fill = ImageDraw.Draw(stencil), 255
        if shape == "poly":
            canvas.polygon(points, fill=fill)
        elif shape == "oval":
            canvas.ellipse(points, fill=fill)
        elif shape == "box":
            canvas.rectangle(points, fill=fill)
        elif shape == "line":
            canvas.line(points[1:], fill=fill, width=width, joint="curve")
        elif shape == "pie":
            canvas.pieslice(points[:4], numbers[4], numbers[5], fill=fill)
        else:
            canvas.arc(points[1:5], numbers[5], numbers[6], fill=fill, width=width)
        if canvas is not pen:
            tile.paste(cover, mask=stencil)
    pixel = np.asarray(tile, np.float32)
    light = np.linspace(1.12, 0.78, pixels, dtype=np.float32)[None, :, None]
    pixel = np.concatenate([np.clip(pixel[..., :3] * light, 0, 255), pixel[..., 3:]], axis=2)
    tile = Image.fromarray(pixel.astype(np.uint8))
    if rng.random() < 0.5:
        tile = tile.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    lean = rng.normal(0, 14 if KINDS[thing.kind].zone == "air" else 3)
    tile = tile.rotate(lean, Image.Resampling.BILINEAR)
    width = round(pixels * rng.uniform(0.85, 1.15))
    return tile.resize((width, pixels), Image.Resampling.BILINEAR)
