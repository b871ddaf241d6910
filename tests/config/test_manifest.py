"""vedette.yaml: what it may say, and what it is told when it says something else."""

from __future__ import annotations

from pathlib import Path

import pytest

from vedette.config.manifest import FunctionManifest, find_manifest, load_function_manifest
from vedette.errors import ConfigError

HEAD = "apiVersion: vedette.dev/v1alpha1\nkind: Function\nmetadata:\n  name: hello\n"


def _load(tmp_path: Path, text: str) -> FunctionManifest:
    path = tmp_path / "vedette.yaml"
    path.write_text(text, encoding="utf-8")
    return load_function_manifest(path)


def _refusal(tmp_path: Path, text: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        _load(tmp_path, text)
    assert caught.value.file == str(tmp_path / "vedette.yaml")
    return caught.value


def test_a_full_manifest_is_read(tmp_path: Path) -> None:
    manifest = _load(
        tmp_path,
        HEAD
        + """\
spec:
  component: out.wasm
  build: {command: [make, component]}
  route: /greet/
  domains: [API.example.com., "*.example.org"]
  public: true
  env: {GREETING: "Hi", LEVEL: "5"}
  config: {color: blue}
  limits: {cpu: 500ms, memory: 64MB, timeout: 1m, requestSize: 1KB, responseSize: 2KB, concurrency: 3}
""",
    )
    spec = manifest.spec
    assert manifest.metadata.name == "hello"
    assert spec.route == "/greet"
    assert spec.domains == ("api.example.com", "*.example.org")
    assert spec.public
    assert spec.build.command == ("make", "component")
    limits = spec.limits.resolve()
    assert (limits.cpu_millis, limits.wall_millis) == (500, 60_000)
    assert (limits.memory_bytes, limits.request_bytes, limits.response_bytes) == (
        64 << 20,
        1_024,
        2_048,
    )
    assert limits.concurrency == 3


def test_defaults_are_those_of_the_snapshot(tmp_path: Path) -> None:
    from vedette.config.snapshot import FunctionLimits

    assert _load(tmp_path, HEAD).spec.limits.resolve() == FunctionLimits()


@pytest.mark.parametrize(
    ("text", "line", "sentence"),
    [
        (HEAD + "spec:\n  limits:\n    memry: 1MB\n", 7, "did you mean 'memory'"),
        (HEAD + "spec:\n  limits:\n    request_size: 1MB\n", 7, "did you mean 'requestSize'"),
        (HEAD + "specs: {}\n", 5, "did you mean 'spec'"),
        (
            HEAD + "spec:\n  env:\n    PORT: 8080\n",
            7,
            "spec.env.PORT must be text; write it in quotes",
        ),
        (HEAD + "spec:\n  public: yes\n", 6, "public"),
        (HEAD + "spec:\n  limits:\n    memory: lots\n", 7, "'lots' is not a size"),
        (HEAD + "spec:\n  limits:\n    memory: 10GB\n", 6, "memoryBytes"),
        (HEAD + "spec:\n  limits:\n    timeout: 3 parsecs\n", 7, "'3 parsecs' is not a duration"),
        (
            HEAD + "spec:\n  domains:\n    - good.example.com\n    - http://x\n",
            8,
            "'http://x' is not a host",
        ),
        (HEAD + "spec:\n  route: hello\n", 6, "'hello' is not a path"),
        (HEAD + "spec:\n  env: {'A B': x}\n", 5, "'A B' is not a valid name"),
        (HEAD + "kind: Function\n", 5, "'kind' is there twice"),
        (HEAD.replace("Function", "Model"), 2, "kind"),
        (HEAD.replace("name: hello", "name: Hello"), 4, "metadata.name"),
        ("kind: Function\n", 1, "apiVersion is missing"),
        (HEAD + "spec: &a\n  env: *a\n", 6, "aliases are not accepted"),
        (HEAD + "spec: !!python/object:os.system {}\n", 5, "is not accepted"),
        (HEAD + "spec: [\n", 6, "expected"),
        (HEAD + "---\n" + HEAD, 5, "document"),
    ],
)
def test_a_mistake_is_told_with_its_line(
    tmp_path: Path, text: str, line: int, sentence: str
) -> None:
    error = _refusal(tmp_path, text)
    assert error.code == "manifest_invalid"
    assert sentence in error.message
    assert error.line == line


@pytest.mark.parametrize("text", ["", "- a\n", "text\n", "\x00", "a: " + "[" * 500])
def test_what_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    assert _refusal(tmp_path, text).code == "manifest_invalid"


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    assert find_manifest(tmp_path) is None
    with pytest.raises(ConfigError) as caught:
        load_function_manifest(tmp_path / "vedette.yaml")
    assert caught.value.code == "manifest_missing"
