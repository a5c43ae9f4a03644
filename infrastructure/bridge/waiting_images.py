"""The images that wait for external classifiers: which to send next, and which to give up. Decisions only, without input or output.

A classifier works on one image after the other, reports no errors, and may lose what it was sent. So its silence is all there is to see.
Times are in seconds on any one clock.
"""

from collections import Counter, defaultdict, deque
from collections.abc import Collection, Iterable, Sequence
from itertools import chain
from math import ceil
from typing import Final, NamedTuple
from uuid import UUID

import msgspec

from application.jobs.external_answers import ImageKey

LONGEST_WAIT_IN_LEASES: Final = 10
SMALLEST_WINDOW: Final = 2
"""So that an image can be overtaken, which would fill a window of one for good."""


class BridgeLimits(NamedTuple):
    """`window`: images of one model that a partition holds ahead of the classifier, at most.

    As many images are sent ahead as were answered in the last `ahead_seconds`, so that a slow classifier can soon turn to another job. To
    a silent one, the whole window is sent. An image is sent again after `lease_seconds` of silence, and given up after `attempts`.
    """

    window: int = 32
    ahead_seconds: float = 5.0
    lease_seconds: float = 60.0
    attempts: int = 3


class WaitingImage(msgspec.Struct, kw_only=True, eq=False):
    """An image that has no answer yet. `owner` requested its job; `urgent`: the job has no other image.

    `attempts` counts how often it was sent, the last time at `sent_at`. `overtaken_at` is when a later image of its partition was answered:
    from then on the classifier has lost or skipped this one.
    """

    key: ImageKey
    owner: UUID
    model_name: str
    partition: int
    urgent: bool = False
    attempts: int = 0
    sent_at: float | None = None
    overtaken_at: float | None = None

    @property
    def place(self) -> tuple[str, int]:
        return self.model_name, self.partition


class _Classifier:
    """What is seen of the classifier of one model: the images ahead of it by partition, in the order of sending, and its answers."""

    def __init__(self) -> None:
        self.ahead: dict[int, dict[ImageKey, WaitingImage]] = defaultdict(dict)
        self.overtaken: dict[ImageKey, WaitingImage] = {}
        self.answered_at: float | None = None
        self.recent_answers: deque[float] = deque()
        self.is_silent = False

    def numbers(self) -> Iterable[tuple[int, int]]:
        """Each partition, and the number of images ahead in it."""
        return ((partition, len(images)) for partition, images in self.ahead.items())

    def in_line(self) -> Iterable[WaitingImage]:
        return chain.from_iterable(images.values() for images in self.ahead.values())

    def sent(self) -> Iterable[WaitingImage]:
        return chain(self.overtaken.values(), self.in_line())

    def send(self, image: WaitingImage, at: float) -> None:
        image.sent_at, image.overtaken_at = at, None
        self.ahead[image.partition][image.key] = image

    def remove(self, image: WaitingImage) -> None:
        self.overtaken.pop(image.key, None)
        self.ahead[image.partition].pop(image.key, None)

    def overtake_before(self, answered: WaitingImage, now: float) -> None:
        """A classifier reads a partition in order: images that were sent to it before `answered` were lost or skipped."""
        ahead = self.ahead[answered.partition]
        if answered.key not in ahead:
            return
        for key in list(ahead):
            if key == answered.key:
                return
            image = self.overtaken[key] = ahead.pop(key)
            image.overtaken_at = now

    def answer(self, now: float) -> None:
        self.recent_answers.append(now)
        self.is_silent = False
        self.show_life(now)

    def show_life(self, at: float) -> None:
        self.answered_at = at if self.answered_at is None else max(self.answered_at, at)

    def window(self, partitions: int, limits: BridgeLimits, now: float) -> int:
        """Images ahead in each partition."""
        while self.recent_answers and self.recent_answers[0] <= now - limits.ahead_seconds:
            self.recent_answers.popleft()
        share = ceil(len(self.recent_answers) / partitions)
        return limits.window if self.is_silent else min(limits.window, max(SMALLEST_WINDOW, share))

    def overdue_at(self, image: WaitingImage, lease_seconds: float) -> float:
        """When the silence of a sent image has lasted for a lease. Each answer begins the lease again, until it is overtaken."""
        assert image.sent_at is not None
        heard_at = image.sent_at if self.answered_at is None else self.answered_at
        if image.overtaken_at is not None:
            heard_at = min(heard_at, image.overtaken_at)
        return min(max(heard_at, image.sent_at) + lease_seconds, image.sent_at + LONGEST_WAIT_IN_LEASES * lease_seconds)


