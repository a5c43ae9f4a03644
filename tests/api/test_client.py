"""The command line's client: an error names the file, the job or the server that it is about."""

import io
import json
import threading
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from click.testing import CliRunner
from rich.console import Console

from api.cli import main
from api.cli.client import jobs
from api.cli.client.api_client import Client, JobNotVisible, RequestRefused, _poll_interval
from api.cli.client.credentials import Credentials
from api.cli.client.image_folder import image_file
from api.cli.errors import operator_error_of

FOUND = 200, {"status": "completed"}
NOT_FOUND = 404, {"detail": "Classification not found"}


@contextmanager
def server_of(answers, *, port=0):
    """The address of a server that gives each path its answers in turn; the last one stays."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.do_GET()

        def do_GET(self):
            mine = answers[self.path]
            status, body, *headers = mine[0] if len(mine) == 1 else mine.pop(0)
            self.send_response(status)
            for name, value in headers:
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_):
            """Print nothing."""

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            serving.join()


@contextmanager
def client_of(answers, **options):
    with server_of(answers) as url, Client(Credentials(url, "token"), **options) as client:
        yield client


def test_a_file_that_cannot_be_read_ends_no_run(tmp_path):
    gone = image_file(tmp_path / "gone.tif", tmp_path)
    with Client(Credentials("http://127.0.0.1:1", "token")) as client:
        (uploaded,) = client.upload_all("a dataset", [gone])
    assert (uploaded.id, uploaded.refused) == ("", "cannot be read: No such file or directory")


def test_a_new_job_is_watched_as_soon_as_queries_show_it():
    with client_of({"/api/classifications/job-1": [NOT_FOUND, NOT_FOUND, FOUND]}) as client:
        assert list(client.watch("job-1")) == [FOUND[1]]


def test_a_job_that_stays_invisible_is_named_with_where_to_look():
    with client_of({"/api/classifications/job-1": [NOT_FOUND]}, visible_timeout_seconds=0) as client:
        with pytest.raises(JobNotVisible) as raised:
            list(client.watch("job-1"))
        sentence, code = operator_error_of(raised.value)
        assert sentence.startswith("job job-1 was created, but the server does not show it yet")
        assert f"{client.credentials.url}/health/ready" in sentence
        assert code == 1


def test_a_job_that_disappears_while_it_is_watched_is_not_waited_for():
    answers = {"/api/classifications/job-1": [(200, {"status": "running"}), NOT_FOUND]}
    with client_of(answers) as client, pytest.raises(RequestRefused, match="Job not found"):
        list(client.watch("job-1"))


def test_all_pages_of_the_failures_are_read():
    path = "/api/classifications/job-1/failures?page_size=200"
    following = "/api/classifications/job-1/failures?page_size=200&cursor=next"
    answers = {path: [(200, [{"image_id": "a"}], ("Link", f'<{following}>; rel="next"'))], following: [(200, [{"image_id": "b"}])]}
    with client_of(answers) as client:
        assert client.failures("job-1") == [{"image_id": "a"}, {"image_id": "b"}]


@pytest.mark.parametrize(
    ("status", "sentence"), [(401, "the e-mail address or password is wrong at {url} (another server: --url)"), (429, "Too many attempts")]
)
def test_a_refused_sign_in_names_the_server_if_the_password_is_wrong(status, sentence):
    with server_of({"/api/auth/login": [(status, {"detail": "Too many attempts"})]}) as url:
        done = CliRunner().invoke(main, ["login", "--url", url, "--email", "a@example.org"], env={"BIOSCOPE_PASSWORD": "x"})
    assert done.exit_code == 1
    assert " ".join(done.stderr.split()) == f"bioscope: {sentence.format(url=url)}"


# ---- outages -----------------------------------------------------------------------------------------------------------------------
RUNNING = 200, {"status": "running"}
PATH = "/api/classifications/job-1"


@pytest.mark.parametrize("status", [502, 503, 504])
def test_an_outage_is_reported_once_and_waited_for(status):
    noticed = []
    with client_of({PATH: [RUNNING, (status, {}), (status, {}), FOUND]}, max_outage_seconds=0.5) as client:
        assert list(client.watch("job-1", on_outage=lambda: noticed.append(1))) == [RUNNING[1], FOUND[1]]
    assert noticed == [1]


def test_a_watched_job_survives_a_restart_of_the_server():
    with ExitStack() as stack:
        first = stack.enter_context(ExitStack())
        url = first.enter_context(server_of({PATH: [RUNNING]}))
        client = stack.enter_context(Client(Credentials(url, "token"), max_outage_seconds=0.5))
        port = int(url.rpartition(":")[2])
        states = client.watch("job-1", on_outage=lambda: stack.enter_context(server_of({PATH: [FOUND]}, port=port)))
        assert next(states) == RUNNING[1]
        first.close()
        assert list(states) == [FOUND[1]]


def test_a_server_that_stays_away_ends_the_command_with_how_to_watch_again():
    out = io.StringIO()
    running = 200, {"status": "running", "succeeded": 0, "failed": 0, "images": 2}
    answers = {PATH: [running, (503, {"detail": "away"})]}
    with client_of(answers, max_outage_seconds=0) as client, pytest.raises(RequestRefused, match="away"):
        jobs.watch(client, "job-1", Console(file=out))
    assert "The job job-1 continues on the server. Watch it with: bioscope jobs watch job-1" in " ".join(out.getvalue().split())


def test_a_refusal_is_no_outage():
    with client_of({PATH: [RUNNING, (403, {"detail": "No more"})]}) as client, pytest.raises(RequestRefused, match="No more"):
        list(client.watch("job-1"))


def test_a_job_is_asked_for_less_often_the_longer_it_runs():
    assert [_poll_interval(seconds) for seconds in (0, 5, 50, 1000)] == [0.15, 0.15, 1.0, 2.0]


def test_only_as_many_pages_are_read_as_are_wanted():
    first, second = "/api/datasets?page_size=200", "/api/datasets?cursor=2"
    pages = {first: [(200, [1] * 200, ("Link", f'<{second}>; rel="next"'))], second: [(200, [2] * 200, ("Link", '</none>; rel="next"'))]}
    with client_of(pages | {"/api/datasets?page_size=3": [(200, [1, 1, 1], ("Link", '</none>; rel="next"'))]}) as client:
        assert client.all("/api/datasets", maximum=201) == [1] * 200 + [2]
        assert client.all("/api/datasets", maximum=3, name=None) == [1, 1, 1]
