"""A well-behaved client of a node, over one protocol; and what every test expects of every answer.

Owns: keep-alive clients that trust the node's CA, and the assertion that a refusal is whole: status, id, one record,
and a neighbour that is still served. Must not: send anything malformed; `wire` does.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterable, Mapping
from typing import Any

import httpx
from tests.e2e.node import GREETING, Node
from tests.e2e.spool import Line
from tests.e2e.wire import HTTP_2, Answer, Header, send, tls_context


def client_of(node: Node, protocol: str, context: ssl.SSLContext) -> httpx.Client:
    """A keep-alive client of one node that speaks one protocol."""
    return httpx.Client(
        base_url=node.url,
        verify=context,
        http1=protocol != HTTP_2,
        http2=protocol == HTTP_2,
        timeout=60,
        trust_env=False,
    )


class Caller:
    """Asks one node over one protocol, with a valid token unless told otherwise."""

    def __init__(self, node: Node, protocol: str) -> None:
        self.node = node
        self.protocol = protocol
        self.client = client_of(node, protocol, tls_context(node.ca_file, protocol))

    def close(self) -> None:
        """Closes the connections."""
        self.client.close()

    def authorization(self, token: str | None = None) -> dict[str, str]:
        """The header that carries a token; the node's usual one when none is given."""
        return {"authorization": f"Bearer {token or self.node.usual_token}"}

    def ask(
        self,
        path: str,
        *,
        method: str = "GET",
        token: str | None = None,
        anonymous: bool = False,
        headers: Mapping[str, str] | None = None,
        body: bytes | Iterable[bytes] | None = None,
    ) -> Answer:
        """One request on a kept connection. An answer that breaks off is returned as incomplete, not raised."""
        told = {} if anonymous else self.authorization(token)
        if body is not None:
            told["content-type"] = "application/octet-stream"
        request = self.client.build_request(
            method, path, headers={**told, **(headers or {})}, content=body
        )
        response = self.client.send(request, stream=True)
        try:
            content = b"".join(response.iter_raw())
            return Answer(response.status_code, dict(response.headers), content)
        except (httpx.RemoteProtocolError, httpx.ReadError):
            return Answer(response.status_code, dict(response.headers), b"", complete=False)
        finally:
            response.close()

    def send(
        self, target: str, *, headers: Iterable[Header] = (), anonymous: bool = False, **parts: Any
    ) -> Answer:
        """One request written by hand on a connection of its own; see `wire.send`."""
        proof = [] if anonymous else list(self.authorization().items())
        return send(self.node.endpoint, self.protocol, target, headers=[*proof, *headers], **parts)

    def expect_neighbour_served(self) -> None:
        """A request of somebody else, on another connection, is answered as ever."""
        answer = self.send("/hello")
        assert (answer.status, answer.body) == (200, GREETING), answer

    def expect_refused(self, answer: Answer, status: int, stage: str, cause: str) -> Line:
        """The answer is a whole refusal: status, body, edge headers, one record; and nobody else noticed."""
        record = self.expect_recorded(answer, status)
        assert (record["outcome"], record.get("stage"), record.get("cause")) == (
            _outcome_of(stage, cause),
            stage,
            cause,
        ), record
        told = json.loads(answer.body)
        assert told["requestId"] == answer.request_id
        assert isinstance(told["error"], str)
        assert told["error"]
        assert answer.headers["content-type"].startswith("application/json")
        self.expect_neighbour_served()
        return record

    def expect_recorded(self, answer: Answer, status: int) -> Line:
        """The answer has that status and the edge's headers, and exactly one record says the same."""
        assert answer.status == status, answer
        assert answer.headers.get("x-edge-location"), answer
        assert int(answer.headers["x-edge-processing-time-us"]) >= 0
        record = self.node.record(answer.request_id)
        assert (record["status"], record["protocol"]) == (status, self.protocol), record
        return record


def _outcome_of(stage: str, cause: str) -> str:
    """A function that broke has failed; everything else is a refusal, also what `execute` does not begin."""
    is_a_no = cause in (
        "circuit_open",
        "concurrency_exceeded",
        "fault_injected",
        "request_too_large",
    )
    return "failed" if stage == "execute" and not is_a_no else "refused"
