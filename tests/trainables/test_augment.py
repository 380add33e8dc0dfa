"""python -m pytest tests/trainables/test_augment.py: augmentation of batches."""

import torch

from tests.trainables.fakes import small_config
from trainables.config import TrialConfig
from trainables.step.augment import Augmentation, _grid, apply, draw

CPU = torch.device("cpu")
PLAIN = {"rotation_degrees": 0, "flip_horizontal": False, "brightness": 0, "contrast": 0}


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
    turned, turned_mask = apply(image, mask, Augmentation(theta, None, None))
    assert torch.allclose(turned, image.rot90(1, (2, 3)), atol=1e-5)
    assert torch.equal(turned_mask, mask.rot90(1, (2, 3)))


def test_pixels_come_from_where_torch_would_take_them() -> None:
    theta = torch.tensor([[[0.9, -0.3], [0.3, 0.9]], [[-1.0, 0.0], [0.2, 1.0]]])
    affine = torch.cat([theta, torch.zeros(2, 2, 1)], dim=2)
    expected = torch.nn.functional.affine_grid(affine, [2, 1, 5, 7], align_corners=False)
    assert torch.allclose(_grid(theta, 5, 7), expected, atol=1e-6)


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
    config = small_config(rotation_degrees=180, brightness=1.0, contrast=0.9)
    augmented, augmented_mask = apply(image, mask, drawn(config))
    assert set(augmented_mask.unique().tolist()) <= {0.0, 1.0}
    assert augmented.min() >= 0 and augmented.max() <= 1
    assert not torch.equal(augmented, image)


def test_contrast_keeps_the_mean_and_brightness_moves_it() -> None:
    image = 0.4 + 0.1 * batch()[0]
    mask = torch.zeros_like(image)
    stretched, _ = apply(image, mask, Augmentation(None, None, torch.tensor([0.5, 1.0, 1.5])))
    assert torch.allclose(stretched.mean((1, 2, 3)), image.mean((1, 2, 3)), atol=1e-6)
    assert torch.allclose(stretched.std((1, 2, 3)) / image.std((1, 2, 3)), torch.tensor([0.5, 1.0, 1.5]), atol=1e-4)
    moved, _ = apply(image, mask, Augmentation(None, torch.tensor([0.1, 0.0, -0.1]), None))
    assert torch.allclose((moved - image).mean((1, 2, 3)), torch.tensor([0.1, 0.0, -0.1]), atol=1e-6)


def test_a_worker_sees_its_part_of_what_one_worker_sees() -> None:
    image, mask = batch(6)
    whole = drawn(small_config(), 6)
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
