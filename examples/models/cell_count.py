"""Make the model package `cell-count` with scikit-learn: a regression that counts bright cells in 8-bit grey pictures.

The pictures are drawn here, and are free of rights. Run it in an environment of its own:

    python3 -m venv /tmp/scikit-learn
    /tmp/scikit-learn/bin/pip install numpy==2.4.6 pillow==13.0.0 scikit-learn==1.9.1 skl2onnx==1.20.0
    /tmp/scikit-learn/bin/python examples/models/cell_count.py

It writes `cell-count/` and `images/cell-count/` beside itself.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from skl2onnx import to_onnx
from sklearn.linear_model import Ridge

HERE = Path(__file__).parent
PACKAGE, IMAGES = HERE / "cell-count", HERE / "images" / "cell-count"
SIDE, SEEN, MOST = 64, 16, 12  # pixels of a picture, pixels that the model gets, and most cells in a picture

MANIFEST = f"""\
model: cell-count
title: Number of bright cells
description: How many cells a grey picture has. Trained on drawn pictures; an example.
version: 1.0.0
license: MIT
input_tensor: {{axes: yx, size: {SEEN}}}
input: {{resize: stretch, values: unit, flatten: true, bit_depths: [8]}}
output: {{kind: regression, tensor: variable, range: [0, 40], unit: cells}}
review_outside: [0, {MOST}.5]
training_data: 3,000 drawn pictures with 0 to {MOST} cells
"""


def drawn(cells: int, random: np.random.Generator) -> NDArray[np.uint8]:
    """A picture of SIDE x SIDE pixels on a black background."""
    y, x = np.mgrid[:SIDE, :SIDE]
    light = np.zeros((SIDE, SIDE))
    for centre_y, centre_x in random.uniform(6, SIDE - 6, (cells, 2)):
        light += random.uniform(75, 85) * np.exp(-((y - centre_y) ** 2 + (x - centre_x) ** 2) / 12)
    return np.clip(light + random.normal(0, 1, light.shape), 0, 255).astype(np.uint8)


def seen(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The row of numbers that the system makes of a picture: `resize: stretch`, `values: unit`, `flatten: true`."""
    blocks = picture.reshape(SEEN, SIDE // SEEN, SEEN, SIDE // SEEN).mean(axis=(1, 3))
    return (np.rint(blocks) / 255).astype(np.float32).reshape(-1)


def examples(count: int, random: np.random.Generator) -> tuple[NDArray[np.float32], list[int]]:
    numbers = [index % (MOST + 1) for index in range(count)]
    return np.stack([seen(drawn(number, random)) for number in numbers]), numbers


def main() -> None:
    random = np.random.default_rng(4)
    counter = Ridge(alpha=10, positive=True, fit_intercept=False).fit(*examples(3000, random))  # so that no count is below 0
    pictures, numbers = examples(650, random)
    print(f"mean error on 650 other pictures: {np.abs(counter.predict(pictures) - numbers).mean():.2f} cells")

    PACKAGE.mkdir(exist_ok=True)
    onnx = to_onnx(counter, np.zeros((1, SEEN * SEEN), np.float32), target_opset={"": 18, "ai.onnx.ml": 3})
    (PACKAGE / "model.onnx").write_bytes(onnx.SerializeToString())
    (PACKAGE / "labels.txt").write_text("cells\n")
    (PACKAGE / "bioscope.yaml").write_text(MANIFEST)

    IMAGES.mkdir(parents=True, exist_ok=True)
    for cells in (0, 2, 5, 9, 20):
        Image.fromarray(drawn(cells, random)).save(IMAGES / f"cells_{cells:02}.png")


if __name__ == "__main__":
    main()
