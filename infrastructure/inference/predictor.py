"""Predictions for the API: a small pool of sandboxed children, which decode the images and run the model. Nothing is stored.

The children start with the first prediction. They end with this process, whose event loop must be that of its main thread.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

import structlog

from application.ports import BlobStore, Prediction, PredictionFailure
from application.result_rules import ResultRules, result_rules
from domain.classification import PlaneSelection
from domain.errors import Unavailable
from domain.model import Version
from infrastructure import sandbox
from infrastructure.configuration.settings import Settings
from infrastructure.images.validation.limits import ImageLimits
from infrastructure.inference.children.child_process import PoolClosed
from infrastructure.inference.children.process_pool import ForkServer, ProcessPool
from infrastructure.inference.group_classifier import (
    CHILD_FUNCTIONS,
    CLASSIFY,
    MODEL_UNSAFE,
    MODEL_UNUSABLE,
    ClassifierLimits,
    GroupClassifier,
)
from infrastructure.inference.predictions import ImageRefusal, ModelPrediction, verdict_of
from infrastructure.retry import Retry
from infrastructure.sandbox.policy import Unsandboxed, require_sandbox

log = structlog.get_logger()

NICENESS: Final = 10  # of the children, so that the API itself stays quick
RETRY_DELAYS_SECONDS: Final = (0.1, 0.3)  # for the file of a model
OURS: Final = {MODEL_UNUSABLE, MODEL_UNSAFE}


class SandboxedPredictor:
    """Implements `Predictor` with `kserve_processes` children."""

    def __init__(self, settings: Settings, blobs: BlobStore) -> None:
        self._settings = settings
        self._fork_server = ForkServer(CHILD_FUNCTIONS)
        self._pool = ProcessPool(
            self._fork_server,
            size=settings.kserve_processes,
            nice=NICENESS,
            memory_bytes=settings.inference_memory_bytes,
            hang_seconds=settings.inference_hang_seconds,
        )
        self._groups = GroupClassifier(
            blobs,
            self._pool,
            Retry(None, delays_seconds=RETRY_DELAYS_SECONDS),
            function=CLASSIFY,
            image_limits=ImageLimits(pixels=settings.image_max_pixels, bands=settings.image_max_bands, pages=settings.image_max_pages),
            limits=ClassifierLimits(),
            provider=settings.inference_provider,
        )
        self._may_run = False

    @property
    def is_enabled(self) -> bool:
        return self._pool.size > 0

    async def predict(
        self, images: Sequence[bytes], version: Version, *, planes: PlaneSelection, threshold: float | None
    ) -> list[Prediction | PredictionFailure]:
        """Raises Unavailable, also where children cannot be isolated and the operator has not accepted that."""
        rules = result_rules(version)
        rules = rules if threshold is None else rules.with_threshold(threshold)
        try:
            await self._require_sandbox()
            groups = await self._groups.classify_files(images, version, planes)
        except Unsandboxed as error:
            raise Unavailable(f"Predictions are not available: {error}") from None
        except PoolClosed:
            raise Unavailable("The server stops; try again", retry_after=1) from None
        except OSError as error:
            log.exception("the children of predictions cannot be started")
            raise Unavailable("The processes that decode images and run models cannot be started; the server's log says why") from error
        return [_answer(one, rules) for group in groups for one in group.answers]

    def close(self) -> None:
        """End the children. Predictions in progress, and all later ones, raise Unavailable."""
        self._pool.close()
        self._fork_server.close()

    async def _require_sandbox(self) -> None:
        """Raises Unsandboxed, OSError."""
        if not self._may_run:
            require_sandbox(self._settings, await asyncio.to_thread(sandbox.supported))
            self._may_run = True


def _answer(one: ModelPrediction | ImageRefusal, rules: ResultRules) -> Prediction | PredictionFailure:
    if isinstance(one, ImageRefusal):
        return PredictionFailure(one.reason, one.detail, is_ours=one in OURS)
    return Prediction(
        label=one.label,
        confidence=one.confidence,
        verdict=verdict_of(one, rules),
        scores=one.scores,
        value=one.value,
        warnings=one.warnings,
    )
