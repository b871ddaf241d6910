"""A revoked token is refused from the next request on, remembered or not, and a rollback does not bring it back."""

from __future__ import annotations

import json
import subprocess

from tests.e2e import tokens
from tests.e2e.caller import Caller
from tests.e2e.node import PROGRAM, Node


def test_a_revoked_token_is_refused_at_the_next_request(caller: Caller, node: Node) -> None:
    token, other = node.token("mallory"), node.token("mallory")
    _, claims = tokens.parts_of(token)
    assert caller.ask("/hello", token=token).status == 200
    node.run("token", "revoke", claims["jti"])
    answer = caller.ask("/hello", token=token)
    caller.expect_refused(answer, 401, "authenticate", "token_revoked")
    assert caller.ask("/hello", token=other).status == 200
    node.run("rollback")
    answer = caller.ask("/hello", token=token)
    caller.expect_refused(answer, 401, "authenticate", "token_revoked")


def test_a_token_is_revoked_by_itself_on_stdin(caller: Caller, node: Node) -> None:
    token = node.token("mallory")
    _, claims = tokens.parts_of(token)
    subprocess.run(
        [str(PROGRAM), "token", "revoke", "-", "--home", str(node.home)],
        input=token,
        text=True,
        check=True,
        timeout=60,
    )
    answer = caller.ask("/hello", token=token)
    caller.expect_refused(answer, 401, "authenticate", "token_revoked")
    listed = json.loads(node.run("token", "list-revoked", "--json").stdout)
    ends = {one["jti"]: one["expiresAt"] for one in listed}
    assert claims["jti"] in ends
    assert token not in json.dumps(listed)


def test_what_is_no_token_is_not_quoted(node: Node) -> None:
    done = node.run("token", "revoke", "abc.def.ghi", check=False)
    assert done.returncode == 2
    assert "abc.def.ghi" not in done.stderr
