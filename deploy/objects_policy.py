"""Gives the bucket its policy: for each process what its file in blob-policies says, in the name of its user.

Runs at each start, after objects-user.sh, as the user who owns the bucket. Harmless to repeat. On a store with policies of users, such as
AWS, nothing of this is needed: attach each file to the user of its process.
"""

import json
import os
from pathlib import Path
from typing import Any, Final

import botocore.session
from botocore.config import Config

POLICIES: Final = Path(__file__).with_name("blob-policies")
BUCKET: Final = "bioscope"
REGION: Final = "us-east-1"


def bucket_policy(policies: Path, users: dict[str, str]) -> dict[str, Any]:
    """`users`: by process, the key of its user."""
    statements = [
        {"Principal": {"AWS": [user]}} | statement
        for process, user in users.items()
        for statement in json.loads((policies / f"{process}.json").read_text())["Statement"]
    ]
    return {"Version": "2012-10-17", "Statement": statements}


def main() -> None:
    users = {path.stem: os.environ[f"BIOSCOPE_{path.stem.upper()}_BLOBS_KEY"] for path in sorted(POLICIES.glob("*.json"))}
    client = botocore.session.get_session().create_client(
        "s3",
        endpoint_url=os.environ["BIOSCOPE_BLOBS_ENDPOINT"],
        aws_access_key_id=users["app"],
        aws_secret_access_key=os.environ["BIOSCOPE_APP_BLOBS_SECRET"],
        region_name=REGION,
        config=Config(signature_version="s3v4", s3={"addressing_style": "path"}, retries={"total_max_attempts": 5}),
    )
    client.put_bucket_policy(Bucket=BUCKET, Policy=json.dumps(bucket_policy(POLICIES, users)))


if __name__ == "__main__":
    main()
