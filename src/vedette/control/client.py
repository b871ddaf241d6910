"""The client of the admin API, which the CLI uses.

Owns: reaching control over its Unix socket with the standard library (no import that makes the CLI slow), and turning
its errors back into ours. Must not: know what a command prints.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

from vedette.control.supervisor.launch import is_running, not_running
from vedette.engine.client import UnixHTTPConnection
from vedette.errors import ConfigError, UnavailableError, VedetteError, error_from_dict
from vedette.store.home import Home

_READ_TIMEOUT = 10.0  # seconds
_CHANGE_TIMEOUT = 540.0  # a deploy compiles, for at most 420
_CHUNK = 256 * 1024


class ControlClient:
    """The node at `home`. Each call is one connection."""

    def __init__(self, home: Home) -> None:
        self._home = home

    def get(self, path: str, timeout: float = _READ_TIMEOUT) -> Any:
        """The JSON answer of a GET. Raises `VedetteError`."""
        return self._json("GET", path, None, timeout)

    def put(self, path: str, body: Any) -> Any:
        """The JSON answer of a PUT. Raises `VedetteError`."""
        return self._json("PUT", path, body)

    def post(self, path: str, body: Any, timeout: float = _CHANGE_TIMEOUT) -> Any:
        """The JSON answer of a POST. Raises `VedetteError`."""
        return self._json("POST", path, body, timeout)

    def delete(self, path: str) -> Any:
        """The JSON answer of a DELETE. Raises `VedetteError`."""
        return self._json("DELETE", path, None)

    def post_for_bytes(self, path: str, body: Any) -> bytes:
        """The body of the answer to a POST as it is. Raises `VedetteError`."""
        headers = {"content-type": "application/json"}
        data = json.dumps(body).encode()
        with _Exchange(self._home, "POST", path, data, headers) as answer:
            return answer.read()

    def get_bytes(self, path: str) -> bytes:
        """The body of a GET as it is. Raises `VedetteError`."""
        with _Exchange(self._home, "GET", path, None, {}, _READ_TIMEOUT) as answer:
            return answer.read()

    def post_to_file(self, path: str, file: BinaryIO) -> Mapping[str, str]:
        """Writes the body of the answer to a POST to `file`; returns its headers, in lower case. Raises
        `VedetteError`.
        """
        with _Exchange(self._home, "POST", path, None, {}) as answer:
            shutil.copyfileobj(answer, file, _CHUNK)
            return {name.lower(): value for name, value in answer.getheaders()}

    def upload(
        self, digest: str, file: Path, on_sent: Callable[[int], None], room: str = "blobs"
    ) -> None:
        """Uploads a component, or a model to `model-files`; `on_sent` hears the bytes of each part. Raises
        `VedetteError`.
        """

        def parts() -> Iterator[bytes]:
            with file.open("rb") as content:
                while chunk := content.read(_CHUNK):
                    yield chunk
                    on_sent(len(chunk))

        headers = {
            "content-type": "application/octet-stream",
            "content-length": str(os.path.getsize(file)),
        }
        with _Exchange(self._home, "PUT", f"/v1/{room}/{digest}", parts(), headers) as answer:
            answer.read()

    def upload_bytes(self, digest: str, data: bytes, room: str = "files") -> None:
        """Uploads content: to `files` as it is, to `blobs` as a component, to `model-files` as a model.

        Raises `VedetteError`.
        """
        path = f"/v1/{room}/{digest}"
        headers = {"content-type": "application/octet-stream"}
        with _Exchange(self._home, "PUT", path, data, headers) as answer:
            answer.read()

    def lines(self, path: str, *, follow: bool) -> Iterator[dict[str, Any]]:
        """The objects of a JSON-lines answer as they come; without end when it follows."""
        timeout = None if follow else _READ_TIMEOUT
        with _Exchange(self._home, "GET", path, None, {}, timeout) as answer:
            while line := answer.readline():
                yield json.loads(line)

    def _json(self, method: str, path: str, body: Any, timeout: float = _CHANGE_TIMEOUT) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {} if body is None else {"content-type": "application/json"}
        with _Exchange(self._home, method, path, data, headers, timeout) as answer:
            return json.loads(answer.read())


class _Exchange:
    """One request and its answer. Raises the node's error for any status but 200."""

    def __init__(
        self,
        home: Home,
        method: str,
        path: str,
        body: bytes | Iterator[bytes] | None,
        headers: dict[str, str],
        timeout: float | None = _CHANGE_TIMEOUT,
    ) -> None:
        self._home = home
        self._request = (method, path, body, headers)
        self._connection = UnixHTTPConnection(home.admin_socket, timeout)

    def __enter__(self) -> http.client.HTTPResponse:
        method, path, body, headers = self._request
        try:
            self._connection.connect()
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                # The node may answer before it has read everything: it refuses, and says why.
                self._connection.request(method, path, body, headers)
            answer = self._connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise _away(self._home, error) from error
        if answer.status != 200:
            text = answer.read()
            self._connection.close()
            raise _error_of(answer.status, text)
        return answer

    def __exit__(self, *_: object) -> None:
        self._connection.close()


def _away(home: Home, error: Exception) -> VedetteError:
    if not is_running(home):
        return not_running(home)
    return UnavailableError("control_away", f"the node's control process does not answer: {error}")


def _error_of(status: int, text: bytes) -> VedetteError:
    try:
        return error_from_dict(json.loads(text)["error"])
    except (ValueError, KeyError, TypeError):
        return UnavailableError("control_away", f"control answered {status}: {text[:200]!r}")


def segment(name: str) -> str:
    """A name as one segment of a path. Raises `ConfigError` invalid_name for what cannot be one: the node would take
    it for another path. Whether it is a name of the right kind the node says.
    """
    if name in ("", ".", "..") or "/" in name or not name.isprintable():
        raise ConfigError("invalid_name", f"{name[:80]!r} is not a valid name", "Check the name.")
    return quote(name, safe="")
