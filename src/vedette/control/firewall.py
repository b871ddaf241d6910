"""The firewall's questions: what it says of a request, what another would say, what events suggest, which rules it has.

Owns: putting together the active snapshot, the engine's own judgement and the recorded events. Must not: judge, or
activate anything but a rule set that a publisher signed.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

from vedette.clock import now, to_rfc3339
from vedette.config.model import build, wire_value
from vedette.config.snapshot import FunctionBackend, Route, ServicesBackend, Snapshot
from vedette.config.waf import Waf, WafExclusion, WafOverride
from vedette.control.activate import Activator
from vedette.control.earlier import not_asked, with_earlier
from vedette.control.firewall_messages import (
    AttackExample,
    DescribedRequest,
    FirewallCandidate,
    JointProposal,
    JudgeAnswer,
    JudgedRequest,
    JudgeWish,
    Proposal,
    RefusedProposal,
    ReplayAnswer,
    ReplayWish,
    RuleSetStatus,
    RuleSetWish,
    TuneAnswer,
    TuneWish,
)
from vedette.control.inspections import rules_in
from vedette.control.messages import Activation
from vedette.errors import ConfigError
from vedette.identity.signer import RULE_SET_TYPE, verify_envelope
from vedette.ids import digest_of
from vedette.observability import spool
from vedette.policy import attacks, coreruleset, tuning
from vedette.policy.inspection import STOPPED, Candidate, Judged
from vedette.policy.rules import Rule, covers
from vedette.store.home import Home

_EXAMPLES = 5
_NAMES = 20


class Firewall:
    """Answers questions about the firewall of a node."""

    def __init__(self, home: Home, activator: Activator) -> None:
        self._home = home
        self._activator = activator

    def judge(self, wish: JudgeWish) -> JudgeAnswer:
        """What would become of requests. Raises `ConfigError` request_invalid, route_unknown."""
        entry, active = self._activator.active()
        found = self._activator.judge(_asked(wish.requests), Candidate())
        answers = zip(wish.requests, _told(found), strict=True)
        judged = tuple(_with_unseen_body(active, each, told) for each, told in answers)
        return JudgeAnswer(
            digest=entry.digest,
            answers=with_earlier(self._activator, active, wish.requests, judged),
            not_asked=not_asked(active, judged),
        )

    def replay(self, wish: ReplayWish) -> ReplayAnswer:
        """What the active firewall and another say of requests.

        Raises `ConfigError` request_invalid, snapshot_invalid; `TrustError` payload_invalid, envelope_signature.
        """
        entry, active = self._activator.active()
        candidate = self._candidate(active, wish.candidate)
        asked = _asked(wish.requests)
        before = self._activator.judge(asked, Candidate())
        after = self._activator.judge(asked, candidate)
        return ReplayAnswer(digest=entry.digest, before=_told(before), after=_told(after))

    def tune(self, wish: TuneWish) -> TuneAnswer:
        """Exclusions that the recorded events suggest, each with what else it would let through.

        Raises `ConfigError` request_invalid, route_unknown.
        """
        _, active = self._activator.active()
        route = None if wish.route is None else _require_route(active, wish.route)
        in_force = _InForce(active, rules_in(self._activator.blobs, active, {}))
        events = spool.last_lines(self._home.spool_requests, wish.events, _is_event)
        open_events = tuning.as_now(events, in_force)
        groups = [each for each in tuning.groups(open_events) if wish.route in (None, each.route)]
        together = tuning.joint(groups) if wish.rule is None else []
        if wish.rule is not None:
            groups = [_tried(route, wish, groups)]
            if not tuning.switches_scoring_off(wish.rule):
                in_force.require_rule(wish.rule)
        enough: list[tuning.Group] = []
        refused: list[RefusedProposal] = []
        for group in groups:
            why = _why_not(active, wish, group, in_force)
            if why is None and len(enough) < wish.most:
                enough.append(group)
            elif why is not None:
                refused.append(
                    RefusedProposal(
                        route=group.route, rule=group.rule, location=group.part, why=why
                    )
                )
        known = {each.name for each in active.routes}
        worth = [
            each
            for each in together
            if _too_few(wish, each) is None and each.groups[0].route in known
        ][: wish.most]
        corpus = attacks.installed()
        stopped = sum(each.get("action") in STOPPED for each in events)
        return TuneAnswer(
            events=len(events),
            stopped=stopped,
            settled=stopped - sum(each.get("action") in STOPPED for each in open_events),
            proposals=tuple(self._proposal(active, each, wish.days, corpus) for each in enough),
            joint=tuple(self._joint(active, each, wish.days, corpus) for each in worth),
            refused=tuple(refused),
        )

    def rules(self) -> RuleSetStatus:
        """The rule set in force, and the one that is installed."""
        _, active = self._activator.active()
        waf, installed = active.waf, coreruleset.installed()
        stored = None if waf is None else self._activator.blobs.path(waf.rules).stat().st_mtime
        return RuleSetStatus(
            version=waf.version if waf else None,
            digest=waf.rules if waf else None,
            stored_at=None if stored is None else to_rfc3339(datetime.fromtimestamp(stored, UTC)),
            installed=installed.version if installed else None,
            installed_digest=digest_of(installed.packed) if installed else None,
            mode=waf.policy.mode if waf else None,
            paranoia_level=waf.policy.paranoia_level if waf else None,
        )

    def update(self, wish: RuleSetWish, actor: str) -> Activation:
        """Puts a signed rule set in force, or the installed one.

        Raises `ConfigError` rule_set_invalid or engine_refused; `TrustError` envelope_invalid, envelope_signature.
        """
        version, digest = self._stored(wish.rules, wish.key)

        def change(active: Snapshot) -> Snapshot:
            waf = active.waf or Waf(version=version, rules=digest)
            return active.with_(waf=waf.model_copy(update={"version": version, "rules": digest}))

        outcome = self._activator.change(change, f"waf rules {version}", actor)
        entry = outcome.entry
        return Activation(digest=entry.digest, generation=entry.generation, applied=outcome.applied)

    def _stored(self, rules: str | None, key: str | None) -> tuple[str, str]:
        """Version and digest of a rule set that is among the blobs now."""
        if rules is None:
            installed = coreruleset.installed()
            if installed is None:
                raise ConfigError("rule_set_invalid", "this installation brings no rule set")
            return installed.version, self._activator.blobs.put(installed.packed)
        if key is None:
            raise ConfigError("request_invalid", "a signed rule set needs its publisher's key")
        try:
            envelope = base64.b64decode(rules, validate=True)
        except binascii.Error as error:
            raise ConfigError("request_invalid", f"rules: {error}") from None
        packed = verify_envelope(envelope, key.encode(), RULE_SET_TYPE)
        return _version_of(packed), self._activator.blobs.put(packed)

    def _candidate(self, active: Snapshot, wish: FirewallCandidate) -> Candidate:
        """The firewall that is compared with the active one."""
        waf = active.waf
        routes: dict[str, WafOverride | None] = {}
        if wish.payload is not None:
            planned = Snapshot.parse(wish.payload.encode())
            for text in wish.texts.values():
                self._activator.blobs.put(text.encode())
            waf, known = planned.waf, {each.name: each for each in planned.routes}
            routes = {
                each.name: known[each.name].waf for each in active.routes if each.name in known
            }
        if waf is None:
            raise ConfigError("rule_set_invalid", "the node has no rule set to compare with")
        if wish.rules is not None:
            version, digest = self._stored(wish.rules, wish.key)
            waf = waf.model_copy(update={"version": version, "rules": digest})
        said = {"mode": wish.mode, "paranoia_level": wish.paranoia_level}
        given = {name: value for name, value in said.items() if value is not None}
        if given:
            waf = waf.model_copy(update={"policy": waf.policy.model_copy(update=given)})
            own = {each.name: routes.get(each.name, each.waf) for each in active.routes}
            routes |= {
                name: override.model_copy(update=given)
                for name, override in own.items()
                if override is not None
            }
        return Candidate(waf, routes)

    def _proposal(
        self, active: Snapshot, group: tuning.Group, days: int, corpus: Sequence[attacks.Attack]
    ) -> Proposal:
        exclusion = group.exclusion(*_until_and_reason(group, days))
        proof = self._proof(active, [group], [exclusion], corpus)
        times = sorted(str(each["time"]) for each in group.events) or ["", ""]
        return Proposal(
            route=group.route,
            rule=group.rule,
            message=group.message,
            location=group.part,
            exclusion=exclusion,
            requests=len(group.events),
            clients=group.clients,
            would_pass=group.would_pass,
            first=times[0],
            last=times[-1],
            attacks=proof.tried,
            let_through=len(proof.let_through),
            let_through_by_rule=proof.by_rule(),
            examples=_examples(proof),
        )

    def _joint(
        self, active: Snapshot, found: tuning.Joint, days: int, corpus: Sequence[attacks.Attack]
    ) -> JointProposal:
        exclusions = found.exclusions(*_until_and_reason(found, days))
        proof = self._proof(active, found.groups, exclusions, corpus)
        return JointProposal(
            route=found.groups[0].route,
            rules=tuple(sorted({each.rule for each in found.groups})),
            exclusions=exclusions,
            requests=len(found.events),
            clients=found.clients,
            would_pass=found.would_pass,
            attacks=proof.tried,
            let_through=len(proof.let_through),
            let_through_by_rule=proof.by_rule(),
            examples=_examples(proof),
        )

    def _proof(
        self,
        active: Snapshot,
        groups: Sequence[tuning.Group],
        exclusions: Sequence[WafExclusion],
        corpus: Sequence[attacks.Attack],
    ) -> tuning.Proof:
        """The rule set's attacks in those parts of that route, judged with and without the exclusions."""
        if not corpus:
            return tuning.Proof(0, ())
        name = groups[0].route
        places = {each.part: each.place for each in groups}.values()
        asked = [
            {**attacks.request(place, each.value), "route": name}
            for place in places
            for each in corpus
        ]
        own = next(each.waf for each in active.routes if each.name == name) or WafOverride()
        more = own.model_copy(update={"exclusions": (*own.exclusions, *exclusions)})
        before = self._activator.judge(asked, Candidate())
        after = self._activator.judge(asked, Candidate(routes={name: more}))
        return tuning.proof([*corpus] * len(places), before, after)


