"""Metrics and health of one process over HTTP: open on loopback, with a secret elsewhere."""

import asyncio
import http.client
import http.server
import os
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

from infrastructure.configuration.settings import Settings, WrongSetting
from infrastructure.embedded.data_folder import locked
from infrastructure.embedded.installation import environment, publish, with_free_port
from infrastructure.observability.heartbeat import HEARTBEAT, STALE_AFTER_SECONDS, Heartbeat
from infrastructure.observability.metrics_server import MetricsServer, metrics_token, serve_metrics
from infrastructure.process_lifecycle import CannotStart

ROOT = Path(__file__).parents[3]
SECRET = "0123456789abcdef"


@pytest.fixture
def token_file(tmp_path):
    path = tmp_path / "metrics.token"
    path.write_text(f"{SECRET}\n")
    return str(path)


def served(heartbeat=HEARTBEAT, process="relay", **given):
    """The port on which this process serves its metrics from now on."""
    port = with_free_port(Settings(port=0)).port
    serve_metrics(Settings(metrics_port=port, **given), process, heartbeat=heartbeat)
    return port


def asked(port, path, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def test_metrics_are_served_on_loopback_in_the_form_of_prometheus():
    status, text = asked(served(), "/metrics")
    assert status == 200
    assert "process_resident_memory_bytes" in {family.name for family in text_string_to_metric_families(text)}


def test_no_port_serves_nothing():
    before = set(threading.enumerate())
    serve_metrics(Settings(metrics_port=0, metrics_host="0.0.0.0"), "relay")
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("sent", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": SECRET}, {"Authorization": "Bearer "}])
def test_metrics_for_others_need_the_secret(token_file, sent):
    port = served(metrics_host="0.0.0.0", metrics_token_file=token_file)
    assert asked(port, "/metrics", **sent)[0] == 401
    assert asked(port, "/metrics", Authorization=f"Bearer {SECRET}")[0] == 200
    assert asked(port, "/elsewhere", Authorization=f"Bearer {SECRET}")[0] == 404


def test_a_secret_counts_on_loopback_too(token_file):
    assert asked(served(metrics_token_file=token_file), "/metrics")[0] == 401


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "scraped.example.org"])
def test_an_address_for_others_is_refused_without_a_secret(host):
    with pytest.raises(WrongSetting, match="BIOSCOPE_METRICS_TOKEN_FILE is not set"):
        metrics_token(Settings(metrics_port=9100, metrics_host=host))


@pytest.mark.parametrize("text", ["", "short", "a secret with blanks", "0123456789abcde\x00f", "0123456789abcde\u00e9"])
def test_a_secret_that_cannot_be_used_is_refused(tmp_path, text):
    path = tmp_path / "token"
    path.write_text(text)
    with pytest.raises(WrongSetting, match="BIOSCOPE_METRICS_TOKEN_FILE"):
        metrics_token(Settings(metrics_token_file=str(path)))


def test_a_secret_that_is_not_there_is_named(tmp_path):
    with pytest.raises(WrongSetting, match="none cannot be read"):
        metrics_token(Settings(metrics_token_file=str(tmp_path / "none")))


def test_a_port_in_use_is_named():
    port = served()
    with pytest.raises(CannotStart, match=f"127.0.0.1:{port} cannot be bound for metrics"):
        serve_metrics(Settings(metrics_port=port), "relay")


def test_a_heart_beats_until_the_loop_hangs():
    times = [0.0]
    heartbeat = Heartbeat(clock=lambda: times[-1])
    assert not heartbeat.is_alive()
    heartbeat.beat()
    assert heartbeat.is_alive()
    times.append(float("inf"))
    assert not heartbeat.is_alive()


def test_the_event_loop_beats_the_heart():
    heartbeat = Heartbeat()

    async def wait_for_a_beat():
        beating = asyncio.create_task(heartbeat.beat_always())
        await asyncio.sleep(0)
        beating.cancel()

    asyncio.run(wait_for_a_beat())
    assert heartbeat.is_alive()


