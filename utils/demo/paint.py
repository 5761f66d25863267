"""Light, colour and texture for the demo's images, with NumPy and OpenCV only.

Images are float32 (H, W, 3) BGR in 0..1; noise is float32 (H, W) in 0..1; heights are float32 (H, W) in pixels.
All randomness comes from the generator that is passed in, so an image depends only on its seed.
"""

from typing import Any, Union

import cv2
import numpy as np


def colour(lightness: float, chroma: float, hue: float) -> np.ndarray:
    """Convert OKLCh (0..1, 0..0.3, degrees) to BGR in 0..1. The space is perceptually uniform, so random colours match."""
    a, b = chroma * np.cos(np.radians(hue)), chroma * np.sin(np.radians(hue))
    lms = np.array([lightness + 0.3963377774 * a + 0.2158037573 * b,
                    lightness - 0.1055613458 * a - 0.0638541728 * b,
                    lightness - 0.0894841775 * a - 1.2914855480 * b]) ** 3
    to_bgr = np.array([[-0.0041960863, -0.7034186147, 1.7076147010],
                       [-1.2684380046, 2.6097574011, -0.3413193965],
                       [4.0767416621, -3.3077115913, 0.2309699292]])
    return (np.clip(to_bgr @ lms, 0, 1) ** (1 / 2.2)).astype(np.float32)


def smooth_noise(rng: np.random.Generator, height: int, width: int, cell: float, octaves: int = 3,
                 stretch: float = 1.0) -> np.ndarray:
    """Return fractal value noise in 0..1. cell: coarsest feature in pixels; stretch > 1 elongates it along x."""
    total = np.zeros((height, width), np.float32)
    weight, amplitude = 0.0, 1.0
    for octave in range(octaves):
        size = max(cell / 2 ** octave, 1.0)
        rows, cols = int(height / size) + 4, int(width / (size * stretch)) + 4
        grid = rng.random((rows, cols), np.float32)
        layer = cv2.resize(grid, (max(int(cols * size * stretch), width), max(int(rows * size), height)),
                           interpolation=cv2.INTER_CUBIC)
        total += amplitude * layer[:height, :width]
        weight += amplitude
        amplitude *= 0.5
    return np.clip(total / weight, 0, 1)


def ramp(position: np.ndarray, *colours: np.ndarray) -> np.ndarray:
    """Map 0..1 onto a gradient through `colours` (BGR)."""
    stops = np.linspace(0, 1, len(colours))
    table = np.stack([np.interp(np.linspace(0, 1, 256), stops, [c[i] for c in colours]) for i in range(3)], -1)
    return table.astype(np.float32)[(np.clip(position, 0, 1) * 255).astype(np.uint8)]