class _InForce:
    """What exclusions keep rules from looking at today."""

    def __init__(self, active: Snapshot, rules: Sequence[Rule]) -> None:
        self._active = active
        self._rules = {each.id: each for each in rules}
        self._now = now().timestamp()

    def __call__(self, route: str, rule: int, part: str) -> bool:
        found = self._rules.get(rule, Rule(rule))
        return any(covers(each, found, part) for each in self._exclusions(route))

    def _exclusions(self, name: str) -> Iterator[WafExclusion]:
        route, waf = self._active.route(name), self._active.waf
        own = route.waf.exclusions if route is not None and route.waf is not None else ()
        for each in (*(waf.policy.exclusions if waf else ()), *own):
            if not each.is_over(self._now):
                yield each

    def require_rule(self, rule: int) -> None:
        """Raises `ConfigError` request_invalid when the node has no such rule."""
        if rule not in self._rules:
            version = self._active.waf.version if self._active.waf else "-"
            message = (
                f"the node has no rule {rule}: neither the Core Rule Set {version} nor its own"
            )
            hint = "Security events and `vedette waf test` name rules by their ids."
            raise ConfigError("request_invalid", message, hint)


def _until_and_reason(found: tuning.Group | tuning.Joint, days: int) -> tuple[date, str]:
    """The last day of a proposal, and what its manifest says why."""
    reason = "say here why; no event asks for it"
    if found.events:
        counted = f"{len(found.events)} requests of {found.clients} clients"
        reason = f"{counted} taken for honest, found by `vedette waf tune`"
    return now().date() + timedelta(days=days), reason


