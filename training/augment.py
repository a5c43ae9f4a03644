"""Data augmentation. It imitates other laboratories: stain, white balance, brightness, focus, JPEG quality, pixel size, rotation."""

import io
import math

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Generator, Tensor
from torch.nn import functional as F


def augmented(pictures: Tensor, *, size: int, crop: float, chance: Generator) -> Tensor:
    """Map (N, 3, H, W) in 0..1 to (N, 3, size, size) in 0..1. Without augmentation it equals the preprocessing: centre crop, then scale."""
    moved = _moved(pictures, size=size, crop=crop, chance=chance)
    stained = _stained(moved, chance)
    lit = _lit(stained, chance)
    return _noisy(_defocused(lit, chance), chance).clamp(0, 1)


def recompressed(picture: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """The picture (H, W, 3) after one more JPEG encoding."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=quality)
    with Image.open(buffer) as again:
        return np.asarray(again)


def _uniform(count: int, low: float, high: float, chance: Generator) -> Tensor:
    return torch.rand(count, generator=chance) * (high - low) + low


def _moved(pictures: Tensor, *, size: int, crop: float, chance: Generator) -> Tensor:
    count = len(pictures)
    angle = _uniform(count, -math.pi, math.pi, chance)
    scale = crop * torch.exp(_uniform(count, -0.16, 0.16, chance))
    stretch = torch.exp(_uniform(count, -0.06, 0.06, chance))
    flip = torch.where(_uniform(count, 0, 1, chance) < 0.5, -1.0, 1.0)
    shift = torch.stack([_uniform(count, -0.06, 0.06, chance) for _ in range(2)], 1)
    cos, sin = torch.cos(angle), torch.sin(angle)
    rows = torch.stack([cos * scale * stretch * flip, -sin * scale / stretch, sin * scale * stretch * flip, cos * scale / stretch], 1)
    theta = torch.cat([rows.view(count, 2, 2), shift.unsqueeze(2)], 2)
    grid = F.affine_grid(theta, [count, 3, size, size], align_corners=False)
    return F.grid_sample(pictures, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def _stained(pictures: Tensor, chance: Generator) -> Tensor:
    """Vary dyes and thickness: mix optical densities by a matrix near the identity, and scale them."""
    count = len(pictures)
    mix = torch.eye(3) + 0.03 * torch.randn(count, 3, 3, generator=chance)
    thickness = torch.exp(0.12 * torch.randn(count, 1, 1, generator=chance))
    density = -torch.log(pictures.clamp(min=1 / 255)).flatten(2)
    return torch.exp(-(thickness * mix) @ density).clamp(0, 1).view_as(pictures)


def _lit(pictures: Tensor, chance: Generator) -> Tensor:
    """Vary white balance, brightness and gamma."""
    count = len(pictures)
    balance = torch.exp(0.05 * torch.randn(count, 3, 1, 1, generator=chance))
    brightness = torch.exp(0.08 * torch.randn(count, 1, 1, 1, generator=chance))
    gamma = torch.exp(0.1 * torch.randn(count, 1, 1, 1, generator=chance))
    return (pictures.clamp(min=1e-4) ** gamma * balance * brightness).clamp(0, 1)


def _defocused(pictures: Tensor, chance: Generator) -> Tensor:
    """Blur a fifth of the batch by one to a few pixels, all by the same amount."""
    some = max(1, len(pictures) // 5)
    sigma = float(_uniform(1, 0.4, 1.1, chance))
    offsets = torch.arange(-3, 4, dtype=torch.float32)
    line = torch.exp(-(offsets**2) / (2 * sigma**2))
    kernel = (line / line.sum()).view(1, 1, 1, 7).repeat(3, 1, 1, 1)
    blurred = F.conv2d(F.pad(pictures[:some], (3, 3, 3, 3), mode="reflect"), kernel, groups=3)
    blurred = F.conv2d(blurred, kernel.transpose(2, 3), groups=3)
    return torch.cat([blurred, pictures[some:]])


def _noisy(pictures: Tensor, chance: Generator) -> Tensor:
    strength = _uniform(len(pictures), 0, 0.02, chance).view(-1, 1, 1, 1)
    return pictures + strength * torch.randn(pictures.shape, generator=chance)
