"""Prints a run as tables, and writes RESULTS.md and results.json.

Owns: the form of the terminal's tables and of the two files.
Must not: compute a figure or a verdict.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import identity_lines
import load
import micro
import model_lines
import serving_lines
from firewall import Judging
from flood import Flood
from measure import Sample, spread
from processes import pinned
from results import Results
from rich.console import Console
from rich.table import Table
from rows import ROWS
from server import Endpoint, Mode
from targets import NGINX_US
from verdicts import Verdict

HERE = Path(__file__).parent
_COLUMNS = (
    "requests/s",
    "CPU µs",
    "all CPU µs",
    "busy",
    "p50 ms",
    "p99 ms",
)
_JUDGED = ("target", "limit", "goal", "figure", "verdict")
_MESH = "A pair of sidecars, 1,000 requests/s"
_FIREWALL = "The firewall, in process, CPU a request"
_ENGINES = {"vedette": "ours, µs", "coraza": "Coraza, µs", "libmodsecurity": "libmodsecurity, µs"}
_MODES = {
    Mode.PINNED: "Server on one core, load on the other",
    Mode.SHARED: "Server and load on both cores together",
}


@dataclass(frozen=True)
class Line:
    """One row of a table, as words."""

    title: str
    cells: tuple[str, ...]


def print_results(console: Console, results: Results, verdicts: Sequence[Verdict]) -> None:
    """The tables of the run, then what was not measured and why."""
    for mode, heading in _MODES.items():
        if lines := _short_lines(results, mode):
            _print_table(console, heading, ("row", *_COLUMNS), lines)
    if lines := [Line(*line) for line in identity_lines.mesh_lines(results)]:
        _print_table(console, _MESH, identity_lines.MESH_COLUMNS, lines)
    if lines := _part_lines(results):
        _print_table(console, "One node", ("figure", "value"), lines)
    if lines := _judging_lines(results):
        _print_table(console, _FIREWALL, ("request", *_ENGINES.values()), lines)
    if judged := _judged([verdict for verdict in verdicts if verdict.figure]):
        _print_table(console, "Targets", _JUDGED, judged)
    for what, reason in results.missing.items():
        console.print(f"not measured: {what}: {reason}", style="yellow", markup=False)
    for note in _notes(results):
        console.print(note, markup=False)


def _print_table(
    console: Console, heading: str, columns: Sequence[str], lines: Iterable[Line]
) -> None:
    table = Table(title=heading, title_justify="left")
    table.add_column(columns[0], overflow="fold")
    for column in columns[1:]:
        table.add_column(column, justify="right", no_wrap=column in _COLUMNS)
    for line in lines:
        table.add_row(line.title, *line.cells)
    console.print(table)


def write(results: Results, verdicts: Sequence[Verdict], markdown: bool, file: Path | None) -> None:
    """results.json and RESULTS.md beside this module, and JSON into `file` when given."""
    data = results.to_json([verdict.to_json() for verdict in verdicts])
    text = json.dumps(data, indent=1, ensure_ascii=False) + "\n"
    if file:
        file.write_text(text)
    if markdown:
        (HERE / "results.json").write_text(text)
        (HERE / "RESULTS.md").write_text(_markdown(results, verdicts))


def _markdown(results: Results, verdicts: Sequence[Verdict]) -> str:
    parts = [_head(results), _section("Targets", _markdown_verdicts(verdicts))]
    for mode, heading in _MODES.items():
        if lines := _lines(results, mode):
            parts.append(_section(heading, _markdown_table(("row", *_COLUMNS), lines)))
    if lines := [Line(*line) for line in identity_lines.mesh_lines(results)]:
        table = _markdown_table(identity_lines.MESH_COLUMNS, lines)
        parts.append(_section(_MESH, table))
    if lines := _part_lines(results):
        parts.append(_section("One node", _markdown_table(("figure", "value"), lines)))
    if lines := _judging_lines(results):
        columns = ("request", *_ENGINES.values())
        parts.append(_section(_FIREWALL, _markdown_table(columns, lines)))
    if results.missing:
        rows = [f"- {what}: {' '.join(why.split())}" for what, why in results.missing.items()]
        parts.append(_section("Not measured", "\n".join(rows)))
    parts.append(_section("Commands", _commands(results)))
    return "\n\n".join(parts) + "\n"


def _head(results: Results) -> str:
    machine = results.machine
    kind = "virtual machine" if machine.virtual else "machine"
    versions = ", ".join(f"{name} {number}" for name, number in sorted(results.versions.items()))
    return (
        "# The last full run\n\n"
        "Written by `make bench`; what each figure means and how it is measured: "
        "[README.md](README.md).\n\n"
        f"- when: {results.started}, commit {results.commit}\n"
        f"- machine: {machine.processor}, {machine.cores} cores, {machine.memory_gib} GiB, "
        f"{kind}, {machine.system}, kernel {machine.kernel}\n"
        f"- versions: {versions}\n"
        f"- rounds: median of {results.rounds}, interleaved, {results.seconds:g} s each after "
        f"1 s of warm-up; in brackets the least and the most\n"
        + "\n".join(f"- {note}" for note in _notes(results))
    )


def _notes(results: Results) -> list[str]:
    """What a reader must know before believing a figure: how quiet and how fast the machine was."""
    nginx = results.of(Mode.PINNED, "nginx")
    if not nginx:
        return [_noise(results)]
    cost = spread([sample.cpu_us for sample in nginx]).median
    speed = (
        f"speed: nginx plain took {cost:.1f} µs of CPU a request, {NGINX_US} where the targets in µs "
        f"were set: this machine ran at {NGINX_US / cost:.2f} of that one's speed"
    )
    return [_noise(results), speed]


def _noise(results: Results) -> str:
    noise = results.noise()
    if noise is None:
        return "noise: no row was measured"
    return (
        f"noise: other programs used {noise.median:.2f} cores in the median round, "
        f"{noise.most:.2f} in the worst (0 is a quiet machine)"
    )


def _section(heading: str, text: str) -> str:
    return f"## {heading}\n\n{text}"


def _markdown_table(columns: Sequence[str], lines: Iterable[Line]) -> str:
    head = ["| " + " | ".join(columns) + " |", "|---|" + "--:|" * (len(columns) - 1)]
    return "\n".join(
        [*head, *("| " + " | ".join((line.title, *line.cells)) + " |" for line in lines)]
    )


def _markdown_verdicts(verdicts: Sequence[Verdict]) -> str:
    return _markdown_table(_JUDGED, _judged(verdicts))


def _judged(verdicts: Sequence[Verdict]) -> list[Line]:
    return [Line(verdict.text, _judged_cells(verdict)) for verdict in verdicts]


def _judged_cells(verdict: Verdict) -> tuple[str, ...]:
    sign, unit = ("≤" if verdict.at_most else "≥"), verdict.unit
    limit = f"{sign} {_number(verdict.limit)} {unit}"
    goal = "" if verdict.goal is None else f"{_number(verdict.goal)} {unit}"
    if verdict.figure is None:
        return limit, goal, "", verdict.said
    figure = f"{_number(verdict.figure.median)} {unit}"
    if verdict.figure.least != verdict.figure.most:
        figure += f" [{_number(verdict.figure.least)} to {_number(verdict.figure.most)}]"
    times = "" if verdict.ratio is None else f", {verdict.ratio:.2f}x the limit"
    return limit, goal, figure, verdict.said + times


def _lines(results: Results, mode: Mode) -> list[Line]:
    rows = [(row, results.of(mode, row.name)) for row in ROWS]
    return [Line(row.title, _cells(samples)) for row, samples in rows if samples]


def _short_lines(results: Results, mode: Mode) -> list[Line]:
    """The terminal's form: the name `--only` takes, medians, half the spread in percent."""
    rows = [(row, results.of(mode, row.name)) for row in ROWS]
    return [Line(row.name, _short_cells(samples)) for row, samples in rows if samples]


