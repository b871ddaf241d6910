"""Holds what one run measured, and its form in results.json.

Owns: Results and its JSON.
Must not: print or judge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from connections import Connections
from density import Parts
from detector import Scored
from firewall import Judging
from flood import Flood
from machine import Machine
from measure import Sample, Spread, spread
from media import Answering
from model_density import Crowd
from revocation import Kind, Revoked
from server import Mode
from swap import Swapped

from identity import Issued
from models import Modelled

Json = dict[str, Any]


@dataclass
class Results:
    """Filled while the run goes on; a row that could not be measured has a reason instead."""

    machine: Machine
    commit: str
    started: str
    rounds: int
    seconds: float
    samples: dict[Mode, dict[str, list[Sample]]] = field(default_factory=dict)
    parts: Parts | None = None
    connections: dict[str, Connections] = field(default_factory=dict)
    judging: Judging | None = None
    floods: dict[str, Flood] = field(default_factory=dict)
    """By server."""
    micro: dict[str, float] = field(default_factory=dict)
    """Nanoseconds by step."""
    issued: list[Issued] = field(default_factory=list)
    revoked: dict[Kind, Revoked] = field(default_factory=dict)
    verify_seconds: list[float] = field(default_factory=list)
    modelled: list[Modelled] = field(default_factory=list)
    media: list[Answering] = field(default_factory=list)
    scored: list[Scored] = field(default_factory=list)
    crowd: Crowd | None = None
    swapped: list[Swapped] = field(default_factory=list)
    serving_noise: list[float] = field(default_factory=list)
    """Cores' worth of CPU that neither node nor bench used, over each whole part of models."""
    versions: dict[str, str] = field(default_factory=dict)
    commands: list[str] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)

    def of(self, mode: Mode, row: str) -> Sequence[Sample]:
        """The rounds of a row, empty when it was not measured."""
        return self.samples.get(mode, {}).get(row, [])

    def noise(self) -> Spread | None:
        """Cores' worth of CPU other programs used, over all rounds."""
        rounds = [s for rows in self.samples.values() for row in rows.values() for s in row]
        if self.parts and self.parts.density:
            rounds += [*self.parts.density.before, *self.parts.density.after]
        others = [sample.others for sample in rounds]
        others += [cold.others for cold in self.parts.cold] if self.parts else []
        others += self.serving_noise
        return spread(others) if others else None

    def to_json(self, verdicts: Sequence[Json]) -> Json:
        """Everything, with every round, so that other medians can be taken later."""
        return {
            "started": self.started,
            "commit": self.commit,
            "machine": asdict(self.machine),
            "rounds": self.rounds,
            "seconds": self.seconds,
            "versions": self.versions,
            "commands": self.commands,
            "rows": {mode.value: _rows(rows) for mode, rows in self.samples.items()},
            "parts": _parts(self.parts),
            "microNanoseconds": self.micro,
            "firewall": asdict(self.judging) if self.judging else None,
            "floods": {name: asdict(flood) for name, flood in self.floods.items()},
            "issued": [asdict(each) for each in self.issued],
            "revoked": {kind: asdict(one) for kind, one in self.revoked.items()},
            "models": [asdict(each) for each in self.modelled],
            "modelMedia": [asdict(each) for each in self.media],
            "modelStream": [asdict(each) for each in self.scored],
            "modelDensity": asdict(self.crowd) if self.crowd else None,
            "modelNoise": self.serving_noise,
            "modelSwap": [asdict(each) for each in self.swapped],
            "verifySeconds": self.verify_seconds,
            "connections": {
                name: {**asdict(one), "kbEach": one.each()}
                for name, one in self.connections.items()
            },
            "missing": self.missing,
            "verdicts": list(verdicts),
        }


def _rows(rows: dict[str, list[Sample]]) -> Json:
    return {
        name: {"median": _medians(samples), "rounds": [asdict(sample) for sample in samples]}
        for name, samples in rows.items()
    }


def _medians(samples: Sequence[Sample]) -> Json:
    rounds = [asdict(sample) for sample in samples]
    return {
        key: spread([float(r[key]) for r in rounds]).median
        for key in rounds[0]
        if rounds[0][key] is not None
    }


def _parts(parts: Parts | None) -> Json | None:
    if parts is None:
        return None
    tree = asdict(parts)
    if parts.density:
        tree["density"]["rssKibEach"] = parts.density.rss_each()
        tree["density"]["pssKibEach"] = parts.density.pss_each()
    return tree
