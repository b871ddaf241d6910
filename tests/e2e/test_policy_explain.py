"""`vedette policy explain` and `test` say what the engine then does."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.caller import Caller
from tests.e2e.node import Node

POLICY = """\
// Comments count as lines.
@id("no-admin")
forbid(principal, action, resource == Function::"hello")
when { context.path like "/hello/admin*" };
"""


@pytest.fixture(scope="module")
def admin_forbidden(node: Node) -> Iterator[Node]:
    """The shared node with one more policy."""
    node.set_policy("no-admin.cedar", POLICY)
    yield node
    node.run("policy", "remove", "no-admin.cedar")


def _explain(node: Node, *flags: str) -> dict[str, Any]:
    told = json.loads(node.run("policy", "explain", "--json", *flags).stdout)
    answer: dict[str, Any] = told["answers"][0]
    return answer


@pytest.mark.parametrize(
    "path", ["/hello", "/hello/admin", "/hello/ADMIN", "/hello/%61dmin", "/no"]
)
@pytest.mark.parametrize("anonymous", [False, True])
def test_the_explanation_is_what_happens(
    caller: Caller, admin_forbidden: Node, path: str, anonymous: bool
) -> None:
    who = ["--anonymous"] if anonymous else ["--subject", "tester"]
    told = _explain(admin_forbidden, *who, "--path", path)
    answer = caller.send(path, anonymous=anonymous)
    record = admin_forbidden.record(answer.request_id)
    assert told["allowed"] == (answer.status == 200)
    assert told["status"] == (None if told["allowed"] else answer.status)
    assert told["cause"] == record.get("cause")
    assert told["decidedBy"] == record.get("policies", [])


def test_each_policy_is_told_with_its_place_and_reason(admin_forbidden: Node) -> None:
    told = _explain(admin_forbidden, "--subject", "tester", "--path", "/hello/x")
    by_id = {one["id"]: one for one in told["policies"]}
    admin = by_id["no-admin"]
    assert (admin["file"], admin["line"], admin["effect"]) == ("no-admin.cedar", 2, "forbid")
    assert admin["failed"]["part"] == "when"
    assert admin["failed"]["values"] == {"context.path": "/hello/x"}
    assert by_id["node-token"]["decided"]
    text = admin_forbidden.run("policy", "explain", "--subject", "tester", "--path", "/hello/x")
    assert text.stdout.startswith("allowed, decided by node-token\n")
    assert "no-admin.cedar:2 forbid no-admin: does not apply" in text.stdout


def test_a_function_nobody_deployed_is_an_error(node: Node) -> None:
    flags = ["--subject", "x", "--function", "nowhere"]
    assert node.run("policy", "explain", *flags, check=False).returncode == 2
    assert node.run("policy", "explain", "--path", "/", check=False).returncode == 2


TABLE = """\
expectations:
  - request: {subject: alice, path: /hello}
    expect: allow
    policy: node-token
  - name: nobody without a token
    request: {path: /hello}
    expect: deny
    cause: credentials_required
  - name: wrong on purpose
    request: {subject: alice, path: /hello/admin}
    expect: allow
"""


def test_a_table_of_expectations_is_compared(admin_forbidden: Node, tmp_path: Path) -> None:
    table, report = tmp_path / "table.yaml", tmp_path / "report.xml"
    table.write_text(TABLE)
    done = admin_forbidden.run("policy", "test", str(table), "--junit", str(report), check=False)
    assert done.returncode == 1
    assert f"FAIL wrong on purpose ({table}:9)" in done.stdout
    assert "expected allow, got deny" in done.stdout
    assert "2 of 3 expectations hold" in done.stderr
    suite = ET.parse(report).getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("3", "1")
    table.write_text("\n".join(TABLE.splitlines()[:8]))
    admin_forbidden.run("policy", "test", str(table))


def test_policies_of_a_folder_are_asked_instead(admin_forbidden: Node, tmp_path: Path) -> None:
    table = tmp_path / "table.yaml"
    table.write_text("expectations:\n- {request: {path: /hello}, expect: allow, policy: open}\n")
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "open.cedar").write_text('@id("open") permit(principal, action, resource);\n')
    admin_forbidden.run("policy", "test", str(table), "--policies", str(folder))
    assert admin_forbidden.run("policy", "test", str(table), check=False).returncode == 1
    (folder / "open.cedar").write_text("permit(principal")
    flags = ["--policies", str(folder)]
    done = admin_forbidden.run("policy", "test", str(table), *flags, check=False)
    assert done.returncode == 2
    assert "open.cedar" in done.stderr


def test_a_mistake_in_the_table_is_told_with_its_line(node: Node, tmp_path: Path) -> None:
    table = tmp_path / "table.yaml"
    table.write_text("expectations:\n- request: {pth: /}\n  expect: deny\n")
    done = node.run("policy", "test", str(table), check=False)
    assert done.returncode == 2
    assert f"{table}:2" in done.stderr
    assert "did you mean 'path'" in done.stderr
