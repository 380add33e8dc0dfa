import re

import numpy as np
import pytest

from data_prep.look.page import WEB
from results.palette import DARK, LIGHT, OTHER_DARK, OTHER_LIGHT, colour_numbers
from trainables.config import PAPER_ENCODERS

# Machado, Oliveira, Fernandes 2009, severity 1, for linear RGB.
SIGHT = {
    "normal": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def linear(colour: str) -> np.ndarray:
    rgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = to_xyz @ np.clip(rgb, 0, 1) / [0.9505, 1, 1.089]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize(("colours", "least"), [(LIGHT, 18), (DARK, 13)])
@pytest.mark.parametrize("sight", SIGHT)
def test_any_two_encoders_are_told_apart_in_every_kind_of_sight(
    colours: tuple[str, ...], least: float, sight: str
) -> None:
    seen = [lab(np.array(SIGHT[sight]) @ linear(colour)) for colour in colours]
    distances = [float(np.linalg.norm(a - b)) for i, a in enumerate(seen) for b in seen[:i]]
    assert min(distances) >= least


def luminance(colour: str) -> float:
    return float(linear(colour) @ [0.2126, 0.7152, 0.0722])


def contrast(first: str, second: str) -> float:
    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


def test_text_of_the_pages_is_legible_by_day_and_by_night() -> None:
    style = (WEB / "page.css").read_text()
    pairs = dict(re.findall(r"--(\w+): light-dark\((#\w{6}, #\w{6})\)", style))
    for name in ("ink", "soft", "faint", "accent", "warn", "good"):
        for ground in ("paper", "card"):
            for text, behind in zip(pairs[name].split(", "), pairs[ground].split(", "), strict=True):
                assert contrast(text, behind) >= 4.5, (name, ground)
    assert tuple(pairs["faint"].split(", ")) == (OTHER_LIGHT, OTHER_DARK)


def test_an_encoder_of_the_paper_has_its_colour_in_every_study_and_others_have_one_each() -> None:
    assert colour_numbers(["vgg19", "tu-resnet18"]) == {"vgg19": 4, "tu-resnet18": 5}
    many = colour_numbers([*PAPER_ENCODERS, *(f"tu-{n}" for n in range(5))])
    assert [many[name] for name in PAPER_ENCODERS] == [0, 1, 2, 3, 4]
    assert [many[f"tu-{n}"] for n in range(5)] == [5, 6, 7, None, None]
