"""From a desired snapshot to the one the engine serves.

Owns: the only way a snapshot becomes active: sign, check with the engine's own code, record durably, apply, and go
back when the engine refuses. Workers of models are ready before it and end after it. One lock, so that every change
starts from the state before it; nobody has it while a model is loaded. Must not: decide what changes; `desired` and
`node` do.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from vedette.clock import now
from vedette.config.served import ServedModel
from vedette.config.snapshot import Snapshot
from vedette.control import desired, tls
from vedette.control.bootstrap import Keys
from vedette.control.desired import Change, keep_standing
from vedette.control.model_workers import ModelWorkers, NotLoadedError, Wish
from vedette.control.refusals import About, about
from vedette.engine.client import EngineClient, EngineStatus
from vedette.engine.native import Native, Questions, refusal_of
from vedette.engine.question import Apart
from vedette.errors import ConfigError, UnavailableError
from vedette.functions.compile import CompileResult, compile_component
from vedette.identity.signer import verify_envelope
from vedette.ids import digest_hex
from vedette.policy.check import Checked, check
from vedette.policy.explain import explain
from vedette.policy.inspection import Candidate, Judged, judge
from vedette.policy.resources import unknown_names
from vedette.store.activation import activate, heal
from vedette.store.atomic import write_atomic
from vedette.store.blobs import BlobStore
from vedette.store.collect import Collected, collect_garbage
from vedette.store.history import Entry, History
from vedette.store.home import Home

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a change led to. `applied` is False when the engine was away: it loads the state when it returns."""

    entry: Entry
    snapshot: Snapshot
    applied: bool