def smoothstep(low: float, high: float, x: Any) -> Any:
    """Return 0 below `low`, 1 above `high` and an S-curve between, for antialiased edges of textures."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


# --------------------------------------------------------------------------------------- backgrounds


def _sand(rng: np.random.Generator, size: int) -> np.ndarray:
    ys, xs = np.mgrid[0:size, 0:size].astype(np.float32)
    angle, wave = rng.uniform(0, np.pi), rng.uniform(22, 48)
    warp = smooth_noise(rng, size, size, size / 3, 2) * wave * rng.uniform(1.5, 3.5)
    ripple = 0.5 + 0.5 * np.sin((xs * np.cos(angle) + ys * np.sin(angle) + warp) * 2 * np.pi / wave)
    grain = rng.standard_normal((size, size), np.float32)
    grain = 0.6 * grain + 0.8 * cv2.GaussianBlur(grain, (0, 0), 1.0)
    hue, light = rng.choice([40, 60, 75, 85, 95]), rng.uniform(0.70, 0.86)
    base = ramp(0.65 * ripple + 0.35 * smooth_noise(rng, size, size, size / 2),
                colour(light - 0.09, 0.05, hue), colour(light, 0.055, hue + 6), colour(light + 0.06, 0.045, hue + 12))
    return base * (1 + 0.045 * grain[..., None])


def _water(rng: np.random.Generator, size: int) -> np.ndarray:
    hue = rng.uniform(165, 260)
    field = smooth_noise(rng, size, size, rng.uniform(40, 70), 2)
    second = smooth_noise(rng, size, size, rng.uniform(40, 70), 2)
    caustic = np.exp(-22 * np.abs(field - 0.5)) + np.exp(-22 * np.abs(second - 0.5))    # bright lines where waves focus
    depth = 0.6 * smooth_noise(rng, size, size, size, 1) + 0.4 * np.linspace(0, 1, size, dtype=np.float32)[:, None]
    light = rng.uniform(0.48, 0.70)
    base = ramp(depth, colour(light - 0.08, 0.09, hue), colour(light + 0.02, 0.10, hue - 12),
                colour(light + 0.13, 0.08, hue - 25))
    return base + 0.14 * np.clip(caustic, 0, 1.6)[..., None] * colour(0.95, 0.04, hue - 20)


def _wood(rng: np.random.Generator, size: int) -> np.ndarray:
    planks = rng.integers(2, 5)
    hue, light = rng.uniform(45, 80), rng.uniform(0.45, 0.75)
    grey = rng.uniform(0.02, 0.07)
    image = np.zeros((size, size, 3), np.float32)
    edges = np.linspace(0, size, planks + 1).astype(int)
    for top, bottom in zip(edges[:-1], edges[1:]):
        rows = bottom - top
        warp = smooth_noise(rng, rows, size, rows / 1.5, 2, stretch=4)
        rings = 0.5 + 0.5 * np.sin(warp * rng.uniform(35, 70) + np.linspace(0, 4, rows, dtype=np.float32)[:, None])
        fibre = smooth_noise(rng, rows, size, 4, 2, stretch=16)
        tone = light + rng.uniform(-0.04, 0.04)
        plank = ramp(0.55 * rings + 0.45 * fibre, colour(tone - 0.09, grey, hue), colour(tone + 0.05, grey, hue + 8))
        profile = np.minimum(np.arange(rows), np.arange(rows)[::-1]).astype(np.float32)
        image[top:bottom] = plank * (0.45 + 0.55 * smoothstep(-1, 4, profile))[:, None, None]
    return image if rng.random() < 0.5 else np.ascontiguousarray(image.transpose(1, 0, 2))


def _paper(rng: np.random.Generator, size: int) -> np.ndarray:
    hue, light = rng.uniform(0, 360), rng.uniform(0.66, 0.95)
    fibre = smooth_noise(rng, size, size, 5, 2, stretch=3) + smooth_noise(rng, size, size, 5, 2, stretch=3).T
    crease = smooth_noise(rng, size, size, 90, 2)
    relief = cv2.Sobel(cv2.GaussianBlur(crease, (0, 0), 2), cv2.CV_32F, 1, 1, ksize=5)
    base = ramp(smooth_noise(rng, size, size, size, 1), colour(light - 0.05, 0.05, hue),
                colour(light + 0.03, 0.06, hue + 30))
    return base * (0.93 + 0.07 * fibre + 0.5 * np.clip(relief, -0.15, 0.15))[..., None]


def _cloud(rng: np.random.Generator, size: int) -> np.ndarray:
    hue = rng.uniform(0, 360)
    light = rng.uniform(0.46, 0.78)
    fold = smooth_noise(rng, size, size, size / 2, 2)
    drift = smooth_noise(rng, size, size, size / 2.5, 4)
    mix = np.clip(1.5 * (0.7 * drift + 0.3 * fold) - 0.25, 0, 1)
    return ramp(mix, colour(light, 0.09, hue), colour(light + 0.1, 0.08, hue + 45), colour(light + 0.2, 0.05, hue + 80))


def _terrazzo(rng: np.random.Generator, size: int) -> np.ndarray:
    hue, light = rng.uniform(0, 360), rng.uniform(0.70, 0.92)
    image = np.empty((size, size, 3), np.float32)
    image[:] = colour(light, 0.04, hue)
    for _ in range(rng.integers(40, 110)):
        centre, radius = rng.uniform(0, size, 2), rng.uniform(2, 11)
        angles = np.sort(rng.uniform(0, 2 * np.pi, 6))
        chip = centre + radius * rng.uniform(0.6, 1.2, (6, 1)) * np.stack([np.cos(angles), np.sin(angles)], -1)
        tone = colour(np.clip(light + rng.uniform(-0.3, 0.1), 0.2, 0.97), rng.uniform(0.01, 0.08),
                      hue + rng.uniform(-70, 70))
        cv2.fillPoly(image, [np.round(chip * 16).astype(np.int32)], tone.tolist(), cv2.LINE_8, 4)
    return cv2.GaussianBlur(image, (0, 0), 0.7) * (0.94 + 0.1 * smooth_noise(rng, size, size, 3, 1))[..., None]


BACKGROUNDS = (_sand, _water, _wood, _paper, _cloud, _terrazzo)


def background(rng: np.random.Generator, size: int) -> np.ndarray:
    """Return an image (size, size, 3) of a random material, unevenly lit."""
    image = BACKGROUNDS[rng.integers(len(BACKGROUNDS))](rng, size)
    ys, xs = np.mgrid[-1:1:size * 1j, -1:1:size * 1j].astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    light = 1.04 + 0.12 * (xs * np.cos(angle) + ys * np.sin(angle)) - 0.10 * (xs ** 2 + ys ** 2)
    return np.clip(image * light[..., None], 0, 1)


# ------------------------------------------------------------------------------ patterns and shading


def pattern(rng: np.random.Generator, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Return the weight 0..1 of an object's second colour at its coordinates (u, v), which span about 2."""
    kind = rng.integers(6)
    frequency, phase = rng.uniform(2.2, 4.5), rng.uniform(0, 2 * np.pi)
    if kind == 0:       # wavy stripes
        return smoothstep(-0.25, 0.25, np.sin(2 * np.pi * frequency * 0.5 * (u + 0.07 * np.sin(5 * v)) + phase))
    if kind == 1:       # stripes in the other direction
        return smoothstep(-0.25, 0.25, np.sin(2 * np.pi * frequency * 0.5 * (v + 0.07 * np.sin(4 * u)) + phase))
    if kind == 2:       # dots, with every other row shifted
        cell = 1 / frequency * 1.3
        row = np.floor(v / cell)
        du, dv = (u / cell + 0.5 * (row % 2)) % 1 - 0.5, (v / cell) % 1 - 0.5
        return 1 - smoothstep(0.22, 0.34, np.hypot(du, dv))
    if kind == 3:       # rings around a random centre
        radius = np.hypot(u - rng.uniform(-0.9, 0.9), v - rng.uniform(-0.9, 0.9))
        return smoothstep(-0.3, 0.3, np.sin(2 * np.pi * frequency * 0.6 * radius + phase))
    if kind == 4:       # blotches
        noise = smooth_noise(rng, u.shape[0], u.shape[1], max(u.shape[0] / (1.6 * frequency), 4), 2)
        return smoothstep(0.44, 0.58, noise)
    return smoothstep(-0.9, 0.9, u * np.cos(phase) + v * np.sin(phase))    # a gradient


