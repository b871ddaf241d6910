"""Reads the figures that targets judge out of a run.

Owns: which rounds, rows and parts a figure is made of.
Must not: measure, or know a limit.
"""

from __future__ import annotations

from collections.abc import Callable

from cold import Cold
from density import Parts
from detector import Scored
from firewall import Judging
from measure import Sample, Spread, paired_ratio, spread
from media import Answering
from results import Results
from revocation import Kind
from server import Mode

from identity import Issued
from models import Modelled

Figure = Callable[[Results], Spread | None]


def rps(sample: Sample) -> float:
    """Requests a second."""
    return sample.requests_per_second


def p99(sample: Sample) -> float:
    """Microseconds."""
    return sample.p99_us


def cpu(sample: Sample) -> float:
    """The server's CPU, microseconds a request."""
    return sample.cpu_us


def against(mode: Mode, row: str, peer: str, figure: Callable[[Sample], float]) -> Figure:
    """A row over a peer, round by round."""

    def ratio(results: Results) -> Spread | None:
        ours, theirs = results.of(mode, row), results.of(mode, peer)
        return paired_ratio(ours, theirs, figure) if ours and theirs else None

    return ratio


def cost(row: str) -> Figure:
    """A row's CPU a request."""

    def cost(results: Results) -> Spread | None:
        rounds = results.of(Mode.PINNED, row)
        return spread([sample.cpu_us for sample in rounds]) if rounds else None

    return cost


def part(pick: Callable[[Parts], float | None]) -> Figure:
    """One figure of the node that the parts share."""

    def single(results: Results) -> Spread | None:
        value = pick(results.parts) if results.parts else None
        return None if value is None else Spread(value, value, value)

    return single


def cold(pick: Callable[[Cold], float]) -> Figure:
    """A figure of the first requests, over the rounds."""

    def over_rounds(results: Results) -> Spread | None:
        rounds = results.parts.cold if results.parts else ()
        return spread([pick(cold) for cold in rounds]) if rounds else None

    return over_rounds


def added(row: str, base: str, figure: Callable[[Sample], float]) -> Figure:
    """What a row takes longer than its base, round by round."""

    def difference(results: Results) -> Spread | None:
        ours, theirs = results.of(Mode.PINNED, row), results.of(Mode.PINNED, base)
        pairs = zip(ours, theirs, strict=False)
        rounds = [figure(over) - figure(under) for over, under in pairs]
        return spread(rounds) if rounds else None

    return difference


def p50(sample: Sample) -> float:
    """Microseconds."""
    return sample.p50_us


def micro(step: str) -> Figure:
    """A single step, in microseconds."""

    def single(results: Results) -> Spread | None:
        nanos = results.micro.get(step)
        return None if nanos is None else Spread(nanos / 1e3, nanos / 1e3, nanos / 1e3)

    return single


def connection(results: Results) -> Spread | None:
    """What an idle connection of ours takes, in kB."""
    ours = results.connections.get("vedette")
    return None if ours is None else Spread(ours.each(), ours.each(), ours.each())


def judging(kind: str, level: int) -> Figure:
    """What our rule engine takes for a kind of request, in microseconds."""

    def single(results: Results) -> Spread | None:
        found = results.judging
        micros = found.of("vedette", kind, level) if found else None
        return None if micros is None else Spread(micros, micros, micros)

    return single


def rule_set(pick: Callable[[Judging], float | None]) -> Figure:
    """A figure of the compiled rule set."""

    def single(results: Results) -> Spread | None:
        value = pick(results.judging) if results.judging else None
        return None if value is None else Spread(value, value, value)

    return single


def flooded(server: str) -> Figure:
    """The honest clients' p99 beside a flood, over theirs alone."""

    def single(results: Results) -> Spread | None:
        flood = results.floods.get(server)
        if flood is None:
            return None
        times = flood.p99 / flood.quiet_p99
        return Spread(times, times, times)

    return single


def added_against(row: str, peer: str, base: str, figure: Callable[[Sample], float]) -> Figure:
    """What a row adds to its base over what a peer adds to it, round by round.

    A round in which the peer came out faster than the base says only how noisy it was: its ratio is below any limit.
    """

    def ratio(results: Results) -> Spread | None:
        rows = (results.of(Mode.PINNED, name) for name in (row, peer, base))
        rounds = [
            (figure(ours) - figure(under)) / (figure(theirs) - figure(under))
            for ours, theirs, under in zip(*rows, strict=False)
            if figure(theirs) > figure(under)
        ]
        return spread(rounds) if rounds else None

    return ratio


def issued(pick: Callable[[Issued], float]) -> Figure:
    """A figure of the issuer, over the rounds."""

    def over_rounds(results: Results) -> Spread | None:
        return spread([pick(each) for each in results.issued]) if results.issued else None

    return over_rounds


def modelled(name: str, pick: Callable[[Modelled], float | None]) -> Figure:
    """A figure of one model, over the rounds."""

    def over_rounds(results: Results) -> Spread | None:
        rounds = [each for each in results.modelled if each.model == name]
        found = [value for each in rounds if (value := pick(each)) is not None]
        return spread(found) if found else None

    return over_rounds


def answering(name: str, pick: Callable[[Answering], float]) -> Figure:
    """A figure of one model that is asked with pictures or texts, over the rounds."""

    def over_rounds(results: Results) -> Spread | None:
        rounds = [pick(each) for each in results.media if each.model == name]
        return spread(rounds) if rounds else None

    return over_rounds


def scored(pick: Callable[[Scored], float]) -> Figure:
    """A figure of the detector, over the rounds."""

    def over_rounds(results: Results) -> Spread | None:
        return spread([pick(each) for each in results.scored]) if results.scored else None

    return over_rounds


def crowd_p99(results: Results) -> Spread | None:
    """The p99 of the models that are asked, after the others came over before."""
    crowd = results.crowd
    if crowd is None:
        return None
    pairs = zip(crowd.after, crowd.before, strict=True)
    return spread([after.p99_us / before.p99_us for after, before in pairs])


def swapped(results: Results) -> Spread | None:
    """Requests that failed, of all rounds together: a median would hide one."""
    if not results.swapped:
        return None
    failed = float(sum(each.failed for each in results.swapped))
    return Spread(failed, failed, failed)


def revoked(kind: Kind) -> Figure:
    """The p99 from a revocation to the last byte, milliseconds."""

    def single(results: Results) -> Spread | None:
        found = results.revoked.get(kind)
        return None if found is None else Spread(found.p99_ms, found.p99_ms, found.p99_ms)

    return single


def verified(results: Results) -> Spread | None:
    """Seconds of `vedette verify`."""
    return spread(results.verify_seconds) if results.verify_seconds else None


def mb(kib: float) -> float:
    """Megabytes from KiB."""
    return kib * 1024 / 1e6


def density_p99(results: Results) -> Spread | None:
    """The p99 of one function, after all others came over before."""
    density = results.parts.density if results.parts else None
    if density is None or not density.before:
        return None
    return paired_ratio(density.after, density.before, p99)
