"""An external classifier: it downloads each image of a job, and answers whether it is dark or bright.

    KAFKA=127.0.0.1:9092 URL=http://127.0.0.1:8000 TOKEN=... python external_classifier.py

`bioscope status` prints the address of Kafka. The token has the scope images:read. To make it a classifier of your own, replace
`classified`. docs/models/external.md describes the records.
"""

import asyncio
import io
import json
import math
import os
import sys
from urllib.request import Request, urlopen

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from PIL import Image, ImageStat

MODEL, MIDDLE_GREY, STEEPNESS = "brightness", 160, 0.1


def classified(file: bytes) -> tuple[str, float]:
    """A label and its confidence from 0 to 1, for the file of one image."""
    grey = ImageStat.Stat(Image.open(io.BytesIO(file)).convert("L")).mean[0]
    bright = 1 / (1 + math.exp(-STEEPNESS * (grey - MIDDLE_GREY)))
    return ("bright", bright) if bright >= 0.5 else ("dark", 1 - bright)


def downloaded(image_id: str) -> bytes:
    authorization = {"Authorization": f"Bearer {os.environ['TOKEN']}"}
    with urlopen(Request(f"{os.environ['URL']}/api/images/{image_id}/download", headers=authorization), timeout=10) as found:
        address = json.load(found)["url"]
    with urlopen(address, timeout=30) as file:
        return file.read()


async def main() -> None:
    kafka = {"bootstrap_servers": os.environ["KAFKA"]}
    jobs = AIOKafkaConsumer("classification-job", group_id=MODEL, auto_offset_reset="earliest", enable_auto_commit=False, **kafka)
    async with jobs, AIOKafkaProducer(**kafka) as answers:
        async for record in jobs:
            job = json.loads(record.value)
            if job["model_name"] != MODEL:
                continue
            try:
                label, confidence = classified(await asyncio.to_thread(downloaded, job["image_id"]))
            except Exception as error:  # no answer: the system sends the image again, and gives up after the third time
                print(f"{job['image_id']}: {error}", file=sys.stderr)
                continue
            answer = {"classification_id": job["classification_id"], "image_id": job["image_id"], "label": label, "confidence": confidence}
            await answers.send_and_wait("classification-result", json.dumps(answer | {"model_name": MODEL}).encode())
            await jobs.commit()


if __name__ == "__main__":
    asyncio.run(main())
