"""Everything that is generated from the models, in one command: `python -m vedette.config.generate
--check|--write`.

Owns: the list of generators. Must not: generate anything itself.
"""

from __future__ import annotations

from vedette.config import reference, rust, schema
from vedette.config.drift import Artifact, main


def artifacts() -> list[Artifact]:
    """Every generated file of this room."""
    return [*rust.artifacts(), *schema.artifacts(), *reference.artifacts()]


if __name__ == "__main__":
    raise SystemExit(main(artifacts))
