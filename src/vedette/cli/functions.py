"""`vedette new`, `build`, `deploy`, `remove`, `list`, `logs`: functions.

Owns: the options of these commands. Must not: import the build or the client before a command runs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from vedette.cli.interrupting import said_on_interrupt
from vedette.cli.options import HomeOption, JsonOption, client_of, pairs, split_list
from vedette.cli.render import print_json, print_table, say, say_if_away, short

FollowOption = Annotated[bool, typer.Option("--follow", "-f", help="Go on as lines come.")]
TailOption = Annotated[int, typer.Option("--tail", "-n", min=0, help="How many of the last lines.")]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command(epilog="Example: vedette new hello --lang rust")(new)
    app.command(epilog="Example: vedette build ./hello")(build)
    app.command(epilog="Example: vedette deploy ./hello --env GREETING=hi --memory 64MB")(deploy)
    app.command(epilog="Example: vedette remove hello")(remove)
    app.command("list", epilog="Example: vedette list --json")(list_)
    app.command(epilog="Example: vedette logs hello --follow")(logs)


def new(
    name: Annotated[str, typer.Argument(help="Name of the function and of the new folder.")],
    lang: Annotated[str, typer.Option(help="Language: rust, python or js.")] = "rust",
    parent: Annotated[Path, typer.Option("--in", help="Where to make the folder.")] = Path(),
) -> None:
    """Make a project folder for a function."""
    from vedette.functions.scaffold import scaffold

    project = scaffold(name, lang, parent)
    say(f"Made {project}. Next:")
    for command, why in (
        (f"vedette build {project}", "makes the component; fetches the tools the first time"),
        (f"vedette deploy {project}", "on the node that is running (vedette up)"),
        (f"vedette deploy --watch {project}", "again on each save"),
    ):
        say(f"  {command:<{len(str(project)) + 24}} # {why}")
    print(project)


def build(
    path: Annotated[Path, typer.Argument(help="Project folder.")] = Path(),
) -> None:
    """Build a project and print the path of its component."""
    from vedette.cli.deploying import build_project
    from vedette.errors import ConfigError
    from vedette.functions.project import locate

    project = locate(path, "a project folder")
    if project.folder is None:
        raise ConfigError(
            "manifest_missing",
            f"{path} is a file, not a project",
            f"Deploy it: vedette deploy {path}",
        )
    with said_on_interrupt("Stopped; nothing was built"):
        print(build_project(project))


def deploy(
    path: Annotated[Path, typer.Argument(help="A component (.wasm) or a project folder.")],
    home: HomeOption = None,
    name: Annotated[str | None, typer.Option(help="Name; default: the manifest's.")] = None,
    domains: Annotated[
        list[str] | None, typer.Option(help="Hosts, with commas or repeated; default: all.")
    ] = None,
    route: Annotated[str | None, typer.Option(help="Path prefix; default /NAME.")] = None,
    env: Annotated[list[str] | None, typer.Option(help="KEY=VALUE, repeatable.")] = None,
    config: Annotated[
        list[str] | None, typer.Option(help="KEY=VALUE for wasi:config, repeatable.")
    ] = None,
    memory: Annotated[str | None, typer.Option(help="Linear memory, e.g. 64MB.")] = None,
    timeout: Annotated[str | None, typer.Option(help="Wall time, e.g. 30s.")] = None,
    cpu: Annotated[str | None, typer.Option(help="CPU time, e.g. 500ms.")] = None,
    concurrency: Annotated[int | None, typer.Option(min=1, help="Requests at once.")] = None,
    public: Annotated[
        bool | None, typer.Option("--public/--private", help="Callers need no token.")
    ] = None,
    allow_hosts: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-host", help="SCHEME://HOST[:PORT] or a range it may call, repeatable."
        ),
    ] = None,
    reuse: Annotated[
        bool | None, typer.Option("--reuse/--fresh", help="Use instances for many requests.")
    ] = None,
    reuse_max_requests: Annotated[
        int | None, typer.Option(min=1, help="Requests an instance answers, e.g. 1000.")
    ] = None,
    reuse_max_age: Annotated[
        str | None, typer.Option(help="Age at which it takes no more, e.g. 1m.")
    ] = None,
    waf: Annotated[
        str | None, typer.Option(help="block, detect or off; default: as the node says.")
    ] = None,
    waf_paranoia: Annotated[
        int | None, typer.Option(min=1, max=4, help="How suspicious the firewall is.")
    ] = None,
    allow_countries: Annotated[
        list[str] | None,
        typer.Option("--allow-country", help="Only from these, e.g. CH,DE; repeatable."),
    ] = None,
    block_countries: Annotated[
        list[str] | None,
        typer.Option("--block-country", help="From all but these, e.g. FR; repeatable."),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Build and deploy again on each save, until Ctrl-C.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Deploy a component file or a project folder; returns when the engine serves it."""
    from vedette.cli.deploying import DeployOptions, deploy_path
    from vedette.cli.watching import watch_path

    options = DeployOptions(
        name=name,
        domains=split_list(domains or []),
        route=route,
        env=pairs(env or [], "--env"),
        config=pairs(config or [], "--config"),
        memory=memory,
        timeout=timeout,
        cpu=cpu,
        concurrency=concurrency,
        public=public,
        allow_hosts=split_list(allow_hosts or []),
        reuse=reuse,
        reuse_max_requests=reuse_max_requests,
        reuse_max_age=reuse_max_age,
        waf=waf,
        waf_paranoia=waf_paranoia,
        allow_countries=split_list(allow_countries or []),
        block_countries=split_list(block_countries or []),
    )
    if watch:
        with said_on_interrupt("Stopped watching; what is deployed stays"):
            watch_path(client_of(home), path, options)
    with said_on_interrupt("Stopped; nothing was deployed"):
        answer = deploy_path(client_of(home), path, options)
    if as_json:
        print_json(answer)
    else:
        print(answer["url"])


def remove(
    name: Annotated[str, typer.Argument(help="Name of the function.")],
    home: HomeOption = None,
) -> None:
    """Remove a function; `vedette rollback` brings it back."""
    from vedette.control.client import segment

    say_if_away(client_of(home).delete(f"/v1/functions/{segment(name)}"))
    say(f"Removed {name}")


def list_(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List deployed functions."""
    functions = client_of(home).get("/v1/functions")
    if as_json:
        print_json(functions)
    else:
        print_functions(functions)


def print_functions(functions: list[dict[str, Any]]) -> None:
    """The table of functions."""
    rows = [
        (
            one["name"],
            one["url"],
            ", ".join(one["domains"]) or "all",
            "public" if one["public"] else "token",
            ", ".join(one["allowedHosts"]) or "nowhere",
            "reused" if one.get("reuse") else "fresh",
            short(one["digest"]),
        )
        for one in functions
    ]
    columns = ("name", "url", "domains", "access", "calls", "instances", "component")
    print_table(columns, rows, "No function is deployed")


def logs(
    name: Annotated[str, typer.Argument(help="Name of the function.")],
    home: HomeOption = None,
    follow: FollowOption = False,
    tail: TailOption = 100,
    as_json: JsonOption = False,
) -> None:
    """Show what a function wrote to stdout and stderr."""
    from vedette.control.client import segment

    path = f"/v1/functions/{segment(name)}/logs?tail={tail}&follow={int(follow)}"
    for line in client_of(home).lines(path, follow=follow):
        if as_json:
            print(json.dumps(line, ensure_ascii=False), flush=True)
        else:
            print(
                f"{line['time']} {line.get('stream', ''):6} {line.get('message', '')}", flush=True
            )
