"""The published Python client `spiffe`, unmodified: its sources follow rotation, its own checks accept what it gets."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta

import pytest
from spiffe import (
    JwtSource,
    SpiffeId,
    TrustDomain,
    WorkloadApiClient,
    X509Source,
)
from spiffe.workloadapi.x509_context import X509Context
from tests.control.workload.conftest import DOMAIN, Served

PATIENCE = 120.0  # seconds; only against what hangs
SHOP = f"spiffe://{DOMAIN}/shop"


@pytest.fixture
def client(served: Served) -> Iterator[WorkloadApiClient]:
    served.put("shop", hint="internal")
    with WorkloadApiClient(served.address) as opened:
        yield opened


def test_it_fetches_an_x509_svid_with_its_bundle(client: WorkloadApiClient) -> None:
    context = client.fetch_x509_context()
    svid = context.default_svid
    assert str(svid.spiffe_id) == SHOP
    bundle = context.x509_bundle_set.get_bundle_for_trust_domain(TrustDomain(DOMAIN))
    assert bundle is not None
    (authority,) = bundle.x509_authorities
    svid.leaf.verify_directly_issued_by(authority)
    assert svid.private_key.public_key() == svid.leaf.public_key()


def test_it_fetches_and_validates_a_jwt_svid(served: Served, client: WorkloadApiClient) -> None:
    svid = client.fetch_jwt_svid(["shop"])
    assert str(svid.spiffe_id) == SHOP
    assert str(client.validate_jwt_svid(svid.token, "shop").spiffe_id) == SHOP
    bundles = client.fetch_jwt_bundles()
    bundle = bundles.get_bundle_for_trust_domain(TrustDomain(DOMAIN))
    assert bundle is not None
    assert set(bundle.jwt_authorities) == {served.identities.jwt.public.kid}
    with pytest.raises(Exception, match="another audience"):
        client.validate_jwt_svid(svid.token, "other")


def test_a_source_follows_rotation(served: Served, client: WorkloadApiClient) -> None:
    told: list[X509Context] = []
    news = threading.Semaphore(0)

    def on_success(context: X509Context) -> None:
        told.append(context)
        news.release()

    stop = client.stream_x509_contexts(on_success, lambda error: None)
    assert news.acquire(timeout=PATIENCE)
    served.clock.ahead = timedelta(minutes=8)
    assert news.acquire(timeout=PATIENCE)
    first, second = (context.default_svid for context in told[:2])
    assert first.leaf.serial_number != second.leaf.serial_number
    assert str(second.spiffe_id) == SHOP
    stop.cancel()


def test_its_sources_work(served: Served) -> None:
    served.put("shop")
    with (
        WorkloadApiClient(served.address) as client,
        X509Source(workload_api_client=client) as x509_source,
    ):
        assert str(x509_source.get_x509_context().default_svid.spiffe_id) == SHOP
    with (
        WorkloadApiClient(served.address) as client,
        JwtSource(workload_api_client=client) as jwt_source,
    ):
        svid = jwt_source.fetch_svid(["a"], subject=SpiffeId(SHOP))
        assert str(svid.spiffe_id) == SHOP


def test_without_an_identity_it_is_denied(served: Served) -> None:
    with (
        WorkloadApiClient(served.address) as client,
        pytest.raises(Exception, match="no identity is issued"),
    ):
        client.fetch_x509_svid()
