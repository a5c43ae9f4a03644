"""The sandbox of the processes that decode images and run models: what they give up, and what this kernel offers."""

from infrastructure.sandbox.detection import supported
from infrastructure.sandbox.layers import Layers, enter, enter_empty_directory

__all__ = ["Layers", "enter", "enter_empty_directory", "supported"]
