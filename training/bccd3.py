"""`python -m training.bccd3 --data DIR --out models/bccd3`: trains BCCD-3 on crops of red cells, white cells and platelets."""

import argparse
import os
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from infrastructure.inference.preprocessing import Preprocessing, decoded, resized
from training.bccd import Field, fields
from training.export import Description
from training.fit import Course, Examples, fit
from training.foreign import lost_for_training, strange_for_training, whole_for_training
from training.network import CellNetwork
from training.pictures import data_folder
from training.publish import Known, pictured, publish
from training.sets import bccd_crops

LABELS = ["red_cell", "white_cell", "platelet"]
OTHER = "other"
HOW = Preprocessing(size=48, mean=(0.76, 0.68, 0.72), std=(0.12, 0.12, 0.1), colour_profile="srgb")
COURSE = Course(stages=((24, 48),), seed=20261, subtype_part=0.0, smoothing=0.02)
REPEATS = {"red_cell": 1, "white_cell": 6, "platelet": 6}
ABOUT = Description(
    model="bccd3",
    title="BCCD-3 blood film elements",
    version="1.1.0",
    text="Red cell, white cell, platelet and `other`: a crop that holds one of them, with a margin of a quarter. Not for diagnosis.",
    licence="MIT",
    cite=[{"text": "BCCD Dataset, github.com/Shenggan/BCCD_Dataset, commit d272fb1", "doi": "10.48550/arXiv.2407.13214"}],
    training_data="BCCD_Dataset (MIT), boxes of 179 fields; `other` from public test images and drawn patterns",
    tags=["blood", "cell", "classification", "brightfield"],
)


def examples(data: Path, chosen: list[Field]) -> Examples:
    """Crops of the training fields, with rare classes repeated, and foreign pictures."""
    crops = [(label, encoded) for _, label, encoded in bccd_crops(chosen) for _ in range(REPEATS[label])]
    foreign = [pixels for _, pixels in strange(data, chosen, "train")]
    pictures = [*(resized(decoded(encoded), HOW) for _, encoded in crops), *(resized(Image.fromarray(pixels), HOW) for pixels in foreign)]
    classes = [LABELS.index(label) for label, _ in crops] + [len(LABELS)] * len(foreign)
    return Examples(np.stack(pictures), np.array(classes), np.full(len(classes), -1))


def strange(data: Path, chosen: list[Field], split: str) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    chance = np.random.default_rng([COURSE.seed, split == "tune"])
    crops = [encoded for _, _, encoded in bccd_crops(chosen)]
    return chain(strange_for_training(data, chance), whole_for_training(chosen), lost_for_training(crops, chance, blurred=400))


def known(chosen: list[Field]) -> Known:
    crops = list(bccd_crops(chosen))
    return Known([encoded for _, _, encoded in crops], np.array([LABELS.index(label) for _, label, _ in crops]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder that contains bccd and formats")
    parser.add_argument("--out", type=Path, required=True, help="model folder to write")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="number of threads [default: %(default)s]")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    data = data_folder(given.data)
    smears = {split: [field for field in fields(data) if field.split == split] for split in ("train", "tune")}
    torch.manual_seed(COURSE.seed)
    network = CellNetwork(len(LABELS) + 1, widths=(16, 32, 64, 96), depths=(0, 1, 1, 1))
    network = fit(network, examples(data, smears["train"]), HOW, COURSE)
    publish(
        network,
        given.out,
        ABOUT,
        COURSE,
        labels=[*LABELS, OTHER],
        other=OTHER,
        how=HOW,
        train=known(smears["train"]),
        tune=known(smears["tune"]),
        strange=pictured(strange(data, smears["tune"], "tune")),
    )


if __name__ == "__main__":
    main()
