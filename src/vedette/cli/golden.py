"""Golden answers on their way to the node: read from a file, or made of inputs whose answers are to be recorded.

Owns: reading them. Must not: say what is right; the node asks the model.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vedette.cli.waiting import waiting
from vedette.errors import ConfigError

if TYPE_CHECKING:
    from vedette.control.client import ControlClient

_INSPECTION = 180.0  # seconds


def read_golden(file: Path | None) -> list[dict[str, Any]]:
    """The cases in a file, as JSON; none without one. Raises `ConfigError` golden_invalid, file_unreadable."""
    if file is None:
        return []
    from vedette.config.model import wire_value
    from vedette.models.golden import MAX_GOLDEN_BYTES, parse_golden

    golden = parse_golden(read_plain(file, MAX_GOLDEN_BYTES))
    usual = golden.tolerance
    cases: list[dict[str, Any]] = []
    for case in golden.cases:
        said = case if case.tolerance else case.model_copy(update={"tolerance": usual})
        cases.append(dict(wire_value(said)))
    return cases


def send_golden(
    client: ControlClient, model: str, cases: list[dict[str, Any]], inputs: Sequence[str]
) -> str | None:
    """Sends the cases, and one for each of the inputs, which the model answers first; the digest of what was sent.
    `model`: digest of the model's file, which the node has.

    Raises `ConfigError` request_invalid, golden_invalid, file_unreadable and as the node.
    """
    from vedette.cli.tensors import question_of
    from vedette.ids import digest_of
    from vedette.models.golden import MAX_GOLDEN_BYTES, golden_bytes, parse_golden, request_of

    if inputs:
        with waiting("Looking at the model"):
            found = client.get(f"/v1/model-files/{model}/content", timeout=_INSPECTION)
        for given in inputs:
            is_json = given.lstrip()[:1] in ("{", "[")
            content = given.encode() if is_json else read_plain(Path(given), MAX_GOLDEN_BYTES)
            asked = question_of(content, found["inputs"])
            cases = [*cases, {"request": request_of(asked.body, asked.headers)}]
    if not cases:
        return None
    data = golden_bytes(parse_golden(json.dumps({"cases": cases}).encode()))
    digest = digest_of(data)
    client.upload_bytes(digest, data)
    return digest


def read_plain(file: Path, most: int) -> bytes:
    """The bytes of a file of at most so many. Raises `ConfigError` file_unreadable, also for a pipe or device."""
    try:
        with open(file, "rb", opener=_open) as content:
            if not stat.S_ISREG(os.fstat(content.fileno()).st_mode):
                raise ConfigError("file_unreadable", f"{file} is no plain file")
            data = content.read(most + 1)
    except OSError as error:
        raise ConfigError("file_unreadable", f"cannot read {file}: {error.strerror}") from None
    except ValueError:
        raise ConfigError("file_unreadable", f"{str(file)[:80]!r} is no path") from None
    if len(data) > most:
        raise ConfigError("file_unreadable", f"{file} is larger than {most:,} bytes")
    return data


def _open(path: str, flags: int) -> int:
    """Opens without waiting for somebody who writes into a pipe."""
    return os.open(path, flags | os.O_NONBLOCK)
