"""A small residual network: less than a million parameters, a millisecond per picture on one core."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = convolution(channels, channels)
        self.second = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.second(self.first(x)))


class CellNetwork(nn.Module):
    """Maps normalised pictures (N, 3, S, S) to logits (N, classes). Each width halves the picture; `depths` counts its residual blocks."""

    def __init__(
        self, classes: int, *, subtypes: int = 0, widths: Sequence[int] = (24, 40, 96, 160), depths: Sequence[int] = (0, 1, 1, 1)
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, width, depth in zip((3, *widths), widths, depths, strict=False):
            layers += [convolution(before, width, stride=2), *(Residual(width) for _ in range(depth))]
        self.body = nn.Sequential(*layers)
        self.dropout = nn.Dropout(0.1)
        self.head = nn.Linear(widths[-1], classes)
        self.subtype_head = nn.Linear(widths[-1], subtypes) if subtypes else None

    def embedding(self, x: Tensor) -> Tensor:
        """The mean over the last feature map: (N, widths[-1])."""
        features: Tensor = self.body(x)
        return features.mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.embedding(x))
        return logits

    def with_subtypes(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits of the classes and, during training, of the subtypes that some pictures have."""
        found = self.dropout(self.embedding(x))
        return self.head(found), self.subtype_head(found) if self.subtype_head is not None else None


def convolution(before: int, after: int, *, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True))
