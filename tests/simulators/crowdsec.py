"""A real CrowdSec Local API, without the rest of CrowdSec: bans by hand, no network.

Owns: its configuration, its life, its keys. Must not: know who asks. Listens on loopback. Debian's package holds it;
`make extras` unpacks that into the cache, and a test that needs it is skipped where it is not.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

_CONFIG = """\
common: {{daemonize: false, log_media: stdout, log_level: info, working_dir: {root}}}
config_paths:
  config_dir: {root}
  data_dir: {root}
  simulation_path: {root}/simulation.yaml
  hub_dir: {root}/hub
  index_path: {root}/hub/.index.json
  notification_dir: {root}/notifications
  plugin_dir: {root}/plugins
cscli: {{output: raw}}
db_config: {{log_level: error, type: sqlite, db_path: {root}/crowdsec.db, use_wal: false}}
api:
  client: {{credentials_path: {root}/credentials.yaml}}
  server:
    log_level: error
    listen_uri: 127.0.0.1:{port}
    profiles_path: {root}/profiles.yaml
    trusted_ips: [127.0.0.1]
prometheus: {{enabled: false}}
"""
_PROFILES = "name: none\nfilters: ['false']\ndecisions: [{type: ban, duration: 4h}]\n"


def programs() -> Path:
    """The folder with `crowdsec` and `cscli`. Skips the test where there is none."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    found = shutil.which("crowdsec")
    for folder in (Path(found).parent if found else None, cache / "vedette/crowdsec/usr/bin"):
        if folder and (folder / "crowdsec").exists() and (folder / "cscli").exists():
            return folder
    pytest.skip("CrowdSec is not there (`make extras`)")


@dataclass
class LocalApi:
    """A Local API that can be started, stopped and told whom to ban."""

    folder: Path
    root: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    def cscli(self, *arguments: str) -> str:
        """What `cscli` printed."""
        command = [self.folder / "cscli", "-c", self.root / "config.yaml", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def start(self) -> None:
        """Starts it, and returns when it answers."""
        command = [self.folder / "crowdsec", "-c", self.root / "config.yaml", "-no-cs"]
        with (self.root / "log").open("ab") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=out)
        for _ in range(300):
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            time.sleep(0.1)
        pytest.fail((self.root / "log").read_text("utf-8")[-2000:])

    def stop(self) -> None:
        """Ends it."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)
            self.process = None


@contextmanager
def local_api(root: Path) -> Iterator[LocalApi]:
    """A running Local API; its files are in `root`."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    for folder in ("hub", "notifications", "plugins", "patterns"):
        (root / folder).mkdir()
    (root / "hub/.index.json").write_text("{}", "utf-8")
    (root / "simulation.yaml").write_text("simulation: false\n", "utf-8")
    (root / "profiles.yaml").write_text(_PROFILES, "utf-8")
    (root / "config.yaml").write_text(_CONFIG.format(root=root, port=port), "utf-8")
    api = LocalApi(programs(), root, port)
    credentials = str(root / "credentials.yaml")
    api.cscli("machines", "add", "test", "--password", "only-here", "-f", credentials)
    try:
        api.start()
        yield api
    finally:
        api.stop()
