"""Generates the commands of a laboratory over many years, for a log that is written at once.

Each image is uploaded, accepted and marked twice; one in fifty is classified by itself, one in twenty is deleted. A dataset has 2,000
images, an owner, a share, a sign-in, and a device that goes online and offline. Every second dataset has a job over all its images, and
one in twenty of these jobs is deleted. Each fifty datasets there is a new user.

Each stream has a data key, as in the product, but all keys wrap the same secret, so that each value costs one pass of AES.
"""

import base64
import os
import random
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

import msgspec

from benchmarks.filled_log import LABELS, PROVENANCE, SCORES
from domain import classification, dataset, device, session, user
from domain.access import Grant, Role
from domain.classification import ImageResult, PlannedImage, Verdict, chunks_of
from domain.events import SEALED_PREFIX, Event
from domain.values import system_actor
from infrastructure.eventstore.codec import Codec
from infrastructure.security.keyed_digest import ClaimDigests
from infrastructure.security.keys import HEADER_BYTES, NONCE_BYTES, WRAPPED_FORM, DataKey, DataKeys, Keys, Purpose

IMAGES: Final = 2000  # per dataset
PERSON_EVERY, DELETED_JOB_EVERY = 50, 20  # datasets
JUDGED_EVERY, DELETED_EVERY = 50, 20  # images
INFERENCE, SCHEDULER = system_actor("inference"), system_actor("scheduler")
MODEL: Final = {
    "model_id": UUID(int=8),
    "model_name": "pbc8",
    "model_version": 1,
    "model_sha256": PROVENANCE.model_sha256,
    "threshold": 0.5,
}

UPLOADED: Final = (
    '{"at":"%s","by":"%s","dataset_id":"%s","device_id":null,"filename":"%s","sha256":"%s","size":16000,"media_type":"image/jpeg",'
    '"width":360,"height":363}'
)
ACCEPTED: Final = (
    '{"at":"%s","by":"%s","width":360,"height":363,"bands":3,"dtype":"uint8","pages":1,"axes":"YXS","pixel_size_um":null,"reader":2,'
    '"warnings":[],"sha256":"%s"}'
)
DESCRIBED: Final = '{"at":"%s","by":"%s","analyzed":%s}'
DESCRIPTIONS: Final = ("true", "false")  # values of `analyzed` of each image
DELETED: Final = '{"at":"%s","by":"%s","dataset_id":"%s"}'


class MadeEvent(NamedTuple):
    """An event as it is stored. `wrapped` is the data key that is stored with it."""

    stream: UUID
    version: int
    type: str
    schema_version: int
    event_id: UUID
    data: bytes
    wrapped: bytes = b""


class MadeCommand(NamedTuple):
    events: Sequence[MadeEvent]
    claims: Sequence[tuple[str, bytes]] = ()  # for the stream of its first event


class OneSecret(DataKeys):
    """Data keys for each subject, all with the same secret."""

    def __init__(self, keys: Keys) -> None:
        super().__init__(keys, lambda _: {})
        (wrapping, *_), secret = keys.all(Purpose.DATA_KEYS), os.urandom(32)
        self.key = DataKey(secret)
        self._secret, self._header = secret, WRAPPED_FORM + wrapping.id
        self._cipher = self._wrapping[0].cipher
        assert len(self._header) == HEADER_BYTES

    def create(self, subject: UUID) -> tuple[DataKey, bytes]:
        return self.key, self.wrapped(subject)

    def look_up(self, _: UUID) -> DataKey:
        return self.key

    def wrapped(self, subject: UUID) -> bytes:
        nonce = os.urandom(NONCE_BYTES)
        return self._header + nonce + self._cipher.encrypt(nonce, self._secret, self._header + subject.bytes)


