"""docker-compose.yml, .env.example and the Dockerfile agree with the settings. No container engine is needed."""

import re
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import pytest
import yaml

from api.cli.processes import PROCESSES
from infrastructure.configuration.names import OTHER_NAMES
from infrastructure.configuration.settings import PREFIX, Settings, WrongSetting, load
from infrastructure.security.process_keys import PROCESS_NEEDS
from tests.contracts.s3 import VERSITYGW
from tests.release.dockerfile import copied, stages

ROOT = Path(__file__).parent.parent
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SETTINGS = {PREFIX + field.name.upper(): field for field in msgspec.structs.fields(Settings)}
EXAMPLE = dict(line.split("=", 1) for line in (ROOT / ".env.example").read_text().splitlines() if "=" in line and not line.startswith("#"))
OF_OUR_IMAGE = {name: service for name, service in COMPOSE["services"].items() if str(service.get("image", "")).startswith("bioscope")}
OURS = {name: service for name, service in OF_OUR_IMAGE.items() if "entrypoint" not in service}
"""The processes, and the commands of an operator."""
SERVICE_KEYS = {
    "image", "build", "command", "environment", "volumes", "ports", "depends_on", "healthcheck", "restart", "user", "tmpfs", "read_only",
    "cap_drop", "security_opt", "logging", "pids_limit", "mem_limit", "deploy", "secrets", "shm_size", "entrypoint",
}  # fmt: skip
CONDITIONS = {"service_started", "service_healthy", "service_completed_successfully"}
STAGES = stages((ROOT / "Dockerfile").read_text())
ONE_SHOT = {"migrate", "objects-user", "objects-policy"}


def test_the_example_lists_every_setting_with_its_default_and_nothing_else():
    assert set(EXAMPLE) == set(SETTINGS)
    assert load(EXAMPLE) == Settings()


def test_the_compose_file_uses_only_keys_of_the_specification():
    assert set(COMPOSE) - {key for key in COMPOSE if key.startswith("x-")} <= {"name", "services", "volumes", "secrets", "networks"}
    for name, service in COMPOSE["services"].items():
        assert set(service) <= SERVICE_KEYS, name
        for condition in dict(service.get("depends_on", {})).values():
            assert condition["condition"] in CONDITIONS, name


def test_services_volumes_and_secrets_that_are_named_exist():
    for name, service in COMPOSE["services"].items():
        assert set(service.get("depends_on", {})) <= set(COMPOSE["services"]), name
        named = {volume.split(":")[0] for volume in service.get("volumes", []) if not volume.startswith(("./", "/"))}
        assert named <= set(COMPOSE["volumes"]), name
        assert set(service.get("secrets", [])) <= set(COMPOSE["secrets"]), name
        for volume in service.get("volumes", []):
            if volume.startswith("./"):
                assert (ROOT / volume.split(":")[0]).exists(), volume


def test_whoever_must_be_healthy_says_how_that_is_seen():
    needed = {
        other
        for service in COMPOSE["services"].values()
        for other, how in dict(service.get("depends_on", {})).items()
        if how["condition"] == "service_healthy"
    }
    assert needed
    assert [other for other in needed if "healthcheck" not in COMPOSE["services"][other]] == []


def filled_in(text):
    """Each variable as its default, or as the example or some value where there must be one."""
    with_defaults = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)
    return re.sub(r"\$\{\w+:\?[^}]*?(?:e\.g\. (\S+?))?\}", lambda variable: variable[1] or "x", with_defaults)


def test_every_variable_of_our_services_is_a_setting_that_loads():
    for name, service in OURS.items():
        given = {key: filled_in(str(value)) for key, value in service["environment"].items()}
        assert set(given) <= set(SETTINGS), name
        loaded = load(given)
        assert loaded.environment == "production"
        assert loaded.password_strength == "production"


def test_each_service_has_the_keys_of_its_process_and_none_has_the_root_key():
    for name, service in OURS.items():
        given = service["environment"]
        process = "api" if name == "migrate" else name  # which serves the commands of operators too
        keys = f"{process}_keys" if PROCESS_NEEDS[process] else None
        assert set(service["secrets"]) == {"metrics_token", *([keys] if keys else [])}, name
        assert given.get("BIOSCOPE_KEY_FILE") == (f"/run/secrets/{keys}" if keys else None), name
        assert "BIOSCOPE_ROOT_KEY_FILE" not in given, name
    assert not [secret for secret in COMPOSE["secrets"].values() if "root" in secret["file"]]


