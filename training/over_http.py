"""`python -m training.over_http --url URL --email EMAIL [--model pbc8] [--data DIR]`: compares a running system with the model folder.

Every `val` picture is uploaded and classified. Each score must be within 1e-4 of the score that the model folder gives here, and the
label must be the same. BIOSCOPE_PASSWORD has the password. The exit code is 1 if a result differs or is missing, or an upload is refused.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from api.cli.client.api_client import Client, UploadResult
from api.cli.client.image_folder import image_file
from infrastructure.inference.models.bundled import models
from infrastructure.inference.models.manifest import ModelManifest, load_manifest
from training.measure import Judged, judged
from training.pictures import data_folder
from training.sets import Set, for_model

TOLERANCE = 1e-4


class Compared(NamedTuple):
    """`faults` describe what differs; `largest` is the largest difference between two scores."""

    pictures: int
    largest: float
    faults: list[str]


def compared(client: Client, folder: Path, chosen: Set) -> Compared:
    """Compare the results over HTTP with those computed here. Raises Refused if the server refuses a request."""
    record, here = load_manifest(folder), judged(folder, chosen.encoded)
    with tempfile.TemporaryDirectory() as place:
        uploads = _uploaded(client, chosen, Path(place), dataset := client.create_dataset(f"Training pictures {time.time():.0f}"))
    faults = [f"{upload.image.name}: {upload.refused}" for upload in uploads if upload.refused]
    job = client.run(dataset, record.name)
    state = list(client.watch(job))[-1]
    if state["status"] != "completed":
        faults.append(f"the job ended as {state['status']}")
    found = {result["image_id"]: result for result in client.results(job)}
    differences = []
    for index, upload in enumerate(uploads):
        if (result := found.get(upload.id)) is None:
            faults.append(f"{chosen.names[index]}: no result")
            continue
        differences.append(_difference(record, here, index, result["scores"]))
        if differences[-1] > TOLERANCE or result["label"] != here.judgements[index].label:
            faults.append(f"{chosen.names[index]}: {result['label']}, scores differ by {differences[-1]:.2g}")
    return Compared(len(differences), max(differences, default=0.0), faults)


def _uploaded(client: Client, chosen: Set, place: Path, dataset: str) -> list[UploadResult]:
    paths = []
    for index, encoded in enumerate(chosen.encoded):
        suffix = "png" if encoded.startswith(b"\x89PNG") else "jpg"
        paths.append(place / f"{index:04}.{suffix}")
        paths[-1].write_bytes(encoded)
    return list(client.upload_all(dataset, [image_file(path, place) for path in paths]))


def _difference(record: ModelManifest, here: Judged, index: int, scores: dict[str, float]) -> float:
    expected = dict(zip(record.labels, here.judgements[index].scores, strict=True))
    return max(abs(expected[label] - scores.get(label, -1.0)) for label in expected)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True, help="address of the API")
    parser.add_argument("--email", required=True, help="account that may create datasets")
    parser.add_argument("--model", default="pbc8", help="name of the model [default: %(default)s]")
    parser.add_argument("--data", type=Path, help="folder that contains pbc8, bccd and formats")
    given = parser.parse_args()
    chosen = for_model(given.model, data_folder(given.data)).familiar["val"]
    with Client.sign_in(given.url, given.email, os.environ["BIOSCOPE_PASSWORD"]) as client:
        found = compared(client, models() / given.model, chosen)
    print(f"{found.pictures} of {len(chosen.names)} pictures: largest difference of a score {found.largest:.2g}")
    print(*found.faults, sep="\n")
    sys.exit(1 if found.faults else 0)


if __name__ == "__main__":
    main()
