"""Every example builds from a clean copy, deploys, and answers over both protocols."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.components import MINUTES, with_component
from tests.e2e.caller import Caller
from tests.e2e.node import Node, new_home, vedette, wait_until
from tests.e2e.wire import HTTP_1, HTTP_2

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted(path for path in (ROOT / "examples").iterdir() if path.is_dir())


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    """A bare node for the examples."""
    node = Node(new_home()).start()
    yield node
    node.discard()


def test_examples_are_numbered_and_described() -> None:
    assert EXAMPLES
    numbers = [example.name.partition("-")[0] for example in EXAMPLES]
    assert numbers == [f"{number:02}" for number in range(1, len(EXAMPLES) + 1)]
    for example in EXAMPLES:
        assert re.match(r"[0-9]{2}-[a-z0-9-]+$", example.name)
        assert (example / "README.md").exists()
        assert (example / "vedette.yaml").exists()


def test_01_hello_greets_the_caller_that_the_edge_proved(node: Node, tmp_path: Path) -> None:
    project = tmp_path / "01-hello"
    shutil.copytree(
        ROOT / "examples" / "01-hello", project, ignore=shutil.ignore_patterns("target")
    )
    vedette("build", str(project))
    started = time.monotonic()
    node.run("deploy", str(project))
    for protocol in (HTTP_1, HTTP_2):
        caller = Caller(node, protocol)
        answer = caller.ask("/hello", token=node.token("alice"))
        assert answer.body == b"Hello, alice, from Vedette\n"
        assert caller.ask("/hello", anonymous=True).status == 401
        caller.close()
    print(f"from deploy to answers over both protocols: {time.monotonic() - started:.2f} s")


def test_02_service_is_planned_whole(node: Node) -> None:
    folder = str(ROOT / "examples" / "02-service")
    planned = node.run("plan", folder, "--json", check=False)
    assert planned.returncode == 2, planned.stderr
    changes = json.loads(planned.stdout)["changes"]
    assert [(one["action"], one["kind"], one["name"]) for one in changes] == [
        ("create", "Policy", "public-route.health.cedar"),
        ("create", "Policy", "shop-read-only.cedar"),
        ("create", "Upstream", "shop"),
        ("create", "Route", "health"),
        ("create", "Route", "shop"),
        ("create", "Limit", "shop-per-caller"),
    ]
    assert "parentRefs are ignored" in planned.stderr


def test_05_model_reads_a_digit_for_alice_alone(node: Node) -> None:
    folder = ROOT / "examples" / "05-model"
    seven = str(folder / "seven.json")
    node.run("model", "add", str(folder / "digits.onnx"), "--name", "digits")
    assert _digit(node, seven) == 7
    node.run("apply", str(folder), "--yes")
    assert _digit(node, seven, "--subject", "alice") == 7
    refused = node.run("predict", "digits", seven, "--subject", "mallory", check=False)
    assert refused.returncode != 0
    assert "403" in refused.stderr
    infer = {"inputs": [_pixels(json.loads((folder / "seven.json").read_text("utf-8")))]}
    caller = Caller(node, HTTP_2)
    asked = {"method": "POST", "body": json.dumps(infer).encode(), "token": node.token("alice")}
    answer = caller.ask("/read/infer", **asked)
    caller.close()
    assert json.loads(answer.body)["outputs"][0]["data"] == [7], answer


def test_06_ocr_reads_the_page_and_only_with_a_token(node: Node, tmp_path: Path) -> None:
    folder = tmp_path / "06-ocr"
    shutil.copytree(ROOT / "examples" / "06-ocr", folder, ignore=shutil.ignore_patterns("*.onnx"))
    _python(folder / "models.py")
    node.run("apply", str(folder), "--yes")
    header = f"authorization: Bearer {node.token('jane')}\n"
    told = _python(folder / "read.py", str(folder / "page.png"), given=header, of=node).stdout
    lines = [line.split("\t") for line in told.splitlines()]
    assert [text for text, _, _ in lines] == [
        "DELIVERY NOTE",
        "Order 4711 of 12 March 2026",
        "Pump housing, cast iron",
        "Quantity: 24",
        "Received by Jane Doe",
    ]
    assert all(float(score) > 0.9 for _, score, _ in lines)
    header = "authorization: Bearer none\n"
    place = ["--url", node.url, "--ca", str(node.ca_file)]
    refused = _python(folder / "read.py", str(folder / "page.png"), *place, given=header, code=1)
    assert "text-detection: 401" in refused.stderr


def test_07_anomaly_tells_a_failing_pump_from_a_running_one(node: Node) -> None:
    folder = ROOT / "examples" / "07-anomaly"
    node.run("apply", str(folder), "--yes")
    events = _python(folder / "feed.py").stdout.encode()
    path = "/v2/models/pump/stream?stream=pump-3"
    for protocol, sensor in ((HTTP_1, "sensor-1"), (HTTP_2, "sensor-2")):
        caller = Caller(node, protocol)
        asked = {"method": "POST", "body": iter([events[:70_000], events[70_000:]])}
        answer = caller.ask(path, token=node.token(sensor), **asked)
        assert caller.ask(path, method="POST", body=b"", token=node.token("bob")).status == 403
        caller.close()
        found = [json.loads(line) for line in answer.body.splitlines()]
        assert [each["id"] for each in found] == list(range(1, 2_001))
        assert [each["id"] for each in found if each["alarm"]] == [1500, 1501, 1502, 1503, 1504]
        assert not any(each["drift"] for each in found[:1_499])
    noted = json.loads(node.run("model", "alarms", "pump", "--json").stdout)
    assert [(each["stream"], each["n"]) for each in noted] == [
        ("pump-3", n) for n in (1500, 1501, 1502, 1503, 1504)
    ] * 2


def test_08_search_finds_what_is_meant(node: Node, tmp_path: Path) -> None:
    folder = tmp_path / "08-search"
    shutil.copytree(
        ROOT / "examples" / "08-search", folder, ignore=shutil.ignore_patterns("*.onnx")
    )
    _python(folder / "model.py", str(folder))
    node.run("apply", str(folder), "--yes")
    header = f"authorization: Bearer {node.token('jane')}\n"
    place = ["--url", node.url, "--ca", str(node.ca_file)]

    def found(question: str, *more: str) -> str:
        words = (folder / "search.py", question, "--top", "1", *more)
        told = _python(*words, given=header, of=node).stdout
        return told.split("\t")[1].strip()

    assert found("Where can I find fuses?").startswith("The spare fuses are in the grey box")
    assert found("How do we get out in an emergency?").startswith("If the alarm sounds three times")
    assert found("When does the boat sail?", *place).startswith("The ferry to the island leaves")


def _python(
    *words: object, given: str = "", code: int = 0, of: Node | None = None
) -> subprocess.CompletedProcess[str]:
    """What a program says, with `vedette` at hand, and `of` as the node of this machine."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    own = {"VEDETTE_HOME": str(of.home)} if of else {}
    done = subprocess.run(
        [sys.executable, *map(str, words)],
        input=given,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PATH": path, **own},
    )
    assert done.returncode == code, done.stderr
    return done


