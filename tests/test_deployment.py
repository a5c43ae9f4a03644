"""docker-compose.yml and .env.example say the same as the settings; no engine is needed to know it."""

import re
from pathlib import Path

import msgspec
import pytest
import yaml

from infrastructure.settings import PREFIX, Settings, WrongSetting, load

ROOT = Path(__file__).parent.parent
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SETTINGS = {PREFIX + field.name.upper(): field for field in msgspec.structs.fields(Settings)}
EXAMPLE = dict(line.split("=", 1) for line in (ROOT / ".env.example").read_text().splitlines() if "=" in line and not line.startswith("#"))
OURS = {name: service for name, service in COMPOSE["services"].items() if str(service.get("image", "")).startswith("bioscope")}
SERVICE_KEYS = {
    "image", "build", "command", "environment", "volumes", "ports", "depends_on", "healthcheck", "restart", "user", "tmpfs", "read_only",
    "cap_drop", "security_opt", "logging", "pids_limit", "mem_limit", "deploy", "secrets", "shm_size",
}  # fmt: skip
CONDITIONS = {"service_started", "service_healthy", "service_completed_successfully"}


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
    for service in COMPOSE["services"].values():
        for other, how in dict(service.get("depends_on", {})).items():
            if how["condition"] == "service_healthy":
                assert "healthcheck" in COMPOSE["services"][other]


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
        assert loaded.root_key_path == Path("/run/secrets/root_key")


def test_every_process_has_a_service_that_runs_it():
    assert {next(iter(service["command"])) for service in OURS.values()} == {"migrate", "api", "relay", "projector", "inference"}


def test_our_containers_are_hardened_and_only_the_api_is_published_on_loopback():
    for service in OURS.values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert "no-new-privileges:true" in service["security_opt"]
        assert service["user"] != "0:0"
    published = {name: service["ports"] for name, service in COMPOSE["services"].items() if "ports" in service}
    assert published == {"api": ["127.0.0.1:8000:8000"]}


def test_no_password_has_a_default():
    text = (ROOT / "docker-compose.yml").read_text()
    for name in set(re.findall(r"\$\{(\w*(?:PASSWORD|SECRET|KEY)\w*)", text)):
        assert re.search(r"\$\{" + name + r":\?", text)
        assert not re.search(r"\$\{" + name + r":-", text)


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
    for lock in (ROOT / "requirements").glob("*.txt"):
        text = lock.read_text()
        pinned = re.findall(r"^([a-zA-Z0-9_.\[\]-]+)==", text, re.MULTILINE)
        assert len(pinned) > 50, lock
        assert text.count("--hash=sha256:") >= len(pinned)
        assert not re.search(r"https?://|--index|--find-links", text), lock


def test_kafka_keeps_its_log_on_its_volume():
    kafka = COMPOSE["services"]["kafka"]
    assert kafka["volumes"] == [f"kafka:{kafka['environment']['KAFKA_LOG_DIRS']}"]
