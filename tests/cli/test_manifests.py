"""plan, apply, diff and schema on the command line, with real processes and a simulated engine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.cli.conftest import COMMAND, Shell
from tests.simulators.native import COMPONENT

NEWLINE = b"\n"
HEAD = "apiVersion: vedette.dev/v1alpha1\n"
EDGE = f"""\
{HEAD}kind: Route
metadata: {{name: health}}
spec:
  public: true
  rules:
    - matches: [{{path: {{type: Exact, value: /health}}}}]
      static: {{body: ok}}
---
{HEAD}kind: Route
metadata: {{name: site}}
spec:
  rules:
    - matches: [{{path: {{value: /site}}}}]
      files: {{folder: site}}
---
{HEAD}kind: Function
metadata: {{name: f}}
spec: {{component: f.wasm}}
---
{HEAD}kind: Policy
metadata: {{name: team}}
spec: {{cedarFile: team.cedar}}
"""


@pytest.fixture
def edge(tmp_path: Path) -> Path:
    """A folder with manifests and what they name."""
    folder = tmp_path / "edge"
    (folder / "site").mkdir(parents=True)
    (folder / "site" / "index.html").write_text("<p>hi</p>")
    (folder / "f.wasm").write_bytes(COMPONENT)
    (folder / "team.cedar").write_text("permit ();\n")
    (folder / "edge.yaml").write_text(EDGE)
    return folder


def test_a_plan_is_saved_reviewed_and_applied_and_then_there_is_nothing_to_do(
    node: Shell,
    edge: Path,
    tmp_path: Path,
) -> None:
    file = tmp_path / "edge.plan"
    planned = node("plan", "-f", str(edge), "--out", str(file))
    assert planned.returncode == 2, planned.stderr
    assert planned.stdout.splitlines()[-1] == "Plan: 6 to add, 0 to change, 0 to destroy."
    assert f"vedette apply {file}" in planned.stderr
    (edge / "f.wasm").unlink()  # the plan holds what it needs
    applied = node("apply", str(file), "--yes")
    assert applied.returncode == 0, applied.stderr
    assert applied.stdout.splitlines()[-1].startswith("Applied: generation 2, snapshot ")
    (edge / "f.wasm").write_bytes(COMPONENT)
    again = node("plan", str(edge))
    assert (again.returncode, again.stdout) == (
        0,
        "No changes. The node is as the manifests say.\n",
    )
    stale = node("apply", str(file), "--yes")
    assert stale.returncode == 2
    assert "error: the plan starts from" in stale.stderr
    assert stale.stdout == ""


def test_a_plan_altered_by_one_byte_is_not_trusted(
    untouched: Shell,
    edge: Path,
    tmp_path: Path,
) -> None:
    file = tmp_path / "edge.plan"
    untouched("plan", str(edge), "--out", str(file))
    data = file.read_bytes()
    place = data.index(b"/health")
    file.write_bytes(data[:place] + b"/healtH" + data[place + 7 :])
    altered = untouched("apply", str(file), "--yes")
    assert (altered.returncode, "checksum" in altered.stderr) == (3, True)
    assert json.loads(untouched("history", "--json").stdout)[0]["generation"] == 1


def test_an_error_of_a_plan_is_exit_code_1_with_file_and_line(untouched: Shell, edge: Path) -> None:
    file = edge / "edge.yaml"
    file.write_text(EDGE.replace("cedarFile", "cedarfile"))
    done = untouched("plan", str(edge))
    assert (done.returncode, done.stdout) == (1, "")
    assert "did you mean 'cedarFile'?" in done.stderr
    assert f"where: {file}:26" in done.stderr
    file.write_text(EDGE.replace("team.cedar", "no.cedar").replace("folder: site", "folder: no"))
    missing = untouched("plan", str(edge)).stderr
    assert missing.startswith("error: 2 problems:")
    assert f"{file}:16: there is no folder 'no'" in missing
    assert f"{file}:26: cannot read 'no.cedar': No such file or directory" in missing


def test_a_mistake_in_a_policy_file_is_told_in_that_file(untouched: Shell, edge: Path) -> None:
    (edge / "team.cedar").write_text("\na mistake\n")
    done = untouched("plan", str(edge))
    assert (done.returncode, "where: team.cedar:2" in done.stderr) == (1, True)


def test_apply_asks_on_a_terminal_and_refuses_without_one(untouched: Shell, edge: Path) -> None:
    done = untouched("apply", "-f", str(edge))
    assert done.returncode == 2
    assert "there is no terminal to ask on" in done.stderr
    assert "mend: Answer `yes` on a terminal, or say `--yes` in a script." in done.stderr
    assert json.loads(untouched("history", "--json").stdout)[0]["generation"] == 1


@pytest.mark.parametrize(("answer", "generation"), [("yes", 2), ("y", 1), ("", 1)])
def test_only_yes_applies(
    node: Shell,
    edge: Path,
    answer: str,
    generation: int,
) -> None:
    command = (
        "import os, pty, subprocess, sys; main, sub = pty.openpty();"
        f"os.write(main, {answer.encode() + NEWLINE!r});"
        "sys.exit(subprocess.run(sys.argv[1:], stdin=sub).returncode)"
    )
    done = subprocess.run(
        [sys.executable, "-c", command, *COMMAND, "apply", str(edge)],
        env=node.environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "Apply this? Only `yes` applies it:" in done.stderr
    assert (done.returncode == 0) == (generation == 2), done.stderr
    assert json.loads(node("history", "--json").stdout)[0]["generation"] == generation


def test_prune_deletes_what_left_the_manifests_and_nothing_else(node: Shell, edge: Path) -> None:
    assert node("apply", str(edge), "--yes").returncode == 0
    component = edge / "f.wasm"
    assert node("deploy", str(component), "--name", "mine").returncode == 0
    (edge / "edge.yaml").write_text(EDGE.split("---\n")[0])
    kept = node("plan", str(edge))
    note = "3 manifests applied before and not here: left alone (--prune deletes)"
    assert (kept.returncode, kept.stderr) == (0, f"note: {note}; --verbose lists them\n")
    listed = node("plan", str(edge), "--verbose").stderr.splitlines()[1:]
    file = edge / "edge.yaml"
    assert listed == [f"  {one} ({file})" for one in ("Function/f", "Policy/team", "Route/site")]
    answer = json.loads(node("plan", str(edge), "--json").stdout)
    assert answer["absent"][0] == {"owner": "Function/f", "file": str(file)}
    assert answer["notes"] == []
    pruned = node("apply", str(edge), "--prune", "--yes")
    assert "- Route site will be destroyed" in pruned.stdout
    assert "mine" not in pruned.stdout
    assert [one["name"] for one in json.loads(node("list", "--json").stdout)] == ["mine"]


def test_diff_compares_snapshots_and_manifests(node: Shell, edge: Path) -> None:
    assert node("diff").returncode == 2  # nothing before this one
    node("apply", str(edge), "--yes")
    assert "+ Route health will be created" in node("diff").stdout
    assert "- Route health will be destroyed" in node("diff", "active", "previous").stdout
    assert node("diff", "-f", str(edge)).stdout == "No difference.\n"
    digest = json.loads(node("history", "--json").stdout)[0]["digest"]
    assert node("diff", digest[7:13], "active").stdout == "No difference.\n"
    assert node("diff", "abc").returncode == 2


def test_a_component_to_be_built_is_said_and_not_saved(
    node: Shell,
    edge: Path,
    tmp_path: Path,
) -> None:
    (edge / "f.wasm").rename(edge / "made.bin")
    text = EDGE.replace(
        "{component: f.wasm}", "{component: f.wasm, build: {command: [cp, made.bin, f.wasm]}}"
    )
    (edge / "edge.yaml").write_text(text)
    planned = node("plan", str(edge))
    assert planned.returncode == 2, planned.stderr
    assert "note: f will be built" in planned.stderr
    assert "component = (known after it is built)" in planned.stdout
    saved = node("plan", str(edge), "--out", str(tmp_path / "p"))
    assert (saved.returncode, (tmp_path / "p").exists()) == (1, False)
    applied = node("apply", str(edge), "--yes")
    assert applied.returncode == 0, applied.stderr
    assert (edge / "f.wasm").read_bytes() == COMPONENT


def test_json_is_for_programs(node: Shell, edge: Path) -> None:
    planned = json.loads(node("plan", str(edge), "--json").stdout)
    assert {one["action"] for one in planned["changes"]} == {"create"}
    assert node.json("apply", str(edge), "--yes")["generation"] == 2  # type: ignore[index]


def test_schema_prints_one_kind_or_all(shell: Shell) -> None:
    assert json.loads(shell("schema", "Route").stdout)["title"] == "RouteManifest"
    everything = json.loads(shell("schema").stdout)
    assert len(everything["oneOf"]) == len(everything["properties"]["kind"]["enum"]) == 13
    wrong = shell("schema", "Rout")
    assert (wrong.returncode, "did you mean 'Route'?" in wrong.stderr) == (2, True)