def test_health_follows_the_heartbeat_and_needs_no_secret(token_file):
    times = [0.0]
    heartbeat = Heartbeat(clock=lambda: times[-1])
    port = served(heartbeat, metrics_host="0.0.0.0", metrics_token_file=token_file)
    heartbeat.beat()
    assert asked(port, "/health") == (200, "ok\n")
    times.append(STALE_AFTER_SECONDS + 1)
    assert asked(port, "/health")[0] == 503


@pytest.fixture
def failing():
    """A server whose heartbeat raises RuntimeError."""

    class FailingHeartbeat(Heartbeat):
        def is_alive(self):
            raise RuntimeError("no heart")

    with MetricsServer(("127.0.0.1", 0), "relay", "", FailingHeartbeat()) as server:
        yield server


def answer_one(server, sent, *, leaves):
    """Send a request, and answer it in this thread; the client that `leaves` resets the connection before that."""
    with socket.create_connection(server.server_address) as client:
        request, address = server.get_request()
        client.sendall(sent)
        if leaves:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
        server.process_request_thread(request, address)


def test_a_client_that_goes_away_leaves_nothing_in_the_log(failing, capfd):
    with capture_logs() as lines:
        answer_one(failing, b"GET /met", leaves=True)
    assert lines == []
    assert capfd.readouterr().err == ""


def test_another_error_is_one_line_of_the_log(failing, capfd):
    with capture_logs() as lines:
        answer_one(failing, b"GET /health HTTP/1.0\r\n\r\n", leaves=False)
    assert [(line["event"], line["log_level"]) for line in lines] == [("request for metrics or health failed", "error")]
    assert capfd.readouterr().err == ""


# ---- the command ---------------------------------------------------------------------------------------------------------------------
def health(process, **given):
    return subprocess.run(
        [sys.executable, "-m", "api.cli", "health", process],
        env=environment(Settings(**given), os.environ),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


def test_a_healthy_process_passes_its_check():
    HEARTBEAT.beat()
    done = health("relay", metrics_port=served())
    assert (done.returncode, done.stdout) == (0, "the process relay is healthy\n")


def test_the_port_of_another_process_fails_the_check():
    HEARTBEAT.beat()
    port = served(process="relay")
    done = health("projector", metrics_port=port)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"port {port} is that of the relay, not of the projector" in done.stderr
    assert "BIOSCOPE_METRICS_PORT" in done.stderr


def test_the_port_of_a_process_is_found_in_its_running_installation(tmp_path):
    HEARTBEAT.beat()
    relay, projector = served(process="relay"), served(process="projector")
    with locked(tmp_path / "data"):
        publish(Settings(data=tmp_path / "data"), metrics_ports={"relay": relay, "projector": projector})
        done = health("projector", data=tmp_path / "data", metrics_port=relay)
    assert (done.returncode, done.stdout) == (0, "the process projector is healthy\n")


def test_a_server_of_another_program_fails_the_check(tmp_path):
    class OtherProgram(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), OtherProgram) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        done = health("relay", metrics_port=server.server_port)
        server.shutdown()
    assert (done.returncode, done.stdout) == (1, "")
    assert f"port {server.server_port} is not that of the relay" in done.stderr


@pytest.mark.parametrize("process", ["api", "relay", "projector", "inference", "inference-bridge"])
def test_a_process_that_does_not_listen_fails_its_check(process):
    port = with_free_port(Settings(port=0)).port
    done = health(process, port=port, metrics_port=port)
    assert done.returncode == 1
    assert f"127.0.0.1:{port}" in done.stderr


def test_a_check_without_a_port_says_what_to_set():
    done = health("relay")
    assert done.returncode == 2
    assert "BIOSCOPE_METRICS_PORT" in done.stderr


def test_no_process_starts_with_metrics_for_others_without_a_secret():
    given = {"metrics_port": 9100, "metrics_host": "0.0.0.0", "postgres_url": "postgresql:///none", "kafka_url": "127.0.0.1:1"}
    done = subprocess.run(
        [sys.executable, "-m", "api.cli", "relay"],
        env=environment(Settings(**given), os.environ),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 2
    assert "BIOSCOPE_METRICS_TOKEN_FILE is not set" in done.stderr
