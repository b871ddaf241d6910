"""What this installation brings for a snapshot beside its code: the Core Rule Set, the countries, the
schema of policies, and what a node lets in by itself.

Owns: how each becomes a blob of the node, and which of them a snapshot of an older installation gets.
Must not: activate anything.
"""

from __future__ import annotations

from vedette.config.addresses import CountryDatabase
from vedette.config.snapshot import Snapshot
from vedette.control import desired
from vedette.errors import ConfigError
from vedette.ids import digest_of
from vedette.policy import coreruleset, countries
from vedette.policy.schema import schema_text
from vedette.store.blobs import BlobStore
from vedette.store.history import History


def brought(snapshot: Snapshot, blobs: BlobStore, history: History) -> Snapshot:
    """The same with what this installation brings. The firewall that it has stays, whatever its
    version; where a Node's manifest says which countries, so do they. Raises `ConfigError`
    coreruleset_missing.
    """
    after = desired.guarded(_inspected(snapshot, blobs))
    if all(one.kind != "Node" for one in history.applied()):
        after = _located(after, blobs)
    schema = blobs.put(schema_text().encode())
    return after.with_(policy=after.policy.model_copy(update={"schema_": schema}))


def told(before: Snapshot, after: Snapshot) -> list[str]:
    """What of it a person should know."""
    found = []
    if before.waf is None and after.waf is not None:
        mode = after.waf.policy.mode
        found.append(
            f"requests are inspected now: Core Rule Set {after.waf.version}, mode {mode} (docs/waf.md)"
        )
    if desired.guarded(before) is not before:
        found.append(
            "connections of a source are counted, and floods challenged, now (docs/admit.md)"
        )
    if country_database() is not None and _countries(before) != _countries(after):
        found.append("addresses have the countries of this installation now (docs/admit.md)")
    return found


def country_database() -> CountryDatabase | None:
    """The countries as a snapshot names them; None where there are none."""
    database = countries.installed()
    if database is None:
        return None
    return CountryDatabase(blob=digest_of(database), size=len(database))


def bring_countries(snapshot: Snapshot, blobs: BlobStore) -> None:
    """Stores the countries if the snapshot has those of this installation and the node does not."""
    wanted = _countries(snapshot)
    if wanted is None or blobs.has(wanted.blob):
        return
    database = countries.installed()
    if database is not None and digest_of(database) == wanted.blob:
        blobs.put(database)


def _inspected(snapshot: Snapshot, blobs: BlobStore) -> Snapshot:
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


def _located(snapshot: Snapshot, blobs: BlobStore) -> Snapshot:
    database = countries.installed()
    if database is None:
        return snapshot
    declared = CountryDatabase(blob=blobs.put(database), size=len(database))
    return desired.with_countries(snapshot, declared)


def _countries(snapshot: Snapshot) -> CountryDatabase | None:
    return snapshot.addresses.countries if snapshot.addresses else None