def test_every_process_signs_in_to_the_database_with_its_own_role():
    for name, service in OURS.items():
        role = {"migrate": "app", "inference-bridge": "inference"}.get(name, name)
        assert urlsplit(filled_in(service["environment"]["BIOSCOPE_POSTGRES_URL"])).username == f"bioscope_{role}"
        passwords = set(re.findall(r"\$\{(\w+PASSWORD)", str(service["environment"])))
        assert passwords - {"BIOSCOPE_OWNER_PASSWORD"} == {f"BIOSCOPE_{role.upper()}_PASSWORD"}, name


def test_every_process_has_a_service_that_runs_it():
    assert {next(iter(service["command"])) for service in OURS.values()} == {"migrate", *PROCESSES}


def test_our_containers_are_hardened_and_only_the_api_is_published_on_loopback():
    for service in OF_OUR_IMAGE.values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert "no-new-privileges:true" in service["security_opt"]
        assert service["user"] != "0:0"
    published = {name: service["ports"] for name, service in COMPOSE["services"].items() if "ports" in service}
    assert published == {"api": ["127.0.0.1:8000:8000"]}


def writable(service):
    """The paths below which a container may write."""
    volumes = [volume.split(":") for volume in service.get("volumes", [])]
    return {Path(path.split(":")[0]) for path in service.get("tmpfs", [])} | {
        Path(volume[1]) for volume in volumes if "ro" not in volume[2:]
    }


def test_our_containers_can_write_to_their_working_directory_home_and_data():
    (workdir,) = (rest for name, rest in STAGES[-1] if name == "WORKDIR")
    (home,) = (re.search(r"--home-dir (\S+)", rest)[1] for name, rest in STAGES[-1] if "useradd" in rest)
    for name, service in OURS.items():
        needed = {Path("/tmp"), Path(workdir), Path(home), Path(service["environment"]["BIOSCOPE_DATA"])}
        assert all(any(path.is_relative_to(root) for root in writable(service)) for path in needed), name


def test_what_a_container_owns_belongs_to_the_user_of_the_image():
    (uid,) = (re.search(r"--uid (\d+)", rest)[1] for name, rest in STAGES[-1] if "useradd" in rest)
    assert ("USER", uid) in STAGES[-1]
    for name, service in OURS.items():
        assert service["user"].split(":")[0] == uid
        for owned in (path for path in service["tmpfs"] if "uid=" in path):
            assert f"uid={uid},gid={uid}" in owned, name


def test_every_process_says_how_its_health_is_seen():
    for name, service in COMPOSE["services"].items():
        assert ("healthcheck" in service) == (name not in ONE_SHOT), name
    for name, service in OURS.items():
        if name not in ONE_SHOT:
            (process,) = service["command"]
            assert service["healthcheck"]["test"] == ["CMD", "bioscope", "health", process]


def test_a_scraper_reaches_the_metrics_of_each_process_with_the_secret():
    for service in OURS.values():
        given = load({key: filled_in(str(value)) for key, value in service["environment"].items()})
        assert given.metrics_port
        assert given.metrics_host == "0.0.0.0"
        assert given.metrics_token_file == "/run/secrets/metrics_token"
        assert "metrics_token" in service["secrets"]


def test_nothing_of_our_image_is_an_administrator_of_the_object_store():
    assert {name for name, service in COMPOSE["services"].items() if "OBJECTS_ROOT" in str(service)} == {"objects", "objects-user"}


def test_every_process_signs_in_to_the_object_store_as_its_own_user():
    assert "BLOBS_KEY" not in str(OURS["inference-bridge"]["environment"]), "a bridge reads no files"
    for name, service in OURS.items():
        if name == "inference-bridge":
            continue
        user = "APP" if name == "migrate" else name.upper()
        assert set(re.findall(r"\$\{(\w+_BLOBS_(?:KEY|SECRET))", str(service["environment"]))) == {
            f"BIOSCOPE_{user}_BLOBS_KEY",
            f"BIOSCOPE_{user}_BLOBS_SECRET",
        }, name


