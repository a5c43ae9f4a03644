"""Key files: a process gets the keys that it needs, and nobody else may read its file."""

import os
import stat

import msgspec
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from api.cli import main
from api.cli.admin import keys as command_line
from infrastructure.configuration.settings import Settings
from infrastructure.security.key_ring import NO_KEYS, Key
from infrastructure.security.keys import KeyRing, MissingKey, Purpose, RootKey, WrongRootKey
from infrastructure.security.process_keys import PROCESS_NEEDS, exported, process_keys, read_key_file, write_key_file

ROOT = RootKey(bytes(range(32)))
WITH_KEYS = [process for process, needs in PROCESS_NEEDS.items() if needs]


@pytest.fixture
def settings(tmp_path):
    (tmp_path / "root.key").write_text("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n")
    return Settings(data=tmp_path, root_key_file=tmp_path / "root.key")


@pytest.mark.parametrize("process", WITH_KEYS)
def test_a_process_has_the_same_keys_from_its_file_as_from_the_root_key(process, settings, tmp_path):
    write_key_file(tmp_path / "its.keys", ROOT, process)
    from_file = process_keys(msgspec.structs.replace(settings, key_file="its.keys", root_key_file=tmp_path / "gone"), process)
    from_root = process_keys(settings, process)
    needs = PROCESS_NEEDS[process]
    for purpose in Purpose:
        assert from_file.holds(purpose) == from_root.holds(purpose) == (purpose in needs.secret)
        if purpose in needs.secret:
            assert from_file.newest(purpose).secret == from_root.newest(purpose).secret == ROOT.derive(purpose)
        if purpose in needs.public:
            assert from_file.public(purpose) == from_root.public(purpose) == ROOT.public(purpose)


def test_inference_reads_no_file_at_all(tmp_path):
    assert process_keys(Settings(data=tmp_path / "gone", key_file="gone"), "inference") is NO_KEYS


def test_a_key_file_is_private_whatever_the_umask_is(tmp_path):
    before = os.umask(0)
    try:
        write_key_file(tmp_path / "its.keys", ROOT, "api")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "its.keys").stat().st_mode) == 0o600
    assert not (tmp_path / "its.keys.part").exists()


@given(st.data())
def test_a_key_file_with_a_changed_character_is_refused_or_says_the_same(tmp_path_factory, data):
    text = exported(ROOT, "relay")
    at = data.draw(st.integers(0, len(text) - 1))
    file = tmp_path_factory.mktemp("changed") / "its.keys"
    file.write_text(text[:at] + data.draw(st.characters(codec="ascii", categories=["L", "N", "P"])) + text[at + 1 :])
    try:
        ring = read_key_file(file)
    except WrongRootKey:
        return
    for purpose in PROCESS_NEEDS["relay"].secret:
        assert not ring.holds(purpose) or ring.newest(purpose).secret == ROOT.derive(purpose)


def test_a_file_that_lacks_a_purpose_is_refused_at_the_start(settings, tmp_path):
    write_key_file(tmp_path / "its.keys", ROOT, "relay")
    with pytest.raises(MissingKey, match=r"bioscope keys export"):
        process_keys(msgspec.structs.replace(settings, key_file="its.keys"), "projector")


def test_a_file_holds_several_keys_of_a_purpose_the_newest_first(tmp_path):
    newest, oldest = Key(bytes(32)), Key(bytes(range(32)))
    ring = KeyRing({purpose: [newest, oldest] for purpose in PROCESS_NEEDS["relay"].secret})
    write_key_file(tmp_path / "its.keys", ring, "relay")
    read = read_key_file(tmp_path / "its.keys").all(Purpose.RELAY_RECORDS)
    assert [key.id for key in read] == [newest.id, oldest.id]


def command(settings, *arguments):
    answer = CliRunner().invoke(main, [*map(str, arguments)], env={"BIOSCOPE_ROOT_KEY_FILE": str(settings.root_key_file)})
    return answer.exit_code, answer.output


def test_keys_are_exported_and_never_over_another_file(settings, tmp_path):
    assert command(settings, "keys", "export", "relay", tmp_path / "relay.keys")[0] == 0
    assert read_key_file(tmp_path / "relay.keys").signing("heads").public_key() == ROOT.signing("heads").public_key()
    code, output = command(settings, "keys", "export", "projector", tmp_path / "relay.keys")
    assert (code, "--force" in output) == (1, True)
    assert command(settings, "keys", "export", "projector", tmp_path / "relay.keys", "--force")[0] == 0
    assert not read_key_file(tmp_path / "relay.keys").holds("heads")


def test_each_process_that_needs_keys_can_have_a_file():
    assert list(command_line.WITH_KEYS) == WITH_KEYS


def test_inference_and_unknown_processes_have_no_file(settings, tmp_path):
    for process in ("inference", "nobody"):
        assert command(settings, "keys", "export", process, tmp_path / "its.keys")[0] == 2
    assert not (tmp_path / "its.keys").exists()


def test_the_list_shows_ids_and_no_key(settings):
    code, output = command(settings, "keys", "list")
    assert code == 0
    for purpose in Purpose:
        assert ROOT.newest(purpose).id.hex() in output
        assert ROOT.derive(purpose).hex() not in output