def _examples(proof: tuning.Proof) -> tuple[AttackExample, ...]:
    shown = proof.let_through[:_EXAMPLES]
    return tuple(AttackExample(rule=each.rule, value=each.value) for each in shown)


def _version_of(packed: bytes) -> str:
    """The version of a packed rule set. Whether its rules can be used, the engine's check says."""
    try:
        archive = json.loads(packed)
        version, files, load = archive["version"], archive["files"], archive["load"]
        is_whole = isinstance(version, str) and load and all(name in files for name in load)
    except (ValueError, KeyError, TypeError):
        is_whole = False
    if not is_whole:
        raise ConfigError("rule_set_invalid", "it has no `version`, `files` and `load`")
    return str(version)


def _is_event(line: Mapping[str, Any]) -> bool:
    return line.get("kind") == "security"


def _require_route(active: Snapshot, name: str) -> Route:
    """Raises `ConfigError` route_unknown with the routes that there are."""
    found = active.route(name)
    if found is None:
        names = [each.name for each in active.routes]
        shown = ", ".join([*names[:_NAMES], *(["… (`vedette routes`)"] if names[_NAMES:] else [])])
        hint = f"There are: {shown}" if names else "The node has no routes."
        raise ConfigError("route_unknown", f"there is no route {name!r}", hint)
    return found


