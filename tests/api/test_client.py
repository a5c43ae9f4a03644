"""The command line's client reports an error of one file with that file."""

from api.cli.client.api_client import Client
from api.cli.client.credentials import Credentials
from api.cli.client.image_folder import image_file


def test_a_file_that_cannot_be_read_ends_no_run(tmp_path):
    gone = image_file(tmp_path / "gone.tif", tmp_path)
    with Client(Credentials("http://127.0.0.1:1", "token")) as client:
        (uploaded,) = client.upload_all("a dataset", [gone])
    assert (uploaded.id, uploaded.refused) == ("", "cannot be read: No such file or directory")
