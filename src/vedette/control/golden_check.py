"""Golden answers of models: kept with their files, and asked of each new worker before it serves.

Owns: asking a worker over its own socket, what is recorded where nothing is said yet, and putting back what there was
when a model is not taken in after all. Must not: decide what is near enough; `models.golden` does.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from vedette.config.served import ServedModel, Tensor
from vedette.engine.client import UnixHTTPConnection
from vedette.errors import ConfigError, UnavailableError
from vedette.models.golden import (
    MAX_ANSWER_BYTES,
    Answered,
    GoldenCase,
    GoldenFile,
    answered,
    difference,
    golden_bytes,
    parse_golden,
    question,
    recorded,
)
from vedette.store.blobs import BlobStore
from vedette.store.home import Home
from vedette.store.models import Attached, ModelStore

_ROLE: Final = "golden/"
"""Of a file, followed by the model's name: what is asked of one model says nothing of another with the same file."""
_PATIENCE: Final = 30.0
"""Seconds beside the longest run of a model."""


class GoldenAnswers:
    """The golden answers of a node's models."""

    def __init__(self, home: Home, blobs: BlobStore, store: ModelStore) -> None:
        self._home = home
        self._blobs = blobs
        self._store = store

    def counts(self, name: str) -> dict[str, int]:
        """How many each file of a model has that has some, by digest."""
        return {file: int(kept.note) for file, kept in self._store.attached(_ROLE + name).items()}

    @contextmanager
    def given(
        self, name: str, file: str, inputs: Sequence[Tensor], digest: str | None
    ) -> Iterator[None]:
        """Within, the uploaded golden answers are those of this file of a model, which takes `inputs`; after an error,
        those of before are again.

        Raises `ConfigError` golden_invalid, blob_missing.
        """
        if digest is None:
            yield
            return
        golden = parse_golden(self._blobs.get(digest))
        _require_inputs(golden, inputs)
        role = _ROLE + name
        before = self._store.attached(role).get(file)
        self._store.attach(file, role, Attached(digest, str(len(golden.cases))))
        try:
            yield
        except BaseException:
            self._store.attach(file, role, before)
            raise

    def require(self, models: Sequence[ServedModel]) -> None:
        """Asks each worker, which is ready, and keeps what is to be recorded.

        Raises `ConfigError` model_golden with which output of which case differs by how much, `UnavailableError`
        model_unavailable, `TrustError` blob_tampered.
        """
        for model in models:
            kept = self._store.attached(_ROLE + model.name).get(model.blob)
            if kept is not None:
                self._require(model, parse_golden(self._blobs.get(kept.blob)))

    def _require(self, model: ServedModel, golden: GoldenFile) -> None:
        cases = []
        for number, case in enumerate(golden.cases, 1):
            what = f"{model.name} version {model.version}, golden answer {number}"
            given = self._ask(model, case, what)
            told = difference(case, given, golden.tolerance)
            if told is not None:
                raise ConfigError("model_golden", f"{what}: {told}")
            cases.append(case if case.outputs is not None else recorded(case, given))
        if not golden.is_whole():
            whole = golden_bytes(golden.model_copy(update={"cases": tuple(cases)}))
            parse_golden(whole)  # too large, perhaps
            attached = Attached(self._blobs.put(whole), str(len(cases)))
            self._store.attach(model.blob, _ROLE + model.name, attached)

    def _ask(self, model: ServedModel, case: GoldenCase, what: str) -> dict[str, Answered]:
        """What the worker answers. Raises `ConfigError` model_golden, `UnavailableError` model_unavailable."""
        body, headers = question(case)
        path = f"/v2/models/{model.name}/versions/{model.version}/infer"
        patience = _PATIENCE + model.limits.run_millis / 1_000
        connection = UnixHTTPConnection(self._home.model_socket(model.worker), patience)
        try:
            connection.request("POST", path, body, headers)
            answer = connection.getresponse()
            said = answer.read(MAX_ANSWER_BYTES + 1)
            if answer.length and len(said) <= MAX_ANSWER_BYTES:
                raise http.client.IncompleteRead(said, answer.length)
        except (OSError, http.client.HTTPException) as error:
            message = f"{what} was not answered: {str(error) or type(error).__name__}"
            raise UnavailableError("model_unavailable", message) from None
        finally:
            connection.close()
        if answer.status != 200:
            message = f"{what} was refused with {answer.status}: {_sentence(said)}"
            raise ConfigError("model_golden", message)
        if len(said) > MAX_ANSWER_BYTES:
            message = f"{what}: the answer has more than {MAX_ANSWER_BYTES:,} bytes"
            raise ConfigError("model_golden", message)
        try:
            return answered({name.lower(): value for name, value in answer.getheaders()}, said)
        except ValueError as error:
            raise ConfigError("model_golden", f"{what}: {error}") from None


def _sentence(body: bytes) -> str:
    """What the worker says; a hostile model's at worst, so no more than so much of it."""
    try:
        return str(json.loads(body)["error"])[:1_000]
    except (ValueError, KeyError, TypeError, RecursionError):
        return body[:200].decode(errors="replace")


def _require_inputs(golden: GoldenFile, inputs: Sequence[Tensor]) -> None:
    known = {each.name for each in inputs}
    for number, case in enumerate(golden.cases, 1):
        for tensor in case.request.inputs:
            if tensor.name not in known:
                has = ", ".join(sorted(known))
                message = f"case {number}: the model has no input {tensor.name!r}; it has {has}"
                raise ConfigError("golden_invalid", message)
