"""Make the model package `vesicles` with scikit-learn: a random forest that distinguishes rings from spots in 8-bit grey pictures.

The pictures are drawn here, and are free of rights. Run it in an environment of its own:

    python3 -m venv /tmp/scikit-learn
    /tmp/scikit-learn/bin/pip install numpy==2.4.6 pillow==13.0.0 scikit-learn==1.9.1 skl2onnx==1.20.0
    /tmp/scikit-learn/bin/python examples/models/vesicles.py

It writes `vesicles/` and `images/vesicles/` beside itself.
"""

import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from skl2onnx import to_onnx
from sklearn.ensemble import RandomForestClassifier

HERE = Path(__file__).parent
PACKAGE, IMAGES = HERE / "vesicles", HERE / "images" / "vesicles"
LABELS = ("empty", "ring", "spot")
SIDE, SEEN = 32, 16  # pixels of a picture, and pixels that the model gets

MANIFEST = f"""\
model: vesicles
title: Rings and spots of vesicles
description: Whether a vesicle in the middle of a grey picture is a ring or a spot. Trained on drawn pictures; an example.
version: 1.0.0
license: MIT
input_tensor: {{axes: yx, size: {SEEN}}}
input: {{resize: stretch, values: unit, flatten: true, bit_depths: [8]}}
output: {{kind: softmax, tensor: probabilities}}
review_below: 0.7
training_data: 1,500 drawn pictures
"""


def drawn(label: str, random: np.random.Generator) -> NDArray[np.uint8]:
    """A picture of SIDE x SIDE pixels."""
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    distance = np.hypot(y - random.uniform(-2, 2), x - random.uniform(-2, 2))
    radius, brightness = random.uniform(7, 11), random.uniform(25, 150)
    light = {
        "ring": np.exp(-((distance - radius) ** 2) / 5),
        "spot": np.exp(-(distance**2) / radius**1.8),
        "empty": np.zeros_like(distance),
    }[label]
    return np.clip(random.normal(40, 12, distance.shape) + brightness * light, 0, 255).astype(np.uint8)


def seen(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The row of numbers that the system makes of a picture: `resize: stretch`, `values: unit`, `flatten: true`."""
    blocks = picture.reshape(SEEN, SIDE // SEEN, SEEN, SIDE // SEEN).mean(axis=(1, 3))
    return (np.rint(blocks) / 255).astype(np.float32).reshape(-1)


def examples(count: int, random: np.random.Generator) -> tuple[NDArray[np.float32], list[str]]:
    labels = [LABELS[index % len(LABELS)] for index in range(count)]
    return np.stack([seen(drawn(label, random)) for label in labels]), labels


def main() -> None:
    random = np.random.default_rng(3)
    classifier = RandomForestClassifier(n_estimators=25, max_depth=6, random_state=0).fit(*examples(1500, random))
    print(f"accuracy on 600 other pictures: {classifier.score(*examples(600, random)):.3f}")

    PACKAGE.mkdir(exist_ok=True)
    onnx = to_onnx(classifier, np.zeros((1, SEEN * SEEN), np.float32), options={"zipmap": False}, target_opset={"": 18, "ai.onnx.ml": 3})
    (PACKAGE / "model.onnx").write_bytes(onnx.SerializeToString())
    (PACKAGE / "labels.txt").write_text("".join(f"{label}\n" for label in classifier.classes_))
    (PACKAGE / "bioscope.yaml").write_text(MANIFEST)

    IMAGES.mkdir(parents=True, exist_ok=True)
    with (IMAGES / "manifest.csv").open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["file", "label"])
        for number, label in enumerate(LABELS * 2, 1):
            name = f"vesicle_{number}.png"
            Image.fromarray(drawn(label, random)).save(IMAGES / name)
            rows.writerow([name, label])


if __name__ == "__main__":
    main()
