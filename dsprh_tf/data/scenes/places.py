"""The places of the drawn scenes: painted backgrounds with their palettes and textures."""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from dsprh_tf.data.scenes.objects import COLOURS, PAINTS, ink, pattern_mask, vary


class Stage:
    """A background in the making: planes red, green, blue of 0 to 255, coordinates in [0, 1].

    Planes, [3, height, width], as NumPy is several times slower with the colours innermost.
    """

    def __init__(self, rng: np.random.Generator, width: int, height: int):
        self.rng = rng
        self.art: np.ndarray = np.zeros((3, height, width), np.float32)
        self.y = np.linspace(0, 1, height, dtype=np.float32)[:, None]
        self.x = np.linspace(0, 1, width, dtype=np.float32)[None, :]
        self.textures: set[str] = set()  # texture labels of the background
        self.mood = ""  # the light of the hour
        self.words: list[str] = []  # further words for light and season

    def noise(self, rows: int, columns: int) -> np.ndarray:
        """Smooth noise around 0 with about that many bumps per side, [height, width]."""
        grid = self.rng.random((rows, columns), dtype=np.float32) - 0.5
        size = self.art.shape[:0:-1]
        return np.asarray(Image.fromarray(grid).resize(size, Image.Resampling.BICUBIC))

    def ridge(self, base: float, height: float, knots: int) -> np.ndarray:
        """Mask of everything below a random skyline."""
        heights = self.rng.uniform(-height, height, knots)
        line = np.interp(self.x[0], np.linspace(0, 1, knots), heights)
        return self.y > base + line.astype(np.float32)

    def paint(self, top, bottom=None, where=None, texture=0.0) -> None:
        """Fills a mask with a vertical gradient, lightened and darkened by `texture` (shares)."""
        top = vary(self.rng, top)[:, None, None]
        layer = top
        if bottom is not None:
            layer = top + (vary(self.rng, bottom)[:, None, None] - top) * self.y  # [3, height, 1]
        layer = layer * (1 + np.broadcast_to(np.float32(texture), self.art.shape[1:]))
        np.copyto(self.art, layer, where=True if where is None else where)

    def blend(self, colour, share: np.ndarray) -> None:
        """Moves the image towards a colour by a share per pixel: light, mist, clouds."""
        self.art += (np.array(colour, np.float32)[:, None, None] - self.art) * share

    def image(self) -> Image.Image:
        """The image so far."""
        return Image.fromarray(np.clip(self.art, 0, 255).astype(np.uint8).transpose(1, 2, 0).copy())

    def dots(self, number: int, colours, low: float, high: float, radius: float) -> None:
        """Scatters small discs between two heights, nearer (lower) ones larger."""
        image = self.image()
        pen = ImageDraw.Draw(image)
        width, height = image.size
        for y in np.sort(self.rng.uniform(low, high, number)):
            size = radius * height * (0.5 + self.rng.random()) * (0.5 + y)
            x, y = self.rng.random() * width, y * height
            fill = ink(vary(self.rng, colours[self.rng.integers(len(colours))]))
            pen.ellipse((x - size, y - size, x + size, y + size), fill=fill)
        self.art = np.ascontiguousarray(np.asarray(image, np.float32).transpose(2, 0, 1))

    def sky(self, *moods: str) -> str:
        """Paints the sky in one of the moods, with clouds, and says which."""
        mood = moods[self.rng.integers(len(moods))]
        top, bottom, cloud = {
            "day": ((70, 140, 220), (215, 235, 250), 0.5),
            "grey": ((140, 150, 165), (205, 210, 215), 0.3),
            "sunset": ((95, 70, 140), (255, 165, 75), 0.25),
            "hot": ((120, 180, 225), (250, 225, 170), 0.1),
            "night": ((8, 10, 38), (50, 48, 105), 0.06),
        }[mood]  # fmt: skip
        self.paint(top, bottom)
        clouds = np.clip(self.noise(7, 4) + 0.5 * self.noise(18, 9) - 0.05, 0, 1)
        self.blend((255, 245, 240), 2.5 * cloud * clouds)
        if mood == "night":
            self.dots(40, [(250, 250, 220)], 0.0, 0.5, 0.004)
        self.mood = mood
        self.words += {"day": ["sunny"], "sunset": ["dusk"], "night": ["dark"]}.get(mood, [])
        return mood

    def waves(self, top, bottom, where) -> None:
        """Water: bands that widen towards the viewer, broken by noise; labelled `waves`."""
        phase = 90 * np.sqrt(self.y) + 7 * self.noise(12, 6)
        crests = np.maximum(np.sin(phase), 0) ** 3
        self.paint(top, bottom, where, 0.45 * crests + 0.15 * self.noise(60, 20) - 0.1)
        self.textures.add("waves")

    def grain(self, strength: float = 0.3) -> np.ndarray:
        """Fine and coarse noise together: sand, earth, plaster."""
        return strength * (0.6 * self.noise(110, 110) + 0.4 * self.noise(9, 6))


