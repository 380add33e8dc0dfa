"""One film of a phantom: breast, tissue, lesions and what else is on a film, from a plan.

Nothing here is anatomy to measure: it is a picture with the difficulties of the real ones. Lesions are brighter than
the tissue around them, but so are the pectoral muscle, dense tissue, ducts, labels and film edges; the background is
exactly 0, breasts lie on either side, and every film has its own size. Drawn with the chest wall on the left, then
mirrored. Shapes: H rows, W columns; intensities run from 0 to 1 until `_digitise`.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

WORK_ROWS = 1024
"""Broad structures are drawn at most this high and enlarged: only edges, lesions and grain need every pixel."""


@dataclass(frozen=True, kw_only=True)
class LesionPlan:
    """One lesion as planned for a breast; both views show it."""

    lesion_id: str
    shape: str
    """`round`, `lobulated`, `spiculated` or `cluster` (calcifications)."""
    diameter: float
    """Share of the film's height."""
    contrast: float
    """Added to the tissue's intensity."""
    pathology: str = ""
    """As the case CSVs have it; nothing is drawn from it."""


@dataclass(frozen=True, kw_only=True)
class FilmPlan:
    """One film: what to draw, and the random numbers to draw it with."""

    rows: int
    columns: int
    side: str
    view: str
    density: int
    mirrored: bool
    """The breast lies on the other side than `side` says, with its label mirror-written."""
    lesions: tuple[LesionPlan, ...]
    seed: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Film:
    """A drawn film: uint16 of shape (H, W), and for each lesion of the plan a mask of 0 and 255."""

    image_HW: np.ndarray
    masks: list[np.ndarray]


def draw_film(plan: FilmPlan) -> Film:
    """Draw a film; the same plan gives the same pixels."""
    rng = np.random.default_rng(plan.seed)
    outline = _outline(rng, plan)
    work = min(1.0, WORK_ROWS / plan.rows)
    broad_HW, allowed_HW = _draw_breast(rng, plan, outline * work, work)
    image_HW = cv2.resize(broad_HW, (plan.columns, plan.rows), interpolation=cv2.INTER_CUBIC)
    breast_HW = _fill(outline, plan.rows, plan.columns)
    masks = []
    for lesion in plan.lesions:
        masks.append(_draw_lesion(rng, lesion, image_HW, breast_HW, allowed_HW, work))
    _add_grain(rng, image_HW)
    np.clip(image_HW, 0.02, 0.97, out=image_HW)
    image_HW[breast_HW == 0] = 0
    if (plan.side == "RIGHT") != plan.mirrored:
        image_HW = np.ascontiguousarray(image_HW[:, ::-1])
        masks = [np.ascontiguousarray(mask[:, ::-1]) for mask in masks]
    _draw_film_marks(rng, plan, image_HW)
    return Film(image_HW=_digitise(rng, image_HW), masks=masks)


def _outline(rng: np.random.Generator, plan: FilmPlan) -> np.ndarray:
    """The skin as a closed polygon of (x, y) points in pixels, chest wall on x = 0."""
    rows, columns = plan.rows, plan.columns
    depth = columns * rng.uniform(0.62, 0.86)
    if plan.view == "CC":
        t = np.linspace(-np.pi / 2, np.pi / 2, 240)
        centre, half = rows * rng.uniform(0.47, 0.53), rows * rng.uniform(0.36, 0.44)
        x = depth * np.cos(t) ** rng.uniform(0.7, 0.95) * (1 + 0.06 * rng.uniform(-1, 1) * np.sin(2 * t))
        y = centre + half * np.sin(t)
    else:
        t = np.linspace(0, 1, 240)
        bottom, axilla = rows * rng.uniform(0.86, 0.95), rng.uniform(0.35, 0.55)
        bulge = np.sin(np.pi * t ** rng.uniform(1.2, 1.6)) ** 0.8 + axilla * (1 - t) ** 1.2
        x, y = depth * bulge / bulge.max(), bottom * t
    x = x * (1 + 0.012 * np.sin(5 * np.linspace(0, np.pi, 240) + rng.uniform(0, 6)))
    nipple = int(np.argmax(x))
    x = x + 0.035 * columns * np.exp(-(((y - y[nipple]) / (0.014 * rows)) ** 2))
    corners = np.array([[-2.0, y[-1]], [-2.0, y[0]]])
    return np.concatenate([np.stack([x, y], axis=1), corners])


def _fill(outline: np.ndarray, rows: int, columns: int) -> np.ndarray:
    mask_HW = np.zeros((rows, columns), np.uint8)
    cv2.fillPoly(mask_HW, [np.round(outline * 16).astype(np.int32)], 1, shift=4)
    return mask_HW


