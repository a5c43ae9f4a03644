"""The frame header of a JPEG: size, components and their sampling (ITU-T T.81, annex B.2.2)."""

import struct
from typing import Final

import msgspec

from domain.errors import DamagedImage, UnsupportedImage
from infrastructure.images.validation.limits import ImageLimits, check_size

BASELINE, EXTENDED, PROGRESSIVE = 0xC0, 0xC1, 0xC2
BLOCK: Final = 8


class Component(msgspec.Struct, frozen=True):
    """A component with its sampling factors `across` and `down`. `index` is unique in the frame, unlike `id` of some encoders."""

    index: int
    id: int
    across: int
    down: int


class Frame(msgspec.Struct, frozen=True):
    """The content of a frame header, in the terms of the standard."""

    width: int
    height: int
    components: tuple[Component, ...]
    progressive: bool

    def named(self, identities: bytes) -> list[Component]:
        """For each id, the first component that is not in the list yet. Unknown ids are omitted."""
        found: list[Component] = []
        for identity in identities:
            found += [it for it in self.components if it.id == identity and it not in found][:1]
        return found

    def blocks(self, component: Component) -> int:
        across = parts_of(self.width * component.across, BLOCK * self._most_across)
        return across * parts_of(self.height * component.down, BLOCK * self._most_down)

    def units(self, scanned: list[Component]) -> int:
        """The number of minimum coded units in a scan of these components: single blocks for one component."""
        if len(scanned) == 1:
            return self.blocks(scanned[0])
        return parts_of(self.width, BLOCK * self._most_across) * parts_of(self.height, BLOCK * self._most_down)

    @property
    def has_whole_steps(self) -> bool:
        """Whether each component is subsampled by a whole number. No decoder supports anything else."""
        return all(self._most_across % it.across == 0 == self._most_down % it.down for it in self.components)

    @property
    def _most_across(self) -> int:
        return max(component.across for component in self.components)

    @property
    def _most_down(self) -> int:
        return max(component.down for component in self.components)


def read_frame(marker: int, body: bytes, limits: ImageLimits) -> Frame:
    """Parse and validate a frame header. Raises DamagedImage, UnsupportedImage, ImageTooLarge."""
    if marker not in {BASELINE, EXTENDED, PROGRESSIVE}:
        raise unsupported_coding()
    if len(body) < 6 or len(body) != 6 + 3 * body[5]:
        raise damaged("its header is broken")
    bits, height, width, count = struct.unpack(">BHHB", body[:6])
    check_size(width, height, count, limits)
    if bits != 8:
        raise UnsupportedImage(
            f"The JPEG file has {bits} bits per band; 8 are supported. Save it as TIFF or PNG with 16 bits", reason="unsupported_bit_depth"
        )
    if count not in {1, 3, 4}:
        raise UnsupportedImage(f"The JPEG file has {count} bands; 1, 3 or 4 are supported. Save it as TIFF", reason="unsupported_layout")
    listed = enumerate(struct.iter_unpack("BBB", body[6:]))
    components = tuple(Component(index, identity, sampling >> 4, sampling & 15) for index, (identity, sampling, _) in listed)
    if any(not (0 < it.across < 5 and 0 < it.down < 5) for it in components):
        raise damaged("its header is broken")
    frame = Frame(width, height, components, marker == PROGRESSIVE)
    if count > 1 and not frame.has_whole_steps:
        raise unsupported_coding()
    return frame


def unsupported_coding() -> UnsupportedImage:
    return UnsupportedImage(
        "The JPEG file uses a rare coding. Save it as an ordinary (baseline or progressive) JPEG", reason="unsupported_coding"
    )


def parts_of(whole: int, part: int) -> int:
    return -(-whole // part)


def damaged(what: str) -> DamagedImage:
    return DamagedImage(f"The JPEG file is damaged: {what}. Save or export it again", reason="structure")
