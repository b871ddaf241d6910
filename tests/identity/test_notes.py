"""Signed notes: the published examples, and what is refused."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from vedette.errors import ConfigError, TrustError
from vedette.identity.notes import NoteKey, NoteSigner

# The example of golang.org/x/mod/sumdb/note.
PETER = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
TEXT = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
)
SIGNATURE = (
    "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM="
)
NOTE = f"{TEXT}\n\u2014 PeterNeumann {SIGNATURE}\n"


@pytest.fixture
def signer(tmp_path: Path) -> NoteSigner:
    """A key of its own."""
    return NoteSigner.ensure(tmp_path / "note.key", "node.test/audit")


def test_the_published_note_opens_under_the_published_key() -> None:
    key = NoteKey.parse(PETER)
    assert str(key) == PETER
    assert key.open(NOTE) == TEXT


def test_a_note_opens_under_the_key_in_each_spelling_and_beside_other_signatures(
    signer: NoteSigner,
) -> None:
    note = signer.sign(TEXT)
    for spelling in (str(signer.public), signer.public.pem.decode()):
        key = NoteKey.parse(spelling)
        assert key.open(note) == TEXT
        assert key.open(note + NOTE.partition("\n\n")[2]) == TEXT


def test_any_changed_character_is_refused(signer: NoteSigner) -> None:
    note = signer.sign("a\nb\n")
    for at, character in enumerate(note):
        for other in ("x", "\n", " ", "A"):
            if other == character:
                continue
            with pytest.raises(TrustError):
                signer.public.open(note[:at] + other + note[at + 1 :])


def test_another_spelling_of_the_signature_is_refused(signer: NoteSigner) -> None:
    note = signer.sign("a\n")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    last = note[-3]
    other = alphabet[alphabet.index(last) | 1]
    assert (note[-2:], last != other) == ("=\n", True)
    with pytest.raises(TrustError):
        signer.public.open(f"{note[:-3]}{other}=\n")


def test_another_key_of_the_same_name_and_another_name_of_the_same_key_are_refused(
    signer: NoteSigner, tmp_path: Path
) -> None:
    note = signer.sign(TEXT)
    other = NoteSigner.ensure(tmp_path / "other.key", "node.test/audit")
    renamed = NoteSigner.ensure(tmp_path / "note.key", "other.test/audit")
    for key in (other.public, renamed.public, NoteKey.parse(PETER)):
        with pytest.raises(TrustError) as caught:
            key.open(note)
        assert caught.value.code == "note_foreign"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "name+00000000+AA==",
        PETER.replace("c74f20a3", "c74f20a4"),
        PETER + "A",
        "-----BEGIN PUBLIC KEY-----",
    ],
)
def test_what_is_no_key_is_told(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        NoteKey.parse(text)
    assert caught.value.code == "key_unreadable"


@pytest.mark.parametrize(
    "note", ["", "a\n", "a\n\n", "a\n\nb\n", TEXT, NOTE[:-1], NOTE.replace("crypto", "\0rypto")]
)
def test_what_is_no_note_is_told(note: str) -> None:
    with pytest.raises(TrustError) as caught:
        NoteKey.parse(PETER).open(note)
    assert caught.value.code == "note_invalid"


def test_the_key_is_not_shown(signer: NoteSigner, tmp_path: Path) -> None:
    assert "PRIVATE" not in repr(signer)
    assert (tmp_path / "note.key").stat().st_mode & 0o777 == 0o600


def test_openssl_verifies_the_same_signature(signer: NoteSigner, tmp_path: Path) -> None:
    """Nothing of ours is needed to check a head."""
    (tmp_path / "key.pem").write_bytes(signer.public.pem)
    (tmp_path / "text").write_text(TEXT)
    (tmp_path / "signature").write_bytes(signer.signature(TEXT))
    command = [
        "openssl",
        "pkeyutl",
        "-verify",
        "-pubin",
        "-inkey",
        "key.pem",
        "-rawin",
        "-in",
        "text",
    ]
    done = subprocess.run(
        [*command, "-sigfile", "signature"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
