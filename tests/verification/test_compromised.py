"""A node in the hands of an attacker reaches nothing of the others; and when one trusts it too much, that is seen."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from vedette.errors import UnavailableError
from vedette.verification.compromised import Blast
from vedette.verification.suite import run_compromised

TRUSTS_TOO_MUCH = """\
import json, pathlib, sys
from vedette.verification import compromised

kept = compromised._set_up

def careless(member, all_):
    kept(member, all_)
    if member.number == 1:
        wish = {"certificates": all_[0].forger.pem, "trustDomain": member.domain}
        member.place.client.put("/v1/authorities/node-0", wish)

compromised._set_up = careless
print(json.dumps(compromised.run(pathlib.Path(sys.argv[1]), 3)))
"""


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    try:
        return run_compromised(3)
    except UnavailableError as error:
        if error.code != "namespace_refused":
            raise
        pytest.skip("this machine gives no network namespace")


def test_nothing_foreign_is_reached_and_who_may_does(report: dict[str, Any]) -> None:
    assert report["passed"], report
    assert report["reached"] == 0
    pairs = {(one["source"], one["destination"]) for one in report["matrix"]}
    assert len(pairs) == 6
    assert all(one["works"] for one in report["controls"])
    assert sum("partner resource" in one["what"] for one in report["controls"]) >= 3


def test_a_node_that_trusts_another_with_its_own_names_is_seen(
    report: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("b")
    command = [sys.executable, "-c", TRUSTS_TOO_MUCH, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert not told["passed"]
    reached = [one for one in told["matrix"] if one["reached"]]
    assert reached
    assert {(one["source"], one["destination"]) for one in reached} == {("node-0", "node-1")}
    assert all("node-1.blast.invalid/shop" in one["attempt"] for one in reached)


def test_without_an_attempt_or_with_a_control_that_fails_it_has_not_passed() -> None:
    assert not Blast().as_dict(3)["passed"]
    refused = {"source": "a", "destination": "b", "attempt": "x", "reached": False, "saw": ""}
    works = {"what": "x", "works": True, "saw": ""}
    assert Blast([refused], [works]).as_dict(3)["passed"]
    assert not Blast([refused], []).as_dict(3)["passed"]
    assert not Blast([refused], [{**works, "works": False}]).as_dict(3)["passed"]
    assert not Blast([{**refused, "reached": True}], [works]).as_dict(3)["passed"]
