"""The version of the image reader. It is apart from the reader, so that a process that reads no image need not load it."""

from typing import Final

READER_VERSION: Final = 2
"""Increased by every change that can give other pixels. It is part of each rendition's name. Version 1 used Pillow."""
