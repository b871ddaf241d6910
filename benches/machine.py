"""Describes the machine a run was made on, without naming it.

Owns: processor, cores, memory, kernel, and the CPU time other programs used meanwhile.
Must not: record a host name, an address or a path.
"""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Machine:
    """What a reader needs to judge the figures."""

    processor: str
    cores: int
    memory_gib: int
    kernel: str
    system: str
    virtual: bool


def describe() -> Machine:
    """Reads /proc and /etc/os-release."""
    cpuinfo = Path("/proc/cpuinfo").read_text()
    total = re.search(r"MemTotal:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    release = re.match(r"\d+\.\d+(\.\d+)?", platform.release())
    return Machine(
        processor=_processor(cpuinfo),
        cores=os.cpu_count() or 1,
        memory_gib=round(int(total[1]) / 2**20) if total else 0,
        kernel=release[0] if release else "unknown",
        system=_system(),
        virtual=" hypervisor" in cpuinfo,
    )


def _processor(cpuinfo: str) -> str:
    model = re.search(r"model name\s*:\s*(.+)", cpuinfo)
    family = re.search(r"cpu family\s*:\s*(\d+)", cpuinfo)
    number = re.search(r"model\s*:\s*(\d+)", cpuinfo)
    if not model:
        return platform.machine()
    detail = f", family {family[1]} model {number[1]}" if family and number else ""
    return f"{model[1].strip()} ({platform.machine()}{detail})"


def _system() -> str:
    for line in Path("/etc/os-release").read_text().splitlines():
        if line.startswith("PRETTY_NAME="):
            return line.partition("=")[2].strip('"')
    return "Linux"
