"""Names of `BIOSCOPE_*` variables: settings, variables of other tools, and variables that Kubernetes injects."""

import re
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from typing import Final

PREFIX: Final = "BIOSCOPE_"
OTHER_NAMES: Final[Mapping[str, str]] = {
    "BIOSCOPE_URL": "command line, examples: address of the API",
    "BIOSCOPE_KEY": "command line: API key",
    "BIOSCOPE_TOKEN": "command line, examples: access token",
    "BIOSCOPE_PASSWORD": "`bioscope login`, `bioscope password`: password",
    "BIOSCOPE_NEW_PASSWORD": "`bioscope password`: the new password",
    "BIOSCOPE_ADMIN_EMAIL": "examples/walkthrough.sh: address of an administrator",
    "BIOSCOPE_ADMIN_PASSWORD": "`bioscope users create-admin`, examples/walkthrough.sh: password of an administrator",
    "BIOSCOPE_READY_FILE": "set by `bioscope up` for its processes",
    "BIOSCOPE_VERSION": "docker-compose.yml: tag of the image",
    "BIOSCOPE_APP_PASSWORD": "docker-compose.yml: password of the database role bioscope_app",
    "BIOSCOPE_API_PASSWORD": "docker-compose.yml: password of the database role bioscope_api",
    "BIOSCOPE_RELAY_PASSWORD": "docker-compose.yml: password of the database role bioscope_relay",
    "BIOSCOPE_PROJECTOR_PASSWORD": "docker-compose.yml: password of the database role bioscope_projector",
    "BIOSCOPE_INFERENCE_PASSWORD": "docker-compose.yml: password of the database role bioscope_inference",
    "BIOSCOPE_OWNER_PASSWORD": "docker-compose.yml: password of the database's owner",
    "BIOSCOPE_APP_BLOBS_KEY": "docker-compose.yml: user name in the object store of commands on the server",
    "BIOSCOPE_APP_BLOBS_SECRET": "docker-compose.yml: password in the object store of commands on the server",
    "BIOSCOPE_API_BLOBS_KEY": "docker-compose.yml: user name in the object store of api",
    "BIOSCOPE_API_BLOBS_SECRET": "docker-compose.yml: password in the object store of api",
    "BIOSCOPE_RELAY_BLOBS_KEY": "docker-compose.yml: user name in the object store of relay",
    "BIOSCOPE_RELAY_BLOBS_SECRET": "docker-compose.yml: password in the object store of relay",
    "BIOSCOPE_PROJECTOR_BLOBS_KEY": "docker-compose.yml: user name in the object store of projector",
    "BIOSCOPE_PROJECTOR_BLOBS_SECRET": "docker-compose.yml: password in the object store of projector",
    "BIOSCOPE_INFERENCE_BLOBS_KEY": "docker-compose.yml: user name in the object store of inference",
    "BIOSCOPE_INFERENCE_BLOBS_SECRET": "docker-compose.yml: password in the object store of inference",
    "BIOSCOPE_OBJECTS_ROOT_KEY": "docker-compose.yml: user name of the object store's administrator",
    "BIOSCOPE_OBJECTS_ROOT_SECRET": "docker-compose.yml: password of the object store's administrator",
    "BIOSCOPE_TRAINING_DATA": "`make train`: folder of the training images",
    "BIOSCOPE_TEST_JARS": "tests: folder of Apache Kafka's jars",
    "BIOSCOPE_TEST_VERSITYGW": "tests: path of the S3 server",
    "BIOSCOPE_BENCH_DATABASE": "benchmarks: set by themselves",
    "BIOSCOPE_BENCH_QUERY": "benchmarks: set by themselves",
    "BIOSCOPE_BENCH_FOLDER": "benchmarks: folder for their data",
    "BIOSCOPE_BENCH_PICTURES": "benchmarks: folder of images",
}
"""Variables that are not settings, each with its reader and meaning."""

SERVICE: Final = r"BIOSCOPE_(?:[A-Z0-9_]+_)?"
INJECTED_NAME: Final = re.compile(
    SERVICE + r"(?:SERVICE_HOST|SERVICE_PORT(?:_[A-Z0-9_]+)?|PORT_[0-9]+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)"
)
INJECTED_PORT_NAME: Final = re.compile(SERVICE + "PORT")
INJECTED_PORT_VALUE: Final = re.compile("(?:tcp|udp|sctp)://.*")
MIN_SIMILARITY: Final = 0.7  # of two names, from 0 to 1


def is_injected(name: str, value: str) -> bool:
    """Whether Kubernetes set this variable for a service called `bioscope` or `bioscope-...`.

    BIOSCOPE_PORT is the setting unless its value is an address such as tcp://10.0.0.1:8000.
    """
    if INJECTED_NAME.fullmatch(name):
        return True
    return bool(INJECTED_PORT_NAME.fullmatch(name) and INJECTED_PORT_VALUE.fullmatch(value))


def unknown_names(environment: Mapping[str, str], settings: Collection[str]) -> dict[str, str]:
    """The unknown `BIOSCOPE_*` variables, each with a message. `settings` are the variable names of all settings."""
    return {
        name: f"{name} is not a setting{_suggestion(name, settings)}"
        for name, value in environment.items()
        if name.startswith(PREFIX) and name not in settings and name not in OTHER_NAMES and not is_injected(name, value)
    }


def _suggestion(name: str, settings: Collection[str]) -> str:
    known = [other.removeprefix(PREFIX) for other in (*settings, *OTHER_NAMES)]
    for similar in get_close_matches(name.removeprefix(PREFIX), known, n=1, cutoff=MIN_SIMILARITY):
        return f". Did you mean {PREFIX}{similar}?"
    return ": unset it, or see `bioscope config show` for the names of all settings"