def _beach(s: Stage) -> None:
    if s.sky("sunset", "sunset", "day", "hot") == "sunset":
        x, y = s.rng.uniform(0.15, 0.85), s.rng.uniform(0.2, 0.38)
        s.blend((255, 225, 140), np.exp(-((s.x - x) ** 2 + (s.y - y) ** 2) / 0.02))
    s.waves((40, 120, 165), (90, 175, 190), s.y > 0.42)
    shore = s.ridge(0.66, 0.035, 7)
    s.paint(PAINTS["foam"], where=shore)
    s.paint((228, 196, 140), (215, 178, 120), np.roll(shore, 6, axis=0) & shore, s.grain())
    s.textures.add("sand")


def _mountains(s: Stage) -> None:
    s.sky("day", "grey", "sunset", "day")
    for base, height, shade in ((0.36, 0.16, (150, 165, 195)), (0.46, 0.2, (98, 102, 118))):
        peaks = s.ridge(base, height, int(s.rng.integers(6, 11)))
        s.paint(shade, where=peaks, texture=0.5 * s.noise(40, 25))
        depth = peaks.cumsum(0) / peaks.shape[0] + 0.08 * s.noise(30, 30)
        s.paint((240, 245, 252), where=peaks & (depth < 0.11), texture=0.1 * s.noise(30, 30))
    s.paint((225, 235, 248), (245, 248, 255), s.ridge(0.68, 0.05, 6), s.grain(0.15))
    s.textures.add("snow")


def _city(s: Stage) -> None:
    s.sky("night", "night", "night", "sunset")
    for left in np.arange(-0.05, 1, 0.11):
        left, width = left + s.rng.uniform(-0.03, 0.03), s.rng.uniform(0.1, 0.2)
        top, step = s.rng.uniform(0.12, 0.55), s.rng.uniform(0.028, 0.045)
        block = (s.x > left) & (s.x < left + width) & (s.y > top)
        shade = s.rng.uniform(0.5, 1.3)
        s.paint((44 * shade, 46 * shade, 70 * shade), where=block, texture=0.2 * s.noise(40, 40))
        rows, columns = (s.y - top) / step, (s.x - left) / step
        lit = s.rng.random((40, 12)) > 0.45
        lit = lit[np.clip(rows, 0, 39).astype(int), np.clip(columns, 0, 11).astype(int)]
        panes = block & (rows % 1 > 0.45) & (columns % 1 > 0.45) & lit
        s.paint((250, 215, 120), where=panes)
    s.paint((58, 58, 66), where=(s.y > 0.78), texture=s.grain(0.4))
    s.paint((225, 215, 160), where=(np.abs(s.y - 0.88) < 0.012) & (s.x * 6 % 1 < 0.55))


