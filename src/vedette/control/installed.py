"""What this installation brings for a snapshot beside its code: the Core Rule Set and the countries.

Owns: how each becomes a blob of the node. Must not: decide whether a snapshot has it.
"""

from __future__ import annotations

from vedette.config.addresses import CountryDatabase
from vedette.config.snapshot import Snapshot
from vedette.control import desired
from vedette.errors import ConfigError
from vedette.ids import digest_of
from vedette.policy import coreruleset, countries
from vedette.store.blobs import BlobStore


def inspected(snapshot: Snapshot, blobs: BlobStore) -> Snapshot:
    """The same with the firewall, unless it has one. Raises `ConfigError` coreruleset_missing."""
    if snapshot.waf is not None:
        return snapshot
    rules = coreruleset.installed()
    if rules is None:
        raise ConfigError(
            "coreruleset_missing",
            "this installation has no Core Rule Set, so no request could be inspected",
            "In a checkout, run `make crs`.",
        )
    return desired.with_waf(snapshot, rules.version, blobs.put(rules.packed))


def located(snapshot: Snapshot, blobs: BlobStore) -> Snapshot:
    """The same with the countries, in place of those of an older installation."""
    database = countries.installed()
    if database is None:
        return snapshot
    return desired.with_countries(
        snapshot, CountryDatabase(blob=blobs.put(database), size=len(database))
    )


def country_database() -> CountryDatabase | None:
    """The countries as a snapshot names them; None where there are none."""
    database = countries.installed()
    if database is None:
        return None
    return CountryDatabase(blob=digest_of(database), size=len(database))


def bring_countries(snapshot: Snapshot, blobs: BlobStore) -> None:
    """Stores the countries if the snapshot has those of this installation and the node does not."""
    wanted = snapshot.addresses.countries if snapshot.addresses else None
    if wanted is None or blobs.has(wanted.blob):
        return
    database = countries.installed()
    if database is not None and digest_of(database) == wanted.blob:
        blobs.put(database)
