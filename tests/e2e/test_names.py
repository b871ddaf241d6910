"""Where names lead: they change, lead inside, in many records at once.

The node is in an internet of the test's own, in which every address there is would answer.
"""

from __future__ import annotations

import ipaddress
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.e2e.node import Node, new_home
from tests.e2e.test_run import Allow
from tests.simulators import internet as simulator

RULE = "http://*.example.com"


@dataclass(frozen=True)
class Internet:
    """What leads where, and who was asked and connected to."""

    folder: Path

    def lead(self, **names: list[str]) -> None:
        """Names of example.com and their addresses; those before are gone."""
        whole = {f"{name}.example.com": addresses for name, addresses in names.items()}
        fresh = self.folder / "names.new"
        fresh.write_text(json.dumps(whole), "utf-8")
        fresh.replace(self.folder / "names.json")
        for file in ("asked", "connected"):
            (self.folder / file).write_text("", "utf-8")

    def asked(self) -> list[str]:
        """The names that were asked for."""
        return (self.folder / "asked").read_text("utf-8").splitlines()

    def connected(self) -> list[str]:
        """The addresses that were connected to."""
        return (self.folder / "connected").read_text("utf-8").splitlines()


@pytest.fixture(scope="module")
def placed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Internet, Node]]:
    """An internet and a node in it."""
    folder = tmp_path_factory.mktemp("internet")
    internet = Internet(folder)
    internet.lead()
    kinds = ["--mount", "--net"]
    as_root = os.geteuid() == 0
    own = [] if as_root else ["--user", "--map-root-user"]
    holder = subprocess.Popen(
        ["unshare", *own, *kinds, sys.executable, simulator.__file__, str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    if holder.stdout.readline() != "ready\n":
        _, errors = holder.communicate(timeout=10)
        if "unshare" in errors:
            pytest.skip(f"this machine gives no namespaces: {errors.strip()}")
        pytest.fail(errors)
    entered = kinds if as_root else ["--user", "--preserve-credentials", *kinds]
    node = Node(new_home(), prefix=["nsenter", "--target", str(holder.pid), *entered, "--"])
    try:
        yield internet, node.start()
    finally:
        node.discard()
        holder.kill()
        holder.wait()


@pytest.fixture
def internet(placed: tuple[Internet, Node]) -> Internet:
    return placed[0]


@pytest.fixture
def allow(placed: tuple[Internet, Node], request: pytest.FixtureRequest) -> Allow:
    """A program of the test's own, which may call every name of example.com."""
    allow = Allow(
        placed[1], request.node.name.removeprefix("test_").replace("_", "-")[:60].strip("-")
    )
    allow.rules(f'to: "{RULE}"')
    return allow


_EACH = """
import http.client, json, sys
answers = []
for url in sys.argv[1:]:
    proxy = http.client.HTTPConnection("127.0.0.1", 3128, timeout=60)
    proxy.request("GET", url)
    answer = proxy.getresponse()
    answers.append([answer.status, answer.read().decode()])
print(json.dumps(answers))
"""


def ask(allow: Allow, *names: str) -> list[tuple[int, str]]:
    """Status of each name's answer, and why it was refused."""
    done = allow.run(sys.executable, "-c", _EACH, *(f"http://{it}.example.com/" for it in names))
    assert done.returncode == 0, done.stderr
    told = []
    for status, body in json.loads(done.stdout):
        told.append((status, body if status == 200 else json.loads(body)["error"]))
    return told


INSIDE = ["127.0.0.1", "10.0.0.7", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0"]
INSIDE_6 = ["::1", "fd00:ec2::254", "fe80::1", "64:ff9b::7f00:1", "2002:7f00:1::"]
MAPPED = ["::ffff:127.0.0.1", "::ffff:10.0.0.7", "::ffff:169.254.169.254"]


def test_a_name_that_leads_to_a_private_address_is_refused(
    allow: Allow, internet: Internet
) -> None:
    names = {f"inside{at}": [address] for at, address in enumerate(INSIDE + INSIDE_6)}
    internet.lead(**names, outside=["93.184.216.34"])
    answers = ask(allow, *names, "outside")
    assert answers.pop() == (200, "reached")
    assert set(answers) == {(403, "address_not_allowed")}
    assert internet.connected() == ["93.184.216.34"]


def test_a_private_address_mapped_into_ipv6_is_that_address(
    allow: Allow, internet: Internet
) -> None:
    names = {f"mapped{at}": [address] for at, address in enumerate(MAPPED)}
    internet.lead(**names, outside=["::ffff:93.184.216.34"])
    answers = ask(allow, *names, "outside")
    assert answers.pop() == (200, "reached")
    assert set(answers) == {(403, "address_not_allowed")}
    assert internet.connected() == ["93.184.216.34"]


def test_a_name_that_changes_is_looked_up_once_for_each_call_and_judged_each_time(
    allow: Allow, internet: Internet
) -> None:
    internet.lead(rebind=["93.184.216.34"])
    assert ask(allow, "rebind") == [(200, "reached")]
    once = internet.asked()
    assert set(once) == {"rebind.example.com"}
    assert len(once) == 2, "one question for IPv4 and one for IPv6"
    internet.lead(rebind=["127.0.0.1"])
    assert ask(allow, "rebind") == [(403, "address_not_allowed")]
    assert (internet.connected(), len(internet.asked())) == ([], 2)
    internet.lead(rebind=["93.184.216.35"])
    assert ask(allow, "rebind") == [(200, "reached")]
    assert internet.connected() == ["93.184.216.35"]


def test_of_fifty_records_only_public_ones_are_connected_to(
    allow: Allow, internet: Internet
) -> None:
    """More than a datagram holds, so that they come over TCP; private ones first."""
    private = [f"10.{at}.0.1" for at in range(20)] + INSIDE[:4] + INSIDE_6 + MAPPED
    public = [f"93.184.216.{at}" for at in range(1, 50 - len(private))]
    public.append("2606:2800:220:1::1")
    assert len(private + public) == 50
    internet.lead(many=private + public)
    assert ask(allow, *["many"] * 5) == [(200, "reached")] * 5
    assert len(internet.connected()) >= 5
    assert set(internet.connected()) <= set(public)
    assert all(ipaddress.ip_address(it).is_global for it in internet.connected())
    internet.lead(many=[f"10.{at}.0.1" for at in range(50)])
    assert ask(allow, "many") == [(403, "address_not_allowed")]
    assert internet.connected() == []


def test_a_name_that_is_not_there_is_said(allow: Allow, internet: Internet) -> None:
    internet.lead()
    assert ask(allow, "nobody") == [(502, "dns_failed")]
