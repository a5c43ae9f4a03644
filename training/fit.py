"""The training loop, with a fixed seed and averaged weights. It prints a line per epoch."""

import copy
import time
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor
from torch.nn import functional as F

from infrastructure.inference.preprocessing import Preprocessing
from training.augment import augmented, recompressed
from training.network import CellNetwork

AVERAGING = 0.998
HALF = bool(torch.cpu.get_capabilities().get("avx512_bf16"))
"""bfloat16 convolutions take half the time on processors with AVX512-BF16, and longer than float32 on all others."""


class Examples(NamedTuple):
    """Pictures (N, H, W, 3) as uint8, their classes (N), and their subtypes (N), -1 if unknown."""

    pictures: NDArray[np.uint8]
    classes: NDArray[np.int64]
    subtypes: NDArray[np.int64]


class Course(NamedTuple):
    """`stages` are (epochs, edge of the picture in pixels). Smaller pictures come first: same field of view, half the cost."""

    stages: tuple[tuple[int, int], ...]
    seed: int
    batch: int = 128
    rate: float = 4e-3
    decay: float = 0.05
    smoothing: float = 0.05
    subtype_part: float = 0.3


def fit(network: CellNetwork, examples: Examples, how: Preprocessing, course: Course) -> CellNetwork:
    """Train. Returns a network in evaluation mode with the weights averaged over the last few hundred steps."""
    torch.manual_seed(course.seed)
    chance = Generator().manual_seed(course.seed)
    network = network.to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(network.parameters(), lr=course.rate, weight_decay=course.decay)
    sizes = [size for epochs, size in course.stages for _ in range(epochs)]
    steps = len(sizes) * (len(examples.classes) // course.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, course.rate, total_steps=steps, pct_start=0.15)
    average, done = copy.deepcopy(network), 0
    for epoch, size in enumerate(sizes, 1):
        started, losses = time.perf_counter(), []
        for chosen in _batches(len(examples.classes), course.batch, chance):
            loss = _loss(network, *_batch(examples, chosen, how, size, chance), course)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
            done += 1
            _follow(average, network, min(AVERAGING, 1 - 1 / done))
            losses.append(loss.item())
        print(
            f"epoch {epoch} of {len(sizes)}, {size} pixels: loss {np.mean(losses):.3f}, {time.perf_counter() - started:.1f} s", flush=True
        )
    return average.eval()


def normalise(pictures: Tensor, how: Preprocessing) -> Tensor:
    """Normalise RGB pictures (N, 3, S, S) in 0..1, as the preprocessing of the product does."""
    mean, std = torch.tensor(how.mean).view(1, 3, 1, 1), torch.tensor(how.std).view(1, 3, 1, 1)
    return ((pictures - mean) / std).contiguous(memory_format=torch.channels_last)


def _batches(count: int, batch: int, chance: Generator) -> list[NDArray[np.int64]]:
    order = torch.randperm(count, generator=chance).numpy()
    return [order[start : start + batch] for start in range(0, count - batch + 1, batch)]


def _batch(
    examples: Examples, chosen: NDArray[np.int64], how: Preprocessing, size: int, chance: Generator
) -> tuple[Tensor, Tensor, Tensor]:
    raw = examples.pictures[chosen]
    for index in range(0, len(chosen), 6):
        raw[index] = recompressed(raw[index], int(torch.randint(35, 92, (1,), generator=chance)))
    pictures = torch.from_numpy(raw).permute(0, 3, 1, 2).float() / 255
    changed = augmented(pictures, size=size, crop=how.centre_crop, chance=chance)
    return normalise(changed, how), torch.from_numpy(examples.classes[chosen]), torch.from_numpy(examples.subtypes[chosen])


def _loss(network: CellNetwork, pictures: Tensor, classes: Tensor, subtypes: Tensor, course: Course) -> Tensor:
    network.train()
    with torch.autocast("cpu", torch.bfloat16, enabled=HALF):
        logits, finer = network.with_subtypes(pictures)
    loss = F.cross_entropy(logits.float(), classes, label_smoothing=course.smoothing)
    if finer is not None and (subtypes >= 0).any():
        loss = loss + course.subtype_part * F.cross_entropy(finer.float(), subtypes, ignore_index=-1)
    return loss


@torch.no_grad()
def _follow(average: CellNetwork, network: CellNetwork, keep: float) -> None:
    for ours, theirs in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        if ours.dtype.is_floating_point:
            ours.lerp_(theirs, 1 - keep)
        else:
            ours.copy_(theirs)