def _digit(node: Node, given: str, *more: str) -> int:
    told = json.loads(node.run("predict", "digits", given, "--json", *more).stdout)
    (digit,) = (each["data"] for each in told["outputs"] if each["name"] == "digit")
    return int(digit[0])


def _pixels(pictures: list[list[int]]) -> dict[str, object]:
    flat = [each for picture in pictures for each in picture]
    return {"name": "pixels", "datatype": "FP32", "shape": [len(pictures), 64], "data": flat}


def test_a_new_project_builds_and_answers(node: Node, tmp_path: Path) -> None:
    """`vedette new` makes what the examples are made of."""
    vedette("new", "greeter", "--lang", "rust", "--in", str(tmp_path))
    vedette("build", str(tmp_path / "greeter"))
    node.run("deploy", str(tmp_path / "greeter"))
    for protocol in (HTTP_1, HTTP_2):
        caller = Caller(node, protocol)
        assert caller.ask("/greeter").status == 200
        caller.close()


MADE = shutil.ignore_patterns("node_modules", "dist", ".vedette", "__pycache__", "README.md")


@pytest.mark.timeout(20 * MINUTES)
@pytest.mark.parametrize("language", ["python", "js"])
def test_a_language_example_builds_and_answers(node: Node, tmp_path: Path, language: str) -> None:
    """Building and the node's compiling take tens of seconds each, for each of these engines."""
    project = tmp_path / language
    shutil.copytree(_language_example(language), project, ignore=MADE)
    said = with_component(project)
    assert not said or "built hello-" in said
    node.run("deploy", str(project), timeout=8 * MINUTES)
    path = f"/hello-{language}"
    for protocol in (HTTP_1, HTTP_2):
        caller = Caller(node, protocol)
        answer = caller.ask(path, token=node.token("alice"))
        assert (answer.status, answer.body) == (200, b"Hello, alice!\n"), answer
        assert caller.ask(path, anonymous=True).status == 401
        assert node.record(answer.headers["x-request-id"])["function"] == f"hello-{language}"
        caller.close()
    wait_until(
        "the print is in the log", lambda: "greeting alice" in node.log_lines(f"hello-{language}")
    )


@pytest.mark.parametrize("language", ["python", "js"])
def test_a_language_example_is_what_new_makes(tmp_path: Path, language: str) -> None:
    vedette("new", f"hello-{language}", "--lang", language, "--in", str(tmp_path))
    copy = tmp_path / "copy"
    shutil.copytree(_language_example(language), copy, ignore=MADE)
    made = tmp_path / f"hello-{language}"
    (made / "README.md").unlink()
    assert _contents(copy) == _contents(made)


def _language_example(language: str) -> Path:
    (found,) = (path for path in EXAMPLES if path.name.endswith(f"-{language}"))
    return found


def _contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}
