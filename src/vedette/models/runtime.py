"""Where the library lies that runs models: ONNX Runtime, as the package of that name brings it.

Owns: finding it. Must not: import it: its Python module holds a second copy of everything, which nobody here needs.
"""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Final

from vedette.errors import ConfigError

PACKAGE: Final = "onnxruntime"
_LIBRARY: Final = "libonnxruntime.so*"


def library_of(package: str = PACKAGE) -> Path:
    """The shared library in an installed `package`. Raises `ConfigError` runtime_missing."""
    importlib.invalidate_caches()  # it may have been installed since this process started
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        # `libonnxruntime.so.1.32.0`, perhaps beside links with shorter names: the one file that all of them are.
        for found in sorted(Path(folder, "capi").glob(_LIBRARY)):
            return found.resolve()
    raise ConfigError("runtime_missing", f"the package {package} is not installed")
