"""Sending a model's file to the node, unless it is there.

Owns: the question whether it is there, and the progress. Must not: look into it.
"""

from __future__ import annotations

from pathlib import Path

from vedette.control.client import ControlClient
from vedette.errors import VedetteError


def is_there(client: ControlClient, digest: str) -> bool:
    """Whether the node has a file of that digest."""
    try:
        client.get(f"/v1/model-files/{digest}")
    except VedetteError as error:
        if error.code != "blob_missing":
            raise
        return False
    return True


def upload_model(client: ControlClient, digest: str, file: Path, name: str) -> bool:
    """Sends a file, with a bar on a terminal; whether it had to be sent. Raises `VedetteError`."""
    if is_there(client, digest):
        return False
    from vedette.cli.deploying import progress_bar

    with progress_bar() as progress:
        task = progress.add_task(f"Uploading {name}", total=file.stat().st_size)
        client.upload(digest, file, lambda count: progress.advance(task, count), "model-files")
    return True
