"""Requests that the firewall let pass before are not inspected again: the same ones, and no others."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.conftest import StartNode
from tests.e2e.node import Node, wait_until
from tests.e2e.wire import HTTP_1, HTTP_2, Answer, send
from tests.simulators.service import Service

ROUTES = """\
apiVersion: vedette.dev/v1alpha1
kind: Upstream
metadata: {{name: one}}
spec: {{url: "http://127.0.0.1:{port}"}}
---
apiVersion: vedette.dev/v1alpha1
kind: Route
metadata: {{name: plain}}
spec:
  public: true
  rules:
    - matches: [{{path: {{value: /plain}}}}]
      backendRefs: [{{kind: Upstream, group: vedette.dev, name: one}}]
---
apiVersion: vedette.dev/v1alpha1
kind: Route
metadata: {{name: other}}
spec:
  public: true
  waf: {{rules: [{{name: no-word, field: "argument:q", operator: Contains, value: word}}]}}
  rules:
    - matches: [{{path: {{value: /other}}}}]
      backendRefs: [{{kind: Upstream, group: vedette.dev, name: one}}]
---
apiVersion: vedette.dev/v1alpha1
kind: Route
metadata: {{name: away}}
spec:
  public: true
  waf: {{ruleFiles: [away.conf]}}
  rules:
    - matches: [{{path: {{value: /away}}}}]
      static: {{body: here}}
---
apiVersion: vedette.dev/v1alpha1
kind: Route
metadata: {{name: ports}}
spec:
  public: true
  waf: {{ruleFiles: [ports.conf]}}
  rules:
    - matches: [{{path: {{value: /ports}}}}]
      static: {{body: here}}
---
apiVersion: vedette.dev/v1alpha1
kind: Route
metadata: {{name: answers}}
spec:
  public: true
  waf: {{response: {{}}}}
  rules:
    - matches: [{{path: {{value: /answers}}}}]
      static: {{body: here}}
"""
AWAY = 'SecRule REMOTE_ADDR "@ipMatch 127.0.0.2" "id:1000,phase:1,deny,status:403,msg:\'Away\'"\n'
PORTS = 'SecRule REMOTE_PORT "@eq 1" "id:1000,phase:1,deny,status:403,msg:\'A low port\'"\n'


class Site:
    """A node with one worker, whose memory is the node's."""

    def __init__(self, node: Node, folder: Path, port: int) -> None:
        self.node = node
        self.manifest = folder / "routes.yaml"
        self.manifest.write_text(ROUTES.format(port=port), "utf-8")
        (folder / "away.conf").write_text(AWAY, "utf-8")
        (folder / "ports.conf").write_text(PORTS, "utf-8")
        self.apply()

    def apply(self) -> None:
        self.node.run("apply", "--yes", "-f", str(self.manifest))

    def ask(self, target: str, protocol: str = HTTP_1, source: str = "", **sent: str) -> Answer:
        headers = [(name.replace("_", "-"), value) for name, value in sent.items()]
        endpoint = self.node.endpoint
        return send(endpoint, protocol, target, headers=headers, source=source)

    def post(self, target: str, kind: str, body: bytes) -> Answer:
        headers = [("content-type", kind)]
        endpoint = self.node.endpoint
        return send(endpoint, HTTP_1, target, method="POST", headers=headers, body=body)

    def known(self) -> int:
        """Requests that were not inspected because they were known; all asked so far are counted."""
        with self.node.admin() as admin:
            text = admin.get("/metrics").text
        return int(float(re.findall(r"^edge_inspections_known_total\S* (\S+)$", text, re.M)[0]))

    def newly_known(self, *asked: int) -> int:
        """How many of these were known. They are counted a moment after they are answered."""
        before = self._seen
        assert all(status == 200 for status in asked), asked
        self.node.record(self.ask("/ports").request_id)
        self._seen = self.known()
        return self._seen - before

    _seen = 0


@pytest.fixture
def site(start_node: StartNode, tmp_path: Path) -> Iterator[Site]:
    service = Service()
    yield Site(start_node("--workers", "1"), tmp_path, service.port)
    service.close()


def test_the_same_request_is_inspected_once_and_any_other_by_itself(site: Site) -> None:
    def ask(target: str = "/plain?q=1", **more: str) -> int:
        return site.ask(target, **more).status

    assert site.newly_known(ask()) == 0
    assert site.newly_known(ask(), ask(), ask()) == 3
    others = [
        ask("/plain?q=2"),
        ask("/plain"),
        ask(x_more="1"),
        ask(cookie="a=b"),
        ask(source="127.0.0.2"),
        ask("/other?q=1"),
        site.ask("/plain?q=1", HTTP_2).status,
    ]
    assert site.newly_known(*others) == 0
    assert site.newly_known(ask(x_more="1"), ask(source="127.0.0.2")) == 2


def test_what_is_refused_or_noted_is_refused_or_noted_each_time(site: Site) -> None:
    attack = "/plain?q=1'+OR+'1'='1'+--+"
    assert site.ask("/plain?q=1").status == 200
    assert [site.ask(attack).status for _ in range(4)] == [403] * 4
    assert [site.ask("/other?q=a+word").status for _ in range(2)] == [403] * 2
    endpoint = site.node.endpoint
    number = f"127.0.0.1:{endpoint.port}"
    # Rule 920350 notes a Host that is an address, which is no reason to refuse.
    noted = [
        send(endpoint, HTTP_1, "/plain?q=1", authority=number, sni=None).status for _ in range(3)
    ]
    assert site.newly_known(*noted) == 0


def test_the_address_is_a_part_of_it(site: Site) -> None:
    assert [site.ask("/away").status for _ in range(3)] == [200] * 3
    assert [site.ask("/away", source="127.0.0.2").status for _ in range(2)] == [403] * 2


def test_rules_that_look_at_more_than_the_request_are_always_asked(site: Site) -> None:
    asked = [site.ask(target).status for target in ("/ports", "/answers") for _ in range(3)]
    assert site.newly_known(*asked) == 0


def test_bodies_that_are_looked_into_are_inspected_each_time(site: Site) -> None:
    form, image = "application/x-www-form-urlencoded", "image/png"
    bodies = [site.post("/plain", form, b"q=1").status for _ in range(3)]
    assert site.newly_known(*bodies) == 0
    assert site.post("/plain", form, b"q=1'+OR+'1'='1'+--+").status == 403
    images = [site.post("/plain", image, body).status for body in (b"a", b"b", b"c")]
    assert site.newly_known(*images) == 2


def test_a_new_snapshot_forgets_what_was_known(site: Site) -> None:
    first = [site.ask("/plain?q=a+word").status for _ in range(2)]
    assert site.newly_known(*first) == 1
    text = site.manifest.read_text("utf-8")
    waf = (
        '  waf: {rules: [{name: no-word, field: "argument:q", operator: Contains, value: word}]}\n'
    )
    changed = text.replace("{name: plain}\nspec:\n", "{name: plain}\nspec:\n" + waf)
    site.manifest.write_text(changed, "utf-8")
    site.apply()
    wait_until("the new rule", lambda: site.ask("/plain?q=a+word").status == 403)
