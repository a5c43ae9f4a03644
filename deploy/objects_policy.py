"""Set the policy of the bucket: for the user of each process, the rights in its file in blob-policies.

Runs at each start, after objects-user.sh, as the user that owns the bucket. It may be repeated. A store
with policies per user, such as AWS, does not need it: attach each file to the user of its process.
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
    """Combine the policies into one. `users` maps each process to the access key of its user."""
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
