"""Blobs are what their digest says, or not to be had."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vedette.errors import ConfigError, TrustError
from vedette.ids import digest_of
from vedette.store.blobs import BlobStore


def test_a_blob_comes_back_by_its_digest(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    digest = store.put(b"content")
    assert digest == digest_of(b"content")
    assert store.has(digest)
    assert store.get(digest) == b"content"
    assert list(store.digests()) == [digest]
    store.remove(digest)
    store.remove(digest)
    assert not store.has(digest)


def test_a_changed_byte_is_never_returned(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    digest = store.put(b"content")
    store.path(digest).write_bytes(b"Content")
    with pytest.raises(TrustError) as caught:
        store.get(digest)
    assert caught.value.code == "blob_tampered"


def test_storing_again_mends_damage_and_renews_the_age(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    digest = store.put(b"content")
    store.path(digest).write_bytes(b"damaged")
    store.put(b"content")
    assert store.get(digest) == b"content"
    os.utime(store.path(digest), (1, 1))
    store.put(b"content")
    assert store.path(digest).stat().st_mtime > 1


def test_content_under_another_digest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrustError):
        BlobStore(tmp_path).put(b"content", expected=digest_of(b"other"))
    assert list(tmp_path.iterdir()) == []


def test_too_much_is_refused(tmp_path: Path) -> None:
    store = BlobStore(tmp_path, max_bytes=4)
    store.put(b"1234")
    with pytest.raises(ConfigError) as caught:
        store.put(b"12345")
    assert caught.value.code == "blob_too_large"


def test_a_missing_blob_and_a_path_are_told_apart_from_content(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        BlobStore(tmp_path).get(digest_of(b""))
    assert caught.value.code == "blob_missing"
    with pytest.raises(ConfigError) as caught:
        BlobStore(tmp_path).get("sha256:../../etc/passwd")
    assert caught.value.code == "invalid_digest"


def test_other_files_are_no_blobs(tmp_path: Path) -> None:
    (tmp_path / ".abc.tmp").write_text("")
    assert list(BlobStore(tmp_path).digests()) == []


def test_a_file_is_stored_under_its_digest_or_not_at_all(tmp_path: Path) -> None:
    folder, source = tmp_path / "blobs", tmp_path / "source"
    folder.mkdir()
    source.write_bytes(b"content" * 400_000)
    store = BlobStore(folder)
    digest = digest_of(source.read_bytes())
    assert store.put_file(source, digest, 1 << 30) == 2_800_000
    assert store.get(digest) == source.read_bytes()
    for most, expected, code in (
        (2_799_999, digest, "blob_too_large"),
        (1 << 30, digest_of(b"other"), "digest_mismatch"),
    ):
        with pytest.raises(ConfigError) as caught:
            store.put_file(source, expected, most)
        assert caught.value.code == code
    assert [each.name for each in folder.iterdir()] == [digest.removeprefix("sha256:")]


def test_a_blob_can_be_made_young_again(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    digest = store.put(b"content")
    os.utime(store.path(digest), (1, 1))
    assert store.renew(digest)
    assert store.path(digest).stat().st_mtime > 1
    assert not store.renew(digest_of(b"other"))
