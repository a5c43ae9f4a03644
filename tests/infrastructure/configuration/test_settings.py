"""Settings: each variable is read, or refused with a reason; values are shown with their sources, secrets are not."""

import re
from pathlib import Path

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from infrastructure.configuration.names import OTHER_NAMES, is_injected
from infrastructure.configuration.settings import Settings, WrongSetting, load, variable
from infrastructure.configuration.sources import shown_settings

ROOT = Path(__file__).parents[3]
VARIABLES = {variable(field.name) for field in msgspec.structs.fields(Settings)}
NAME = re.compile(r"(?<![A-Z_])BIOSCOPE_[A-Z0-9_]*[A-Z0-9](?![A-Z0-9_*])")
WITH_WRONG_NAMES = {Path(__file__).name, "test_cli_errors.py", "first-users.md"}
TEXTS = {".py", ".sh", ".yml", ".yaml", ".md", ".toml", ".example", ".txt", ".mk", ""}

words = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=8)
labels = st.lists(words, min_size=1, max_size=3).map("-".join)


def refusal(**environment):
    with pytest.raises(WrongSetting) as refused:
        load(environment)
    return str(refused.value)


# ---- names -------------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "suggested"),
    [
        ("BIOSCOPE_POSTGRS_URL", "BIOSCOPE_POSTGRES_URL"),
        ("BIOSCOPE_KAFKA_URLS", "BIOSCOPE_KAFKA_URL"),
        ("BIOSCOPE_BLOB_URL", "BIOSCOPE_BLOBS_URL"),
        ("BIOSCOPE_TOKNE", "BIOSCOPE_TOKEN"),
        ("BIOSCOPE_SERVICE_HOSTS", "BIOSCOPE_METRICS_HOST"),
        ("BIOSCOPE_XYZZY", None),
    ],
)
@pytest.mark.parametrize("value", ["x", ""])
def test_an_unknown_name_is_refused_with_the_nearest_known_one(name, suggested, value):
    said = refusal(**{name: value})
    assert said.startswith(f"{name} is not a setting")
    assert ("Did you mean " + str(suggested) in said) == (suggested is not None)
    assert ("bioscope config show" in said) == (suggested is None)


