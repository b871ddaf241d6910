"""Admission: what is a component by its first bytes, and what is certainly not.

Owns: the size limit and the sniffing that gives a clear answer before anything is compiled. Must
not: parse a component; the native engine does, in a process with limits (`compile`). Code that was
compiled elsewhere is refused here and never reaches a loader: loading it would run it unchecked
(wasmtime, `Component::deserialize`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from vedette.errors import ConfigError
from vedette.ids import digest_of

MAX_COMPONENT_BYTES: Final = 64 << 20

# Component model, Binary.md: magic, then version 0x0d and layer 1; a core module has version 1 and layer 0.
_MAGIC: Final = b"\0asm"
_COMPONENT: Final = b"\0asm\x0d\x00\x01\x00"
_ELF: Final = b"\x7fELF"
_ELF_OSABI: Final = 7
_OSABI_WASMTIME: Final = 200  # wasmtime-environ, obj.rs: ELFOSABI_WASMTIME


@dataclass(frozen=True, slots=True)
class Admitted:
    """A component that may be stored: its bytes, digest and size in bytes."""

    digest: str
    size: int
    data: bytes = field(repr=False)


def admit(data: bytes, name: str = "the file") -> Admitted:
    """Says whether `data` can be a component. `name` is how errors call it.

    Raises `ConfigError` component_too_large, core_module, precompiled_refused, native_binary or
    not_a_component.
    """
    _require_size(len(data), name)
    if not data.startswith(_COMPONENT):
        raise _refusal(data, name)
    return Admitted(digest_of(data), len(data), data)


def read_component(path: Path) -> Admitted:
    """Reads and admits a component file; a file that is too large is refused unread.

    Raises `ConfigError` as `admit`, and component_missing.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_COMPONENT_BYTES + 1)
            size = max(len(data), path.stat().st_size)
    except OSError as error:
        raise ConfigError("component_missing", f"cannot read {path}: {error.strerror}") from None
    _require_size(size, str(path))
    return admit(data, str(path))


def _require_size(size: int, name: str) -> None:
    if size > MAX_COMPONENT_BYTES:
        raise ConfigError(
            "component_too_large", f"{name} has {size} bytes; {MAX_COMPONENT_BYTES} are allowed"
        )


def _refusal(data: bytes, name: str) -> ConfigError:
    if data.startswith(_ELF):
        if data[_ELF_OSABI : _ELF_OSABI + 1] == bytes([_OSABI_WASMTIME]):
            return ConfigError("precompiled_refused", f"{name} is precompiled code")
        return ConfigError("native_binary", f"{name} is a machine-code binary")
    if data.startswith(_MAGIC + b"\x01\x00\x00\x00"):
        return ConfigError("core_module", f"{name} is a core WebAssembly module")
    if data.startswith(_MAGIC):
        return ConfigError("not_a_component", f"{name} has an unknown WebAssembly version")
    if data.lstrip()[:1] == b"(":
        return ConfigError("not_a_component", f"{name} is WebAssembly text, not a binary")
    return ConfigError("not_a_component", f"{name} is not WebAssembly")