class Activator:
    """The holder of the node's active snapshot."""

    def __init__(
        self,
        home: Home,
        history: History,
        keys: Keys,
        engine: EngineClient,
        native: Native,
        compile_to: Callable[[Path, Path], CompileResult] = compile_component,
        apart: Questions | None = None,
    ) -> None:
        """`apart` answers what takes much memory; by default in processes that end."""
        self._apart = apart or Apart()
        self._compile = compile_to
        self._analysed: str | None = None
        self.lock = threading.RLock()
        self.blobs = BlobStore(home.blobs)
        self.history = history
        self.engine = engine
        self.workers = ModelWorkers(home)
        self._waiting = _Waiting()
        self._home = home
        self._keys = keys
        self._native = native
        self._parsed: tuple[str, Snapshot] | None = None
        self.witness: Callable[[Entry], None] | None = None
        self.unsettled: Callable[[], None] | None = None
        """Called when the engine refuses what the snapshot does not (ADR 0038)."""
        self.told: Callable[[EngineStatus], None] | None = None
        """Called with what the engine says of itself, once a second."""
        self.noted: Callable[[Snapshot, str], None] | None = None
        """Called with each snapshot that is active and served, and who wanted it."""
        self.proved: Callable[[Sequence[ServedModel]], None] | None = None
        """Called, without the lock, with models that are new and whose workers are ready; raises where one must not
        serve.
        """
        self.vouched: Callable[[Snapshot, Snapshot], None] | None = None
        """Called with a snapshot that is to be served and the one that is, before models are loaded; raises where one
        must not be.
        """
        self.loadable: Callable[[Snapshot], Sequence[ServedModel]] = _models_of
        """Which models of a snapshot that is served may be loaded."""
        self.besides: Callable[[], Iterable[str]] = tuple
        """Digests of blobs that are kept though no generation needs them."""

    def active(self) -> tuple[Entry, Snapshot]:
        """The active entry and its snapshot, without waiting for a change under way: one that brings a model waits
        until that is loaded. Raises `UnavailableError` when the node was never bootstrapped.
        """
        entry = self.history.active()
        if entry is None:
            raise UnavailableError("node_start_failed", "the node has no snapshot")
        parsed = self._parsed
        if parsed is None or parsed[0] != entry.digest:
            parsed = (entry.digest, self.snapshot(entry.digest))
            # What is just being activated may be refused yet: whoever does that remembers it.
            if self.lock.acquire(blocking=False):
                self._parsed = parsed
                self.lock.release()
        return entry, parsed[1]

    def latest(self) -> Snapshot:
        """The snapshot that was made active last, without waiting for a change under way."""
        parsed = self._parsed
        return self.active()[1] if parsed is None else parsed[1]

    def snapshot(self, digest: str) -> Snapshot:
        """A snapshot of the history, verified. Raises `ConfigError` snapshot_unknown, `TrustError`."""
        envelope = self.history.envelope(digest)
        return Snapshot.parse(verify_envelope(envelope, self._keys.signer.public_pem))

    def once_loaded(
        self, act: Callable[[], T], lock: Callable[[], AbstractContextManager[object]] | None = None
    ) -> T:
        """Calls `act` with the lock held (or what `lock` gives, which includes it). Where it would serve models that
        are not loaded yet, they are waited for without it, so that others may change something meanwhile; then `act`
        is called again, and finds what is so by then.

        Raises what `act` raises, `UnavailableError` model_not_ready. Within itself it is `act` alone.
        """
        if self._waiting.wish is not None:
            return act()
        with self.workers.wish() as wish:
            self._waiting.wish = wish
            try:
                while True:
                    try:
                        with lock() if lock else self.lock:
                            return act()
                    except NotLoadedError as error:
                        wish.load(error.models)
                        if self.proved is not None:
                            self.proved(error.models)
            finally:
                self._waiting.wish = None

    def change(self, change: Change, action: str, actor: str) -> Outcome:
        """Applies `change` to the active snapshot and serves the result.

        Raises `ConfigError` when the result is not valid or the engine refuses it (nothing has changed then),
        `UnavailableError` when the disk refuses. `change` is called again with another snapshot when that was replaced
        while models were loaded.
        """
        return self.once_loaded(lambda: self._change(change, action, actor))

    def _change(self, change: Change, action: str, actor: str) -> Outcome:
        entry, before = self.active()
        after = change(before)
        if after.digest() == entry.digest:
            return Outcome(entry, before, self._apply_if_there(entry))
        if after.policy != before.policy:
            self.check_policies(after)
        return self._activate(after, action, actor)

    def version_of(self, function: str, component: str) -> int:
        """The generation that brought this component of a function; that of now for one from before these were kept."""
        with self.lock:
            known = self.history.brought_by(function, component)
            if known is None:
                entry, snapshot = self.active()
                self.history.note_components(entry.generation, _components(snapshot))
                known = entry.generation
            return known

    def roll_back(self, digest: str | None, actor: str) -> Outcome:
        """Serves an older snapshot again: `digest`, or the one active before this one. What is revoked stays so,
        and grants are those of now.

        Raises `ConfigError` nothing_to_roll_back, snapshot_unknown, blob_missing.
        """
        return self.once_loaded(lambda: self._roll_back(digest, actor))

    def _roll_back(self, digest: str | None, actor: str) -> Outcome:
        if digest is None:
            previous = self.history.previous()
            if previous is None:
                raise ConfigError("nothing_to_roll_back", "there is no earlier snapshot")
            digest = previous.digest
        entry, before = self.active()
        if digest == entry.digest:
            return Outcome(entry, before, self._apply_if_there(entry))
        older = keep_standing(self.snapshot(digest), before)
        if older.digest() == entry.digest:
            return Outcome(entry, before, self._apply_if_there(entry))
        return self._activate(older, "rollback", actor)

    def check_policies(self, snapshot: Snapshot) -> list[str]:
        """Checks policies against the schema and returns warnings. Raises `ConfigError` policy_invalid."""
        checked = self.check_texts(self.policy_texts(snapshot, {}))
        found = [*checked.warnings, *unknown_names(checked.outlines, snapshot)]
        return [str(warning) for warning in found]

    def policy_texts(self, snapshot: Snapshot, new: Mapping[str, str]) -> dict[str, str]:
        """Policy texts by file name; `new` has those that are not stored yet, by digest."""
        return {
            ref.name: new[ref.blob] if ref.blob in new else self.blobs.get(ref.blob).decode()
            for ref in snapshot.policy.policies
        }

    def check_texts(self, texts: Mapping[str, str]) -> Checked:
        """Checks policies, file name to text. Raises `PolicyError`."""
        return check(self._native.check_policies, texts)

    def explain(
        self, requests: Sequence[Mapping[str, Any]], policies: Mapping[str, str] | None = None
    ) -> list[dict[str, Any]]:
        """What the engine would decide about `requests`, and why; under other policies when they are given."""
        entry, snapshot = self.active()
        if policies is None:
            moment = now().timestamp()
            refs = snapshot.policy.policies
            alive = [ref for ref in refs if ref.expires_at is None or ref.expires_at > moment]
            policies = {ref.name: self.blobs.get(ref.blob).decode() for ref in alive}
        else:
            check(self._native.check_policies, policies)
        return explain(
            self._apart.explain, str(self._home.engine), entry.digest, policies, requests
        )

    def judge(self, requests: Sequence[Mapping[str, Any]], candidate: Candidate) -> list[Judged]:
        """What the firewall says of `requests`; another one where `candidate` has it.

        Raises `ConfigError` request_invalid, route_unknown, snapshot_invalid.
        """
        entry, _ = self.active()
        return judge(self._apart.judge, str(self._home.engine), entry.digest, candidate, requests)

    def _activate(self, snapshot: Snapshot, action: str, actor: str) -> Outcome:
        for function in snapshot.functions:
            self.ensure_compiled(function.component)
        self._ensure_analysed(snapshot)
        envelope = self._keys.signer.sign(snapshot.canonical_bytes())
        refused = self._refusal(snapshot, envelope)
        if refused is not None:
            raise refused.error
        before = self.active()[1]
        if self.vouched is not None:
            self.vouched(snapshot, before)
        self._require_loaded(before, snapshot)
        try:
            return self._serve(snapshot, envelope, action, actor)
        finally:
            self.workers.settle(self.loadable(self.active()[1]))

    def _require_loaded(self, before: Snapshot, after: Snapshot) -> None:
        """Raises `NotLoadedError`, which `once_loaded` waits for."""
        self.workers.settle(self.loadable(before))
        assert self._waiting.wish is not None, "snapshots are activated by `once_loaded`"
        self._waiting.wish.require_loaded(before.models or (), after.models or ())

    def _serve(self, snapshot: Snapshot, envelope: bytes, action: str, actor: str) -> Outcome:
        """Makes a snapshot the active one, and has the engine serve it; goes back when the engine refuses."""
        before = self.history.active()
        entry = self._record(snapshot.digest(), envelope, action, actor)
        self.history.note_components(entry.generation, _components(snapshot))
        self.renew_certificate(snapshot)
        try:
            applied = self._apply_if_there(entry)
        except ConfigError:
            if before is not None:
                back = self._record(
                    before.digest, self.history.envelope(before.digest), "revert", "control"
                )
                older = self.snapshot(before.digest)
                self.history.note_components(back.generation, _components(older))
                self._apply_if_there(back)
            raise
        self._parsed = (entry.digest, snapshot)
        if self.noted is not None:
            self.noted(snapshot, actor)
        return Outcome(entry, snapshot, applied)

    def _record(self, digest: str, envelope: bytes, action: str, actor: str) -> Entry:
        entry = activate(
            self._home, self.history, digest=digest, envelope=envelope, action=action, actor=actor
        )
        if self.witness is not None:
            self.witness(entry)
        return entry

    def refusal_of_plan(self, snapshot: Snapshot, texts: Mapping[str, str]) -> About | None:
        """Why the engine would refuse a snapshot, as far as what it needs is here; `texts` has what is not stored,
        by digest. Raises `UnavailableError` question_failed.
        """
        key = self._native.engine_key()
        here = desired.with_what_is_here(
            snapshot,
            lambda digest: digest in texts or self.blobs.has(digest),
            lambda component: self._home.compiled_file(key, component).exists(),
        )
        envelope = self._keys.signer.sign(here.canonical_bytes())
        with tempfile.TemporaryDirectory(dir=self._home.run, prefix="plan-") as folder:
            self._lay_out(Path(folder), here, texts)
            return self._refusal(here, envelope, Path(folder))

    def _lay_out(self, folder: Path, snapshot: Snapshot, texts: Mapping[str, str]) -> None:
        """What the engine reads, in a folder where more may stand than is stored."""
        for entry in self._home.engine.iterdir():
            if entry != self._home.blobs.parent:
                (folder / entry.name).symlink_to(entry)
        blobs = folder / self._home.blobs.relative_to(self._home.engine)
        blobs.mkdir(parents=True)
        for digest in snapshot.blobs():
            place = blobs / digest_hex(digest)
            if digest in texts:
                place.write_text(texts[digest])
            else:
                place.symlink_to(self.blobs.path(digest))

    def _refusal(
        self, snapshot: Snapshot, envelope: bytes, engine_dir: Path | None = None
    ) -> About | None:
        """Why the engine would not serve the snapshot, if so.

        Compiling the firewall takes half a second and 50 MB. One that is served already is left out of
        the check; another is checked in a process that ends.
        """
        _, active = self.active()
        check = self._apart.check_snapshot
        if desired.firewall_of(snapshot) == desired.firewall_of(active):
            check = self._native.check_snapshot
            bare = desired.without_firewall(snapshot)
            envelope = self._keys.signer.sign(bare.canonical_bytes())
        try:
            check(envelope, self._keys.signer.public_pem, str(engine_dir or self._home.engine))
        except ValueError as error:
            return about(refusal_of(error), snapshot)
        return None

    def _apply_if_there(self, entry: Entry) -> bool:
        """Tells the engine. A second try meets the engine that the supervisor has started meanwhile.

        Raises `ConfigError` engine_refused.
        """
        for _ in range(2):
            try:
                self.engine.apply(entry.digest, entry.generation)
            except UnavailableError:
                continue
            return True
        return False

    def _ensure_analysed(self, snapshot: Snapshot) -> None:
        """Finds out about the firewall's rules what the engine then need not each time it loads them."""
        rules = snapshot.waf.rules if snapshot.waf else None
        if rules is None or rules == self._analysed or not self.blobs.has(rules):
            return
        self._analysed = rules
        key, version = self._native.engine_key(), self._native.version()
        output = self._home.analysis_file(key, version, rules)
        if output.exists():
            return
        try:
            analysis = self._apart.analyse_rules(self.blobs.get(rules))
        except (ValueError, UnavailableError):
            return  # the engine needs none; what is wrong with the rules is for the check to say
        output.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomic(output, analysis)

    def ensure_compiled(self, component: str) -> None:
        """Makes the machine code of a component for this engine when there is none.

        Raises `ConfigError` for a component that cannot be compiled, blob_missing.
        """
        output = self._home.compiled_file(self._native.engine_key(), component)
        if output.exists():
            return
        if not self.blobs.has(component):
            raise ConfigError("blob_missing", f"the component {component} is not on this node")
        self._compile(self.blobs.path(component), output)

    def renew_certificate(self, snapshot: Snapshot) -> None:
        """Issues the server's certificate anew when hosts changed or half of its life is over, and has it served."""
        with self.lock:
            at = now()
            authority = self._keys.listener_authority(at)
            if not tls.renew_if_needed(self._home, authority, snapshot.admit.hosts, at):
                return
            try:
                self.engine.reload_tls()
            except UnavailableError:
                return  # it reads the files when it starts

    def collect_garbage(self) -> Collected:
        """Removes what no recent generation needs."""
        with self.lock:
            return collect_garbage(
                self._home,
                self.history,
                self._blobs_of,
                engine_key=self._native.engine_key(),
                besides=self.besides(),
            )

    def _blobs_of(self, envelope: bytes) -> frozenset[str]:
        payload = verify_envelope(envelope, self._keys.signer.public_pem)
        return Snapshot.parse(payload).blobs()

    def reconcile(self) -> str | None:
        """Makes disk and engine agree with the history; returns what was mended, if anything.

        The engine loads active.json by itself when it starts; this is for what it could not load (a file changed or
        missing, code compiled for another engine) and for what was recorded while it was away. Raises `VedetteError`.
        """
        mended, status = self._mend()
        # Outside of the lock: these have locks of their own.
        if status is not None and status.get("revokedAhead") and self.unsettled is not None:
            self.unsettled()
        if status is not None and self.told is not None:
            self.told(status)
        return mended

    def _mend(self) -> tuple[str | None, EngineStatus | None]:
        """What was mended, and what the engine said of itself."""
        with self.lock:
            entry = heal(self._home, self.history)
            if entry is None:
                return None, None
            _, snapshot = self.active()
            self.workers.settle(self.loadable(snapshot))  # control starts with this, too
            status = self.engine.look()
            serving = (status["digest"], status["generation"], status["error"])
            # A node's first snapshot is served before control runs, and a newer engine wants an analysis of its own.
            self._ensure_analysed(snapshot)
            if serving == (entry.digest, entry.generation, None):
                return None, status
            for function in snapshot.functions:
                self.ensure_compiled(function.component)
            self.engine.apply(entry.digest, entry.generation)
            why = status["error"] or "it was behind"
            return f"the engine now serves generation {entry.generation} ({why})", status


class _Waiting(threading.local):
    """What this thread waits for."""

    wish: Wish | None = None


def _models_of(snapshot: Snapshot) -> Sequence[ServedModel]:
    return snapshot.models or ()


def _components(snapshot: Snapshot) -> dict[str, str]:
    return {each.name: each.component for each in snapshot.functions}
