"""The gold reward of a clip: how true it is to its caption, measured with the world's own rules.

    gold = frames * motion * coherence

- ``frames``: mean over frames of count * shape * colour * background as ``scenes.gold`` measures them. Drawn
  outlines of few pixels fit their ideal only so well: a shape counts as right from an overlap of ``DRAWN``.
  What is drawn out along its way, as by a trail, loses by the sides of its box.
- ``motion``: mean over the objects that the caption asks for. Each is followed through the clip, and the
  motion that the caption names is fitted to its track by least squares: a straight line at constant speed,
  or half a sine there and back, along the wanted axis. An object scores exp(-distance from the fit) times how
  near its travel comes to what the world draws for the caption's speed; 0 the wrong way. A bounce may begin
  to either end. What stands still scores exp(-how far it strays). An object that is lost for a frame counts
  as standing where it was last seen; one that is in no frame scores 0.
- ``coherence``: exp(-sum of what changes): the objects' colour and size, the background's tone and, from one
  frame to the next, the background and the objects once shifted onto each other.

Every factor lies in [0, 1]. A proxy that looks at endpoints, at the number of objects or at consistency alone
leaves at least one of them free.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from scenes.gold import MIN_AREA, Factors, objects_factors, shape_iou
from scenes.motion import BOUNCES, DIRECTIONS, travels
from scenes.segmentation import Blob, blobs
from scenes.vocabulary import IMAGE_SIZE

# Overlap with the ideal outline that nine of ten drawn clips reach, ours.
DRAWN = {"circle": 0.85, "square": 0.955, "triangle": 0.80}
SIDES = 0.75  # shorter side of a box over the longer one from which it counts as square; drawn: 0.8 and more
PATH_TOLERANCE = 1.0  # pixels off the fitted track, beyond those that are free, at which motion is 1/e
FREE = 0.25  # pixels off that cost nothing: what an autoencoder of this world does to a drawn clip
# What changes and the change at which coherence is 1/e. Ours: drawn clips lose a few hundredths by them.
COLOUR_TOLERANCE = 0.4  # RGB distance, root mean square over frames
AREA_TOLERANCE = 0.6  # standard deviation over frames, of the mean; decoded clips, once encoded, have 0.05
BACKGROUND_TOLERANCE = 0.04  # standard deviation over frames of the mean tone: ten grey levels
CHANGE_TOLERANCE = 0.08  # mean absolute change of a background pixel by frame; `frames` sees noise too
RESIDUAL_TOLERANCE = 0.35  # the same of an object's pixel, once shifted
_RIM = 2  # pixels around an object's box that are not background: its antialiased rim, and its shift
_SOLID = 0.8  # a pixel with this share of an object's highest chroma lies inside, and not on the rim


@dataclass(frozen=True)
class Tracks:
    """K objects through F frames. Where one is not seen it stands still, its area is 0 and its colour NaN."""

    centres: np.ndarray  # (K, F, 2), pixels as (x, y), to a fraction of a pixel
    areas: np.ndarray  # (K, F), pixels
    colours: np.ndarray  # (K, F, 3), RGB of the inside
    radius: int  # half the largest box of any of them, rounded up


def _measured(image: np.ndarray, chroma: np.ndarray, blob: Blob) -> tuple[float, ...]:
    """x, y, area, red, green, blue of a blob; pixels on the rim count by their share of its colour."""
    top, left = max(blob.top - 1, 0), max(blob.left - 1, 0)
    box = np.s_[top : blob.top + blob.height + 1, left : blob.left + blob.width + 1]
    weights = chroma[box]
    total = weights.sum()
    y, x = (weights.sum(other) @ np.arange(weights.shape[axis]) / total for axis, other in ((0, 1), (1, 0)))
    inside = weights >= _SOLID * weights.max()
    return left + x, top + y, total / weights[inside].mean(), *image[box][inside].mean(0)


def follow(clip: np.ndarray, found: list[list[Blob]], item: dict) -> Tracks | None:
    """Follow an item's objects from the first frame that shows most of them; None where no frame shows one.

    In each frame the candidates are the blobs of the item's colour, those of the best outline first.

    Args:
        clip: float (F, H, W, 3) in [0, 1].
        found: blobs by frame.
    """
    chroma = clip.max(-1) - clip.min(-1)
    seen, radius = [], 0.0
    for image, saturated, frame in zip(clip, chroma, found, strict=True):
        candidates = [blob for blob in frame if item.get("color") in (None, blob.color)]
        if len(candidates) > item["count"]:
            candidates.sort(key=lambda blob: -shape_iou(blob, item["class"]))
            del candidates[item["count"] :]
        radius = max([radius, *(max(blob.height, blob.width) / 2 for blob in candidates)])
        seen.append(np.array([_measured(image, saturated, blob) for blob in candidates]))
    start = max(range(len(seen)), key=lambda frame: len(seen[frame]))
    if not len(seen[start]):
        return None
    values = np.empty((len(seen[start]), len(clip), 6))
    values[:, start] = seen[start]
    for step, stop in ((1, len(clip)), (-1, -1)):
        for frame in range(start + step, stop, step):
            last, here = values[:, frame - step], seen[frame]
            values[:, frame] = last
            values[:, frame, 2:] = 0.0, np.nan, np.nan, np.nan
            if len(here):
                distance = np.linalg.norm(last[:, None, :2] - here[None, :, :2], axis=-1)
                objects, matches = linear_sum_assignment(distance)
                values[objects, frame] = here[matches]
    return Tracks(values[..., :2], values[..., 2], values[..., 3:], math.ceil(radius))


def motion_factor(track: np.ndarray, motion: dict) -> float:
    """How well an object moves as a caption says, in [0, 1]; ``track`` (F, 2) in pixels."""
    if motion["kind"] == "still":
        strays = np.linalg.norm(track[:, None] - track[None], axis=-1).max()
        return _near(strays)
    times, bounces = np.linspace(0, 1, len(track)), motion["kind"] == "bounce"
    profile = np.sin(np.pi * times) if bounces else times
    wanted = np.array((BOUNCES if bounces else DIRECTIONS)[motion["direction"]], dtype=float)
    profile, moved = profile - profile.mean(), track - track.mean(0)
    power = profile @ profile
    travel = float(profile @ moved @ wanted / power) if power else 0.0
    off = np.linalg.norm(moved - travel * profile[:, None] * wanted, axis=1)
    travel = abs(travel) if bounces else travel
    if travel <= 0:
        return 0.0
    nearest = float(np.clip(travel, *travels(motion)))
    return _near(np.sqrt((off**2).mean())) * min(travel / nearest, nearest / travel)


def _near(pixels: float) -> float:
    """How well a track is kept that it leaves by so much, in [0, 1]."""
    return math.exp(-max(pixels - FREE, 0.0) / PATH_TOLERANCE)


def _patches(clip: np.ndarray, tracks: Tracks) -> np.ndarray:
    """Squares around the objects, shifted onto each other by interpolation, (K, F, P, P, 3)."""
    reach = np.arange(-tracks.radius - 1, tracks.radius + 2)
    low = np.floor(tracks.centres).astype(int)
    part = (tracks.centres - low)[..., None, None, None, :]  # the fractions of a pixel, against (P, P, 3)
    x, y = (low[..., axis, None] + reach for axis in (0, 1))
    frame = np.arange(len(clip))[:, None, None]

    def at(dx: int, dy: int) -> np.ndarray:
        rows, columns = (np.clip(v, 0, IMAGE_SIZE - 1) for v in (y + dy, x + dx))
        return clip[frame, rows[..., :, None], columns[..., None, :]]

    upper = at(0, 0) * (1 - part[..., 0]) + at(1, 0) * part[..., 0]
    lower = at(0, 1) * (1 - part[..., 0]) + at(1, 1) * part[..., 0]
    return upper * (1 - part[..., 1]) + lower * part[..., 1]


def _empty(shape: tuple[int, ...], tracks: list[Tracks]) -> np.ndarray:
    """Pixels that no tracked object comes near in any frame, boolean (H, W)."""
    empty = np.ones(shape, dtype=bool)
    for track in tracks:
        reach = track.radius + _RIM
        for x, y in track.centres.round().astype(int).reshape(-1, 2):
            empty[max(y - reach, 0) : y + reach + 1, max(x - reach, 0) : x + reach + 1] = False
    return empty if empty.any() else ~empty


def changes(clip: np.ndarray, tracks: list[Tracks]) -> dict[str, float]:
    """What does not stay the same, each relative to its tolerance, 0 and more."""
    colours, areas, residuals = [], [], []
    for track in tracks:
        seen = ~np.isnan(track.colours[..., 0])
        for color, area, where in zip(track.colours, track.areas, seen, strict=True):
            off = color[where] - color[where].mean(0)
            colours.append(np.sqrt((off**2).sum(1).mean()))
            areas.append(area.std() / area.mean())
        if len(clip) > 1:
            residuals.append(np.abs(np.diff(_patches(clip, track), axis=1)).mean())
    background = clip[:, _empty(clip.shape[1:3], tracks)]
    change = np.abs(np.diff(background, axis=0)).mean() if len(clip) > 1 else 0.0
    return {
        "colour": float(np.mean(colours)) / COLOUR_TOLERANCE,
        "area": float(np.mean(areas)) / AREA_TOLERANCE,
        "background": float(background.mean((1, 2)).std()) / BACKGROUND_TOLERANCE,
        "change": float(change) / CHANGE_TOLERANCE,
        "residual": (float(np.mean(residuals)) if residuals else 0.0) / RESIDUAL_TOLERANCE,
    }


def _frame_factors(image: np.ndarray, found: list[Blob], prompt: dict) -> Factors:
    factors = objects_factors(image, found, prompt)
    least = float(np.mean([DRAWN[item["class"]] for item in prompt["include"]]))
    wanted = {item.get("color") for item in prompt["include"]}
    sides = [sorted((b.height, b.width)) for b in found if b.color in wanted or None in wanted]
    square = float(np.mean([min(1.0, short / long / SIDES) for short, long in sides])) if sides else 0.0
    return {**factors, "shape": min(1.0, factors["shape"] / least) * square}


def _clip_factors(clip: np.ndarray, prompt: dict) -> Factors:
    """``motion_factors`` of one clip, float64 (F, H, W, 3)."""
    found = blobs(clip, MIN_AREA)
    frames = [_frame_factors(image, seen, prompt) for image, seen in zip(clip, found, strict=True)]
    followed = [(item, follow(clip, found, item)) for item in prompt["include"]]
    moved = [motion_factor(c, item["motion"]) for item, track in followed if track for c in track.centres]
    tracks = [track for _, track in followed if track]
    wanted = sum(item["count"] for item in prompt["include"])
    return {
        "frames": float(np.mean([math.prod(factors.values()) for factors in frames])),
        "motion": sum(moved) / wanted,
        "coherence": math.exp(-sum(changes(clip, tracks).values())) if tracks else 0.0,
        **{name: float(np.mean([factors[name] for factors in frames])) for name in frames[0]},
    }


def motion_factors(clips: np.ndarray, prompts: list[dict]) -> list[Factors]:
    """``frames``, ``motion`` and ``coherence``, whose product is gold, and the means over frames of what
    ``frames`` is made of; arguments as of ``motion_gold``."""
    # The three values of a pixel lie apart in memory: their least and greatest are found many times as fast.
    clips = np.moveaxis(np.ascontiguousarray(np.moveaxis(clips, -1, -3), dtype=np.float64), -3, -1)
    return [_clip_factors(clip, prompt) for clip, prompt in zip(clips, prompts, strict=True)]


def motion_gold(clips: np.ndarray, prompts: list[dict]) -> np.ndarray:
    """Gold reward of many clips.

    Args:
        clips: float (N, F, H, W, 3) in [0, 1], H = W = ``IMAGE_SIZE``.
        prompts: N prompt dicts of ``scenes.motion_prompts``.

    Returns:
        float64 (N,) in [0, 1].
    """
    return np.array([product(factors) for factors in motion_factors(clips, prompts)])


def product(factors: Factors) -> float:
    """Gold, of ``motion_factors``."""
    return factors["frames"] * factors["motion"] * factors["coherence"]