def _short_cells(samples: Sequence[Sample]) -> tuple[str, ...]:
    whole = [sample.whole_cpu_us for sample in samples if sample.whole_cpu_us is not None]
    return (
        _short([s.requests_per_second for s in samples], 1, "{:,.0f}"),
        _short([s.cpu_us for s in samples], 1, "{:.1f}"),
        f"{spread(whole).median:.1f}" if whole else "",
        f"{spread([s.busy for s in samples]).median:.2f}",
        f"{spread([s.p50_us for s in samples]).median / 1000:.2f}",
        _short([s.p99_us for s in samples], 1000, "{:.2f}"),
    )


def _short(values: Sequence[float], divisor: float, form: str) -> str:
    over = spread(values)
    half = (over.most - over.least) / 2 / over.median * 100
    return f"{form.format(over.median / divisor)} ±{half:.0f}%"


def _cells(samples: Sequence[Sample]) -> tuple[str, ...]:
    whole = [sample.whole_cpu_us for sample in samples if sample.whole_cpu_us is not None]
    return (
        _spread([s.requests_per_second for s in samples], 1, "{:,.0f}"),
        _spread([s.cpu_us for s in samples], 1, "{:.1f}"),
        f"{spread(whole).median:.1f}" if whole else "",
        f"{spread([s.busy for s in samples]).median:.2f}",
        f"{spread([s.p50_us for s in samples]).median / 1000:.2f}",
        _spread([s.p99_us for s in samples], 1000, "{:.2f}"),
    )


