"""The published Python client `spiffe`, unmodified, against the Workload API."""

from __future__ import annotations

from spiffe import WorkloadApiClient
from tests.control.workload.conftest import DOMAIN, Served


def test_it_fetches_an_x509_svid(served: Served) -> None:
    served.put("shop")
    with WorkloadApiClient(served.address) as client:
        svid = client.fetch_x509_svid()
        assert str(svid.spiffe_id) == f"spiffe://{DOMAIN}/shop"