def _meadow(s: Stage) -> None:
    s.sky("day", "day", "grey", "sunset")
    s.paint((120, 170, 110), where=s.ridge(0.42, 0.07, 5), texture=s.grain())
    s.paint((92, 165, 62), (110, 190, 70), s.ridge(0.55, 0.05, 5), 0.5 * s.noise(40, 130))
    names = s.rng.choice(["red", "yellow", "pink", "purple", "white"], 3, replace=False)
    s.dots(170, [COLOURS[name] for name in names], 0.55, 1.0, 0.011)


def _underwater(s: Stage) -> None:
    s.paint((70, 190, 205), (8, 62, 118), texture=s.grain(0.12))
    slope, phase = s.rng.uniform(-0.8, 0.8), s.rng.uniform(0, 6)
    rays = np.maximum(np.sin(26 * (s.x + slope * s.y) + phase + 3 * s.noise(2, 6)), 0)
    s.blend((215, 250, 250), 0.35 * rays * (1 - s.y))
    s.paint((165, 165, 130), (120, 130, 115), s.ridge(0.84, 0.05, 6), s.grain())
    for root in s.rng.random(s.rng.integers(3, 9)):
        bend = root + 0.02 * np.sin(25 * s.y + 30 * root)
        blade = (np.abs(s.x - bend) < 0.012) & (s.y > s.rng.uniform(0.45, 0.75))
        s.paint((30, 120, 80), where=blade, texture=0.4 * s.noise(40, 8))
    s.dots(30, [(190, 235, 240), (140, 215, 225)], 0.1, 0.9, 0.009)


def _desert(s: Stage) -> None:
    s.sky("hot", "hot", "sunset", "day")
    for base, shade in ((0.5, (225, 170, 100)), (0.62, (235, 185, 105)), (0.78, (215, 155, 80))):
        ripples = np.sin(130 * s.y + 8 * s.noise(5, 4) + 20 * s.x * (base - 0.6))
        s.paint(shade, where=s.ridge(base, 0.06, 5), texture=0.09 * ripples + s.grain(0.15))
    s.textures.add("sand")


def _forest(s: Stage) -> None:
    season = s.rng.choice(["summer", "summer", "autumn", "winter"])
    crown, floor = {
        "summer": ((40, 92, 44), (62, 80, 38)),
        "autumn": ((190, 110, 38), (140, 84, 40)),
        "winter": ((120, 138, 150), (228, 234, 242)),
    }[season]
    s.paint(crown, [0.6 * c for c in crown], texture=1.0 * s.noise(26, 26) + 0.5 * s.noise(70, 70))
    s.paint(floor, where=s.ridge(0.72, 0.04, 6), texture=s.grain(0.4))
    for root in np.sort(s.rng.random(s.rng.integers(7, 13))):
        foot, width = s.rng.uniform(0.7, 0.86), s.rng.uniform(0.012, 0.04)
        trunk = (np.abs(s.x - root - 0.02 * s.rng.normal() * s.y) < width) & (s.y < foot)
        s.paint((92, 66, 44), where=trunk, texture=0.7 * s.noise(20, 130))
    canopy = s.noise(12, 12) + 0.35 - 1.3 * s.y > 0
    s.paint([0.8 * c for c in crown], where=canopy, texture=1.1 * s.noise(40, 40))
    s.words.append(season)
    if season == "winter":
        s.textures.add("snow")


def _kitchen(s: Stage) -> None:
    wall = [(205, 225, 220), (235, 225, 195), (195, 210, 230), (240, 215, 205)][s.rng.integers(4)]
    s.paint(wall, texture=s.grain(0.06))
    grout = (s.x * 9 % 1 < 0.06) | (s.y * 9 % 1 < 0.06)
    s.paint([0.82 * c for c in wall], where=grout)
    shelf = np.abs(s.y - 0.26) < 0.018
    s.paint((135, 92, 58), where=shelf, texture=0.3 * s.noise(80, 6))
    table = s.y > 0.62
    s.paint((165, 112, 68), (140, 92, 52), table, 0.5 * s.noise(90, 5))
    if s.rng.random() < 0.6:
        cloth = COLOURS[str(s.rng.choice(["red", "blue", "green"]))]
        s.paint((240, 236, 228), where=table, texture=0.06 * s.noise(50, 50))
        depth = np.maximum((s.y - 0.45) * 2.2, 0.1)  # squares grow towards the viewer
        squares = pattern_mask("checked", np.log(depth), (s.x - 0.5) / depth, 6)
        s.paint(cloth, where=table & squares)
        s.textures.add("checked")