def _spread(values: Sequence[float], divisor: float, form: str) -> str:
    over = spread(values)
    median, least, most = (
        form.format(value / divisor) for value in (over.median, over.least, over.most)
    )
    return f"{median} [{least} to {most}]"


def _part_lines(results: Results) -> list[Line]:
    held = [
        Line(f"{name}: {one.count:,} idle TLS connections", (f"{one.each():.1f} kB each",))
        for name, one in results.connections.items()
    ]
    held += [
        Line(micro.STEPS[name], (f"{nanos / 1000:.2f} µs",))
        for name, nanos in results.micro.items()
    ]
    held += _flood_lines(results)
    held += [Line(*line) for line in identity_lines.part_lines(results)]
    held += [Line(*line) for line in model_lines.part_lines(results)]
    held += [Line(*line) for line in serving_lines.part_lines(results)]
    idle = results.parts.idle if results.parts else None
    if idle is None:
        return held
    lines = [
        Line("engine, idle: RSS (PSS)", (f"{_mb(idle.engine.rss)} ({_mb(idle.engine.pss)})",)),
        Line("all three processes, idle: PSS", (_mb(idle.whole_pss),)),
        Line("engine, idle: CPU", (f"{idle.engine_cpu_percent:.1f} % of a core",)),
    ]
    return lines + _cold_lines(results) + _density_lines(results) + held


def _flood_lines(results: Results) -> list[Line]:
    return [line for name, flood in results.floods.items() for line in _flood_of(name, flood)]


def _flood_of(server: str, flood: Flood) -> list[Line]:
    became = ", ".join(f"{status}: {count:,}" for status, count in flood.statuses.items())
    return [
        Line(
            f"{server}, honest clients alone: p50, p99",
            (_times_ms(flood.quiet_p50, flood.quiet_p99),),
        ),
        Line(
            f"{server}, the same beside a flood of one address", (_times_ms(flood.p50, flood.p99),)
        ),
        Line(
            f"{server}, the flood: answered a second, answers by status, connections closed",
            (f"{flood.answered_per_second:,.0f}; {became}; {flood.closed:,}",),
        ),
    ]


def _times_ms(p50: float, p99: float) -> str:
    return f"{p50 / 1000:.2f} ms, {p99 / 1000:.2f} ms"