class Years:
    """`clock` returns the time of the next command; `pictures` are the sha256 (hex) of the images."""

    def __init__(self, keys: Keys, clock: Callable[[], datetime], pictures: Sequence[str], *, seed: int = 0) -> None:
        self._clock, self._pictures, self._random = clock, pictures, random.Random(seed)
        self._sealing, self._claims = OneSecret(keys), ClaimDigests(keys)
        self._codec = Codec(self._sealing, lambda _: ())
        self._people: list[UUID] = []
        self._device = self._id()

    def commands(self) -> Iterator[MadeCommand]:
        """Endless. The log may end after any command."""
        yield self._person(Role.ADMIN)
        registered = device.register(
            self._device, name="Scope", hostname="scope-1", location="Room 1", firmware_version="1", by=self._people[0], at=self._clock()
        )
        yield self._command(registered, claims=[("hostname", self._claims.of("hostname", "scope-1"))])
        online, number = device.evolve(None, registered), 0
        while True:
            if number % PERSON_EVERY == 0:
                yield self._person(Role.RESEARCHER)
            owner = self._random.choice(self._people)
            for decide in (device.DeviceCameOnline, device.DeviceWentOffline):
                assert online is not None
                changed = decide(originator_id=online.id, originator_version=online.version + 1, at=self._clock(), by=owner)
                online = device.evolve(online, changed)
                yield self._command(changed)
            yield from self._dataset(owner, number)
            number += 1

    def _person(self, role: Role) -> MadeCommand:
        account = self._id()
        email, username = f"{account}@example.org", str(account)[:20]
        names = {"email": email, "username": username, "first_name": "Ada", "last_name": "Lab"}
        self._people.append(account)
        claims = [(scope, self._claims.of(scope, value)) for scope, value in (("email", email), ("username", username))]
        return self._command(user.register(account, **names, role=role, by=account, at=self._clock()), claims=claims)  # type: ignore[arg-type]

    def _dataset(self, owner: UUID, number: int) -> Iterator[MadeCommand]:
        place, at = self._id(), self._clock
        signed_in = session.start(self._id(), user=owner, address="192.0.2.1", agent="Mozilla/5.0", at=at())
        yield self._command(signed_in)
        created = dataset.create(place, name=f"Slide {number}", description=None, by=owner, at=at())
        yield self._command(created)
        known, other = dataset.evolve(None, created), self._people[number % len(self._people)]
        if known is not None and other != owner:
            yield self._command(*dataset.share(known, user=other, grant=Grant.VIEWER, by=owner, at=at()))
        images = []
        for place_in_set in range(IMAGES):
            image = PlannedImage(self._id(), self._random.choice(self._pictures))
            images.append(image)
            yield from self._image(image, place, owner, place_in_set)
        if number % 2:
            yield from self._job(place, images, owner, deleted=number % (2 * DELETED_JOB_EVERY) == 1)
        for place_in_set in range(0, IMAGES, DELETED_EVERY):
            yield self._deleted(images[place_in_set], place, owner)
        state = session.evolve(None, signed_in)
        assert state is not None
        yield self._command(*session.revoke(state, session.Reason.LOGOUT, by=owner, at=at()))

    def _image(self, image: PlannedImage, place: UUID, owner: UUID, number: int) -> Iterator[MadeCommand]:
        event_id, clear = self._id(), msgspec.json.encode(f"cell {number}.jpg")
        sealed = self._sealing.key.seal(clear, event_id.bytes + b"filename")
        filename = SEALED_PREFIX + base64.b64encode(sealed).decode()
        uploaded = UPLOADED % (self._time(), owner, place, filename, image.sha256)
        yield MadeCommand([MadeEvent(image.id, 1, "ImageUploaded", 1, event_id, uploaded.encode(), self._sealing.wrapped(image.id))])
        accepted = ACCEPTED % (self._time(), INFERENCE, image.sha256)
        yield MadeCommand([MadeEvent(image.id, 2, "ImageAccepted", 1, self._id(), accepted.encode())])
        for version, analyzed in enumerate(DESCRIPTIONS, 3):
            described = DESCRIBED % (self._time(), owner, analyzed)
            yield MadeCommand([MadeEvent(image.id, version, "ImageDescribed", 1, self._id(), described.encode())])
        if number % JUDGED_EVERY == 1:
            yield from self._job(place, [image], owner, single=image)

    def _deleted(self, image: PlannedImage, place: UUID, owner: UUID) -> MadeCommand:
        version = 3 + len(DESCRIPTIONS)
        deleted = DELETED % (self._time(), owner, place)
        return MadeCommand([MadeEvent(image.id, version, "ImageDeleted", 1, self._id(), deleted.encode())])

    def _job(
        self, place: UUID, images: Sequence[PlannedImage], owner: UUID, *, single: PlannedImage | None = None, deleted: bool = False
    ) -> Iterator[MadeCommand]:
        at = self._clock
        events = classification.request(self._id(), dataset=place, image=single, by=owner, at=at(), **MODEL)  # type: ignore[arg-type]
        yield self._command(*events)
        state = classification.evolve(None, events[0])
        assert state is not None
        plan = events[1:]
        if single is None:
            plan = classification.plan(state, images, by=SCHEDULER, at=at())
            yield self._command(*plan)
        number = 0
        for part in plan:
            for chunk in chunks_of(part.images):  # type: ignore[attr-defined]
                yield self._command(
                    classification.record_chunk(
                        state, number, plan=part, labels=LABELS, results=tuple(map(_result, chunk)), failures=(), provenance=PROVENANCE,
                        by=INFERENCE, at=at(),
                    )
                )  # fmt: skip
                number += 1
            state = classification.evolve(state, part) or state
        ended = classification.complete(state, succeeded=len(images), failed=0, by=SCHEDULER, at=at())
        yield self._command(*ended)
        if deleted:
            state = classification.evolve(state, ended[0]) or state
            yield self._command(classification.delete(state, by=owner, at=at()))

    def _command(self, *events: Event, claims: Sequence[tuple[str, bytes]] = ()) -> MadeCommand:
        made = []
        for event in events:
            stored = self._codec.encode(event)
            wrapped = stored.new_keys[0][1] if stored.new_keys else b""
            made.append(MadeEvent(stored.stream, stored.version, stored.type, stored.schema_version, stored.event_id, stored.data, wrapped))
        return MadeCommand(made, claims)

    def _time(self) -> str:
        return self._clock().strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    def _id(self) -> UUID:
        return UUID(int=self._random.getrandbits(128), version=4)


def _result(image: PlannedImage) -> ImageResult:
    return ImageResult(image_id=image.id, sha256=image.sha256, label=LABELS[0], confidence=0.93, verdict=Verdict.CLEAR, scores=SCORES)
