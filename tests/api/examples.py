"""The examples in the help of commands, as words for the parser."""

import shlex

SHELL = {'eval "$(': "", ')"': ""}


def words_of(example):
    """Without `bioscope`, and without what the shell does with the output."""
    for shell, nothing in SHELL.items():
        example = example.replace(shell, nothing)
    program, *words = shlex.split(example)
    assert program == "bioscope"
    return words[: words.index(">")] if ">" in words else words
