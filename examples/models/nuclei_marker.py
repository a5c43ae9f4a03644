"""Make the model package `nuclei-marker` with PyTorch, in the format of the zoo: 16-bit pictures of two channels.

Channel 1 shows the nuclei, channel 2 a marker that only some nuclei have. The pictures are drawn here, and are free of rights. Run it in
an environment of its own:

    python3 -m venv /tmp/pytorch
    /tmp/pytorch/bin/pip install numpy==2.4.6 tifffile==2026.3.3 pyyaml onnx==1.23.2 onnxscript==0.7.2 onnxruntime==1.32.0 torch==2.15.0
    /tmp/pytorch/bin/python examples/models/nuclei_marker.py

It writes `nuclei-marker/`, `images/nuclei-marker/` and `images/stacks/` beside itself.
"""

import csv
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import tifffile
import torch
import yaml
from numpy.typing import NDArray
from torch import nn

HERE = Path(__file__).parent
PACKAGE, IMAGES, STACKS = HERE / "nuclei-marker", HERE / "images" / "nuclei-marker", HERE / "images" / "stacks"
LABELS = ("marker_negative", "marker_positive", "no_nuclei")
SIDE, PIXEL_UM = 64, 0.65
GAIN, EPS = 0.5, 1e-6

torch.manual_seed(1)
NETWORK = nn.Sequential(
    nn.Conv2d(2, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
    nn.Conv2d(8, 12, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
    nn.Conv2d(12, 16, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, len(LABELS)),
)  # fmt: skip


def drawn(label: str, random: np.random.Generator, *, side: int = SIDE) -> NDArray[np.uint16]:
    """A picture (2, side, side): nuclei and marker."""
    y, x = np.mgrid[:side, :side]
    nuclei, marker = np.zeros((2, side, side))
    for _ in range(0 if label == "no_nuclei" else random.integers(3, 7)):
        centre_y, centre_x = random.uniform(8, side - 8, 2)
        high, wide = random.uniform(4, 7, 2)
        nucleus = 1 / (1 + np.exp(6 * (np.hypot((y - centre_y) / high, (x - centre_x) / wide) - 1)))
        nuclei = np.maximum(nuclei, random.uniform(6000, 14000) * nucleus)
        amount = random.uniform(5000, 12000) if label == "marker_positive" else random.uniform(0, 1200)
        marker = np.maximum(marker, amount * nucleus)
    light = np.stack([nuclei, marker]) + random.uniform(300, 900, (2, 1, 1))
    return np.clip(random.normal(light, 60 + np.sqrt(light)), 0, 65535).astype(np.uint16)


def prepared(pictures: NDArray[np.uint16]) -> torch.Tensor:
    """What the preprocessing of the manifest makes of each picture: `zero_mean_unit_variance`, then `scale_linear`."""
    numbers = pictures.astype(np.float64)
    mean, std = (statistic(axis=(1, 2, 3), keepdims=True) for statistic in (numbers.mean, numbers.std))
    return torch.from_numpy(((numbers - mean) / (std + EPS) * GAIN).astype(np.float32))


def examples(count: int, random: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    classes = [index % len(LABELS) for index in range(count)]
    return prepared(np.stack([drawn(LABELS[one], random) for one in classes])), torch.tensor(classes)


def fit(pictures: torch.Tensor, classes: torch.Tensor) -> None:
    optimiser = torch.optim.Adam(NETWORK.parameters(), lr=0.01)
    for _ in range(12):
        for batch in torch.randperm(len(pictures)).split(32):
            optimiser.zero_grad()
            nn.functional.cross_entropy(NETWORK(pictures[batch]), classes[batch]).backward()
            optimiser.step()


def export(path: Path) -> None:
    """ONNX in one file, for a batch of any number and pictures of any size."""
    batch, height, width = (torch.export.Dim.DYNAMIC,) * 3
    torch.onnx.export(
        NETWORK.eval(),
        (torch.zeros(2, 2, SIDE, SIDE),),
        path,
        input_names=["image"],
        output_names=["scores"],
        opset_version=18,
        dynamic_shapes=({0: batch, 2: height, 3: width},),
        external_data=False,
        dynamo=True,
        verbose=False,
    )


def digest(name: str) -> str:
    return sha256((PACKAGE / name).read_bytes()).hexdigest()


def manifest() -> dict[str, Any]:
    """As the specification of bioimage.io has it, and `config.bioscope`."""
    size = {"min": 32, "step": 16}  # copied below, because PyYAML writes an anchor for an object that occurs twice
    return {
        "format_version": "0.5.9",
        "type": "model",
        "name": "Nuclei with a marker",
        "description": "Whether nuclei in channel 1 have a marker in channel 2. Trained on drawn pictures; an example.",
        "version": "1.0.0",
        "timestamp": "2026-11-29T00:00:00+00:00",
        "authors": [{"name": "BioScopeAI contributors"}],
        "license": "MIT",
        "tags": ["nuclei", "fluorescence", "classification"],
        "inputs": [
            {
                "id": "image",
                "axes": [
                    {"type": "batch"},
                    {"type": "channel", "channel_names": ["nuclei", "marker"]},
                    {"type": "space", "id": "y", "size": dict(size), "unit": "micrometer", "scale": PIXEL_UM},
                    {"type": "space", "id": "x", "size": dict(size), "unit": "micrometer", "scale": PIXEL_UM},
                ],
                "data": {"type": "uint16", "range": [0, 65535]},
                "preprocessing": [
                    {"id": "zero_mean_unit_variance", "kwargs": {"axes": ["channel", "y", "x"], "eps": EPS}},
                    {"id": "scale_linear", "kwargs": {"gain": GAIN, "offset": 0.0}},
                    {"id": "ensure_dtype", "kwargs": {"dtype": "float32"}},
                ],
                "test_tensor": {"source": "test_input.npy", "sha256": digest("test_input.npy")},
            }
        ],
        "outputs": [
            {
                "id": "scores",
                "axes": [{"type": "batch"}, {"type": "channel", "channel_names": list(LABELS)}],
                "data": {"type": "float32", "range": [0, 1]},
                "postprocessing": [{"id": "softmax", "kwargs": {"axis": "channel"}}],
                "test_tensor": {"source": "test_output.npy", "sha256": digest("test_output.npy")},
            }
        ],
        "weights": {"onnx": {"source": "model.onnx", "sha256": digest("model.onnx"), "opset_version": 18}},
        "config": {
            "bioscope": {
                "model": "nuclei-marker",
                "labels": {"marker_negative": "nuclei without the marker", "marker_positive": "nuclei with the marker"},
                "input": {"bit_depths": [16], "pixel_size_um": PIXEL_UM},
                "review_below": 0.8,
                "training_data": "1,500 drawn pictures",
            }
        },
    }


def write_tensors(picture: NDArray[np.uint16]) -> None:
    """A picture, and what the network and the postprocessing make of it."""
    session = onnxruntime.InferenceSession(PACKAGE / "model.onnx", providers=["CPUExecutionProvider"])
    (logits,) = session.run(["scores"], {"image": prepared(picture[None]).numpy()})
    np.save(PACKAGE / "test_input.npy", picture[None])
    np.save(PACKAGE / "test_output.npy", torch.softmax(torch.from_numpy(logits).double(), dim=1).float().numpy())


def write_image(path: Path, pictures: NDArray[np.uint16]) -> None:
    """A TIFF of ImageJ: (2, height, width), or (planes, 2, height, width) for a stack."""
    axes = "CYX" if pictures.ndim == 3 else "ZCYX"
    tifffile.imwrite(path, pictures, imagej=True, resolution=(1 / PIXEL_UM, 1 / PIXEL_UM), metadata={"axes": axes, "unit": "um"})


def write_labels(folder: Path, labels: dict[str, str]) -> None:
    with (folder / "manifest.csv").open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerows([("file", "label"), *labels.items()])


def main() -> None:
    random = np.random.default_rng(1)
    torch.set_num_threads(1)
    fit(*examples(1500, random))
    pictures, classes = examples(600, random)
    print(f"accuracy on 600 other pictures: {(NETWORK.eval()(pictures).argmax(1) == classes).float().mean():.3f}")
    for folder in (PACKAGE, IMAGES, STACKS):
        folder.mkdir(parents=True, exist_ok=True)

    export(PACKAGE / "model.onnx")
    write_tensors(drawn("marker_positive", random))
    (PACKAGE / "rdf.yaml").write_text(yaml.safe_dump(manifest(), sort_keys=False, width=120))

    found = {f"field_{number}.tif": label for number, label in enumerate(LABELS * 2, 1)}
    for name, label in found.items():
        write_image(IMAGES / name, drawn(label, random, side=72))
    write_labels(IMAGES, found)

    dark, sharp = drawn("no_nuclei", random), drawn("marker_positive", random)
    write_image(STACKS / "stack.tif", np.stack([dark, sharp, dark]))
    write_labels(STACKS, {"stack.tif": "marker_positive"})


if __name__ == "__main__":
    main()
