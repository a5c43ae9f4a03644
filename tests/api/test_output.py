"""Messages and tables at any width: no word, id or path is broken or lost."""

import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from fcntl import ioctl
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from api.cli.output import Column, fitted, print_message, print_table

WORDS = st.text("abcdef-/.", min_size=1, max_size=20)
PROSE = st.lists(WORDS, min_size=1, max_size=12).map(" ".join)
ID = "00000000-0000-0000-0000-000000000001"


def printed(columns, rows, width=None):
    file = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", str(width or ""))
        print_table(columns, rows, console=Console(file=file))
    return file.getvalue()


@given(PROSE, st.integers(20, 100))
def test_a_text_is_broken_between_words_only(text, width):
    lines = fitted(text, width).split("\n")
    assert " ".join(lines) == text
    assert all(len(line) <= width for line in lines)


def test_a_word_that_is_longer_than_the_line_stays_whole():
    assert fitted("in /a/very/long/path there", 8) == "in\n/a/very/long/path\nthere"


@given(st.lists(st.tuples(WORDS, PROSE, WORDS), min_size=1, max_size=5), st.integers(50, 120))
def test_every_cell_of_a_table_is_shown_whole_and_no_line_is_too_long(rows, width):
    shown = printed([Column("name"), Column("what", wraps=True), Column("number", right=True)], rows, width)
    assert all(len(line) <= width for line in shown.splitlines())
    words = shown.split()
    for row in rows:
        assert all(word in words for cell in row for word in cell.split())


def test_a_table_that_fits_has_a_line_for_each_row():
    shown = printed([Column("name"), Column("number", right=True)], [("a", "1"), ("bcd", "1000")], 80)
    assert shown == "name  number\na          1\nbcd     1000\n"


def test_prose_is_wrapped_inside_its_column():
    shown = printed([Column("id"), Column("what", wraps=True)], [("1", "a word and another word")], 20)
    assert shown == "id  what\n1   a word and\n    another word\n"


def test_a_table_that_does_not_fit_becomes_blocks_of_lines():
    shown = printed([Column("first"), Column("second")], [(ID, ID), (ID, "b")], 50)
    assert shown == f"first   {ID}\nsecond  {ID}\n\nfirst   {ID}\nsecond  b\n"


def test_in_a_file_a_table_is_as_wide_as_its_cells():
    shown = printed([Column("first"), Column("second", wraps=True)], [(ID, "a word " * 50)])
    assert len(shown.splitlines()) == 2


def test_in_a_file_a_message_is_one_line():
    file = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("COLUMNS", raising=False)
        print_message("a word " * 50, console=Console(file=file))
    assert file.getvalue().count("\n") == 1


def on_a_terminal(columns, *arguments):
    """What a command prints on a terminal of that width, without its colours."""
    leader, follower = pty.openpty()
    ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    variables = {name: value for name, value in os.environ.items() if name != "COLUMNS"} | {"TERM": "xterm"}
    command = [sys.executable, "-m", "api.cli", *arguments]
    with subprocess.Popen(command, stdin=follower, stdout=follower, stderr=follower, env=variables) as running:
        os.close(follower)
        parts = []
        while True:
            try:
                part = os.read(leader, 65536)
            except OSError:  # the other end was closed
                break
            if not part:
                break
            parts.append(part)
    os.close(leader)
    assert running.returncode is not None
    return re.sub(r"\x1b\[[0-9;]*m", "", b"".join(parts).decode()).replace("\r\n", "\n")


def test_an_error_on_a_terminal_is_broken_between_words_only():
    folder = Path("/nonexistent/a-folder-with-a-name/of-more-than-forty-columns")
    shown = on_a_terminal(80, "audit", "verify", "--data", str(folder))
    assert str(folder) in shown
    assert "bioscope: nothing runs on" in shown
    assert max(map(len, shown.splitlines())) <= 80
    assert len(shown.splitlines()) > 1


def test_wrong_use_on_a_terminal_is_broken_between_words_only():
    shown = on_a_terminal(60, "users", "list", "--role", "a-role-of-which-nobody-has-ever-heard")
    assert "'a-role-of-which-nobody-has-ever-heard'" in shown
    assert max(map(len, shown.splitlines())) <= 60
