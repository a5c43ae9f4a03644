"""Make the model package `granules` with PyTorch, in the simple form: several labels may apply to an 8-bit colour picture.

The pictures are drawn here, and are free of rights. Run it in an environment of its own:

    python3 -m venv /tmp/pytorch
    /tmp/pytorch/bin/pip install numpy==2.4.6 pillow==13.0.0 onnx==1.23.2 onnxscript==0.7.2 torch==2.15.0
    /tmp/pytorch/bin/python examples/models/granules.py

It writes `granules/` and `images/granules/` beside itself.
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

HERE = Path(__file__).parent
PACKAGE, IMAGES = HERE / "granules", HERE / "images" / "granules"
LABELS = {"granules": "dark red granules", "vacuoles": "pale vacuoles"}
SIDE = 48
MEAN, STD = (0.75, 0.6, 0.72), (0.15, 0.2, 0.15)

MANIFEST = f"""\
model: granules
title: Granules and vacuoles of a stained cell
description: Whether a cell has granules, vacuoles, both or neither. Trained on drawn pictures; an example.
version: 1.0.0
license: MIT
input_tensor:
  axes: bcyx
  channels: [red, green, blue]
  size: [{SIDE}, {SIDE}]
  preprocessing:
    - {{id: fixed_zero_mean_unit_variance, kwargs: {{mean: {list(MEAN)}, std: {list(STD)}, axis: channel}}}}
input: {{resize: stretch, values: unit, bit_depths: [8]}}
output: {{kind: multi_label, threshold: 0.5}}
review_below: 0.8
training_data: 1,600 drawn pictures
"""

torch.manual_seed(2)
NETWORK = nn.Sequential(
    nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
    nn.Conv2d(8, 12, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
    nn.Conv2d(12, 16, 3, padding=1), nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(16, len(LABELS)), nn.Sigmoid(),
)  # fmt: skip


def drawn(present: tuple[bool, bool], random: np.random.Generator, *, side: int = SIDE) -> NDArray[np.uint8]:
    """A picture (side, side, 3) of one cell; `present`: granules, vacuoles."""
    y, x = np.mgrid[:side, :side] / side
    cell = np.hypot(y - random.uniform(0.45, 0.55), x - random.uniform(0.45, 0.55)) < random.uniform(0.32, 0.42)
    picture = np.where(cell[..., None], (190, 140, 190), (225, 205, 215)).astype(float)
    kinds = [((150, 40, 70), 0.02, 14), ((245, 240, 250), 0.05, 4)]
    for (colour, radius, count), is_present in zip(kinds, present, strict=True):
        for _ in range(count if is_present else 0):
            angle, distance = random.uniform(0, 2 * np.pi), random.uniform(0, 0.25)
            inside = np.hypot(y - 0.5 - distance * np.sin(angle), x - 0.5 - distance * np.cos(angle)) < radius * random.uniform(0.8, 1.3)
            picture[inside] = colour
    return np.clip(picture * random.uniform(0.9, 1.05) + random.normal(0, 6, picture.shape), 0, 255).astype(np.uint8)


def prepared(pictures: NDArray[np.uint8]) -> torch.Tensor:
    """What the manifest makes of pictures: `values: unit`, then `fixed_zero_mean_unit_variance`."""
    numbers = (pictures / 255 - MEAN) / (np.asarray(STD) + 1e-6)
    return torch.from_numpy(numbers.astype(np.float32)).permute(0, 3, 1, 2)


def examples(count: int, random: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    present = [(index % 2 == 1, index // 2 % 2 == 1) for index in range(count)]
    return prepared(np.stack([drawn(one, random) for one in present])), torch.tensor(present, dtype=torch.float32)


def fit(pictures: torch.Tensor, present: torch.Tensor) -> None:
    optimiser = torch.optim.Adam(NETWORK.parameters(), lr=0.01)
    for _ in range(10):
        for batch in torch.randperm(len(pictures)).split(32):
            optimiser.zero_grad()
            nn.functional.binary_cross_entropy(NETWORK(pictures[batch]), present[batch]).backward()
            optimiser.step()


def main() -> None:
    random = np.random.default_rng(2)
    torch.set_num_threads(1)
    fit(*examples(1600, random))
    pictures, present = examples(600, random)
    print(f"share of right labels on 600 other pictures: {((NETWORK.eval()(pictures) > 0.5) == (present > 0.5)).float().mean():.3f}")

    PACKAGE.mkdir(exist_ok=True)
    torch.onnx.export(
        NETWORK,
        (torch.zeros(2, 3, SIDE, SIDE),),
        PACKAGE / "model.onnx",
        input_names=["image"],
        output_names=["scores"],
        opset_version=18,
        dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
        external_data=False,
        dynamo=True,
        verbose=False,
    )
    (PACKAGE / "labels.txt").write_text("".join(f"{label}\t{words}\n" for label, words in LABELS.items()))
    (PACKAGE / "bioscope.yaml").write_text(MANIFEST)

    IMAGES.mkdir(parents=True, exist_ok=True)
    for name, shown in {"both": (True, True), "granules": (True, False), "vacuoles": (False, True), "neither": (False, False)}.items():
        Image.fromarray(drawn(shown, random, side=64)).save(IMAGES / f"{name}.png")


if __name__ == "__main__":
    main()
