"""What single steps of the path cost: a limit's check, a policy decision, a known token.

Owns: building and running the measurements in the crates, and reading what they print.
Must not: judge.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import install
from processes import BenchError

STEPS = {
    "limit": "a rate limit's check, 100,000 live keys, two threads",
    "decision": "a decision of 20 Cedar policies, not remembered",
    "remembered": "the same, remembered for this caller and these attributes",
    "token": "a token that is known",
    "egress": "an egress decision of 22 rules (the twentieth fits, with methods and a rate), the name not looked up",
    "egress_denied": "the same for a call that no rule allows, with the rule that would",
    "event": "an event of a stream read and judged: three numbers, 25 trees of depth 8, ADWIN for each",
}
"""What `measure_micro` returns, and what each is."""


def measure_micro(checkout: Path, say: Callable[[str], None]) -> dict[str, float]:
    """Nanoseconds of each of `STEPS`, medians of 15 rounds each. Raises BenchError when one is missing."""
    say("cargo: measurements of single steps")
    cargo = ["cargo", "test", "--release", "--locked", "--workspace", "--lib"]
    manifest = ["--manifest-path", str(checkout / "Cargo.toml")]
    target = os.environ.get("CARGO_TARGET_DIR") or str(install.cache_folder().parent / "target")
    # One thread, or the measurements would take the cores from each other.
    tail = ["measure_", "--", "--ignored", "--nocapture", "--test-threads", "1"]
    said = install.run([*cargo, *manifest, *tail], {"CARGO_TARGET_DIR": target})
    found = {name: float(value) for name, value in re.findall(r"MEASURED (\w+) (\d+)", said)}
    example = Path(target, "release", "examples", "measure")
    limits = install.run([str(example)])
    limit = re.search(r"^rate per source, 100000 keys: (\d+) ns", limits, re.MULTILINE)
    if limit:
        found["limit"] = float(limit[1])
    if missing := sorted(STEPS.keys() - found.keys()):
        raise BenchError(f"nothing was measured of {', '.join(missing)}:\n{said[-1000:]}")
    return {name: found[name] for name in STEPS}
