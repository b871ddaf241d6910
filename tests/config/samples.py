"""A snapshot that is valid, as data, for tests to break in one place at a time."""

from __future__ import annotations

import copy
from typing import Any

from vedette.config.model import build
from vedette.config.snapshot import Snapshot

DIGEST = "sha256:" + "a" * 64
OTHER_DIGEST = "sha256:" + "b" * 64

_SNAPSHOT: dict[str, Any] = {
    "apiVersion": "vedette.dev/v1alpha1",
    "kind": "Snapshot",
    "node": {"trustDomain": "edge-1.vedette.local"},
    "admit": {"hosts": ["*.example.com", "127.0.0.1", "::1", "localhost"]},
    "identity": {
        "issuers": [
            {
                "name": "node",
                "issuer": "spiffe://edge-1.vedette.local",
                "audiences": ["spiffe://edge-1.vedette.local/gateway"],
                "keys": [
                    {
                        "kid": "k1",
                        "alg": "ES256",
                        "jwk": {"kty": "EC", "crv": "P-256", "x": "eA", "y": "eQ"},
                    }
                ],
            }
        ]
    },
    "policy": {"schema": DIGEST, "policies": [{"name": "default.cedar", "blob": OTHER_DIGEST}]},
    "functions": [
        {"name": "hello", "component": DIGEST, "size": 100, "env": {"GREETING": "Grüße"}},
    ],
    "routes": [
        {
            "name": "health",
            "path": {"type": "Exact", "value": "/health"},
            "backend": {"type": "Static", "status": 200, "body": "ok"},
        },
        {
            "name": "hello",
            "hosts": ["api.example.com"],
            "path": {"type": "PathPrefix", "value": "/hello"},
            "backend": {"type": "Function", "function": "hello"},
        },
    ],
}


def snapshot_data() -> dict[str, Any]:
    """A fresh copy of the data."""
    return copy.deepcopy(_SNAPSHOT)


def snapshot() -> Snapshot:
    """The valid snapshot."""
    return build(Snapshot, snapshot_data())