@given(st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_", max_size=30).map("BIOSCOPE_{}".format))
def test_every_name_that_nothing_reads_is_refused(name):
    assume(name not in VARIABLES and name not in OTHER_NAMES and not is_injected(name, "1"))
    assert name in refusal(**{name: "1"})


def test_all_that_is_wrong_is_named_at_once():
    said = refusal(BIOSCOPE_POSTGRS_URL="x", BIOSCOPE_PORT="eighty", BIOSCOPE_LOG_LEVEL="loud").splitlines()
    assert [line.split()[0] for line in said] == ["BIOSCOPE_POSTGRS_URL", "BIOSCOPE_PORT", "BIOSCOPE_LOG_LEVEL"]


@pytest.mark.parametrize("name", ["classification_job_topic", "classification_result_topic"])
@pytest.mark.parametrize("topic", ["", "jobs of ours", "a/b", "bioscope.events", "x" * 250])
def test_a_topic_of_external_classifiers_is_a_name_for_kafka_and_none_of_ours(name, topic):
    if not topic:
        assert getattr(load({variable(name): ""}), name) == getattr(Settings(), name), "the default"
        return
    with pytest.raises(WrongSetting, match="must be a name of a Kafka topic"):
        load({variable(name): topic})


def test_jobs_and_answers_of_external_classifiers_have_two_topics():
    with pytest.raises(WrongSetting, match="must be another topic than BIOSCOPE_CLASSIFICATION_JOB_TOPIC"):
        load({"BIOSCOPE_CLASSIFICATION_JOB_TOPIC": "same", "BIOSCOPE_CLASSIFICATION_RESULT_TOPIC": "same"})


def test_names_with_other_readers_and_of_other_programs_are_left_alone():
    assert load(dict.fromkeys([*OTHER_NAMES, "BIOSCOPEX", "PATH"], "x")) == Settings()


def files_of_the_tree():
    top = [path for path in ROOT.iterdir() if not path.name.startswith(".") or path.name in {".env.example", ".ci"}]
    found = [file for path in top for file in (path.rglob("*") if path.is_dir() else [path])]
    return [file for file in found if file.is_file() and file.suffix in TEXTS and file.name not in WITH_WRONG_NAMES]


def test_every_name_in_the_tree_is_a_setting_or_listed():
    used = {file: set(NAME.findall(file.read_text(errors="replace"))) for file in files_of_the_tree()}
    assert len(set().union(*used.values())) > len(VARIABLES)
    for file, names in used.items():
        assert {name for name in names if not is_injected(name, "tcp://")} <= VARIABLES | set(OTHER_NAMES), file


def test_every_listed_name_is_used_and_documented_and_is_no_setting():
    texts = [file.read_text(errors="replace") for file in files_of_the_tree() if file.name not in {"names.py", "configure.md"}]
    documented = (ROOT / "docs" / "operations" / "configure.md").read_text()
    for name in OTHER_NAMES:
        assert any(name in text for text in texts), name
        assert f"`{name}`" in documented, name
    assert not VARIABLES & set(OTHER_NAMES)


# ---- Kubernetes --------------------------------------------------------------------------------------------------------------------
@st.composite
def kubernetes_variables(draw):
    """What Kubernetes sets in each container for a Service."""
    name = draw(st.one_of(st.just("bioscope"), labels.map("bioscope-{}".format)))
    prefix, host = name.upper().replace("-", "_"), draw(st.ip_addresses().map(str))
    ports = draw(st.lists(st.tuples(labels, st.integers(1, 65535), st.sampled_from(["TCP", "UDP", "SCTP"])), min_size=1, max_size=3))
    variables = {f"{prefix}_SERVICE_HOST": host, f"{prefix}_SERVICE_PORT": str(ports[0][1])}
    variables[f"{prefix}_PORT"] = f"{ports[0][2].lower()}://{host}:{ports[0][1]}"
    for label, port, protocol in ports:
        stem = f"{prefix}_PORT_{port}_{protocol}"
        variables[f"{prefix}_SERVICE_PORT_{label.upper().replace('-', '_')}"] = str(port)
        variables |= {stem: f"{protocol.lower()}://{host}:{port}", f"{stem}_PROTO": protocol.lower()}
        variables |= {f"{stem}_PORT": str(port), f"{stem}_ADDR": host}
    return variables


@given(kubernetes_variables())
def test_variables_of_kubernetes_services_change_nothing(variables):
    assert load(variables) == Settings()


def test_variables_of_kubernetes_do_not_overwrite_a_port():
    assert load({"BIOSCOPE_PORT": "tcp://10.0.0.1:8000", "BIOSCOPE_METRICS_PORT": "tcp://10.0.0.2:9000"}) == Settings()
    assert load({"BIOSCOPE_PORT": "9000", "BIOSCOPE_SERVICE_PORT": "8000"}).port == 9000
    assert "BIOSCOPE_API_PORT is not a setting" in refusal(BIOSCOPE_API_PORT="8000")


def test_no_setting_is_taken_for_a_variable_of_kubernetes():
    assert not [name for name in (*VARIABLES, *OTHER_NAMES) if is_injected(name, "1")]


# ---- URLs --------------------------------------------------------------------------------------------------------------------------
RIGHT_URLS = [
    ("BIOSCOPE_POSTGRES_URL", "postgresql://bioscope_app:p%40ss@postgres:5432/bioscope?sslmode=verify-full"),
    ("BIOSCOPE_POSTGRES_URL", "postgres://a@[::1]:5432,b.example.org:5433/bioscope"),
    ("BIOSCOPE_POSTGRES_URL", "postgresql://bioscope_app@/bioscope?host=%2Frun%2Fpostgres&port=5432"),
    ("BIOSCOPE_KAFKA_URL", "kafka:9092"),
    ("BIOSCOPE_KAFKA_URL", "[::1]:9092, k2.example.org:9093"),
    ("BIOSCOPE_REDIS_URL", "redis://:secret@redis:6379/0"),
    ("BIOSCOPE_REDIS_URL", "rediss://redis"),
    ("BIOSCOPE_REDIS_URL", "unix:///run/redis.sock?db=0"),
    ("BIOSCOPE_BLOBS_URL", "s3://bioscope"),
    ("BIOSCOPE_BLOBS_URL", "/srv/blobs"),
    ("BIOSCOPE_BLOBS_URL", "blobs of today: 7"),
    ("BIOSCOPE_BLOBS_ENDPOINT", "http://objects:7070"),
    ("BIOSCOPE_BLOBS_PUBLIC_ENDPOINT", "https://[2001:db8::1]"),
    ("BIOSCOPE_PUBLIC_URL", "https://lab.example.org/bioscope"),
    ("BIOSCOPE_SMTP_URL", "smtp://mail.example.org"),
    ("BIOSCOPE_SMTP_URL", "smtps://lab%40example.org@[2001:db8::1]:465"),
]
WRONG_URLS = [
    ("BIOSCOPE_BLOBS_URL", "gs://bioscope", "s3://BUCKET or the path of a folder; gs:// is not supported"),
    ("BIOSCOPE_BLOBS_URL", "minio://bioscope", "minio:// is not supported"),
    ("BIOSCOPE_BLOBS_URL", "file:///srv/blobs", "the path of a folder"),
    ("BIOSCOPE_BLOBS_URL", "s3:/bioscope", "s3://BUCKET"),
    ("BIOSCOPE_BLOBS_URL", "s3://", "s3://BUCKET"),
    ("BIOSCOPE_POSTGRES_URL", "mysql://h/d", "postgresql:// or postgres://"),
    ("BIOSCOPE_POSTGRES_URL", "host=h password=s3cret", "postgresql:// or postgres://"),
    ("BIOSCOPE_POSTGRES_OWNER_URL", "postgresql+psycopg://h/d", "postgresql+psycopg:// is not supported"),
    ("BIOSCOPE_POSTGRES_URL", "postgresql://u:s3cret@word@h/d", "percent-encode"),
    ("BIOSCOPE_POSTGRES_URL", "postgresql://u:s3cret/word@h/d", "percent-encode"),
    ("BIOSCOPE_POSTGRES_URL", "postgresql://u:s3cret#word@h/d", "percent-encode"),
    ("BIOSCOPE_POSTGRES_URL", "postgresql://u:s3cret%word@h/d", "percent-encode"),
    ("BIOSCOPE_POSTGRES_URL", "postgresql://h:port/d", "not a valid URL"),
    ("BIOSCOPE_POSTGRES_URL", "postgresql://[::1/d", "not a valid URL"),
    ("BIOSCOPE_KAFKA_URL", "SASL_SSL://kafka:9093", "without a scheme; SASL_SSL:// is not supported"),
    ("BIOSCOPE_KAFKA_URL", "kafka", "HOST:PORT"),
    ("BIOSCOPE_KAFKA_URL", "kafka:9092,", "HOST:PORT"),
    ("BIOSCOPE_REDIS_URL", "redis:6379", "redis://, rediss:// or unix://"),
    ("BIOSCOPE_REDIS_URL", "unix://", "unix:///path/to/socket"),
    ("BIOSCOPE_BLOBS_ENDPOINT", "objects:7070", "http:// or https://"),
    ("BIOSCOPE_BLOBS_ENDPOINT", "http://", "like https://"),
    ("BIOSCOPE_PUBLIC_URL", "lab.example.org", "http:// or https://"),
    ("BIOSCOPE_PUBLIC_URL", "ftp://lab.example.org", "ftp:// is not supported"),
    ("BIOSCOPE_PUBLIC_URL", "https://lab.example.org?x=1", "like https://"),
    ("BIOSCOPE_SMTP_URL", "mail.example.org:25", "smtp:// or smtps://"),
    ("BIOSCOPE_SMTP_URL", "smtp://", "like smtps://"),
    ("BIOSCOPE_SMTP_URL", "smtp://mail.example.org/box", "like smtps://"),
    ("BIOSCOPE_SMTP_URL", "smtp://mail.example.org?starttls=no", "like smtps://"),
    ("BIOSCOPE_SMTP_URL", "smtps://lab:s3cret@mail.example.org", "name that in BIOSCOPE_SMTP_PASSWORD_FILE"),
    ("BIOSCOPE_SMTP_URL", "smtps://lab:s3cret@word@mail.example.org", "percent-encode"),
]


@pytest.mark.parametrize(("name", "value"), RIGHT_URLS)
def test_supported_urls_are_taken_as_they_are(name, value):
    assert getattr(load({name: value}), name.removeprefix("BIOSCOPE_").lower()) == value


@pytest.mark.parametrize(("name", "value", "said"), WRONG_URLS)
def test_other_urls_are_refused_with_those_that_are_supported(name, value, said):
    refused = refusal(**{name: value})
    assert refused.startswith(f"{name} ")
    assert said in refused
    assert "s3cret" not in refused
    assert "word@" not in refused


@pytest.mark.parametrize("value", ["bioscope@example.org", "BioScopeAI <bioscope@example.org>", "Labor München <labor@example.org>"])
def test_a_sender_is_an_address_with_or_without_a_name(value):
    assert load({"BIOSCOPE_MAIL_FROM": value}).mail_from == value


@pytest.mark.parametrize("value", ["example.org", "a b@example.org", "<>", "A <a@example.org>\nBcc: eve@example.org", "ä@example.org"])
def test_anything_else_is_no_sender(value):
    assert "BIOSCOPE_MAIL_FROM must be an address" in refusal(BIOSCOPE_MAIL_FROM=value)


@pytest.mark.parametrize("value", ["[::1]", "http://localhost", "localhost:8000", "a b", "::1::2"])
def test_a_host_is_a_name_or_an_address(value):
    assert "BIOSCOPE_HOST must be a host name or an IP address" in refusal(BIOSCOPE_HOST=value)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8123"),
        ("localhost", "http://localhost:8123"),
        ("::1", "http://[::1]:8123"),
        ("2001:db8::1", "http://[2001:db8::1]:8123"),
        ("0.0.0.0", "http://127.0.0.1:8123"),
        ("::", "http://[::1]:8123"),
    ],
)
def test_the_url_of_a_host_can_be_opened(host, url):
    settings = load({"BIOSCOPE_HOST": host, "BIOSCOPE_PORT": "8123"})
    assert (settings.local_url, settings.base_url) == (url, url)
    behind_a_proxy = msgspec.structs.replace(settings, public_url="https://lab.example.org")
    assert (behind_a_proxy.local_url, behind_a_proxy.base_url) == (url, "https://lab.example.org")