def _noise(rng: np.random.Generator, shape: tuple[int, int], cells: tuple[float, ...], fade: float = 0.6) -> np.ndarray:
    """Smooth noise of mean 0 and deviation 1: a layer for each number of cells along the height."""
    rows, columns = shape
    total_HW, weight = np.zeros(shape, np.float32), 1.0
    for cell in cells:
        small = (max(2, round(cell)), max(2, round(cell * columns / rows)))
        layer = rng.standard_normal(small, np.float32)
        total_HW += weight * cv2.resize(layer, (columns, rows), interpolation=cv2.INTER_CUBIC)
        weight *= fade
    return (total_HW - total_HW.mean()) / total_HW.std()


def _draw_breast(
    rng: np.random.Generator, plan: FilmPlan, outline: np.ndarray, work: float
) -> tuple[np.ndarray, np.ndarray]:
    """Tissue at working size, and a map of how deep below the skin each place off the muscle lies (pixels)."""
    rows, columns = round(plan.rows * work), round(plan.columns * work)
    breast_HW = _fill(outline, rows, columns)
    padded = cv2.copyMakeBorder(breast_HW, 1, 1, 0, 1, cv2.BORDER_CONSTANT)  # the chest wall is no skin
    below_HW = cv2.distanceTransform(padded, cv2.DIST_L2, 5)[1:-1, :-1]
    thick_HW = 1 - np.exp(-below_HW / (0.035 * rows))
    skin_HW = np.exp(-(((below_HW - 0.006 * rows) / (0.004 * rows)) ** 2))
    gland_HW = _gland(rng, plan, outline, (rows, columns))
    tissue_HW = 0.19 + 0.21 * gland_HW + 0.022 * _noise(rng, (rows, columns), (12, 24, 48, 96, 192), 0.8)
    tissue_HW += _strands(rng, outline, (rows, columns))
    image_HW = (thick_HW * tissue_HW + 0.05 * skin_HW).astype(np.float32)
    allowed_HW = below_HW
    if plan.view == "MLO":
        muscle_HW = _muscle(rng, rows, columns)
        level = rng.uniform(0.40, 0.50) + 0.02 * _noise(rng, (rows, columns), (6, 12, 40))
        image_HW = (image_HW * (1 - muscle_HW) + np.maximum(level, image_HW) * muscle_HW).astype(np.float32)
        allowed_HW = np.where(muscle_HW < 0.1, below_HW, 0)
    return image_HW, allowed_HW


