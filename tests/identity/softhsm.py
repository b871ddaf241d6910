"""Tokens of SoftHSM for tests: real PKCS#11, in a folder."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest

MODULES = ("/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/pkcs11/libsofthsm2.so")
PIN = "correct-horse"
TOKENS = ("signs", "lost", "pinned", "edge 1", "moves", "spare", "whole")


@dataclass
class SoftHsm:
    """One folder of tokens; SoftHSM reads where it is once for each process."""

    folder: Path
    module: str

    def __post_init__(self) -> None:
        (self.folder / "tokens").mkdir()
        text = f"directories.tokendir = {self.folder / 'tokens'}\nlog.level = ERROR\n"
        (self.folder / "conf").write_text(text)
        os.environ["SOFTHSM2_CONF"] = str(self.folder / "conf")
        self.pin = self.folder / "pin"
        self.pin.write_text(PIN + "\n")
        self.pin.chmod(0o600)
        for name in TOKENS:  # a process sees those that are there when it first looks
            command = ["softhsm2-util", "--init-token", "--free", "--label", name]
            pins = ["--so-pin", "so-pin-of-tests", "--pin", PIN]
            subprocess.run([*command, *pins], check=True, capture_output=True)

    def token(self, name: str) -> str:
        """The URI of one of `TOKENS`, with the label `vedette ca`."""
        assert name in TOKENS
        return self.uri(name)

    def uri(self, name: str, pin: Path | None = None) -> str:
        """The URI of a token."""
        query = f"module-path={self.module}&pin-source={quote(f'file:{pin or self.pin}')}"
        return f"pkcs11:token={quote(name)};object=vedette%20ca;type=private?{query}"


def softhsm_in(folder: Path) -> SoftHsm:
    """SoftHSM, or a skipped test where it is not installed."""
    pytest.importorskip("pkcs11")
    module = next((one for one in MODULES if Path(one).exists()), None)
    if module is None or shutil.which("softhsm2-util") is None:
        pytest.skip("SoftHSM is not installed (Debian: softhsm2)")
    return SoftHsm(folder, module)