def _tried(route: Route | None, wish: TuneWish, groups: Sequence[tuning.Group]) -> tuning.Group:
    """The group of a rule that a person names; without events when there are none."""
    if route is None or wish.rule is None:
        raise ConfigError("request_invalid", "say the route whose rule is to be tried")
    part = wish.parameter or ""
    host = (*(each for each in route.hosts if not each.startswith("*")), "localhost")[0]
    place = attacks.Place(route.method or "GET", host, route.path.value, part)
    without_events = tuning.Group(route.name, wish.rule, "", place)
    alike = (each for each in groups if each.key == without_events.key)
    group = next(alike, without_events)
    if part and group.parameter is None:
        message = (
            f"{part!r} is no part of a request that an exclusion can name: "
            f"it would leave rule {wish.rule} out altogether"
        )
        hint = (
            "Write it as events do: ARGS:comment, REQUEST_COOKIES:theme, REQUEST_FILENAME. "
            "Without --parameter the rule is tried as a whole."
        )
        raise ConfigError("request_invalid", message, hint)
    if ":/" in part and part.endswith("/"):  # the proof would put attacks where it does not look
        message = f"{part!r} is a pattern, and attacks are tried in one part of a request"
        hint = "Name a part that the pattern means, such as ARGS:comment."
        raise ConfigError("request_invalid", message, hint)
    return group


def _why_not(
    active: Snapshot, wish: TuneWish, group: tuning.Group, in_force: _InForce
) -> str | None:
    """Why nothing is proposed for a group, if so."""
    if tuning.switches_scoring_off(group.rule):
        return "it sums the scores up or decides by them: without it the firewall is off"
    if not any(each.name == group.route for each in active.routes):
        return "the route is gone"
    if in_force(group.route, group.rule, group.part):
        return "an exclusion of it is in force already"
    if wish.rule is not None:
        return None
    few = _too_few(wish, group)
    if few is None and group.would_pass == 0:
        return "alone it lets no request pass: other rules stop them, too"
    return few


def _too_few(wish: TuneWish, found: tuning.Group | tuning.Joint) -> str | None:
    """Why events are no reason for an exclusion, if so."""
    count = len(found.events)
    if count < wish.min_requests:
        return (
            f"{count} request{'' if count == 1 else 's'}: too few to tell a mistake from an attack"
        )
    if found.clients < wish.min_clients:
        return f"all from {found.clients} address{'' if found.clients == 1 else 'es'}: that may be an attacker"
    return None


def _asked(requests: Sequence[DescribedRequest]) -> list[dict[str, Any]]:
    return [dict(wire_value(each)) for each in requests]


def _with_unseen_body(
    active: Snapshot, request: DescribedRequest, told: JudgedRequest
) -> JudgedRequest:
    """The same, saying so where a body is none of the firewall's business: it goes nowhere."""
    route = active.route(told.route) if told.route else None
    reads = route is None or isinstance(route.backend, FunctionBackend | ServicesBackend)
    if reads or not request.body or told.detail is not None or told.action == "uninspected":
        return told
    detail = "the body is not looked at: the node itself answers, and nobody reads it"
    return told.model_copy(update={"detail": detail})


def _told(found: Sequence[Judged]) -> tuple[JudgedRequest, ...]:
    return tuple(build(JudgedRequest, each, code="request_invalid") for each in found)
