"""The in-memory twin of the images that wait for external classifiers."""

import time
from threading import Lock

from application.jobs.external_answers import Arrival, ExpectedImage, ImageKey


class MemoryExternalAnswers:
    """Behaves like `infrastructure.postgres.system.external_answers.PostgresExternalAnswers`. `clock` is that of the database."""

    def __init__(self, *, clock=time.monotonic):
        self._clock, self._lock = clock, Lock()
        self._rows, self._answered_at = {}, {}

    def expect(self, job, number, model_name, images):
        with self._lock:
            for image in images:
                self._rows.setdefault(ImageKey(job, image), {"attempts": 0, "done": False})["number"] = number
            return [self._expected(ImageKey(job, image)) for image in images]

    def mark_sent(self, attempts):
        with self._lock:
            for key, attempt in attempts.items():
                row = self._rows.get(key)
                if row is not None and row["attempts"] < attempt:
                    row["attempts"], row["sent_at"] = attempt, self._clock()

    def take(self, answers, *, model_names):
        with self._lock:
            self._answered_at |= dict.fromkeys(model_names, self._clock())
            return {answer.key: self._taken(answer) for answer in answers}

    def answered(self, keys):
        with self._lock:
            return [self._expected(key) for key in keys if "answer" in self._rows.get(key, ())]

    def last_answers(self, model_names):
        with self._lock:
            return {name: self._clock() - self._answered_at[name] for name in model_names if name in self._answered_at}

    def finish(self, job, number):
        with self._lock:
            for key, row in self._rows.items():
                row["done"] |= (key.job, row["number"]) == (job, number)

    def jobs(self):
        return {key.job for key in self._rows}

    def forget(self, jobs):
        with self._lock:
            self._rows = {key: row for key, row in self._rows.items() if key.job not in jobs}

    def _taken(self, answer):
        row = self._rows.get(answer.key)
        if row is None:
            return Arrival.UNEXPECTED
        if row["done"] or "answer" in row:
            return Arrival.DUPLICATE
        row["answer"], row["answered_at"] = (answer.label, answer.confidence), self._clock()
        return Arrival.TAKEN

    def _expected(self, key):
        row = self._rows[key]
        ages = [self._clock() - row[name] if name in row else None for name in ("sent_at", "answered_at")]
        return ExpectedImage(key, row["attempts"], ages[0], *row.get("answer", (None, None)), ages[1])