def _harbour(s: Stage) -> None:
    s.sky("grey", "day", "grey", "sunset")
    for left in np.arange(0, 1, 0.13):
        shade = [(150, 90, 75), (175, 160, 140), (110, 120, 135)][s.rng.integers(3)]
        shed = (s.x > left) & (s.x < left + s.rng.uniform(0.08, 0.13))
        s.paint(shade, where=shed & (s.y > s.rng.uniform(0.28, 0.4)), texture=s.grain())
    s.waves((62, 88, 108), (40, 72, 98), (s.y > 0.45))
    quay = s.y > 0.82
    s.paint((150, 105, 88), where=quay, texture=s.grain(0.35))
    s.paint((105, 95, 92), where=quay & pattern_mask("brick", s.y, s.x, 10))


def _road(s: Stage) -> None:
    s.sky("day", "grey", "hot", "sunset")
    fields = (150, 165, 70) if s.rng.random() < 0.6 else (205, 180, 90)
    s.paint(fields, where=s.ridge(0.45, 0.03, 5), texture=s.grain(0.4) + 0.25 * s.noise(60, 8))
    near = np.maximum(s.y - 0.45, 0)
    across = (s.x - s.rng.uniform(0.4, 0.6)) / (near + 0.02)
    asphalt = (s.y > 0.46) & (np.abs(across) < 0.95)
    s.paint((92, 92, 98), (110, 108, 108), asphalt, s.grain(0.35))
    s.paint((235, 235, 228), where=asphalt & (np.abs(np.abs(across) - 0.86) < 0.03))
    dashes = (np.abs(across) < 0.035) & (np.log(near + 0.05) * 4 % 1 < 0.5)
    s.paint((240, 205, 80), where=asphalt & dashes)


def _space(s: Stage) -> None:
    s.paint((6, 5, 18), (14, 8, 30))
    for _ in range(2):
        glow = colorsys.hsv_to_rgb(s.rng.uniform(0.5, 1.0), 0.8, s.rng.uniform(130, 255))
        s.blend(glow, np.maximum(s.noise(4, 4) + 0.4 * s.noise(14, 14), 0))
    s.dots(130, [(255, 255, 255), (255, 235, 190), (190, 210, 255)], 0.0, 1.0, 0.004)


def _market(s: Stage) -> None:
    s.paint((165, 88, 68), (140, 72, 58), texture=s.grain(0.35))
    s.paint((196, 182, 168), where=pattern_mask("brick", s.y, s.x, 9))
    s.textures.add("brick")
    awning = COLOURS[str(s.rng.choice(["red", "green", "blue", "orange"]))]
    edge = s.rng.uniform(0.16, 0.24) + 0.015 * np.abs(np.sin(38 * s.x))
    s.paint((245, 240, 230), where=s.y < edge)
    if s.rng.random() < 0.7:
        s.paint(awning, where=(s.y < edge) & pattern_mask("striped", s.y, s.x, 6))
    else:
        s.paint(awning, where=s.y < edge)
    s.paint((150, 106, 66), where=(s.y > 0.66), texture=0.5 * s.noise(70, 4))
    heaps = ["red", "orange", "yellow", "green", "purple"]
    for left, name in zip(np.arange(0, 1, 0.25), s.rng.permutation(heaps)):
        heap = (s.x > left + 0.01) & (s.x < left + 0.24) & (s.y > 0.7) & (s.y < 0.96)
        s.paint((70, 46, 30), where=heap)
        fruit = heap & pattern_mask("dotted", s.y * 1.1, s.x, 18)
        s.paint(COLOURS[name], where=fruit, texture=s.grain())


