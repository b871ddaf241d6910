"""Writes the reference of the admin API and of `--json`: `python -m vedette.control.generate [--check]`.

Owns: docs/reference/openapi.json, status.schema.json (of `vedette status`), status-routes.schema.json and
status-upstreams.schema.json. Must not: describe anything by hand; all come from the code that serves them.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from pydantic import TypeAdapter

from vedette.control.api import create_app
from vedette.control.messages import NodeStatus
from vedette.control.node import Node
from vedette.control.traffic_messages import RouteStatus, UpstreamStatus


def openapi() -> str:
    """The OpenAPI document of the admin API."""
    return _text(
        create_app(cast("Node", None)).openapi()
    )  # describing the paths calls none of them


def status_schema() -> str:
    """The JSON Schema of `vedette status --json`."""
    return _schema(NodeStatus)


def routes_schema() -> str:
    """The JSON Schema of `vedette routes --json`."""
    return _schema(list[RouteStatus])


def upstreams_schema() -> str:
    """The JSON Schema of `vedette upstreams --json`."""
    return _schema(list[UpstreamStatus])


def _schema(shape: Any) -> str:
    schema = TypeAdapter(shape).json_schema(by_alias=True, mode="serialization")
    return _text({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema})


def _text(document: Any) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False, sort_keys=True) + "\n"


DOCUMENTS = {
    Path("docs/reference/openapi.json"): openapi,
    Path("docs/reference/status.schema.json"): status_schema,
    Path("docs/reference/status-routes.schema.json"): routes_schema,
    Path("docs/reference/status-upstreams.schema.json"): upstreams_schema,
}


def drifted(root: Path) -> list[Path]:
    """The documents that are missing or differ from what would be written."""
    return [
        path
        for path, make in DOCUMENTS.items()
        if not (root / path).exists() or (root / path).read_text(encoding="utf-8") != make()
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the documents, or with --check says which drifted (exit code 1)."""
    parser = argparse.ArgumentParser(prog="python -m vedette.control.generate")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--root", type=Path, default=Path())
    options = parser.parse_args(arguments)
    if options.check:
        for path in (stale := drifted(options.root)):
            print(f"{path} drifted: run `make generate`", file=sys.stderr)
        return 1 if stale else 0
    for path, make in DOCUMENTS.items():
        (options.root / path).parent.mkdir(parents=True, exist_ok=True)
        (options.root / path).write_text(make(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
