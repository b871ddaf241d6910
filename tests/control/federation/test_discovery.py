"""A relying party that knows nothing of SPIFFE verifies a JWT-SVID by OIDC discovery, with PyJWT's own client."""

from __future__ import annotations

import json
import ssl
import urllib.request
from collections.abc import Iterator
from datetime import timedelta

import jwt
import pytest
from spiffe import WorkloadApiClient
from tests.control.federation.conftest import Peer, Web
from tests.control.workload.conftest import ME

from vedette.control.federation.messages import Profile
from vedette.control.federation.serving import BundleServing
from vedette.control.supervisor import sockets
from vedette.control.workload.entries import Workloads
from vedette.control.workload.identities import Identities
from vedette.control.workload.messages import WorkloadWish
from vedette.control.workload.server import WorkloadServer


@pytest.fixture
def program(one: Peer) -> Iterator[WorkloadApiClient]:
    """A program with an identity."""
    workloads = Workloads(one.identities.store, one.domain)
    server = WorkloadServer(one.home, workloads, one.identities)
    server.start(sockets.bind_unix(one.home.workload_socket, 0o666))
    workloads.put("shop", WorkloadWish(path="/shop", selectors=(ME,)))
    with WorkloadApiClient(f"unix://{one.home.workload_socket}") as client:
        yield client
    server.stop()


def serve(one: Peer, web: Web, path: str) -> str:
    """Serves with discovery; the port is known when it served once."""
    files = {"certificate": str(web.certificate), "key": str(web.key)}
    first = one.serve(profile=Profile.HTTPS_WEB, **files)
    issuer = f"https://{first.address}{path}"
    one.serve(listen=first.listen, profile=Profile.HTTPS_WEB, **files, oidc_issuer=issuer)
    return issuer


@pytest.mark.parametrize("path", ["", "/deep/er"])
def test_a_token_is_verified_by_discovery_also_after_a_rotation(
    one: Peer, web: Web, program: WorkloadApiClient, path: str
) -> None:
    before = program.fetch_jwt_svid(["shop"]).token
    assert "iss" not in jwt.decode(before, options={"verify_signature": False})
    issuer = serve(one, web, path)
    context = ssl.create_default_context(cafile=str(web.ca))
    where = f"{issuer}/.well-known/openid-configuration"
    with urllib.request.urlopen(where, context=context) as answer:
        configuration = json.loads(answer.read())
    assert configuration["issuer"] == issuer

    def verified() -> dict[str, object]:
        token = program.fetch_jwt_svid(["shop"]).token
        stated = jwt.decode(token, options={"verify_signature": False})["iss"]
        assert stated == issuer
        keys = jwt.PyJWKClient(configuration["jwks_uri"], ssl_context=context)
        key = keys.get_signing_key_from_jwt(token)
        algorithms = configuration["id_token_signing_alg_values_supported"]
        found: dict[str, object] = jwt.decode(
            token, key, algorithms=algorithms, audience="shop", issuer=issuer
        )
        return found

    assert verified()["sub"] == f"spiffe://{one.domain}/shop"
    one.keys.jwt_svids.rotate(one.clock(), timedelta())
    one.keys.jwt_svids.step(one.clock())
    one.identities.keys_changed()
    assert verified()["sub"] == f"spiffe://{one.domain}/shop"


def test_the_issuer_is_known_after_a_restart_before_anybody_asks(one: Peer, web: Web) -> None:
    issuer = serve(one, web, "")
    again = Identities(one.home, one.keys)
    BundleServing(one.home, again)
    assert again.oidc_issuer == issuer
    again.close()
    one.serving.remove()
    assert one.identities.oidc_issuer is None