def _room(s: Stage) -> None:
    wall = [(190, 205, 175), (222, 190, 170), (180, 190, 215), (215, 205, 160)][s.rng.integers(4)]
    s.paint(wall, texture=s.grain(0.08))
    paper = str(s.rng.choice(["plain", "plain", "striped", "dotted"]))
    s.paint([0.78 * c for c in wall], where=pattern_mask(paper, s.y, s.x, 11))
    s.textures |= {paper} - {"plain"}
    if s.rng.random() < 0.5:
        left = s.rng.uniform(0.08, 0.6)
        for colour, inset in (((240, 240, 235), 0.0), ((150, 200, 235), 0.025)):
            frame = (np.abs(s.x - left - 0.15) < 0.15 - inset) & (np.abs(s.y - 0.27) < 0.17 - inset)
            s.paint(colour, where=frame)
    s.paint((240, 236, 228), where=np.abs(s.y - 0.66) < 0.025)
    floor = s.y > 0.68
    s.paint((150, 98, 60), (176, 120, 76), floor, 0.5 * s.noise(70, 6))
    s.paint((96, 62, 40), where=floor & ((s.x - 0.5) / (s.y + 0.1) * 9 % 1 < 0.06))


def _air(s: Stage) -> None:
    s.sky("day", "day", "hot", "sunset")
    for _ in range(2):
        cloud = np.clip(3 * (s.noise(6, 3) + 0.4 * s.noise(16, 9) - 0.12), 0, 1)
        s.blend((252, 252, 255), 0.9 * cloud)
    s.paint((90, 130, 95), where=s.ridge(0.93, 0.03, 6), texture=s.grain())


@dataclass(frozen=True)
class Place:
    """A background, what is found there, where things stay (top and bottom of each zone)."""

    paint: Callable[[Stage], None]
    kinds: tuple[str, ...]
    zones: dict[str, tuple[float, float]]


def _zones(ground=(0.72, 0.97), air=(0.1, 0.36), water=None) -> dict[str, tuple[float, float]]:
    return {"ground": ground, "air": air, "water": water or ground}


PLACES = {
    "beach": Place(_beach, ("umbrella", "ball", "palm", "boat", "bird"), _zones(water=(0.5, 0.64))),
    "mountains": Place(_mountains, ("pine", "house", "tent", "bird"), _zones()),
    "city": Place(_city, ("car", "moon", "lamp", "star"), _zones((0.84, 0.98), (0.1, 0.3))),
    "meadow": Place(_meadow, ("flower", "butterfly", "tree", "house"), _zones((0.62, 0.98))),
    "underwater": Place(_underwater, ("fish", "coral", "star"),
        _zones((0.86, 0.98), (0.3, 0.85), (0.25, 0.85))),
    "desert": Place(_desert, ("cactus", "tent", "palm", "bird"), _zones((0.62, 0.97))),
    "forest": Place(_forest, ("mushroom", "pine", "butterfly", "tree"),
        _zones((0.76, 0.98), (0.3, 0.6))),
    "kitchen": Place(_kitchen, ("cup", "fruit", "cake", "clock"),
        _zones((0.72, 0.97), (0.16, 0.4))),
    "harbour": Place(_harbour, ("boat", "lighthouse", "bird", "fish"),
        _zones((0.84, 0.97), (0.08, 0.32), (0.58, 0.8))),
    "road": Place(_road, ("car", "sign", "tree", "house"), _zones((0.6, 0.95))),
    "space": Place(_space, ("planet", "rocket", "star", "moon"), _zones((0.5, 0.95), (0.2, 0.8))),
    "market": Place(_market, ("fruit", "umbrella", "fish", "flower"),
        _zones((0.72, 0.96), (0.3, 0.5))),
    "room": Place(_room, ("clock", "ball", "lamp", "cup"), _zones((0.74, 0.98), (0.2, 0.4))),
    "sky": Place(_air, ("balloon", "bird", "butterfly"), _zones((0.8, 0.98), (0.22, 0.75))),
}  # fmt: skip