def dome(alpha: np.ndarray, roundness: float) -> np.ndarray:
    """Return a height per pixel of a mask: 0 at the edge, rising like a quarter circle to a plateau, smoothed."""
    inside = (alpha > 0.5).astype(np.uint8)
    distance = cv2.distanceTransform(inside, cv2.DIST_L2, 5)
    t = np.clip(distance / max(roundness * float(distance.max()), 1.0), 0, 1)
    height = np.sqrt(np.clip(1 - (1 - t) ** 2, 0, 1)) * max(roundness * float(distance.max()), 1.0)
    return cv2.GaussianBlur(height, (0, 0), max(0.06 * float(distance.max()), 0.8))


def shade(albedo: np.ndarray, height: np.ndarray, light: np.ndarray, gloss: float) -> np.ndarray:
    """Light a coloured height field (in pixels) from `light`, a unit vector (x, y, z)."""
    gx = cv2.Sobel(height, cv2.CV_32F, 1, 0, ksize=3) / 8
    gy = cv2.Sobel(height, cv2.CV_32F, 0, 1, ksize=3) / 8
    norm = 1 / np.sqrt(gx * gx + gy * gy + 1)
    diffuse = np.clip((-gx * light[0] - gy * light[1] + light[2]) * norm, 0, 1)
    half = np.array([light[0], light[1], light[2] + 1]) / np.sqrt(2 + 2 * light[2])
    shine = np.clip((-gx * half[0] - gy * half[1] + half[2]) * norm, 0, 1) ** 40
    return albedo * (0.46 + 0.80 * diffuse)[..., None] + gloss * shine[..., None]


def blend(canvas: np.ndarray, patch: Union[np.ndarray, np.floating, float], alpha: np.ndarray, left: int, top: int) -> None:
    """Blend `patch` with `alpha` into the canvas at (left, top), clipped to it, in place."""
    height, width = canvas.shape[:2]
    x0, y0 = max(left, 0), max(top, 0)
    x1, y1 = min(left + alpha.shape[1], width), min(top + alpha.shape[0], height)
    if x0 >= x1 or y0 >= y1:
        return
    rows, cols = slice(y0 - top, y1 - top), slice(x0 - left, x1 - left)
    a = alpha[rows, cols, None]
    region = canvas[y0:y1, x0:x1]
    region += a * ((patch[rows, cols] if isinstance(patch, np.ndarray) and patch.ndim == 3 else patch) - region)