def _gland(rng: np.random.Generator, plan: FilmPlan, outline: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Share of fibroglandular tissue, 0 to 1, gathered behind the nipple; the density category sets how much."""
    rows, columns = shape
    nipple_x, nipple_y = outline[np.argmax(outline[:, 0])]
    y, x = np.mgrid[0:rows, 0:columns].astype(np.float32)
    spread = 0.55 + 0.12 * plan.density
    near = np.exp(
        -(((x - 0.55 * nipple_x) / (spread * 0.55 * nipple_x)) ** 2) - ((y - nipple_y) / (spread * 0.26 * rows)) ** 2
    )
    patchy = _noise(rng, shape, (5, 10, 20, 40), 0.7)
    return 1 / (1 + np.exp(-3.0 * (patchy * 0.55 + 2.4 * near - 2.05 + 0.28 * plan.density)))


def _strands(rng: np.random.Generator, outline: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Ducts that fan out from the nipple, and vessels that cross: thin, faint, blurred."""
    rows = shape[0]
    layer_HW = np.zeros(shape, np.float32)
    nipple = outline[np.argmax(outline[:, 0])]
    for _ in range(int(rng.integers(9, 16))):
        angle = rng.uniform(-0.9, 0.9)
        reach, bend = nipple[0] * rng.uniform(0.4, 0.85), rng.uniform(-0.25, 0.25)
        s = np.linspace(0, 1, 24)
        turn = angle + bend * s
        points = nipple + np.stack([-reach * s * np.cos(turn), reach * s * np.sin(turn)], axis=1)
        _stroke(layer_HW, points, rng.uniform(0.03, 0.08), max(1, round(rows * rng.uniform(0.002, 0.004))))
    for _ in range(int(rng.integers(2, 5))):
        s = np.linspace(0, 1, 32)
        start, drop = rng.uniform(0.1, 0.8) * rows, rng.uniform(-0.2, 0.2) * rows
        wave = 0.02 * rows * np.sin(s * rng.uniform(4, 9) + rng.uniform(0, 6))
        points = np.stack([s * nipple[0], start + drop * s + wave], axis=1)
        _stroke(layer_HW, points, rng.uniform(0.04, 0.09), max(1, round(rows * rng.uniform(0.003, 0.006))))
    return cv2.GaussianBlur(layer_HW, (0, 0), max(0.6, 0.0016 * rows))


def _stroke(layer_HW: np.ndarray, points: np.ndarray, level: float, width_px: int) -> None:
    line = np.round(points * 8).astype(np.int32)
    cv2.polylines(layer_HW, [line], False, float(level), width_px, cv2.LINE_AA, shift=3)


def _muscle(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """The pectoral muscle of an MLO view: a slightly bulging triangle in the upper corner, 0 to 1."""
    top, bottom = columns * rng.uniform(0.24, 0.40), rows * rng.uniform(0.45, 0.68)
    s = np.linspace(0, 1, 40)
    bulge = 0.05 * columns * np.sin(np.pi * s)
    edge = np.stack([top * (1 - s) + bulge, bottom * s], axis=1)
    mask_HW = _fill(np.concatenate([edge, [[-2.0, bottom], [-2.0, -2.0], [top, -2.0]]]), rows, columns)
    return cv2.GaussianBlur(mask_HW.astype(np.float32), (0, 0), 0.006 * rows)


def _draw_lesion(
    rng: np.random.Generator,
    lesion: LesionPlan,
    image_HW: np.ndarray,
    breast_HW: np.ndarray,
    allowed_HW: np.ndarray,
    work: float,
) -> np.ndarray:
    """Add a lesion to the image where the map allows, forbid that place to the next, and return its mask."""
    radius = lesion.diameter * image_HW.shape[0] / 2
    centre_y, centre_x = _place(rng, allowed_HW, 0.9 * radius * work)
    cv2.circle(allowed_HW, (int(centre_x), int(centre_y)), int(2.6 * radius * work) + 2, 0, -1)
    centre_y, centre_x = centre_y / work, centre_x / work
    reach = int(2.2 * radius) + 3
    top, left = max(0, int(centre_y) - reach), max(0, int(centre_x) - reach)
    window = (slice(top, int(centre_y) + reach), slice(left, int(centre_x) + reach))
    y, x = np.mgrid[window[0], window[1]].astype(np.float32)[:, : image_HW.shape[0] - top, : image_HW.shape[1] - left]
    rho, angle = np.hypot(y - centre_y, x - centre_x) / radius, np.arctan2(y - centre_y, x - centre_x)
    if lesion.shape == "cluster":
        edge, added = _cluster(rng, lesion, rho, angle, radius)
    else:
        edge, added = _mass(rng, lesion, rho, angle)
    image_HW[window] += added
    mask_HW = np.zeros(image_HW.shape, np.uint8)
    mask_HW[window] = np.where((rho <= edge) & (breast_HW[window] > 0), 255, 0)
    return mask_HW


def _place(rng: np.random.Generator, allowed_HW: np.ndarray, depth_px: float) -> tuple[float, float]:
    """A place at least so deep below the skin, or the deepest there is."""
    clear_HW = allowed_HW.copy()
    clear_HW[:, : int(depth_px)] = 0  # not cut by the film's edge either
    clear_HW[: int(depth_px)] = 0
    deep = np.flatnonzero(clear_HW >= depth_px)
    spot = int(rng.choice(deep)) if deep.size else int(np.argmax(clear_HW))
    return float(spot // allowed_HW.shape[1]), float(spot % allowed_HW.shape[1])


def _mass(
    rng: np.random.Generator, lesion: LesionPlan, rho: np.ndarray, angle: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(radius of the edge along each direction, intensity to add) of a mass; radii in units of its own."""
    stretch, tilt = rng.uniform(0.0, 0.18), rng.uniform(0, np.pi)
    edge = 1 + stretch * np.cos(2 * (angle - tilt))
    waves = {"round": (), "lobulated": (3, 4, 5), "spiculated": (3, 5, 7, 9)}[lesion.shape]
    for wave in waves:
        edge = edge + rng.uniform(0.05, 0.12) * np.cos(wave * angle + rng.uniform(0, 2 * np.pi))
    soft = rng.uniform(0.05, 0.09)
    inside = 1 / (1 + np.exp(np.clip((rho / edge - 1) / soft, -30, 30)))
    added = inside * (1 - 0.18 * np.minimum(rho / edge, 1) ** 2)
    if lesion.shape == "spiculated":
        for _ in range(int(rng.integers(10, 18))):
            off = np.angle(np.exp(1j * (angle - rng.uniform(0, 2 * np.pi)))) * rho
            length = rng.uniform(1.4, 2.0)
            added = np.maximum(added, 0.5 * np.exp(-((off / 0.05) ** 2)) * np.clip((length - rho) / length, 0, 1))
    return edge, (lesion.contrast * added).astype(np.float32)


def _cluster(
    rng: np.random.Generator, lesion: LesionPlan, rho: np.ndarray, angle: np.ndarray, radius: float
) -> tuple[np.ndarray, np.ndarray]:
    """As `_mass`, for specks in a haze: the outline is coarse, as the drawn ones of DDSM are."""
    stretch, tilt = rng.uniform(0.05, 0.3), rng.uniform(0, np.pi)
    edge = 1 + stretch * np.cos(2 * (angle - tilt))
    haze = 1 / (1 + np.exp(np.clip((rho / edge - 0.9) / 0.1, -30, 30)))
    y, x = rho * np.sin(angle), rho * np.cos(angle)
    specks = np.zeros_like(rho)
    for _ in range(int(rng.integers(12, 36))):
        far, way = 0.8 * np.sqrt(rng.uniform()), rng.uniform(0, 2 * np.pi)
        size = max(rng.uniform(0.03, 0.09), 0.7 / radius)
        away = (y - far * np.sin(way)) ** 2 + (x - far * np.cos(way)) ** 2
        specks = np.maximum(specks, rng.uniform(0.6, 1.0) * np.exp(-away / (2 * size**2)))
    return edge, (lesion.contrast * (0.6 * haze + 1.2 * specks)).astype(np.float32)


def _add_grain(rng: np.random.Generator, image_HW: np.ndarray) -> None:
    """Film grain: white at full size, and a coarser layer."""
    rows, columns = image_HW.shape
    coarse = rng.standard_normal((rows // 2 + 1, columns // 2 + 1), np.float32)
    image_HW += 0.008 * cv2.resize(coarse, (columns, rows), interpolation=cv2.INTER_LINEAR)
    image_HW += 0.007 * rng.standard_normal((rows, columns), np.float32)


def _draw_film_marks(rng: np.random.Generator, plan: FilmPlan, image_HW: np.ndarray) -> None:
    """What else is bright on a film: the label, strips along the edges, a film edge, a skin marker, dust."""
    rows, columns = image_HW.shape
    _draw_label(rng, plan, image_HW)
    for edge, chance in (("top", 0.35), ("bottom", 0.35), ("left", 0.3), ("right", 0.2)):
        if rng.random() < chance:
            width = max(1, round(rows * rng.uniform(0.003, 0.014)))
            level = np.float32(rng.uniform(0.85, 1.0))
            start = 0 if edge in ("top", "left") else -width
            strip_HW = image_HW if edge in ("top", "bottom") else image_HW.T
            strip_HW[start : start + width or None] = level
    if rng.random() < 0.2:
        at = round(rows * (0.02 if rng.random() < 0.5 else 0.97))
        image_HW[at : at + max(1, rows // 400)] = np.float32(rng.uniform(0.5, 0.9))
    if rng.random() < 0.15:
        centre = (round(columns * rng.uniform(0.3, 0.7)), round(rows * rng.uniform(0.2, 0.8)))
        cv2.circle(image_HW, centre, max(1, rows // 220), 1.0, -1, cv2.LINE_AA)
    for _ in range(int(rng.integers(0, 12))):
        image_HW[int(rng.integers(rows)), int(rng.integers(columns))] = np.float32(rng.uniform(0.3, 1.0))


def _draw_label(rng: np.random.Generator, plan: FilmPlan, image_HW: np.ndarray) -> None:
    """Side and view in full brightness, on the side of the film where no breast is."""
    rows, columns = image_HW.shape
    scale, weight = rows * rng.uniform(0.0011, 0.0016), max(1, round(rows * 0.0035))
    text = f"{plan.side[0]}{plan.view}"
    (width, height), base = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, weight)
    ink = np.zeros((height + 2 * base, width + 2 * base), np.uint8)
    cv2.putText(ink, text, (base, height + base), cv2.FONT_HERSHEY_SIMPLEX, scale, 255, weight, cv2.LINE_AA)
    if rng.random() < 0.3:
        cv2.rectangle(ink, (1, 1), (ink.shape[1] - 2, ink.shape[0] - 2), 230, max(1, weight // 2))
    label = ink.astype(np.float32) / 255
    if rng.random() < 0.15:
        label = cv2.rotate(label, cv2.ROTATE_90_CLOCKWISE)
    if plan.mirrored:
        label = label[:, ::-1]
    label = label[: rows // 4, : columns // 2]
    top = round(rows * rng.uniform(0.03, 0.10))
    right = (plan.side == "LEFT") != plan.mirrored
    margin = round(columns * rng.uniform(0.03, 0.08))
    left = max(0, columns - label.shape[1] - margin) if right else min(margin, columns - label.shape[1])
    place = image_HW[top : top + label.shape[0], left : left + label.shape[1]]
    np.maximum(place, label, out=place)


def _digitise(rng: np.random.Generator, image_HW: np.ndarray) -> np.ndarray:
    """To 16 bits with the few thousand levels that a film digitiser gave; 0 stays 0."""
    levels, top = int(rng.integers(2400, 2900)), int(rng.integers(55_879, 65_536))
    level_HW = np.round(np.clip(image_HW, 0, 1) * np.float32(levels))
    return np.round(level_HW * np.float32(top / levels)).astype(np.uint16)
