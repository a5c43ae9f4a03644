"""The sandbox of processes that decode images and run models."""

from infrastructure.sandbox.detection import supported
from infrastructure.sandbox.layers import Layers, enter, enter_empty_directory

__all__ = ["Layers", "enter", "enter_empty_directory", "supported"]
