"""JWT-SVIDs of functions: what calls carry, who believes them, who has none, and where they are not."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import jwt
import pytest
from spiffe import WorkloadApiClient
from spiffe.workloadapi.errors import ValidateJwtSvidError
from tests.e2e.caller import Answer, Caller
from tests.e2e.conftest import StartNode
from tests.e2e.node import Node, wait_until
from tests.e2e.wire import HTTP_1
from tests.guests import Guests
from tests.simulators.origin import Origin, running_origin

from vedette.ids import digest_of

DOMAIN = "edge-tokens.example.org"
COURIER = f"spiffe://{DOMAIN}/fn/courier"
REFUSED = b"refused: ErrorCode::HttpRequestDenied\n"


@pytest.fixture(scope="module")
def node(start_node: StartNode, guests: Guests) -> Node:
    """A node with a program, and a function whose calls may carry its JWT-SVID."""
    started = start_node("--name", "edge-tokens", "--site", "example.org")
    started.run("workload", "add", "billing", "--uid", str(os.getuid()))
    started.deploy(guests.outbound, "courier", "--waf", "off")
    return started


@pytest.fixture(scope="module")
def origin(node: Node) -> Iterator[Origin]:
    """Who is called, once the function has a token for it."""
    with running_origin() as origin:
        node.apply(_policy(origin))
        wait_until("it has its token", lambda: b"REACHED" in _call(node, origin).body)
        yield origin


def _policy(origin: Origin, credential: str = "{jwtSvid: {audience: [billing]}}") -> str:
    return (
        "apiVersion: vedette.dev/v1alpha1\nkind: EgressPolicy\nmetadata: {name: courier}\n"
        f"spec: {{functions: [courier], allow: [{{to: '{origin.url}', credential: {credential}}}]}}\n"
    )


def _call(node: Node, origin: Origin, path: str = "/courier/get") -> Answer:
    with closing(Caller(node, HTTP_1)) as caller:
        return caller.ask(f"{path}?{origin.authority}/")


def _arrived(origin: Origin) -> str:
    """The token of the last call."""
    (field,) = origin.received[-1].headers["authorization"]
    assert field.startswith("Bearer ")
    return field.removeprefix("Bearer ")


def _validated(node: Node, token: str, audience: str) -> str:
    with WorkloadApiClient(node.status()["workloadApi"]) as client:
        return str(client.validate_jwt_svid(token, audience).spiffe_id)


def _tokens(node: Node) -> list[dict[str, Any]]:
    file = node.path("engine", "svids.json")
    tokens: list[dict[str, Any]] = json.loads(file.read_text("utf-8")).get("tokens", [])
    return tokens


def test_a_call_carries_who_makes_it_and_which_component_that_is(
    node: Node, origin: Origin, guests: Guests
) -> None:
    assert _call(node, origin).body == b"REACHED 200\norigin\n"
    token = _arrived(origin)
    assert _validated(node, token, "billing") == COURIER
    with pytest.raises(ValidateJwtSvidError):
        _validated(node, token, "somebody-else")
    claims = jwt.decode(token, options={"verify_signature": False})
    assert claims["aud"] == ["billing"]
    assert claims["vedette.dev/component"] == digest_of(guests.outbound.read_bytes())
    history = json.loads(node.run("history", "--json").stdout)
    (deployed,) = [each for each in history if each["action"] == "deploy courier"]
    assert claims["vedette.dev/version"] == deployed["generation"]
    assert claims["exp"] - claims["iat"] == 300


def test_a_token_is_in_the_engines_file_and_nowhere_else(node: Node, origin: Origin) -> None:
    answer = _call(node, origin)
    token = _arrived(origin)
    [record] = node.egress.wait_for(lambda line: line.get("requestId") == answer.request_id)
    assert record["outcome"] == "served"
    signature = token.rpartition(".")[2].encode()
    claims = token.split(".")[1].encode()
    holding = [
        str(file.relative_to(node.path()))
        for file in sorted(node.path().rglob("*"))
        if file.is_file() and (signature in (data := file.read_bytes()) or claims in data)
    ]
    assert holding == ["engine/svids.json"]
    assert node.path("engine", "svids.json").stat().st_mode & 0o777 == 0o600
    for command in (("status", "--json"), ("records", "--json"), ("list", "--json"), ("logs",)):
        assert token not in node.run(*command, check=False).stdout, command


def test_another_node_that_follows_this_one_believes_the_token(
    node: Node, origin: Origin, start_node: StartNode, tmp_path: Path
) -> None:
    other = start_node("--name", "edge-other", "--site", "example.org")
    bundle = tmp_path / "bundle.json"
    node.run("federation", "serve", "--listen", "127.0.0.1:0")
    node.run("federation", "show", "--out", str(bundle))
    other.run("federation", "set", DOMAIN, "--bundle", str(bundle))
    served = node.status()["federation"]["endpoint"]["address"]
    other.run("federation", "follow", DOMAIN, "--url", f"https://{served}/bundle")
    uid = str(os.getuid())
    other.run("workload", "add", "billing", "--uid", uid, "--federates-with", DOMAIN)
    _call(node, origin)
    assert _validated(other, _arrived(origin), "billing") == COURIER


def test_without_a_token_for_this_component_nothing_is_sent(node: Node, origin: Origin) -> None:
    """Control is stopped, so the engine has only what its file says."""
    file = node.path("engine", "svids.json")
    with _without_control(node) as engine_reads:
        right = file.read_text("utf-8")
        other = right.replace(_tokens(node)[0]["component"], "sha256:" + "0" * 64)
        assert other != right
        before = len(origin.received)
        file.write_text(other, "utf-8")
        engine_reads()
        answer = _call(node, origin)
        assert answer.body == REFUSED
        [record] = node.egress.wait_for(lambda line: line.get("requestId") == answer.request_id)
        assert (record["outcome"], record["cause"]) == ("refused", "svid_missing")
        assert "wouldAllow" not in record
        assert len(origin.received) == before
        file.write_text(right, "utf-8")
        engine_reads()
        assert _call(node, origin).body.startswith(b"REACHED 200")
    [line] = node.logs.wait_for(lambda line: line["requestId"] == answer.request_id)
    assert line["message"] == f"vedette: courier may not call GET {origin.url}: svid_missing"


@contextmanager
def _without_control(node: Node) -> Iterator[Callable[[], None]]:
    """Control does nothing meanwhile; what is given has the engine read its files."""
    pid = node.pid("control")
    node.usual_token  # noqa: B018 - control makes it
    node.endpoint  # noqa: B018 - control tells it
    os.kill(pid, signal.SIGSTOP)
    try:
        with node.engine() as engine:
            yield lambda: engine.post("/svids").raise_for_status() and None
    finally:
        os.kill(pid, signal.SIGCONT)


def test_another_component_has_a_token_of_its_own(
    node: Node, origin: Origin, guests: Guests
) -> None:
    _call(node, origin)
    first = jwt.decode(_arrived(origin), options={"verify_signature": False})
    node.deploy(guests.service, "courier", "--waf", "off")
    reached = lambda: b"REACHED" in _call(node, origin, "/courier/call").body  # noqa: E731
    wait_until("it has its token", reached)
    second = jwt.decode(_arrived(origin), options={"verify_signature": False})
    assert second["vedette.dev/component"] == digest_of(guests.service.read_bytes())
    assert second["vedette.dev/version"] > first["vedette.dev/version"]
    assert len(_tokens(node)) == 1, "the one of the component before is gone"
    node.deploy(guests.outbound, "courier", "--waf", "off")
    wait_until("it is back", lambda: b"REACHED" in _call(node, origin).body)
    third = jwt.decode(_arrived(origin), options={"verify_signature": False})
    assert third["vedette.dev/version"] > second["vedette.dev/version"]


def test_who_is_revoked_has_none(node: Node, origin: Origin) -> None:
    assert _call(node, origin).body.startswith(b"REACHED 200")
    node.run("revoke", COURIER)
    try:
        wait_until("it is gone", lambda: _tokens(node) == [])
        wait_until("it is refused", lambda: _call(node, origin).body == REFUSED)
    finally:
        node.run("revoke", "--lift", COURIER)
    wait_until("it is back", lambda: b"REACHED" in _call(node, origin).body)


def test_a_rule_that_is_gone_takes_the_token_with_it(
    node: Node, origin: Origin, tmp_path: Path
) -> None:
    assert len(_tokens(node)) == 1
    secret = tmp_path / "secret"
    secret.write_text("kept\n")
    node.run("credential", "add", "key", "--file", str(secret))
    node.apply(_policy(origin, "{name: key}"))
    wait_until("it is gone", lambda: _tokens(node) == [])
    assert _call(node, origin).body.startswith(b"REACHED 200")
    assert _arrived(origin) == "kept"
    node.apply(_policy(origin))
    wait_until("it is back", lambda: len(_tokens(node)) == 1)