# ---- shown -------------------------------------------------------------------------------------------------------------------------
def shown(environment, **options):
    settings, problems = shown_settings(environment, options)
    return {one.variable: (one.value, one.source) for one in settings}, problems


def test_each_setting_is_shown_with_its_value_and_its_source():
    values, problems = shown(
        {"BIOSCOPE_HOST": "::1", "BIOSCOPE_PORT": "9000", "BIOSCOPE_LOG_LEVEL": "", "BIOSCOPE_CORS_ORIGINS": "a,b"}, port=9001
    )
    assert set(values) == VARIABLES
    assert problems == []
    assert values["BIOSCOPE_HOST"] == ("::1", "environment")
    assert values["BIOSCOPE_PORT"] == (9001, "command line")
    assert values["BIOSCOPE_LOG_LEVEL"] == ("info", "default")
    assert values["BIOSCOPE_CORS_ORIGINS"] == (("a", "b"), "environment")
    assert values["BIOSCOPE_DATA"] == (".bioscope", "default")


def test_what_is_refused_is_shown_without_its_value():
    values, problems = shown({"BIOSCOPE_POSTGRES_URL": "mysql://u:s3cret@h/d", "BIOSCOPE_PRT": "1"})
    assert values["BIOSCOPE_POSTGRES_URL"] == (None, "environment")
    assert [problem.split()[0] for problem in problems] == ["BIOSCOPE_PRT", "BIOSCOPE_POSTGRES_URL"]


