"""Certificates that the node shows to services that ask for one."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from tests.e2e.caller import Caller
from tests.e2e.certificates import SERVER, Authority
from tests.e2e.conftest import StartNode
from tests.e2e.node import Node
from tests.simulators.service import Service

MANIFEST = """\
apiVersion: vedette.dev/v1alpha1
kind: Upstream
metadata: {{name: vault}}
spec:
  url: https://localhost:{port}
  tls: {{caFile: {ca}, clientCertificate: {name}}}
---
apiVersion: vedette.dev/v1alpha1
kind: Route
metadata: {{name: vault}}
spec:
  public: true
  rules:
    - matches: [{{path: {{value: /vault}}}}]
      backendRefs: [{{kind: Upstream, group: vedette.dev, name: vault}}]
"""


@dataclass
class Vault:
    """A node, and a service that only answers clients of its authority."""

    node: Node
    service: Service
    authority: Authority
    folder: Path

    def manifest(self, name: str) -> str:
        """Puts the service behind the node, shown the certificate `name`; returns the file."""
        file = self.folder / "vault.yaml"
        ca = self.authority.file.name
        file.write_text(MANIFEST.format(port=self.service.port, ca=ca, name=name), "utf-8")
        return str(file)


@pytest.fixture(scope="module")
def vault(start_node: StartNode, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vault]:
    """The service, and a node that has not met it yet."""
    folder = tmp_path_factory.mktemp("vault")
    authority = Authority(folder, "Vault CA")
    settings = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(authority.file))
    settings.verify_mode = ssl.CERT_REQUIRED
    settings.load_cert_chain(authority.issue(hosts=["localhost"], purposes=[SERVER]).file)
    service = Service("vault", settings)
    yield Vault(start_node(), service, authority, folder)
    service.close()


def test_a_certificate_is_kept_shown_replaced_and_forgotten(vault: Vault, protocol: str) -> None:
    node, name = vault.node, f"shown-{protocol[-1]}"
    for common in ("first", "second"):
        credential = vault.authority.issue(common)
        node.run("certificate", "add", name, "--cert", str(credential.file))
        if common == "first":
            node.run("apply", "--yes", "-f", vault.manifest(name))
        caller = Caller(node, protocol)
        assert caller.ask("/vault/it").status == 200
        caller.close()
        assert vault.service.asked[-1].client == common
    listed = json.loads(node.run("certificate", "list", "--json").stdout)
    ours = next(one for one in listed if one["name"] == name)
    assert (ours["subject"], ours["issuer"]) == ("CN=second", "CN=Vault CA")
    assert ours["upstreams"] == ["vault"]

    refused = node.run("certificate", "remove", name, check=False)
    assert refused.returncode == 2
    assert "is shown to vault" in refused.stderr
    other = f"{name}-other"
    credential = vault.authority.issue("third")
    node.run("certificate", "add", other, "--cert", str(credential.file))
    node.run("apply", "--yes", "-f", vault.manifest(other))
    node.run("certificate", "remove", name)
    assert f"{name}\t" not in node.run("certificate", "list").stdout


def test_the_key_is_nowhere_but_in_its_one_private_file(vault: Vault) -> None:
    credential = vault.authority.issue("secret")
    vault.node.run("certificate", "add", "secret", "--cert", str(credential.file))
    secret = credential.file.read_text().split("-----")[2].split()[1].encode()
    holders = [
        file
        for file in vault.node.home.rglob("*")
        if file.is_file() and secret in file.read_bytes()
    ]
    assert [file.name for file in holders] == ["secret.pem"]
    assert holders[0].stat().st_mode & 0o777 == 0o600
    said = vault.node.run("certificate", "list", "--json").stdout
    assert "PRIVATE" not in said
    assert secret.decode() not in said


def test_a_manifest_that_names_no_certificate_is_told_the_nearest_name(vault: Vault) -> None:
    credential = vault.authority.issue("billing")
    vault.node.run("certificate", "add", "billing", "--cert", str(credential.file))
    refused = vault.node.run("plan", "-f", vault.manifest("biling"), check=False)
    assert refused.returncode == 1
    assert "vault.yaml:6" in refused.stderr
    assert "did you mean 'billing'?" in refused.stderr


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("expired", "has expired"),
        ("server", "not for clients"),
        ("stranger's key", "not that of the first certificate"),
        ("no key", "there is no private key"),
        ("encrypted", "is encrypted"),
        ("no file", "there is no file"),
    ],
)
def test_what_cannot_be_shown_is_refused_with_the_reason(
    vault: Vault, tmp_path: Path, what: str, says: str
) -> None:
    issue = vault.authority.issue
    good = issue("good").file.read_text()
    key, _, chain = good.partition("-----BEGIN CERTIFICATE-----")
    chain = f"-----BEGIN CERTIFICATE-----{chain}"
    text = {
        "expired": issue("old", days=(-3, -1)).file.read_text,
        "server": issue("server", purposes=[SERVER]).file.read_text,
        "stranger's key": lambda: (
            chain + issue("other").file.read_text().partition("-----BEGIN C")[0]
        ),
        "no key": lambda: chain,
        "encrypted": lambda: chain + _encrypted(key),
    }
    file = tmp_path / "given.pem"
    if what in text:
        file.write_text(text[what]())
    refused = vault.node.run("certificate", "add", "given", "--cert", str(file), check=False)
    assert refused.returncode == 2
    assert says in refused.stderr
    assert "PRIVATE KEY-----" not in refused.stderr
    assert "given\t" not in vault.node.run("certificate", "list").stdout


def _encrypted(key: str) -> str:
    loaded = load_pem_private_key(key.encode(), None)
    under = BestAvailableEncryption(b"secret")
    return loaded.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, under).decode()
