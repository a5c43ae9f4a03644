"""`python -m training.pbc8 --data DIR --out models/pbc8`: trains PBC-8, the model of eight classes of blood cells."""

import argparse
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from infrastructure.inference.preprocessing import Preprocessing, decoded
from training.export import Description
from training.fit import Course, Examples, fit
from training.foreign import for_training
from training.network import CellNetwork
from training.pictures import Picture, data_folder, pbc8
from training.publish import Known, pictured, publish

LABELS = ["basophil", "eosinophil", "erythroblast", "ig", "lymphocyte", "monocyte", "neutrophil", "platelet"]
OTHER = "other"
SUBTYPES = ["BNE", "SNE", "MMY", "MY", "PMY", "IG"]
HOW = Preprocessing(size=80, centre_crop=5 / 6, mean=(0.87, 0.75, 0.72), std=(0.16, 0.18, 0.09), colour_profile="srgb")
COURSE = Course(stages=((60, 64), (36, 80)), seed=20260)
ABOUT = Description(
    model="pbc8",
    title="PBC-8 blood cells",
    version="1.1.0",
    text="Eight classes of normal peripheral blood cells and `other`: one stained cell in the middle of the picture. Not for diagnosis.",
    licence="CC-BY-4.0",
    cite=[
        {
            "text": "A. Acevedo et al., A dataset of microscopic peripheral blood cell images for development of automatic recognition "
            "systems, Data in Brief 30 (2020) 105474",
            "doi": "10.1016/j.dib.2020.105474",
        }
    ],
    training_data="Mendeley Data doi:10.17632/snkd93bnjr.1 (CC BY 4.0): 4,675 cells; `other`: their surroundings, public test images",
    tags=["blood", "cell", "classification", "brightfield", "May-Gruenwald-Giemsa"],
)


def train(data: Path, pictures: list[Picture], checkpoint: Path | None) -> CellNetwork:
    """Train on the split `train` and foreign pictures, or load the checkpoint if it exists."""
    torch.manual_seed(COURSE.seed)
    network = CellNetwork(len(LABELS) + 1, subtypes=len(SUBTYPES))
    if checkpoint and checkpoint.exists():
        network.load_state_dict(torch.load(checkpoint))
        return network.eval()
    network = fit(network, examples(data, pictures), HOW, COURSE)
    if checkpoint:
        torch.save(network.state_dict(), checkpoint)
    return network


def examples(data: Path, pictures: list[Picture]) -> Examples:
    cells = [picture for picture in pictures if picture.split == "train"]
    foreign = [pixels for _, pixels in strange(data, cells, "train")]
    return Examples(
        np.stack([*(np.asarray(decoded(cell.data)) for cell in cells), *foreign]),
        np.array([LABELS.index(cell.label) for cell in cells] + [len(LABELS)] * len(foreign)),
        np.array([SUBTYPES.index(cell.subtype) if cell.subtype in SUBTYPES else -1 for cell in cells] + [-1] * len(foreign)),
    )


def strange(data: Path, cells: list[Picture], split: str) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    return for_training(data, [cell.data for cell in cells], np.random.default_rng([COURSE.seed, split == "tune"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder that contains pbc8 and formats")
    parser.add_argument("--out", type=Path, required=True, help="model folder to write")
    parser.add_argument("--checkpoint", type=Path, help="file of the trained weights: loaded if it exists, otherwise written")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="number of threads [default: %(default)s]")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    data = data_folder(given.data)
    pictures = pbc8(data)
    resumed = bool(given.checkpoint and given.checkpoint.exists())
    network = train(data, pictures, given.checkpoint)
    publish(
        network,
        given.out,
        ABOUT,
        COURSE,
        labels=[*LABELS, OTHER],
        other=OTHER,
        how=HOW,
        train=_known(pictures, "train"),
        tune=_known(pictures, "tune"),
        resumed=resumed,
        strange=pictured(strange(data, [picture for picture in pictures if picture.split == "tune"], "tune")),
    )


def _known(pictures: list[Picture], split: str) -> Known:
    chosen = [picture for picture in pictures if picture.split == split]
    return Known([picture.data for picture in chosen], np.array([LABELS.index(picture.label) for picture in chosen]))


if __name__ == "__main__":
    main()
