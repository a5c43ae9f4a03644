"""The check of a model package, from the task to the event with its answer. Only a child opens and runs the package."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final
from uuid import UUID, uuid4

import structlog

from application import model_checks
from application.jobs.tasks import Task
from application.model_checks import CheckedModel, PackageRefusal
from application.models import MAX_VERSION_BYTES
from application.ports import BlobStore, Command, EventStore
from domain.errors import Conflict, CorruptBlob, Forbidden, Invalid, NotFound
from domain.model_check import CheckReport, Environment, ModelCheck
from domain.values import model_id, printable
from infrastructure.inference.children.child_process import ChildFailed, ChildHung, ChildLost
from infrastructure.inference.children.process_pool import ProcessPool
from infrastructure.inference.failures import ACTOR
from infrastructure.inference.model_reference import DEFAULT_PROVIDER
from infrastructure.inference.models.refusals import RefusalCode
from infrastructure.inference.package_answers import CheckedPackage, RefusedPackage, check_answer, version_of
from infrastructure.observability.metrics import MODEL_CHECKS
from infrastructure.retry import Retry

log = structlog.get_logger()

CHECK_MODEL: Final = "infrastructure.inference.children.child_functions:check_model"
MISSING: Final = RefusedPackage(code=RefusalCode.PACKAGE_MISSING, detail="The package is missing in the blob store. Add it again")
CORRUPTED: Final = RefusedPackage(
    code=RefusalCode.PACKAGE_CORRUPTED, detail="The package is damaged in the blob store and was not used. Add it again"
)
HUNG: Final = RefusedPackage(
    code=RefusalCode.CHECK_TIMEOUT, detail="The check takes longer than a worker allows. Use a smaller network, or fewer operators"
)
CRASHED: Final = RefusedPackage(code=RefusalCode.CHECK_CRASHED, detail="The package crashed the process that checked it. Export it again")
EXHAUSTED: Final = RefusedPackage(
    code=RefusalCode.TOO_MUCH_MEMORY, detail="The check needs more memory than a worker allows. Use a smaller network or package"
)
OF_ANOTHER_VERSION: Final = PackageRefusal(RefusalCode.CHECK_CRASHED, "The check answered for another model than that of the version")


class ModelChecker:
    """Checks model packages. A repeated task is harmless, since a check has one answer.

    `pool` gives each call a child of its own, so that a hostile package can neither see nor change what others send. `cpu` is the
    processor of this worker, with the flags that decide which arithmetic is used; `provider` computes.
    """

    def __init__(
        self,
        *,
        log: EventStore,
        blobs: BlobStore,
        pool: ProcessPool,
        retry: Retry,
        cpu: str,
        provider: str = DEFAULT_PROVIDER,
        function: str = CHECK_MODEL,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._log, self._blobs, self._pool, self._retry = log, blobs, pool, retry
        self._cpu, self._provider, self._function, self._now = cpu, provider, function, now

    async def check(self, task: Task) -> None:
        """Check the package of the task, unless the check has an answer. Raises Unavailable."""
        assert task.check_id is not None
        asked = await self._retry(model_checks.unanswered, task.check_id, log=self._log)
        if asked is None:
            return
        answer = await self._answer(asked.sha256)
        recorded = await self._retry(self._record, asked, answer)
        refused = answer.code if isinstance(answer, RefusedPackage) else None
        MODEL_CHECKS.labels("refused" if refused else "passed").inc()
        log.info("model package checked", check=str(asked.id), package=asked.sha256, refused=refused, written=recorded)

    async def _answer(self, sha256: str) -> CheckedPackage | RefusedPackage:
        """Check the package that the log names; the task is only a reference. A check whose child was lost is repeated once."""
        try:
            package = await self._retry(self._blobs.open_locally, sha256)
        except NotFound:
            return MISSING
        except CorruptBlob:
            return CORRUPTED
        with package:
            for _ in range(2):
                try:
                    return await self._pool.run(
                        self._function,
                        sha256,
                        self._provider,
                        into=CheckedPackage | RefusedPackage,  # type: ignore[arg-type]
                        check=check_answer,
                        lend={sha256: package},
                    )
                except ChildHung:
                    return HUNG
                except ChildLost as error:
                    log.warning("a model package lost its child", package=sha256, reason=str(error))
                except ChildFailed as error:
                    log.warning("a model package failed in its child", package=sha256, reason=str(error))
                    return EXHAUSTED if error.kind == MemoryError.__name__ else CRASHED
            return CRASHED

    def _record(self, asked: ModelCheck, answer: CheckedPackage | RefusedPackage) -> bool:
        """Record the answer. False if the check was answered in the meantime."""
        environment = self._environment(answer)
        if isinstance(answer, RefusedPackage):
            return self._refuse(asked.id, PackageRefusal(answer.code, answer.detail, answer.file, answer.field), environment)
        if asked.retested is not None and asked.retested[0] != model_id(answer.model):
            return self._refuse(asked.id, OF_ANOTHER_VERSION, environment)
        found = CheckedModel(answer.model, _plain(answer.description), version_of(answer, package=asked.sha256), self._report(answer))
        try:
            return model_checks.record_passed(asked.id, found, command=self._command(), log=self._log)
        except Forbidden as error:
            return self._refuse(asked.id, PackageRefusal(RefusalCode.UPLOADER_NOT_PERMITTED, error.detail), environment)
        except Conflict as error:
            return self._refuse(asked.id, PackageRefusal(RefusalCode.MODEL_RETIRED, f"{error.detail}. Choose another name"), environment)
        except Invalid as error:
            return self._refuse(asked.id, _unusable(error), environment)

    def _refuse(self, check: UUID, why: PackageRefusal, environment: Environment | None) -> bool:
        return model_checks.record_failed(check, why, environment, command=self._command(), log=self._log)

    def _environment(self, answer: CheckedPackage | RefusedPackage) -> Environment | None:
        """None where nothing was run."""
        return Environment(cpu=self._cpu, runtime=answer.runtime, provider=answer.provider) if answer.runtime else None

    def _report(self, answer: CheckedPackage) -> CheckReport:
        return CheckReport(
            environment=Environment(cpu=self._cpu, runtime=answer.runtime, provider=answer.provider),
            largest_difference=answer.largest_difference,
            tolerance=answer.tolerance,
            load_seconds=answer.load_seconds,
            run_seconds=answer.run_seconds,
            memory_bytes=answer.memory_bytes,
            nodes=answer.nodes,
            opset=answer.opset,
            files=answer.files,
            size=answer.package_size,
            notes=answer.notes,
        )

    def _command(self) -> Command:
        return Command(id=uuid4(), actor=ACTOR, at=self._now())


def _unusable(error: Invalid) -> PackageRefusal:
    """A version that the log does not accept, although its package is well formed."""
    place = error.errors[0]["loc"][-1] if error.errors else None
    if place == "name":
        return PackageRefusal(RefusalCode.MANIFEST_FIELD, error.detail, field="config.bioscope.model")
    if place == "versions":
        return PackageRefusal(RefusalCode.MODEL_FULL, error.detail)
    if place == "record":
        return PackageRefusal(RefusalCode.TOO_LARGE, f"The manifest and its labels have more than {MAX_VERSION_BYTES:,} bytes as JSON")
    return PackageRefusal(RefusalCode.LABELS, error.detail)


def _plain(description: str) -> str:
    """Printable, in lines, as the read models can store it."""
    return "\n".join(map(printable, description.splitlines())).strip()
