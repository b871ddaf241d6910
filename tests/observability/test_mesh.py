"""Who would break under strict, counted from records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vedette.observability import mesh
from vedette.observability.mesh import mesh_calls

SHOP = "spiffe://edge-1.example.org/shop"


def record(second: int, **fields: Any) -> bytes:
    line = {
        "kind": "request",
        "time": f"2026-01-01T00:00:{second:02}.000000Z",
        "listener": "billing.inbound",
        "client": "10.0.0.9:40000",
        "outcome": "served",
        **fields,
    }
    return json.dumps(line, separators=(",", ":")).encode() + b"\n"


def shown(spiffe_id: str) -> dict[str, Any]:
    return {"certificate": {"spiffeId": spiffe_id}, "principal": spiffe_id}


def test_each_caller_and_cause_is_counted_with_when(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(
        record(1, listener="https")
        + record(2, wouldBreak="plain_http")
        + record(3, wouldBreak="plain_http", client="10.0.0.9:50000")
        + record(4, wouldBreak="plain_http", client="[2001:db8::7]:50000")
        + record(5, wouldBreak="policy_denied", **shown(SHOP))
        + record(6, **shown(SHOP))
        + record(7, outcome="refused", cause="policy_denied", **shown(SHOP))
        + record(8, listener="billing.outbound", wouldBreak="plain_http")
        + record(9, kind="security", wouldBreak="plain_http")
        + record(10, listener="https", path="/x.inbound", wouldBreak="plain_http")
    )
    (tmp_path / "b.jsonl").write_bytes(record(0, wouldBreak="plain_http") + b'{"torn')
    found = mesh_calls(tmp_path)
    assert found.since == "2026-01-01T00:00:00.000000Z"
    assert list(found.sidecars) == ["billing"]
    calls = found.sidecars["billing"]
    assert (calls.all.count, calls.fine, calls.refused, calls.broken) == (7, 1, 1, 5)
    rows = {
        key: (span.count, span.first[17:19], span.last[17:19])
        for key, span in calls.breaking.items()
    }
    assert rows == {
        ("10.0.0.9", "plain_http"): (3, "00", "03"),
        ("2001:db8::7", "plain_http"): (1, "04", "04"),
        (SHOP, "policy_denied"): (1, "05", "05"),
    }


def test_only_what_began_since_is_counted_but_records_go_back_as_far_as_they_do(
    tmp_path: Path,
) -> None:
    (tmp_path / "a.jsonl").write_bytes(record(1, wouldBreak="plain_http") + record(5))
    found = mesh_calls(tmp_path, "2026-01-01T00:00:02.000000Z")
    assert found.since == "2026-01-01T00:00:01.000000Z"
    calls = found.sidecars["billing"]
    assert (calls.all.count, calls.broken, calls.fine) == (1, 0, 1)


def test_no_records_say_nothing(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "gone"):
        found = mesh_calls(folder)
        assert (found.since, found.sidecars, found.untold) == (None, {}, 0)


def test_callers_without_end_are_counted_and_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mesh, "MOST_CALLERS", 3)
    monkeypatch.setattr(mesh, "MOST_SIDECARS", 2)
    lines = [record(1, client=f"10.0.0.{one}:1", wouldBreak="plain_http") for one in range(9)]
    lines += [record(2, listener="other.inbound", wouldBreak="plain_http")]
    lines += [record(3, listener="third.inbound", wouldBreak="plain_http")]
    (tmp_path / "a.jsonl").write_bytes(b"".join(reversed(lines)))
    found = mesh_calls(tmp_path)
    assert found.callers() == 3
    assert len(found.sidecars) == 2
    assert found.untold == 8
    assert found.sidecars["billing"].broken == 9, "counted all the same"


@pytest.mark.parametrize(
    "junk",
    [
        b'{".inbound": 1, "x": ".inbound"}\n',
        b'[".inbound"]\n',
        b'{"listener":"billing.inbound","time":7}\n',
        b'{"listener":"billing.inbound","kind":"request","time":"2026","certificate":7,"wouldBreak":{}}\n',
    ],
)
def test_a_line_of_something_else_is_stepped_over(tmp_path: Path, junk: bytes) -> None:
    (tmp_path / "a.jsonl").write_bytes(record(1) + junk + record(2))
    assert mesh_calls(tmp_path).sidecars["billing"].fine == 2


def test_lines_of_other_listeners_are_not_read_as_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a gigabyte of records most are."""
    (tmp_path / "a.jsonl").write_bytes(record(1, listener="https") * 5_000 + record(2))
    parsed: list[bytes] = []
    original = mesh._parsed

    def counted(raw: bytes) -> dict[str, Any]:
        parsed.append(raw)
        return original(raw)

    monkeypatch.setattr(mesh, "_parsed", counted)
    assert mesh_calls(tmp_path).sidecars["billing"].fine == 1
    assert len(parsed) == 2, "the one call, and the oldest line"


def test_a_call_of_a_sidecar_of_the_same_node_counts_as_one_of_whom_it_calls(
    tmp_path: Path,
) -> None:
    local = {"listener": "shop.outbound", "route": "sidecar-billing", **shown(SHOP)}
    (tmp_path / "a.jsonl").write_bytes(
        record(1, **local)
        + record(2, wouldBreak="policy_denied", **local)
        + record(3, **{**local, "route": "elsewhere"})
        + record(4, listener="https", route="sidecar-billing")
        + record(5, listener="shop.outbound", route=None, note="sidecar-billing")
    )
    found = mesh_calls(tmp_path)
    assert list(found.sidecars) == ["billing"]
    calls = found.sidecars["billing"]
    assert (calls.all.count, calls.fine, calls.broken) == (2, 1, 1)
    assert list(calls.breaking) == [(SHOP, "policy_denied")]
