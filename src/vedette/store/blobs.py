"""Content named by its digest: components, models, policies, schemas.

Owns: engine/blobs. A blob is verified when it is written and again whenever it is read. Must not:
know what is in it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from vedette.errors import ConfigError, TrustError
from vedette.ids import digest_hex, digest_of, is_digest
from vedette.store.atomic import write_atomic, write_parts_atomic

MAX_BLOB_BYTES: Final = 64 << 20
_PART: Final = 1 << 20


class BlobStore:
    """A folder of blobs; safe to use from several threads, because every write is atomic and
    idempotent.
    """

    def __init__(self, folder: Path, max_bytes: int = MAX_BLOB_BYTES) -> None:
        self._folder = folder
        self._max_bytes = max_bytes

    def path(self, digest: str) -> Path:
        """Where the blob lies, whether or not it does. Raises `ConfigError` invalid_digest."""
        return self._folder / digest_hex(digest)

    def put(self, data: bytes, expected: str | None = None) -> str:
        """Stores `data` and returns its digest. Storing the same again renews its age and mends a
        damaged copy.

        Raises `ConfigError` blob_too_large, `TrustError` blob_tampered when `expected` is another
        digest, and `UnavailableError` when the disk refuses.
        """
        if len(data) > self._max_bytes:
            raise ConfigError(
                "blob_too_large", f"{len(data)} bytes are more than the {self._max_bytes} allowed"
            )
        digest = digest_of(data)
        if expected is not None and digest != expected:
            raise TrustError(
                "blob_tampered", f"the content has the digest {digest}, not {expected}"
            )
        path = self.path(digest)
        if self._holds(path, data):
            os.utime(path)
        else:
            write_atomic(path, data)
        return digest

    def put_file(self, source: Path, expected: str, most: int) -> int:
        """Stores a file without holding it in memory, and returns its size. Storing the same again renews its age and
        mends a damaged copy.

        Raises `ConfigError` blob_too_large beyond `most` bytes, digest_mismatch when its digest is not `expected`, and
        `UnavailableError` when the disk refuses.
        """
        size = 0

        def parts() -> Iterator[bytes]:
            nonlocal size
            digest = hashlib.sha256()
            with source.open("rb") as file:
                while part := file.read(_PART):
                    size += len(part)
                    if size > most:
                        raise ConfigError("blob_too_large", f"it is larger than {most:,} bytes")
                    digest.update(part)
                    yield part
            if digest.hexdigest() != digest_hex(expected):
                raise ConfigError("digest_mismatch", f"the content is not {expected}")

        write_parts_atomic(self.path(expected), parts())
        return size

    def get(self, digest: str) -> bytes:
        """The content. Raises `ConfigError` blob_missing, `TrustError` blob_tampered."""
        try:
            data = self.path(digest).read_bytes()
        except FileNotFoundError:
            raise ConfigError("blob_missing", f"there is no blob {digest}") from None
        if digest_of(data) != digest:
            raise TrustError("blob_tampered", f"the content of blob {digest} was changed")
        return data

    def head(self, digest: str, most: int) -> bytes:
        """Its first bytes as they lie there, not verified; nothing when it is not there."""
        try:
            with self.path(digest).open("rb") as file:
                return file.read(most)
        except FileNotFoundError:
            return b""

    def has(self, digest: str) -> bool:
        """Whether a blob of that digest lies there; `get` tells whether it is intact."""
        return self.path(digest).is_file()

    def renew(self, digest: str) -> bool:
        """Makes a blob young again, so that it is not collected before something names it; whether it is there."""
        try:
            os.utime(self.path(digest))
        except FileNotFoundError:
            return False
        return True

    def digests(self) -> Iterator[str]:
        """The digests of all blobs, in no order."""
        for entry in os.scandir(self._folder):
            digest = f"sha256:{entry.name}"
            if is_digest(digest):
                yield digest

    def remove(self, digest: str) -> None:
        """Forgets a blob; nothing happens when it is not there."""
        self.path(digest).unlink(missing_ok=True)

    @staticmethod
    def _holds(path: Path, data: bytes) -> bool:
        return path.is_file() and path.read_bytes() == data
