"""The S3 server of the compose file, with the users and the policy that the scripts in deploy/ give it."""

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import s3fs

from infrastructure.configuration.settings import Settings
from tests.contracts.s3 import BUCKET, KEY, SECRET, s3_server, versitygw
from tests.release.installing import ROOT

PROCESSES = ("app", "api", "relay", "projector", "inference")


class ObjectStore:
    """Two buckets: one of the processes, one of somebody else. `folder` holds what is stored."""

    def __init__(self, endpoint, folder):
        self.endpoint, self.folder = endpoint, folder / BUCKET
        self._admin = {"ADMIN_ACCESS_KEY": KEY, "ADMIN_SECRET_KEY": SECRET, "ADMIN_ENDPOINT_URL": endpoint}

    def set_up(self, secret="first-secret"):
        """As the services `objects-user` and `objects-policy` do at each start."""
        path = f"{Path(versitygw()).parent}:{os.environ['PATH']}"
        users = {f"BIOSCOPE_{name.upper()}_BLOBS_KEY": user(name) for name in PROCESSES}
        secrets = {f"BIOSCOPE_{name.upper()}_BLOBS_SECRET": secret for name in PROCESSES}
        run(["sh", ROOT / "deploy" / "objects-user.sh"], PATH=path, **users, **secrets, **self._admin)
        owner = {"BIOSCOPE_BLOBS_ENDPOINT": self.endpoint, "BIOSCOPE_APP_BLOBS_SECRET": secret}
        run([sys.executable, ROOT / "deploy" / "objects_policy.py"], **users, **owner)

    def admin(self, *arguments):
        run([versitygw(), "admin", *arguments], **self._admin)

    def settings(self, process, secret="first-secret", **more):
        """Data of its own beside the store's folder, unless another folder is given."""
        given = {"blobs_url": f"s3://{BUCKET}", "blobs_endpoint": self.endpoint, "blobs_key": user(process), "blobs_secret": secret}
        return Settings(**{"data": self.folder.parent.with_name(f"data-of-{process}")} | given | more)

    def files(self, process, secret="first-secret"):
        return s3fs.S3FileSystem(
            key=user(process),
            secret=secret,
            client_kwargs={"endpoint_url": self.endpoint},
            use_listings_cache=False,
            skip_instance_cache=True,
        )


def user(process):
    return f"user-of-{process}"


def run(command, **variables):
    done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


@contextmanager
def object_store(folder):
    (folder / "iam").mkdir()
    with s3_server(folder / "objects", "--health", "/health", "--iam-dir", str(folder / "iam"), bucket=False) as endpoint:
        store = ObjectStore(endpoint, folder / "objects")
        store.set_up()
        store.admin("create-user", "--access", "other", "--secret", "other-secret", "--role", "user")
        store.admin("create-bucket", "--owner", "other", "--bucket", "theirs")
        yield store
