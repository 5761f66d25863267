"""The three classes of the demo: outlines and surfaces of a fish, a starfish and a shell.

A form has coordinates of its own: centred on (0, 0), inside the unit circle, v pointing down. Form.polygons, drawn over each
other, give its silhouette; Form.surface(u, v) maps coordinate arrays to three arrays: relief (a height in units of the form), ink
and white (0..1, coverage with dark and light paint).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from .paint import smoothstep


class Cover(NamedTuple):
    """The surface of a form; arrays of the same shape."""

    relief: np.ndarray      # height in units of the form
    ink: np.ndarray         # 0..1, coverage with dark paint
    white: np.ndarray       # 0..1, coverage with light paint


Surface = Callable[[np.ndarray, np.ndarray], Cover]      # (u, v) -> cover


@dataclass(frozen=True)
class Form:
    """One individual: its polygons, thin parts (fins, ears) first and the body last, and its surface."""

    polygons: list[np.ndarray]      # each (points, 2) float
    surface: Surface


def _curve(points: Any) -> np.ndarray:
    """Return a closed smooth curve (Catmull-Rom) through `points`, with eight samples per segment."""
    p = np.asarray(points, np.float32)
    before, after, beyond = np.roll(p, 1, 0), np.roll(p, -1, 0), np.roll(p, -2, 0)
    t = (np.arange(8, dtype=np.float32) / 8)[:, None, None]
    curve = 0.5 * (2 * p + (after - before) * t + (2 * before - 5 * p + 4 * after - beyond) * t ** 2
                   + (3 * p - before - 3 * after + beyond) * t ** 3)
    return curve.transpose(1, 0, 2).reshape(-1, 2)


def _fitted(polygons: list[np.ndarray], surface: Surface) -> Form:
    """Return the form of these polygons, moved and scaled to fill the unit circle."""
    points = np.concatenate(polygons)
    middle = (points.min(axis=0) + points.max(axis=0)) / 2
    scale = float(np.linalg.norm(points - middle, axis=1).max())

    def fitted_surface(u: np.ndarray, v: np.ndarray) -> Cover:
        relief, ink, white = surface(u * scale + middle[0], v * scale + middle[1])
        return Cover(relief / scale, ink, white)

    return Form([(polygon - middle) / scale for polygon in polygons], fitted_surface)


def fish(rng: np.random.Generator) -> Form:
    """Return a fish facing right: tail, fins and body; an eye, a gill cover, a side fin, rays in tail and fins."""
    tall, length, nose = rng.uniform(0.30, 0.52), rng.uniform(0.60, 0.72), 0.95
    back = nose - 2 * length
    x = np.linspace(0, 1, 12)
    profile = tall * np.sin(np.pi * x ** rng.uniform(0.64, 0.85)) ** rng.uniform(0.75, 0.95)
    profile += 0.09 * smoothstep(0.6, 1, x)     # base of the tail
    upper = np.stack([nose - 2 * length * x, -profile], -1)
    body = _curve(np.concatenate([upper, upper[:0:-1] * [1, -rng.uniform(0.85, 1.05)]]))
    spread, notch, reach = rng.uniform(0.32, 0.56), rng.uniform(-0.04, 0.22), rng.uniform(0.38, 0.55)
    tip = back - reach
    tail = _curve([(back + 0.25, -0.05), (back, -0.13), (tip + 0.08, -spread), (tip, -0.75 * spread), (tip + notch, 0),
                   (tip, 0.75 * spread), (tip + 0.08, spread), (back, 0.13), (back + 0.25, 0.05)])
    rise, start = rng.uniform(0.14, 0.32), rng.uniform(0.30, 0.48)
    dorsal = _curve([(start, -0.5 * tall), (start - 0.20, -tall - 0.55 * rise), (start - 0.48, -tall - rise),
                     (start - 0.92, -0.75 * tall - 0.7 * rise), (start - 0.86, -0.6 * tall),
                     (start - 0.80, -0.3 * tall)])
    belly = _curve([(start - 0.38, 0.5 * tall), (start - 0.58, 0.95 * tall + 0.25 * rise),
                    (start - 0.90, 0.8 * tall + 0.75 * rise), (start - 0.86, 0.6 * tall), (start - 0.75, 0.3 * tall)])
    return _fitted([tail, dorsal, belly, body], _fish_surface(rng, tall, length, nose, back))


def _fish_surface(rng: np.random.Generator, tall: float, length: float, nose: float, back: float) -> Surface:
    eye, size = (nose - 0.34 * length, -0.20 * tall), rng.uniform(0.08, 0.11)
    gill, rays, pectoral = nose - 0.74 * length, rng.uniform(34, 50), nose - 0.95 * length

    def surface(u: np.ndarray, v: np.ndarray) -> Cover:
        from_eye = np.hypot(u - eye[0], v - eye[1])
        white = 1 - smoothstep(size, size + 0.025, from_eye)
        ink = 1 - smoothstep(0.58 * size, 0.58 * size + 0.02, from_eye)
        glint = 1 - smoothstep(0.17 * size, 0.32 * size, np.hypot(u - eye[0] - 0.02, v - eye[1] + 0.025))
        cover = smoothstep(-0.04, 0.02, u + 0.45 * v * v / tall - gill)     # the head is raised, up to the gill
        along, down = (pectoral - u) / 0.34, (v - 0.22 * tall - 0.25 * (pectoral - u)) / 0.13
        narrow = np.abs(down) / np.sqrt(np.clip(along, 0.05, 1))
        side_fin = smoothstep(-0.1, 0.1, np.minimum(along, 1 - along)) * (1 - smoothstep(0.6, 0.95, narrow))
        on_tail, on_fin = 1 - smoothstep(back - 0.04, back + 0.08, u), smoothstep(0.9, 1.04, np.abs(v) / tall)
        around = np.sin(rays * np.arctan2(v, u - back - 0.3)) * on_tail
        across = np.sin(0.8 * rays * (u - 0.5 * np.abs(v))) * on_fin * (1 - on_tail)
        ray = around + across + np.sin(30 * down / (along + 0.6)) * side_fin * 0.5
        line = 0.16 * np.maximum(np.maximum(on_tail, on_fin), side_fin) + 0.16 * smoothstep(0.1, 1, ray)
        relief = 0.014 * ray + 0.04 * white + 0.035 * cover + 0.06 * side_fin
        return Cover(relief, np.maximum(ink, line * (1 - white)) * (1 - glint), np.maximum(white * (1 - ink), glint))

    return surface


def starfish(rng: np.random.Generator) -> Form:
    """Return a starfish: five to seven arms of varying length and bend, with a row of knobs along each."""
    arms = int(rng.choice([5, 5, 5, 6, 7]))
    inner, blunt = rng.uniform(0.26, 0.40), rng.uniform(1.6, 3.2)
    reach, bends = rng.uniform(0.78, 1.0, arms), rng.uniform(-0.2, 0.2) + rng.uniform(-0.15, 0.15, arms)

    def swept(radius: np.ndarray, arm: np.ndarray) -> np.ndarray:
        return bends[arm] * np.clip(radius - inner, 0, 1) ** 1.5

    angle = np.linspace(0, 2 * np.pi, 48 * arms, endpoint=False)
    turn = angle * arms / (2 * np.pi)
    arm = np.floor(turn + 0.5).astype(int) % arms
    radius = inner + (reach[arm] - inner) * np.abs(np.cos(np.pi * turn)) ** blunt
    outline = angle + swept(radius, arm)
    knobs = rng.uniform(0.085, 0.13)

    def surface(u: np.ndarray, v: np.ndarray) -> Cover:
        distance = np.hypot(u, v)
        around = np.arctan2(v, u) * arms / (2 * np.pi)
        nearest = np.floor(around + 0.5).astype(int) % arms
        around = around - swept(distance, nearest) * arms / (2 * np.pi)
        off = (around - np.floor(around + 0.5)) * 2 * np.pi / arms * distance       # distance to the arm's centre line
        row = distance / knobs
        knob = 1 - smoothstep(0.16, 0.36, np.hypot(off / knobs, row - np.floor(row + 0.5)))
        knob = knob * smoothstep(0.05, 0.15, distance) * (1 - smoothstep(0.7, 0.9, distance))
        ridge = 0.10 * np.exp(-(off / 0.09) ** 2) * (1 - smoothstep(0.3, 0.95, distance))
        return Cover(ridge + 0.03 * knob, np.zeros_like(u), 0.5 * knob)

    return _fitted([np.stack([radius * np.cos(outline), radius * np.sin(outline)], -1)], surface)


def shell(rng: np.random.Generator) -> Form:
    """Return a scallop: a fan of ribs from a hinge at the bottom, with growth bands across them and two ears."""
    half, ribs, hinge, depth = np.radians(rng.uniform(48, 76)), int(rng.integers(6, 11)), 0.78, rng.uniform(0.04, 0.075)
    fan = np.linspace(-half, half, 24 * ribs)
    droop, narrow = rng.uniform(0.12, 0.36), rng.uniform(0.85, 1.0)

    def rim(turned: np.ndarray) -> np.ndarray:
        waves = np.abs(np.sin(np.pi * (turned + half) / (2 * half) * ribs))
        return 1.60 * (1 - droop * np.abs(turned / half) ** 2.2) * (1 - depth + depth * waves)

    body = np.stack([narrow * rim(fan) * np.sin(fan), hinge - rim(fan) * np.cos(fan)], -1)
    body = np.concatenate([body, [[0.10, hinge + 0.05], [-0.10, hinge + 0.05]]])
    wide, high = rng.uniform(0.28, 0.44), rng.uniform(0.18, 0.3)
    ears = np.array([[-wide, hinge - high], [wide, hinge - high],
                     [0.75 * wide, hinge + 0.06], [-0.75 * wide, hinge + 0.06]])
    bands = rng.uniform(2.5, 4.5)

    def surface(u: np.ndarray, v: np.ndarray) -> Cover:
        turned = np.arctan2(u / narrow, hinge - v)
        distance = np.hypot(u / narrow, hinge - v)
        waves = np.abs(np.sin(np.pi * (turned + half) / (2 * half) * ribs))
        on_fan = smoothstep(0.16, 0.5, distance) * (1 - smoothstep(half, half + 0.08, np.abs(turned)))
        growth = np.sin(2 * np.pi * bands * distance / np.maximum(rim(np.clip(turned, -half, half)), 0.1))
        groove = (1 - smoothstep(0.05, 0.45, waves)) * on_fan
        return Cover((0.075 * waves + 0.010 * growth) * on_fan, 0.38 * groove, 0.12 * smoothstep(0.3, 1, growth) * on_fan)

    return _fitted([ears, body], surface)


FORMS = {"fish": fish, "starfish": starfish, "shell": shell}