def test_the_service_that_writes_the_policy_knows_the_secret_of_the_buckets_owner_alone():
    named = re.findall(r"\$\{(\w+SECRET)", str(COMPOSE["services"]["objects-policy"]))
    assert named == ["BIOSCOPE_APP_BLOBS_SECRET"]


def test_each_process_has_a_policy_of_the_object_store():
    assert {path.stem for path in (ROOT / "deploy" / "blob-policies").iterdir()} == {"app", *PROCESS_NEEDS} - {"inference-bridge"}


def test_the_object_store_is_the_one_that_is_tested():
    images = {service["image"] for name, service in COMPOSE["services"].items() if name in {"objects", "objects-user"}}
    assert images == {f"versity/versitygw:{VERSITYGW.partition('@')[2]}"}


def test_every_variable_that_only_the_compose_file_asks_for_is_known():
    asked = set(re.findall(r"\$\{(\w+)", (ROOT / "docker-compose.yml").read_text()))
    assert asked - set(SETTINGS) == {name for name, reader in OTHER_NAMES.items() if reader.startswith("docker-compose.yml")}


def test_a_builder_gets_what_the_dockerfile_copies_and_nothing_else():
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    assert {Path(line[1:]) for line in lines if line.startswith("!")} == set(copied(STAGES[0]))


def test_git_ignores_secrets_and_data():
    assert {"secrets/", ".env", ".bioscope/"} <= set((ROOT / ".gitignore").read_text().splitlines())


def test_no_password_has_a_default():
    text = (ROOT / "docker-compose.yml").read_text()
    names = set(re.findall(r"\$\{(\w*(?:PASSWORD|SECRET|KEY)\w*)", text))
    assert names
    for name in names:
        assert re.search(r"\$\{" + name + r":\?", text)
        assert not re.search(r"\$\{" + name + r":-", text)


def test_no_proxy_is_trusted_unless_somebody_names_it():
    assert Settings().trusted_proxies == ()
    for service in OURS.values():
        assert service["environment"]["BIOSCOPE_TRUSTED_PROXIES"].startswith("${BIOSCOPE_TRUSTED_PROXIES:?")


def test_images_are_pinned_and_maintained():
    for service in COMPOSE["services"].values():
        image = service["image"]
        assert ":" in image
        assert not image.endswith(":latest")
        assert "minio" not in image


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("BIOSCOPE_PORT", "eighty", "a port number from 0 to 65535, not 'eighty'"),
        ("BIOSCOPE_PORT", "70000", "65535"),
        ("BIOSCOPE_LOG_LEVEL", "loud", "debug, info, warning or error"),
        ("BIOSCOPE_IMAGE_MAX_PIXELS", "0", ">= 1"),
        ("BIOSCOPE_LOG_JSON", "perhaps", "true or false"),
        ("BIOSCOPE_TRUSTED_PROXIES", "10.0.0.1/8", "host bits"),
        ("BIOSCOPE_INFERENCE_HANG_SECONDS", "-1", "> 0"),
        ("BIOSCOPE_INFERENCE_HANG_SECONDS", "inf", "a number > 0"),
        ("BIOSCOPE_KAFKA_FETCH_WAIT", "nan", "a number > 0"),
        ("BIOSCOPE_ENVIRONMENT", "prod", "development or production, not 'prod'"),
    ],
)
def test_a_wrong_setting_is_named_with_what_it_expects(variable, value, said):
    with pytest.raises(WrongSetting) as wrong:
        load({variable: value})
    assert variable in str(wrong.value)
    assert said in str(wrong.value)


def test_the_locks_pin_every_package_with_hashes_and_name_no_index():
    locks = list((ROOT / "requirements").glob("*.txt"))
    assert {lock.stem for lock in locks} == {"dev", "kserve", "production", "sdk", "train"}
    for lock in locks:
        text = lock.read_text()
        pinned = re.findall(r"^([a-zA-Z0-9_.\[\]-]+)==", text, re.MULTILINE)
        assert len(pinned) > 20, lock
        assert text.count("--hash=sha256:") >= len(pinned)
        assert not re.search(r"https?://|--index|--find-links", text), lock


def test_kafka_keeps_its_log_on_its_volume():
    kafka = COMPOSE["services"]["kafka"]
    assert kafka["volumes"] == [f"kafka:{kafka['environment']['KAFKA_LOG_DIRS']}"]
