"""Names on the command line that no path of the admin API can hold, in every command that puts one there."""

from __future__ import annotations

import pytest
from tests.cli.conftest import Shell

from vedette.errors import ConfigError

COMMANDS = (
    "remove NAME",
    "logs NAME",
    "model show NAME",
    "model add /dev/null --name NAME",
    "model promote NAME --version 1",
    "model rollback NAME",
    "model remove NAME",
    "predict NAME [1]",
    "grant --end NAME",
    "federation set NAME --bundle CA",
    "federation follow NAME --url https://partner.example/bundle",
    "federation remove NAME",
    "federation refresh NAME",
    "federation unfollow NAME",
    "policy show NAME",
    "policy set NAME CA",
    "policy remove NAME",
    "authority add NAME --ca CA",
    "authority remove NAME",
    "model trust remove NAME",
    "authority revoke NAME 0a",
    "credential remove NAME",
    "certificate remove NAME",
    "issuer add NAME --issuer https://login.example --audience me --keys CA",
    "issuer refresh NAME",
    "issuer remove NAME",
    "join-token remove NAME",
    "workload add NAME --uid 1",
    "workload remove NAME",
)
NO_SEGMENTS = ("a/b", "a/logs", "versions/1", "..", ".", "", "a\nb", "a\udcffb")
"""What the node would read as another path, or could not read."""


@pytest.mark.parametrize("command", COMMANDS)
def test_a_name_that_is_no_part_of_a_path_is_told_as_such(untouched: Shell, command: str) -> None:
    for name in (*NO_SEGMENTS, "a b", "a?b", "a%2Fb"):
        ca = str(untouched.home.ca_certificate)
        words = [{"NAME": name, "CA": ca}.get(word, word) for word in command.split()]
        done = untouched(*words)
        assert done.returncode == ConfigError.exit_code, (name, done.stderr)
        assert "control answered" not in done.stderr, name
        assert "redirect" not in done.stderr.lower(), name
        if name in NO_SEGMENTS:
            assert "name" in done.stderr, (name, done.stderr)
            assert "valid" in done.stderr, (name, done.stderr)