secrets = st.text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~!$&'()*+,;=", min_size=1, max_size=20).map(
    "canary{}".format
)


@given(secrets)
def test_no_password_is_shown(secret):
    environment = {
        "BIOSCOPE_BLOBS_KEY": secret,
        "BIOSCOPE_BLOBS_SECRET": secret,
        "BIOSCOPE_POSTGRES_URL": f"postgresql://bioscope_app:{secret}@postgres:5432/bioscope?sslmode=require",
        "BIOSCOPE_POSTGRES_OWNER_URL": f"postgresql://postgres/bioscope?user=a&password={secret.replace('&', '')}",
        "BIOSCOPE_REDIS_URL": f"rediss://:{secret}@redis/0",
        "BIOSCOPE_BLOBS_ENDPOINT": f"https://user:{secret}@objects",
    }
    values, problems = shown(environment)
    assert problems == []
    assert "canary" not in str(values)
    assert values["BIOSCOPE_POSTGRES_URL"][0] == "postgresql://bioscope_app:(hidden)@postgres:5432/bioscope?sslmode=require"
    assert values["BIOSCOPE_BLOBS_SECRET"][0] == "(hidden)"


@given(
    secret=secrets,
    name=st.sampled_from(["postgres_url", "redis_url", "blobs_url", "blobs_endpoint", "public_url", "kafka_url"]),
    wrong=st.text(max_size=5),
)
def test_no_refusal_repeats_a_password(secret, name, wrong):
    assume("\0" not in wrong)
    for value in (f"{wrong}://user:{secret}{wrong}@host/{wrong}", f"{wrong}{secret}{wrong}@host", f"postgresql://u:{secret}{wrong}@h/d"):
        _, problems = shown({variable(name): value})
        assert "canary" not in str(problems)