def _judging_lines(results: Results) -> list[Line]:
    """A line a kind and level; beside a peer's figure, how many times ours it is."""
    found = results.judging
    if found is None:
        return []
    return [
        Line(kind, tuple(_beside(found, engine, kind) for engine in _ENGINES))
        for kind in found.micros.get("vedette", {})
    ]


def _beside(found: Judging, engine: str, kind: str) -> str:
    ours, micros = found.micros["vedette"][kind], found.micros.get(engine, {}).get(kind)
    if micros is None:
        return ""
    times = "" if engine == "vedette" else f" ({micros / ours:.0f}x)"
    return f"{micros:,.1f}{times}"


def _cold_lines(results: Results) -> list[Line]:
    rounds = results.parts.cold if results.parts else ()
    if not rounds:
        return []
    title = f"first request of {rounds[0].functions} functions"
    return [
        _times(title, [c.first_p50 for c in rounds], [c.first_p99 for c in rounds]),
        _times(
            "second request of each", [c.warm_p50 for c in rounds], [c.warm_p99 for c in rounds]
        ),
        _times(
            "difference, on the client",
            [c.difference_p50 for c in rounds],
            [c.difference_p99 for c in rounds],
        ),
        _times(
            "difference, as the node says",
            [c.node_difference_p50 for c in rounds],
            [c.node_difference_p99 for c in rounds],
        ),
    ]


def _times(title: str, medians: Sequence[float], p99s: Sequence[float]) -> Line:
    form = "{:.0f} µs"
    return Line(title, (f"median {_spread(medians, 1, form)}, p99 {_spread(p99s, 1, form)}",))


def _density_lines(results: Results) -> list[Line]:
    density = results.parts.density if results.parts else None
    if density is None:
        return []
    count = density.functions
    lines = [
        Line(f"deploying {count} functions", (f"{density.deploy_seconds:.0f} s",)),
        Line("engine back after SIGTERM", (f"{density.engine_restart_seconds:.2f} s",)),
        Line("engine, one function: RSS", (_mb(density.one.rss),)),
        Line(f"engine, {count} deployed, one asked: RSS", (_mb(density.deployed.rss),)),
        Line(f"engine, {count} asked: RSS", (_mb(density.resident.rss),)),
        Line("of it anonymous / file pages", (_kinds(results),)),
        Line("each function: RSS (PSS)", (_each(results),)),
    ]
    if density.before:
        before = _spread([s.p99_us for s in density.before], 1000, "{:.2f} ms")
        after = _spread([s.p99_us for s in density.after], 1000, "{:.2f} ms")
        lines.append(Line("p99 of one function, before", (before,)))
        lines.append(Line(f"p99 of it with {count} others resident", (after,)))
    return lines


def _kinds(results: Results) -> str:
    density = results.parts.density if results.parts else None
    if density is None:
        return ""
    return f"{_mb(density.resident.anonymous)} / {_mb(density.resident.file)}"


def _each(results: Results) -> str:
    density = results.parts.density if results.parts else None
    if density is None:
        return ""
    return f"{density.rss_each():.0f} KiB ({density.pss_each():.0f} KiB)"


def _commands(results: Results) -> str:
    anywhere = Endpoint("URL")
    wrk = load.wrk_command("wrk", anywhere.url, results.seconds, "token.lua")
    h2load = load.h2load_command("h2load", anywhere, results.seconds, "FILE", "TOKEN")
    lines = [
        f"pinned: {' '.join(pinned(wrk, Mode.PINNED.load_cores))}",
        f"pinned: {' '.join(pinned(h2load, Mode.PINNED.load_cores))}",
        f"shared: {' '.join(pinned(wrk, Mode.SHARED.load_cores))}",
        *results.commands,
    ]
    return "```\n" + "\n".join(lines) + "\n```"


def _mb(kib: float) -> str:
    return f"{kib * 1024 / 1e6:.1f} MB"


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.2f}".rstrip("0").rstrip(".")
