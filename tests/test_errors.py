"""Every error has a documented code, and every documented code is used."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from vedette.errors import (
    CATALOGUE,
    ConfigError,
    TrustError,
    UnavailableError,
    code_and_message,
    error_from_dict,
    main,
    render_reference,
)

_RAISED = re.compile(r"(Config|Trust|Unavailable)Error\(\s*\"([a-z_]+)\"")
_NATIVE = {"import_missing", "export_missing", "compile_failed"}
_ENGINES = re.compile(r'LoadError::new\(\s*"([a-z_]+)"')
# Of files that nobody but the node writes; told as snapshot_invalid with the code behind.
_ONLY_OURS = {
    "active_malformed",
    "apply_failed",
    "blob_corrupt",
    "challenge_key_invalid",
    "compiled_missing",
    "credential_invalid",
    "digest_malformed",
    "envelope_malformed",
    "request_malformed",
    "revocations_full",
    "signature_invalid",
    "snapshot_malformed",
    "svids_invalid",
    "tls_invalid",
}


def _sources(checkout: Path) -> str:
    files = (checkout / "src" / "vedette").rglob("*.py")
    return "\n".join(path.read_text() for path in sorted(files))


def test_every_code_that_is_raised_is_in_the_catalogue_under_its_family(checkout: Path) -> None:
    raised = set(_RAISED.findall(_sources(checkout)))
    assert len(raised) > 30
    listed = {(entry.family.capitalize(), code) for code, entry in CATALOGUE.items()}
    assert raised - listed == set()


def test_every_code_in_the_catalogue_is_used(checkout: Path) -> None:
    text = _sources(checkout)
    unused = {code for code in CATALOGUE if text.count(f'"{code}"') < 2}
    assert unused - _NATIVE - _engines(checkout) == set()


def test_every_refusal_of_the_engine_that_people_can_mend_is_in_the_catalogue(
    checkout: Path,
) -> None:
    codes = _engines(checkout)
    assert len(codes) > 20
    assert codes - set(CATALOGUE) == _ONLY_OURS


def _engines(checkout: Path) -> set[str]:
    """The codes with which the engine's own code refuses a snapshot or a question."""
    files = sorted((checkout / "crates/engine/src").rglob("*.rs"))
    return {
        code
        for path in files
        if not path.stem.endswith("_tests")
        for code in _ENGINES.findall(path.read_text())
    }


def test_the_reference_lists_every_code(checkout: Path) -> None:
    text = (checkout / "docs/reference/errors.md").read_text()
    assert text == render_reference()
    assert all(f"| `{code}` |" in text for code in CATALOGUE)


def test_check_fails_when_the_reference_drifted(tmp_path: Path) -> None:
    assert main(["--check", "--root", str(tmp_path)]) == 1
    assert main(["--write", "--root", str(tmp_path)]) == 0
    assert main(["--check", "--root", str(tmp_path)]) == 0
    (tmp_path / "docs/reference/errors.md").write_text("changed")
    assert main(["--check", "--root", str(tmp_path)]) == 1


def test_an_undocumented_code_cannot_be_raised() -> None:
    with pytest.raises(KeyError):
        ConfigError("no_such_code", "text")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ConfigError("invalid_name", "a", file="f.yaml", line=3), 2),
        (TrustError("envelope_signature", "b"), 3),
        (UnavailableError("disk_full", "c", "wait"), 4),
    ],
)
def test_an_error_survives_its_json_form(error: ConfigError, status: int) -> None:
    again = error_from_dict(error.to_dict())
    assert type(again) is type(error)
    assert again.to_dict() == error.to_dict()
    assert again.exit_code == status


def test_an_error_tells_its_place_and_has_a_hint() -> None:
    error = ConfigError("manifest_invalid", "unknown field", file="vedette.yaml", line=7)
    assert str(error) == "vedette.yaml:7: unknown field"
    assert error.hint == CATALOGUE["manifest_invalid"].hint


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"code": "rule_invalid", "message": "why", "more": 1}', ("rule_invalid", "why")),
        ("Compile Error", None),
        ('{"code": "rule_invalid"}', None),
        ("[1]", None),
    ],
)
def test_a_refusal_of_the_engines_code_is_read_or_is_none(
    text: str, told: tuple[str, str] | None
) -> None:
    assert code_and_message(ValueError(text)) == told
