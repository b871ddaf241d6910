"""What a deployment changes of a function that was there: its settings, not its code.

Owns: which changes of objects are settings of a function, and what they are called. Pure. Must not:
say what is in the environment: what a deployment prints is kept by whatever ran it.
"""

from __future__ import annotations

from collections.abc import Iterator

from vedette.config.difference import FieldChange, difference
from vedette.config.snapshot import Snapshot
from vedette.policy.defaults import public_policy_name

_CODE = ("component", "size")
_HIDDEN = ("env.", "config.")


def changed_settings(before: Snapshot, after: Snapshot, name: str) -> tuple[FieldChange, ...]:
    """The settings of the function `name` that differ; none when it is new."""
    if before.function(name) is None:
        return ()
    return tuple(_settings(before, after, name))


def _settings(before: Snapshot, after: Snapshot, name: str) -> Iterator[FieldChange]:
    for change in difference(before, after):
        key = (change.kind, change.name)
        if key == ("Function", name):
            yield from (_hidden(each) for each in change.fields if each.path not in _CODE)
        elif key == ("Route", name):
            for each in change.fields:
                yield each.model_copy(update={"path": f"route.{each.path}"})
        elif key == ("Policy", public_policy_name(name)) and change.action != "update":
            opened = change.action == "create"
            yield FieldChange(path="public", old=not opened, new=opened)


def _hidden(change: FieldChange) -> FieldChange:
    """Without the values of the environment, which may be anything."""
    if not change.path.startswith(_HIDDEN):
        return change
    old = None if change.old is None else "(set)"
    changed = "(set)" if old is None else "(changed)"
    new = None if change.new is None else changed
    return FieldChange(path=change.path, old=old, new=new)
