"""An authority, a signer of JWT-SVIDs and a store, each new."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from vedette.identity.authority import Authority
from vedette.identity.jwt_svid import JwtIssuer
from vedette.store.identities import IdentityStore

DOMAIN = "edge-1.vedette.local"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.ensure(tmp_path / "ca.key", tmp_path / "ca.crt", DOMAIN)


@pytest.fixture
def jwt_issuer(tmp_path: Path) -> JwtIssuer:
    return JwtIssuer.ensure(tmp_path / "jwt-svid.key", DOMAIN)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[IdentityStore]:
    opened = IdentityStore(tmp_path / "identity.db")
    yield opened
    opened.close()
