"""Settings that a deployment changed, as lines."""

from __future__ import annotations

from vedette.cli.changes_text import changed_settings


def _line(path: str, old: object, new: object) -> str:
    [line] = changed_settings([{"path": path, "old": old, "new": new}])
    return line


def test_settings_have_the_names_and_units_of_the_command_line() -> None:
    assert _line("limits.memoryBytes", 67_108_864, 134_217_728) == "memory: 64MB → 128MB"
    assert _line("limits.wallMillis", 30_000, 90_000) == "timeout: 30s → 1m30s"
    assert _line("limits.cpuMillis", 500, 1_000) == "cpu: 500ms → 1s"
    assert _line("limits.concurrency", 2, 256) == "concurrency: 2 → 256"
    assert _line("reuse.maxAgeMillis", 60_000, None) == "reuse.maxAge: 1m → -"
    assert _line("route.path.value", "/h", "/hello") == "route: /h → /hello"
    assert _line("public", True, False) == "public: yes → no"


def test_what_was_not_there_is_a_dash_and_lists_are_written_out() -> None:
    assert _line("allowedHosts", ["https://a", "http://b"], None) == (
        "allowedHosts: https://a, http://b → -"
    )
    assert _line("env.A", None, "(set)") == "env.A: - → (set)"


def test_no_value_moves_the_cursor_or_fills_the_screen() -> None:
    assert _line("route.hosts", None, ["a\x1b[2Jb"]) == "domains: - → a\\x1b[2Jb"
    assert len(_line("x", "a" * 10_000, None)) < 100
