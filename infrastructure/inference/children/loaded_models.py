"""The networks that a child has loaded. Those that were used last stay, as far as memory permits."""

import gc
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from typing import Final

from infrastructure.inference.children.memory_use import allocated_bytes, allowed_bytes
from infrastructure.inference.children.networks import Network, NetworkFailed, NetworkOutOfMemory
from infrastructure.inference.model_reference import ModelReference
from infrastructure.inference.models.onnx_validation import DEFAULT_LIMITS, PACKAGE_LIMITS, summarize_model
from infrastructure.inference.models.refusals import ModelRefused, PackageRefused
from infrastructure.inference.packages.consistency import match_network
from infrastructure.inference.packages.manifest_reader import parse_record
from infrastructure.inference.packages.package import read_weights

CACHE_SHARE: Final = 0.5
"""Of the memory of a child. Images and the files of models need the rest."""
Borrow = Callable[[str], memoryview]


class LoadedModels:
    """Networks by reference. `borrow` gives the bytes of a file by its sha256; `limit` is in bytes."""

    def __init__(self, borrow: Borrow, *, limit: int | None = None) -> None:
        self._borrow, self._limit = borrow, limit
        self._networks: OrderedDict[ModelReference, Network] = OrderedDict()
        self._sizes: dict[ModelReference, int] = {}

    @property
    def references(self) -> list[ModelReference]:
        """Of the loaded networks, the one that was used last at the end."""
        return list(self._networks)

    @contextmanager
    def network(self, reference: ModelReference) -> Iterator[Network]:
        """The network, loaded if it is not. Afterwards others are dropped if all together need more than the limit.

        Raises ModelRefused for a file that is not the one that the version names, or cannot be run; ProviderMissing, NotLent.
        """
        before = allocated_bytes()
        if reference not in self._networks:
            self._load(reference)
        self._networks.move_to_end(reference)
        try:
            yield self._networks[reference]
        finally:
            self._sizes[reference] += max(allocated_bytes() - before, 0)
            self._keep_within_limit()

    def _keep_within_limit(self) -> None:
        while len(self._networks) > 1 and sum(self._sizes.values()) > self._maximum:
            self._drop(next(iter(self._networks)))

    def clear(self) -> None:
        """Drop all networks, to make room for something else."""
        for reference in self.references:
            self._drop(reference)
        gc.collect()

    def drop_others(self, reference: ModelReference) -> bool:
        """Drop all networks but one. False if there is no other."""
        others = [other for other in self._networks if other != reference]
        for other in others:
            self._drop(other)
        gc.collect()
        return bool(others)

    @property
    def _maximum(self) -> int:
        return int(allowed_bytes() * CACHE_SHARE) if self._limit is None else self._limit

    def _load(self, reference: ModelReference) -> None:
        try:
            network = self._opened(reference)
        except NetworkOutOfMemory:
            self.clear()
            network = self._opened_alone(reference)
        self._networks[reference] = network
        self._sizes[reference] = 0 if allocated_bytes() else 2 * network.weights_bytes  # as a rule: the weights and a packed copy

    def _drop(self, reference: ModelReference) -> None:
        del self._networks[reference], self._sizes[reference]

    def _opened(self, reference: ModelReference) -> Network:
        try:
            manifest = parse_record(reference.record)
            weights = self._weights(reference)
            summary = summarize_model(weights, PACKAGE_LIMITS if reference.is_packaged else DEFAULT_LIMITS)
            names = match_network(manifest, summary, file=manifest.weights.source if manifest.weights else "")
            return Network(weights, manifest, names, provider=reference.provider)
        except NetworkOutOfMemory:
            raise
        except (PackageRefused, NetworkFailed) as error:
            raise ModelRefused(str(error)) from None

    def _opened_alone(self, reference: ModelReference) -> Network:
        try:
            return self._opened(reference)
        except NetworkOutOfMemory as error:
            raise ModelRefused(str(error)) from None

    def _weights(self, reference: ModelReference) -> bytes:
        file = self._borrow(reference.file)
        if sha256(file).hexdigest() != reference.file:
            raise ModelRefused("its file does not match the sha256 of the version")
        if not reference.is_packaged:
            return bytes(file)
        weights = read_weights(file, parse_record(reference.record))
        if sha256(weights).hexdigest() != reference.weights:
            raise ModelRefused("the weights in its package do not match the sha256 of the version")
        return weights
