"""The declaration of an external classifier: all that is known of a model version whose results another program computes."""

import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Final, Literal

import msgspec

from domain.model import MAX_LABELS, ModelVersionAdded, OutputKind, Version
from domain.values import MAX_DESCRIPTION, MAX_LABEL, invalid, is_id, multiline_text, text

NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
MAX_LABEL_TEXT: Final = 200
UNKNOWN: Final = "unknown"


class Declaration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a person declares of an external classifier. The record of its version is this, as JSON with sorted keys.

    `weights` says that nobody can know which network answers. `label_texts` are labels in words. A confidence below `review_below` (0 to
    1) needs review.
    """

    name: str
    description: str
    labels: tuple[str, ...]
    label_texts: dict[str, str]
    review_below: float
    kind: Literal["external"] = "external"
    weights: Literal["unknown"] = UNKNOWN

    @property
    def version(self) -> Version:
        """The version, whose sha256 and digest are those of the declaration. Its number is not known yet."""
        record = msgspec.json.encode(self, order="sorted")
        digest = sha256(record).hexdigest()
        return Version(
            number=1,
            sha256=digest,
            size=0,
            labels=self.labels,
            review_below=self.review_below,
            record=record.decode(),
            digest=digest,
            kind=OutputKind.EXTERNAL,
            label_texts=self.label_texts,
        )


_DECLARATION: Final = msgspec.json.Decoder(Declaration)


def declare(*, name: str, description: str, labels: Sequence[str], label_texts: Mapping[str, str], review_below: float) -> Declaration:
    """A declaration that breaks no rule. Raises Invalid."""
    if not NAME.fullmatch(name) or is_id(name):
        raise invalid("name", "must be 1 to 64 of a-z, 0-9, - and _, begin with a letter or a digit, and not look like an id")
    if not 0 <= review_below <= 1:
        raise invalid("review_below", "must lie between 0 and 1")
    return Declaration(
        name=name,
        description=multiline_text(description, name="description", minimum=0, maximum=MAX_DESCRIPTION),
        labels=_labels(labels),
        label_texts=_label_texts(label_texts, labels),
        review_below=float(review_below),
    )


def violation_of(added: ModelVersionAdded) -> str | None:
    """The first rule that a version of an external classifier breaks, as a text; None if it breaks none.

    Migration 0024 contains the same rules.
    """
    version = added.version
    if version.package or version.size:
        return "an external version has no file"
    if not version.sha256 == version.digest == sha256(version.record.encode()).hexdigest():
        return "the digest is not that of the declaration"
    try:
        declared = _DECLARATION.decode(version.record)
    except (msgspec.DecodeError, RecursionError):
        return "the record is not a declaration"
    expected = declared.name, declared.description, msgspec.structs.replace(declared.version, number=version.number)
    if expected != (added.name, added.description, version):
        return "the version differs from its declaration"
    return None


def _labels(labels: Sequence[str]) -> tuple[str, ...]:
    if not 1 <= len(labels) <= MAX_LABELS or len(set(labels)) != len(labels):
        raise invalid("labels", f"must be 1 to {MAX_LABELS} different names")
    for label in labels:
        if text(label, name="labels", maximum=MAX_LABEL) != label or not label.isprintable():
            raise invalid("labels", "must be printable, in Unicode NFC form, and without spaces at either end")
    return tuple(labels)


def _label_texts(texts: Mapping[str, str], labels: Sequence[str]) -> dict[str, str]:
    unknown = [label for label in texts if label not in labels]
    if unknown:
        raise invalid("label_texts", f"must name labels only: {', '.join(sorted(unknown)[:3])} is none")
    return {label: text(texts[label], name="label_texts", maximum=MAX_LABEL_TEXT) for label in labels if label in texts}
