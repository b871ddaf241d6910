"""The layout of the home folder."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.store.places import home_in

from vedette.errors import ConfigError, UnavailableError
from vedette.ids import digest_of
from vedette.store import home as layout
from vedette.store.home import Home


def test_every_folder_is_for_the_owner_and_two_let_others_pass(tmp_path: Path) -> None:
    home = home_in(tmp_path)
    folders = [home.root, *[path for path in home.root.rglob("*") if path.is_dir()]]
    assert len(folders) == 17
    passable = {path for path in folders if path.stat().st_mode & 0o777 == 0o711}
    assert passable == {home.root, home.run}
    assert {path.stat().st_mode & 0o777 for path in folders if path not in passable} == {0o700}


def test_nothing_secret_of_control_lies_where_the_engine_reads() -> None:
    home = Home(Path("/h"))
    for secret in (home.ca_key, home.signing_key, home.token_key, home.audit_key, home.database):
        assert home.control in secret.parents
        assert home.engine not in secret.parents


def test_the_layout_is_the_documented_one() -> None:
    home = Home(Path("/h"))
    digest = digest_of(b"")
    assert home.compiled_file("key", digest) == Path(f"/h/engine/compiled/key/{digest[7:]}.cwasm")
    analysis = home.analysis_file("key", "1.2.3", digest)
    assert analysis == Path(f"/h/engine/compiled/key/{digest[7:]}-1.2.3.rules")
    assert home.blobs == Path("/h/engine/blobs/sha256")
    assert home.active_file == Path("/h/engine/active.json")
    assert home.tls_key == Path("/h/engine/tls/server.key")
    assert home.admin_socket == Path("/h/run/admin.sock")
    assert home.spool_requests == Path("/h/spool/requests")
    assert home.model_socket("0a" * 8) == Path("/h/run/models/0a0a0a0a0a0a0a0a.sock")
    assert home.models_wanted == Path("/h/run/models/wanted.json")
    assert home.models_state == Path("/h/run/models/state.json")


def test_the_environment_chooses_the_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VEDETTE_HOME", "/chosen")
    assert Home.default().root == Path("/chosen")
    monkeypatch.delenv("VEDETTE_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert Home.default().root == Path("/data/vedette")


def test_a_path_too_long_for_a_socket_is_told() -> None:
    Home(Path("/" + "a" * 88)).require_socket_paths()
    with pytest.raises(ConfigError) as caught:
        Home(Path("/" + "ä" * 50)).require_socket_paths()
    assert caught.value.code == "socket_path_too_long"


def test_a_path_too_long_for_the_sockets_of_models_harms_only_who_has_models() -> None:
    Home(Path("/" + "a" * 73)).require_model_sockets()
    home = Home(Path("/" + "a" * 74))
    home.require_socket_paths()
    with pytest.raises(ConfigError) as caught:
        home.require_model_sockets()
    assert caught.value.code == "socket_path_too_long"


def test_a_home_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UnavailableError) as caught:
        Home(tmp_path / "file" / "home").create()
    assert caught.value.code == "disk_failed"


def test_the_document_that_the_layout_cites_says_who_reads_what(checkout: Path) -> None:
    [cited] = re.findall(r"\((\S+\.md)\)", layout.__doc__ or "")
    text = (checkout / cited).read_text("utf-8")
    assert "reads `engine/`" in text
    assert "keys of CA, signing and tokens" in text
