"""Two releases side by side: an older one as a copy of the code, and the processes of both."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path
from types import MappingProxyType

import httpx
import msgspec
import psycopg

from infrastructure.configuration.settings import PREFIX
from infrastructure.embedded.installation import environment, with_free_port
from tests.rigs.waiting import wait_until

ROOT = Path(__file__).parents[2]
PACKAGES = ("domain", "application", "infrastructure", "projections", "api")
DECLARES = "infrastructure/eventstore/capabilities.py"  # in releases since which processes say what they understand
SETTINGS = "infrastructure/configuration/settings.py"
START = "import sys; sys.path.insert(0, {folder!r}); from api.cli import main; main()"
WITHIN = 60.0  # seconds


def older_release(folder, *, without, tag=None, versions=MappingProxyType({})):
    """The packages of `tag`, or else of this code, without some event types, and with others at an earlier schema version."""
    if tag is None:
        for package in PACKAGES:
            shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        with tarfile.open(fileobj=BytesIO(_git("archive", tag, *PACKAGES))) as archive:
            archive.extractall(folder, filter="data")
    with (folder / "domain" / "registry.py").open("a") as registry:
        for name in without:
            registry.write(f"\nEVENTS.pop({name!r}, None), NOUN_OF.pop({name!r}, None)\n")
        for name, version in versions.items():
            registry.write(f"\nEVENTS[{name!r}].schema_version = {version}\n")
    return folder


def previous_tag():
    """The newest earlier release whose processes declare what they understand; None where the history holds none."""
    try:
        tags = _git("tag", "--list", "v*", "--sort=-version:refname", "--no-contains", "HEAD").decode().split()
    except (OSError, subprocess.CalledProcessError):
        return None
    return next((tag for tag in tags if _git("ls-tree", "--name-only", tag, DECLARES)), None)


def _git(*arguments):
    return subprocess.run(["git", "-C", ROOT, *arguments], check=True, capture_output=True).stdout


class Processes:
    """By name; each of this release, or of another one in `folder`. Logs lie in `logs`."""

    def __init__(self, settings, logs):
        self._settings, self._logs = settings, logs
        self._running = {}
        self._stack = ExitStack()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for name in list(self._running):
            self.end(name)
        self._stack.close()

    def start(self, name, kind, *, folder=ROOT):
        """The settings of the process: an API listens on a port of its own."""
        given = msgspec.structs.replace(self._settings, port=0, inference_processes=1)
        given = with_free_port(given)
        log = self._stack.enter_context((self._logs / f"{name}.log").open("ab"))
        variables = without_settings_unknown_to(folder, environment(given, os.environ)) | {
            "BIOSCOPE_ROOT_KEY_FILE": str(given.root_key_path)
        }
        command = [sys.executable, "-P", "-c", START.format(folder=str(folder)), kind]
        self._running[name] = subprocess.Popen(command, env=variables, cwd=given.data, stdout=log, stderr=log)
        return given

    def end(self, name):
        process = self._running.pop(name)
        process.terminate()
        process.wait(20)


def without_settings_unknown_to(folder, variables):
    """As `environment` of the release in the folder would make them."""
    known = {f"{PREFIX}{name.upper()}" for name in re.findall(r"^    (\w+):", (folder / SETTINGS).read_text(), re.MULTILINE)}
    return {name: value for name, value in variables.items() if name in known or not name.startswith(PREFIX)}


def declared(owner_url):
    """How many processes of each kind run, by their own account."""
    with psycopg.connect(owner_url) as connection:
        return dict(connection.execute("select kind, count(*) from ops.capabilities where ops.is_live(seen_at) group by 1").fetchall())


def until(holds, *, within=WITHIN):
    """What `holds` returns, once that is true."""
    return wait_until(holds, within=within, ignoring=[httpx.TransportError, psycopg.OperationalError])
