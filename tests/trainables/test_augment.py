"""python -m pytest tests/trainables/test_augment.py: augmentation of batches."""

import pytest
import torch

from tests.trainables.fakes import small_config
from trainables.config import TrialConfig
from trainables.step.augment import Augmentation, _grid, apply, draw

CPU = torch.device("cpu")
PLAIN = {"rotation_degrees": 0, "flip_horizontal": False, "brightness": 0, "contrast": 0}
STRONG = {
    "rotation_degrees": 90,
    "brightness": 0.5,
    "contrast": 0.5,
    "zoom": 0.5,
    "elastic": 0.1,
    "gamma": 1,
    "cutout": 0.4,
}
"""Everything at once."""


def batch(images: int = 3, size_px: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    image_B1HW = torch.rand(images, 1, size_px, size_px, generator=generator)
    return image_B1HW, (image_B1HW > 0.6).float()


def drawn(config: TrialConfig, images: int = 3, epoch: int = 0) -> Augmentation:
    return draw(config, epoch=epoch, images=images, device=CPU)


def test_nothing_switched_on_changes_nothing() -> None:
    image, mask = batch()
    augmented = apply(image, mask, drawn(small_config(**PLAIN)))
    assert augmented[0] is image
    assert augmented[1] is mask


def test_a_quarter_turn_turns_image_and_mask_alike() -> None:
    image, mask = batch()
    theta = torch.tensor([[0.0, -1.0], [1.0, 0.0]]).expand(3, 2, 2)
    turned, turned_mask = apply(image, mask, Augmentation(theta_N22=theta))
    assert torch.allclose(turned, image.rot90(1, (2, 3)), atol=1e-5)
    assert torch.equal(turned_mask, mask.rot90(1, (2, 3)))


def test_pixels_come_from_where_torch_would_take_them() -> None:
    theta = torch.tensor([[[0.9, -0.3], [0.3, 0.9]], [[-1.0, 0.0], [0.2, 1.0]]])
    affine = torch.cat([theta, torch.zeros(2, 2, 1)], dim=2)
    expected = torch.nn.functional.affine_grid(affine, [2, 1, 5, 7], align_corners=False)
    found = _grid(Augmentation(theta_N22=theta), torch.zeros(2, 1, 5, 7))
    assert torch.allclose(found, expected, atol=1e-6)


def test_flips_mirror_exactly_those_images_that_were_drawn() -> None:
    image, mask = batch(16)
    config = small_config(**{**PLAIN, "flip_horizontal": True})
    flipped, flipped_mask = apply(image, mask, drawn(config, 16))
    mirrored_B = [bool(torch.allclose(f, i.flip(2), atol=1e-5)) for f, i in zip(flipped, image, strict=True)]
    same_B = [bool(torch.allclose(f, i, atol=1e-5)) for f, i in zip(flipped, image, strict=True)]
    assert all(a != b for a, b in zip(mirrored_B, same_B, strict=True))
    assert 2 < sum(mirrored_B) < 14
    for index, mirrored in enumerate(mirrored_B):
        assert torch.equal(flipped_mask[index], mask[index].flip(2) if mirrored else mask[index])


def test_masks_stay_0_and_1_and_images_within_0_and_1() -> None:
    image, mask = batch()
    augmented, augmented_mask = apply(image, mask, drawn(small_config(**STRONG)))
    assert set(augmented_mask.unique().tolist()) <= {0.0, 1.0}
    assert augmented.min() >= 0 and augmented.max() <= 1
    assert not torch.equal(augmented, image)


def test_contrast_keeps_the_mean_and_brightness_moves_it() -> None:
    image = 0.4 + 0.1 * batch()[0]
    mask = torch.zeros_like(image)
    stretched, _ = apply(image, mask, Augmentation(factor_N=torch.tensor([0.5, 1.0, 1.5])))
    assert torch.allclose(stretched.mean((1, 2, 3)), image.mean((1, 2, 3)), atol=1e-6)
    assert torch.allclose(stretched.std((1, 2, 3)) / image.std((1, 2, 3)), torch.tensor([0.5, 1.0, 1.5]), atol=1e-4)
    moved, _ = apply(image, mask, Augmentation(shift_N=torch.tensor([0.1, 0.0, -0.1])))
    assert torch.allclose((moved - image).mean((1, 2, 3)), torch.tensor([0.1, 0.0, -0.1]), atol=1e-6)


def test_a_worker_sees_its_part_of_what_one_worker_sees() -> None:
    image, mask = batch(6)
    whole = drawn(small_config(**STRONG), 6)
    together, _ = apply(image, mask, whole)
    parts = [apply(image[part], mask[part], whole[part])[0] for part in (slice(0, 4), slice(4, 6))]
    assert torch.equal(torch.cat(parts), together)


def test_epochs_and_seeds_differ_and_repeat() -> None:
    config = small_config()
    first, again, later = drawn(config), drawn(config), drawn(config, epoch=1)
    other = drawn(small_config(seed=1))
    assert torch.equal(first.theta_N22, again.theta_N22)
    assert not torch.equal(first.theta_N22, later.theta_N22)
    assert not torch.equal(first.theta_N22, other.theta_N22)


def test_angles_stay_within_the_range_and_use_it() -> None:
    degrees = torch.rad2deg(
        torch.acos(drawn(small_config(**{**PLAIN, "rotation_degrees": 15}), 500).theta_N22[:, 0, 0])
    )
    assert 13 < degrees.max() <= 15.01


def test_zoom_makes_a_disc_larger_and_smaller_within_its_range() -> None:
    y_HW, x_HW = torch.meshgrid(torch.arange(64) - 31.5, torch.arange(64) - 31.5, indexing="ij")
    disc = ((y_HW**2 + x_HW**2) < 12**2).float().expand(60, 1, 64, 64)
    _, zoomed = apply(disc, disc, drawn(small_config(**{**PLAIN, "zoom": 0.5}), 60))
    factor_B = (zoomed.sum((1, 2, 3)) / disc.sum((1, 2, 3))).sqrt()
    assert 1 / 1.55 < factor_B.min() < 0.8
    assert 1.3 < factor_B.max() < 1.55


def test_elastic_moves_image_and_mask_alike_smoothly_and_no_further_than_it_may() -> None:
    size_px = 64
    column_HW = torch.arange(size_px).expand(size_px, size_px) / size_px
    image = column_HW.expand(8, 1, size_px, size_px)
    config = small_config(**{**PLAIN, "elastic": 0.05})
    warped, mask = apply(image, (image > 0.5).float(), drawn(config, 8))
    middle = (slice(None), slice(None), slice(8, -8), slice(8, -8))  # black comes in at the rim
    moved = (warped - image)[middle].abs()
    assert 0.01 < moved.max() < 0.05 * 1.3  # cubic curves overshoot their points a little
    assert (warped[middle].diff(dim=3) > 0).all()  # what lay to the right stays there
    agree = ((warped > 0.5) == (mask > 0.5))[middle].float().mean()
    assert agree > 0.98


def test_gamma_darkens_and_brightens_within_its_range_and_keeps_black_and_white() -> None:
    image = torch.tensor([0.0, 0.5, 1.0]).expand(200, 1, 1, 3)
    changed, _ = apply(image, image, drawn(small_config(**{**PLAIN, "gamma": 1.0}), 200))
    assert torch.equal(changed[..., 0], image[..., 0]) and torch.equal(changed[..., 2], image[..., 2])
    power_B = changed[:, 0, 0, 1].log() / torch.tensor(0.5).log()
    assert 0.5 <= power_B.min() < 0.55 and 1.85 < power_B.max() <= 2.0


def test_cutout_blackens_one_square_of_its_size_and_leaves_the_mask() -> None:
    image = torch.ones(100, 1, 40, 40)
    mask = (torch.rand(100, 1, 40, 40, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    cut, kept = apply(image, mask, drawn(small_config(**{**PLAIN, "cutout": 0.25}), 100))
    assert torch.equal(kept, mask)
    black_B = (cut == 0).sum((1, 2, 3))
    assert black_B.max() == 100  # 10 x 10 pixels, less where the square leaves the image
    assert (black_B > 20).all()
    rows_B, columns_B = (cut == 0).any(3).sum((1, 2)), (cut == 0).any(2).sum((1, 2))
    assert torch.equal(rows_B * columns_B, black_B)
    assert len({tuple(one.nonzero()[0].tolist()) for one in cut[:, 0] == 0}) > 50


@pytest.mark.parametrize("name", ["zoom", "elastic", "gamma", "cutout"])
def test_switching_one_on_does_not_change_the_others(name: str) -> None:
    before = drawn(small_config(rotation_degrees=15, brightness=0.1))
    after = drawn(small_config(rotation_degrees=15, brightness=0.1, **{name: 0.05}))
    assert torch.equal(before.shift_N, after.shift_N)
    if name != "zoom":  # which is part of the same matrices
        assert torch.equal(before.theta_N22, after.theta_N22)
