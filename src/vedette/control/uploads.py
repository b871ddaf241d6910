"""Receiving what is uploaded.

Owns: streaming a body to a file, and its limit. Must not: look at what it is.
"""

from __future__ import annotations

from pathlib import Path

from fastapi import Request

from vedette.errors import ConfigError
from vedette.store.atomic import disk_error


async def receive(request: Request, file: Path, most: int, too_large: ConfigError) -> None:
    """Streams the body to `file`. Raises `too_large` beyond `most` bytes, at once where the request says how many it
    is, and `UnavailableError` disk_full.
    """
    if int(request.headers.get("content-length", "0")) > most:
        raise too_large
    received = 0
    with file.open("wb") as output:
        async for chunk in request.stream():
            received += len(chunk)
            if received > most:
                raise too_large
            try:
                output.write(chunk)
            except OSError as error:
                raise disk_error(error, file) from error
