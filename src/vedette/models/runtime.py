"""Where the library lies that runs models of a format, as the package of a runtime brings it.

Owns: finding it. Must not: import such a package: its Python module holds a second copy of everything, which nobody
here needs, and that of LiteRT loads further libraries.
"""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Final, NamedTuple

from vedette.errors import ConfigError


class Runtime(NamedTuple):
    """A package that brings a library, which file of it that is, and the extra that installs it."""

    package: str
    folder: str
    library: str
    extra: str


RUNTIMES: Final = {
    "onnx": Runtime("onnxruntime", "capi", "libonnxruntime.so*", "models"),
    "tflite": Runtime("ai_edge_litert", "", "libLiteRt.so", "models-tflite"),
}


def library_of(format_: str = "onnx") -> Path:
    """The shared library that runs models of this format. Raises `ConfigError` runtime_missing."""
    return library_in(RUNTIMES[format_])


def library_in(runtime: Runtime) -> Path:
    """The shared library in the package of a runtime. Raises `ConfigError` runtime_missing."""
    importlib.invalidate_caches()  # it may have been installed since this process started
    spec = importlib.util.find_spec(runtime.package)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        # `libonnxruntime.so.1.32.0`, perhaps beside links with shorter names: the one file that all of them are.
        for found in sorted(Path(folder, runtime.folder).glob(runtime.library)):
            return found.resolve()
    package = runtime.package.replace("_", "-")
    hint = f"Install it beside vedette: pip install 'vedette[{runtime.extra}]'; "
    hint += f"in a checkout: .venv/bin/pip install {package}"
    raise ConfigError("runtime_missing", f"the package {package} is not installed", hint)
