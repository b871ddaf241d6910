"""Who may come in by address and country: lists at the door, countries at the route."""

from __future__ import annotations

import json
import os
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.conftest import StartNode
from tests.e2e.node import Node, wait_until
from tests.e2e.wire import HTTP_1, Answer, Kept, connect, send
from tests.guests import Guests
from tests.simulators.mmdb import database

# Clients of these tests, all on this machine.
SWISS, FRENCH, LISTED, SAVED = "127.0.0.1", "127.0.0.3", "127.0.0.66", "127.0.0.67"
COUNTRIES = {"127.0.0.1/32": "CH", "127.0.0.3/32": "FR"}

EDGE = """\
apiVersion: vedette.dev/v1alpha1
kind: Node
metadata: {name: edge}
spec: {countryFile: countries.mmdb}
---
apiVersion: vedette.dev/v1alpha1
kind: Route
metadata: {name: swiss}
spec:
  public: true
  countries: {allow: [CH]}
  rules: [{matches: [{path: {value: /swiss}}], static: {body: grüezi}}]
---
apiVersion: vedette.dev/v1alpha1
kind: Route
metadata: {name: others}
spec:
  public: true
  countries: {block: [FR]}
  rules: [{matches: [{path: {value: /others}}], static: {body: hello}}]
---
apiVersion: vedette.dev/v1alpha1
kind: Limit
metadata: {name: few}
spec: {per: [Source], routes: [swiss], rate: 2/h}
---
apiVersion: vedette.dev/v1alpha1
kind: AddressList
metadata: {name: drop}
spec: {action: Block, file: drop.txt, maxAge: 1d}
---
apiVersion: vedette.dev/v1alpha1
kind: AddressList
metadata: {name: friends}
spec: {action: Allow, networks: [127.0.0.67]}
"""
DROP = "; Spamhaus\n127.0.0.66/31 ; SBL1\nnonsense\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The manifests and what they name."""
    folder = tmp_path_factory.mktemp("addresses")
    (folder / "edge.yaml").write_text(EDGE, "utf-8")
    (folder / "drop.txt").write_text(DROP, "utf-8")
    (folder / "countries.mmdb").write_bytes(database(COUNTRIES))
    return folder


@pytest.fixture(scope="module")
def own(start_node: StartNode, guests: Guests, folder: Path) -> Iterator[Node]:
    """A node with lists and countries."""
    node = start_node()
    node.deploy(guests.hostile, "mirror", "--public")
    node.run("apply", str(folder), "--yes")
    yield node
    node.stop()


def ask(node: Node, protocol: str, source: str, path: str, **more: Any) -> Answer:
    return send(node.endpoint, protocol, path, source=source, **more)


def refused(node: Node, answer: Answer, status: int, stage: str, cause: str) -> dict[str, Any]:
    record = node.record(answer.request_id)
    assert (answer.status, record["stage"], record["cause"]) == (status, stage, cause), answer
    return dict(record)


def turned_away(node: Node) -> int:
    with node.engine() as engine:
        return int(engine.get("/metrics").json()["connectionsTurnedAway"].get("address_blocked", 0))


def test_a_listed_address_is_turned_away_before_its_handshake(own: Node, protocol: str) -> None:
    before = turned_away(own)
    with pytest.raises((ConnectionError, ssl.SSLError)):
        ask(own, protocol, LISTED, "/others")
    assert turned_away(own) == before + 1
    assert ask(own, protocol, SWISS, "/others").status == 200
    (record, *_) = own.requests.wait_for(lambda line: line.get("cause") == "address_blocked", 5)
    assert (record["protocol"], record["status"], record["detail"]) == ("TCP", 0, "the list drop")
    assert record["client"].startswith(f"{LISTED}:")


def test_an_allow_list_wins_over_a_block_list(own: Node, protocol: str) -> None:
    assert ask(own, protocol, SAVED, "/others").status == 200


def test_of_a_flood_of_listed_clients_a_few_are_recorded_and_all_are_counted(own: Node) -> None:
    before = turned_away(own)
    seen = len(own.requests.lines())
    for _ in range(200):
        with pytest.raises((ConnectionError, ssl.SSLError)):
            ask(own, HTTP_1, LISTED, "/others")
    wait_until("all are counted", lambda: turned_away(own) == before + 200)
    records = [line for line in own.requests.lines()[seen:] if line.get("protocol") == "TCP"]
    assert 0 < len(records) < 200, "each worker keeps ten a second"


def test_a_connection_that_was_there_before_its_list_ends_with_its_next_request(
    own: Node, folder: Path, tmp_path: Path, protocol: str
) -> None:
    late, last = tmp_path / "late.yaml", "5" if protocol == HTTP_1 else "6"
    late.write_text(
        EDGE.split("---\n")[-1]
        .replace("Allow", "Block")
        .replace("67", last)
        .replace("friends", "late")
    )
    with connect(own.endpoint, protocol, source=f"127.0.0.{last}") as secured:
        kept = Kept(secured, own.endpoint)
        assert kept.ask("/others").status == 200
        own.run("apply", str(late), "--yes")
        answer = kept.ask("/others")
        kept.require_closed()
    record = refused(own, answer, 403, "admit", "address_blocked")
    assert record["detail"] == "the list late"