class WaitingImages:
    """All images of the chunks that a bridge has in progress and that have no answer. `partitions` is the number of those of the topic."""

    def __init__(self, limits: BridgeLimits, *, partitions: int = 1) -> None:
        self._limits, self.partitions = limits, partitions
        self._images: dict[ImageKey, WaitingImage] = {}
        self._unsent: dict[ImageKey, WaitingImage] = {}
        self._classifiers: dict[str, _Classifier] = defaultdict(_Classifier)

    @property
    def keys(self) -> Collection[ImageKey]:
        return self._images.keys()

    @property
    def model_names(self) -> set[str]:
        return {image.model_name for image in self._images.values()}

    @property
    def are_out(self) -> bool:
        """Whether an answer may come: an image was sent and has none."""
        return len(self._unsent) < len(self._images)

    def sent_at(self, key: ImageKey) -> float | None:
        """When an image was sent last; None if it was not, or if nothing waits for it."""
        image = self._images.get(key)
        return None if image is None else image.sent_at

    def add(self, images: Iterable[WaitingImage]) -> None:
        """Add images, also those that another bridge had sent, in the order of sending."""
        for image in sorted(images, key=lambda one: one.sent_at or 0.0):
            self._images[image.key], classifier = image, self._classifiers[image.model_name]
            if image.sent_at is None:
                self._unsent[image.key] = image
            else:
                classifier.send(image, image.sent_at)

    def discard(self, key: ImageKey) -> None:
        """Wait no longer for an image. No effect if it is unknown."""
        image = self._images.pop(key, None)
        if image is not None:
            self._unsent.pop(key, None)
            self._classifiers[image.model_name].remove(image)

    def answer(self, key: ImageKey, now: float) -> bool:
        """An answer was stored. False if nothing waits for it here."""
        image = self._images.get(key)
        if image is None:
            return False
        classifier = self._classifiers[image.model_name]
        classifier.answer(now)
        classifier.overtake_before(image, now)
        self.discard(key)
        return True

    def show_life(self, model_name: str, at: float) -> None:
        """The classifier of a model answered somebody at that time."""
        if model_name in self._classifiers:
            self._classifiers[model_name].show_life(at)

    def to_send(self, now: float) -> list[WaitingImage]:
        """The images to send now: urgent ones, which may fill the whole window, then those of the person with the fewest images ahead."""
        windows = {name: classifier.window(self.partitions, self._limits, now) for name, classifier in self._classifiers.items()}
        ahead = {(name, partition): number for name, classifier in self._classifiers.items() for partition, number in classifier.numbers()}

        def has_room(image: WaitingImage) -> bool:
            return ahead.get(image.place, 0) < (self._limits.window if image.urgent else windows[image.model_name])

        chosen: list[WaitingImage] = []
        for image in self._in_turn(filter(has_room, self._unsent.values())):
            if has_room(image):
                ahead[image.place] = ahead.get(image.place, 0) + 1
                chosen.append(image)
        return chosen

    def _in_turn(self, images: Iterable[WaitingImage]) -> list[WaitingImage]:
        of_owner = Counter(image.owner for classifier in self._classifiers.values() for image in classifier.in_line())
        turns: list[tuple[bool, int, WaitingImage]] = []
        for image in images:
            turns.append((not image.urgent, of_owner[image.owner], image))
            of_owner[image.owner] += 1
        return [image for _, _, image in sorted(turns, key=lambda turn: turn[:2])]

    def mark_sent(self, images: Iterable[WaitingImage], now: float) -> None:
        """Images are sent."""
        for image in images:
            if self._unsent.pop(image.key, None) is image:
                image.attempts += 1
                self._classifiers[image.model_name].send(image, now)

    def mark_unsent(self, images: Iterable[WaitingImage]) -> None:
        """Images could not be sent. The attempt does not count."""
        for image in images:
            if self._images.get(image.key) is image:
                image.attempts -= 1
                self._withdraw(image)

    def next_overdue_at(self) -> float | None:
        """When `give_up` will have something to do, unless an answer comes before."""
        return min((classifier.overdue_at(image, self._limits.lease_seconds) for classifier, image in self._sent()), default=None)

    def give_up(self, now: float) -> Sequence[WaitingImage]:
        """After silence, images are sent again. Returns those that were sent often enough, for which nothing waits any longer."""
        overdue = [image for classifier, image in self._sent() if classifier.overdue_at(image, self._limits.lease_seconds) <= now]
        given_up = [image for image in overdue if image.attempts >= self._limits.attempts]
        for image in overdue:
            classifier = self._classifiers[image.model_name]
            classifier.is_silent = classifier.is_silent or image.overtaken_at is None
            self._withdraw(image)
        for image in given_up:
            self.discard(image.key)
        return given_up

    def _withdraw(self, image: WaitingImage) -> None:
        self._classifiers[image.model_name].remove(image)
        image.sent_at = image.overtaken_at = None
        self._unsent[image.key] = image

    def _sent(self) -> Iterable[tuple[_Classifier, WaitingImage]]:
        return ((classifier, image) for classifier in self._classifiers.values() for image in classifier.sent())
