"""Atomic writes: a file is written completely or not at all."""

import stat

import pytest

from infrastructure.atomic_files import write_atomically, write_private


@pytest.mark.parametrize("durable", [True, False])
def test_a_file_is_replaced_by_one_that_only_its_owner_may_read(tmp_path, durable):
    file = tmp_path / "file"
    file.write_text("before")
    file.chmod(0o644)
    write_atomically(file, [b"one, ", b"two"], durable=durable)
    assert (file.read_text(), stat.S_IMODE(file.stat().st_mode)) == ("one, two", 0o600)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_write_that_fails_leaves_the_file_as_it_was(tmp_path):
    def pieces():
        yield b"half"
        raise LookupError

    file = tmp_path / "file"
    file.write_text("before")
    with pytest.raises(LookupError):
        write_atomically(file, pieces())
    assert file.read_text() == "before"
    write_private(file, "afterwards")
    assert file.read_text() == "afterwards"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