def test_a_route_is_for_the_countries_it_names(own: Node, protocol: str) -> None:
    answer = ask(own, protocol, SAVED, "/swiss")
    record = refused(own, answer, 403, "limit", "country_not_allowed")
    assert (record["detail"], "country" in record) == ("the address has no country", False)
    assert ask(own, protocol, SAVED, "/others").status == 200
    answer = ask(own, protocol, FRENCH, "/others")
    record = refused(own, answer, 403, "limit", "country_not_allowed")
    assert (record["country"], record["detail"]) == ("FR", "the country FR")


def test_a_function_is_for_the_countries_it_was_deployed_for(
    own: Node, guests: Guests, protocol: str
) -> None:
    own.deploy(guests.hostile, "french", "--public", "--allow-country", "fr,be")
    assert ask(own, protocol, FRENCH, "/french/headers").status == 200
    refused(own, ask(own, protocol, SWISS, "/french/headers"), 403, "limit", "country_not_allowed")
    wrong = own.run("deploy", str(guests.hostile), "--allow-country", "France", check=False)
    assert (wrong.returncode, "--allow-country: " in wrong.stderr) == (2, True), wrong.stderr


def test_the_rate_is_asked_before_the_country(own: Node) -> None:
    answers = [ask(own, HTTP_1, FRENCH, "/swiss").status for _ in range(3)]
    assert answers == [403, 403, 429]


def test_a_function_learns_the_country_and_nobody_else_can_say_it(own: Node, protocol: str) -> None:
    spoofed = [("x-edge-country", "US"), ("x_edge_country", "US"), ("x-edge-anything", "1")]
    seen = json.loads(ask(own, protocol, FRENCH, "/mirror/headers", headers=spoofed).body)
    assert seen["x-edge-country"] == "FR"
    seen = json.loads(ask(own, protocol, SAVED, "/mirror/headers", headers=spoofed).body)
    assert not [name for name in seen if "edge" in name], "an address without a country has none"


def test_requests_are_counted_by_country(own: Node) -> None:
    ask(own, HTTP_1, SWISS, "/others")
    with own.engine() as engine:
        rows = engine.get("/metrics").json()["requests"]
    assert {"CH", "ZZ"} <= {row["country"] for row in rows}


def test_the_status_tells_lists_their_age_and_what_was_left_out(own: Node, folder: Path) -> None:
    status = own.status()
    (drop,) = [one for one in status["addressLists"] if one["name"] == "drop"]
    assert (drop["networks"], drop["leftOut"]) == (1, 1)
    assert drop["badLines"] == ["line 3: no address"]
    assert not drop["expired"]
    assert status["countries"] == {"networks": 2, "builtAt": "2025-06-15T15:06:40Z"}
    os.utime(folder / "drop.txt", (1_750_000_000, 1_750_000_000))
    own.run("apply", str(folder), "--yes")
    (drop,) = [one for one in own.status()["addressLists"] if one["name"] == "drop"]
    assert drop["expired"]
    assert "drop: block 1 networks, of 2025-06-15T15:06:40Z, EXPIRED" in own.run("status").stdout
    with pytest.raises((ConnectionError, ssl.SSLError)):
        ask(own, HTTP_1, LISTED, "/others")


@pytest.mark.parametrize(
    ("file", "content", "sentence"),
    [
        ("drop.txt", DROP.encode(), "drop: line 3: no address"),
        ("countries.mmdb", database(COUNTRIES)[:-40], "countries: the database cannot be read"),
    ],
)
def test_what_cannot_be_read_is_refused_whole_and_says_where(
    own: Node, folder: Path, tmp_path: Path, file: str, content: bytes, sentence: str
) -> None:
    before = own.status()["snapshot"]["digest"]
    for name in ("drop.txt", "countries.mmdb"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / file).write_bytes(content)
    strict = EDGE.replace("maxAge: 1d", "onBadLine: Refuse" if file == "drop.txt" else "maxAge: 2d")
    (tmp_path / "edge.yaml").write_text(strict, "utf-8")
    done = own.run("apply", str(tmp_path), "--yes", check=False)
    assert done.returncode != 0
    assert sentence in done.stderr, done.stderr
    assert own.status()["snapshot"]["digest"] == before


def test_a_node_brings_countries_and_can_do_without_or_with_others(
    start_node: StartNode, folder: Path, tmp_path: Path
) -> None:
    node = start_node()
    brought = node.status()["countries"]
    assert brought["networks"] > 200_000
    assert "T00:00:00Z" in brought["builtAt"]
    manifest = tmp_path / "edge.yaml"
    manifest.write_text(
        EDGE.split("---\n")[1], "utf-8"
    )  # a route for CH, and no word of a database
    told = node.run("apply", "--yes", "-f", str(manifest)).stderr
    assert "registries gave addresses" in told
    record = refused(node, ask(node, HTTP_1, SWISS, "/swiss"), 403, "limit", "country_not_allowed")
    assert "country" not in record, "loopback is in no registry"
    for spec, networks in (("{countryFile: countries.mmdb}", 2), ("{}", brought["networks"])):
        (tmp_path / "countries.mmdb").write_bytes((folder / "countries.mmdb").read_bytes())
        manifest.write_text(EDGE.split("---\n")[0].replace("{countryFile: countries.mmdb}", spec))
        node.run("apply", "--yes", "-f", str(manifest))
        assert node.status()["countries"]["networks"] == networks
    node.run("apply", "--yes", "--prune", "-f", str(manifest))
    manifest.write_text(manifest.read_text("utf-8").replace("{}", "{countryData: None}"))
    node.run("apply", "--yes", "-f", str(manifest))
    assert node.status()["countries"] is None
