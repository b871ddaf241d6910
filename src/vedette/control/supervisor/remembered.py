"""What `vedette up` was last told about the node as a whole, for an `up` that says nothing of it.

Owns: start.json in the home folder: addresses, metrics, workers, oldest TLS. Name and location are in
node.json, hosts, limits and timers in the snapshot (a manifest of kind Node). Must not: hold a default:
what was never said is not there.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any, Final

from vedette.store.atomic import read_json, write_json
from vedette.store.home import Home

# The options of `vedette up` that are remembered, in the order in which they are told.
FLAGS: Final = {
    "listen": "--listen",
    "metrics": "--metrics",
    "workers": "--workers",
    "tlsMinVersion": "--tls-min-version",
}


def recall(home: Home, said: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What to start with, `said` first, and what of it is remembered only."""
    stored = read_json(home.start_file)
    known = stored if isinstance(stored, dict) else {}
    given = {name: said[name] for name in FLAGS if said.get(name) is not None}
    kept = {name: known[name] for name in FLAGS if name in known and name not in given}
    return {**kept, **given}, kept


def remember(home: Home, settings: Mapping[str, Any]) -> None:
    """Keeps what a node was started with."""
    if read_json(home.start_file) != settings:
        write_json(home.start_file, dict(settings))


def as_flags(settings: Mapping[str, Any]) -> str:
    """Settings as a person would write them."""
    words: list[str] = []
    for name, flag in FLAGS.items():
        value = settings.get(name)
        values = value if isinstance(value, list) else [value]
        words += [word for each in values if each is not None for word in (flag, str(each))]
    return shlex.join(words)
