"""Asks a server once before it is measured: a wrong answer measured fast is worth nothing.

Owns: the checks that an endpoint answers, over TLS 1.3 where it should, refuses without a token where it
should, refuses an attack where a firewall is measured and only there, and a stranger on the way between sidecars.
Must not: time anything.
"""

from __future__ import annotations

import contextlib
import http.client
import ssl
from collections.abc import Mapping
from dataclasses import replace
from urllib.parse import urlsplit

from load import Posted
from processes import BenchError
from server import Endpoint, Server

_SECONDS = 10.0
_ATTACK = "?id=1%27%20union%20select%20password%20from%20users--%20"


def require_right(server: Server, endpoint: Endpoint) -> None:
    """Raises BenchError unless it answers 200 with its body, and 401 without its token."""
    token = endpoint.tokens[0] if endpoint.tokens else None
    for path in endpoint.paths[:1] or (urlsplit(endpoint.url).path,):
        status, body = _get(endpoint, path, token)
        if (status, body) != (200, endpoint.body.encode()):
            raise BenchError(f"{server.name}: {endpoint.url} answered {status}: {body[:300]!r}")
        if endpoint.judged is not None:
            _require_judged(server, endpoint, path, token)
        if token and (refused := _get(endpoint, path, None)[0]) != 401:
            raise BenchError(f"{server.name}: {endpoint.url} without a token answered {refused}")


def require_mutual(server: Server) -> None:
    """Raises BenchError when the far side of a pair of sidecars serves who shows no certificate, or no TLS."""
    inbound = server.endpoints.get("inbound")
    if inbound is None:
        return
    for url in (inbound.url, inbound.url.replace("https:", "http:", 1)):
        with contextlib.suppress(OSError, http.client.HTTPException):
            status, body = _get(replace(inbound, url=url), "/", None)
            if status < 400:
                raise BenchError(
                    f"{server.name}: {url} answered a stranger {status}: {body[:300]!r}"
                )


def require_served(posted: Posted, words: str) -> bytes:
    """The answer to what is posted; raises BenchError unless it is 200 with these words in it, and 401 without the
    token.
    """
    status, body = _post(posted, posted.fields)
    if status != 200 or words.encode() not in body:
        raise BenchError(f"{posted.url} answered {status} and no {words}: {body[:300]!r}")
    stripped = {name: value for name, value in posted.fields.items() if name != "authorization"}
    if (refused := _post(posted, stripped)[0]) != 401:
        raise BenchError(f"{posted.url} without a token answered {refused}")
    return body


def _post(posted: Posted, fields: Mapping[str, str]) -> tuple[int, bytes]:
    connection = _connect(posted.url)
    with contextlib.closing(connection):
        connection.request("POST", urlsplit(posted.url).path, posted.body, dict(fields))
        response = connection.getresponse()
        return response.status, response.read()


def _require_judged(server: Server, endpoint: Endpoint, path: str, token: str | None) -> None:
    status, _ = _get(endpoint, path.partition("?")[0] + _ATTACK, token)
    if (status == 403) != endpoint.judged:
        wanted = "refused with 403" if endpoint.judged else "let through"
        raise BenchError(f"{server.name}: {endpoint.url}: an attack must be {wanted}, got {status}")


def _get(endpoint: Endpoint, path: str, token: str | None) -> tuple[int, bytes]:
    connection = _connect(endpoint.url)
    with contextlib.closing(connection):
        headers = dict(endpoint.fields)
        if token:
            headers["authorization"] = f"Bearer {token}"
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        return response.status, response.read()


def _connect(url: str) -> http.client.HTTPConnection:
    address = urlsplit(url)
    host, port = address.hostname or "127.0.0.1", address.port
    if address.scheme == "http":
        return http.client.HTTPConnection(host, port, timeout=_SECONDS)
    # The load generators do not check certificates either; that TLS 1.3 is spoken is what counts.
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return http.client.HTTPSConnection(host, port, timeout=_SECONDS, context=context)
