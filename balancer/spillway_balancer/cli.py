"""The `spillway` command. Each subcommand imports what it needs, so that the balancer loads no engine and no view."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

app = typer.Typer(
    name="spillway",
    help="A load balancer for LLM inference that knows prefix caches and queues, and spills over.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
)

T = TypeVar("T")

Files = Annotated[
    list[Path],
    typer.Option("--file", "-f", help="YAML file or folder with ModelPools and RoutePolicies; repeatable."),
]
Gateway = Annotated[str, typer.Option(help="Serve the RoutePolicies that name this gateway.")]
Secrets = Annotated[
    Path | None, typer.Option(help="Folder of credentials: NAME/KEY, or NAMESPACE/NAME/KEY.", file_okay=False)
]
LogLevel = Annotated[str, typer.Option(help="debug, info, warning or error.")]


def fail(message: str, code: int = 1) -> typer.Exit:
    """Say what is wrong on standard error; the caller raises what comes back."""
    typer.echo(message, err=True)
    return typer.Exit(code)


def run_loop(main: Coroutine[Any, Any, T]) -> T:
    """Run on uvloop where there is one; a fifth of a request's cost is the event loop's."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(main)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


def set_up_logging(level: str) -> None:
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise fail(f"--log-level {level!r}: use debug, info, warning or error", 2)
    logging.basicConfig(level=number, stream=sys.stderr, format="%(asctime)s %(levelname)-7s %(name)s %(message)s")


@app.command()
def run(
    file: Files,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.", min=0, max=65535)] = 8787,
    gateway: Gateway = "default",
    secrets: Secrets = None,
    max_body: Annotated[int, typer.Option(help="Largest request body in MiB.", min=1, max=1024)] = 32,
    drain: Annotated[float, typer.Option(help="Seconds that streams may take to end on SIGTERM.", min=0)] = 30.0,
    log_level: LogLevel = "info",
) -> None:
    """Serve ModelPools and RoutePolicies from YAML, and follow the files as they change."""
    from .app import ConfigRefused, Settings, Unfit, serve

    set_up_logging(log_level)
    settings = Settings(
        paths=tuple(file),
        host=host,
        port=port,
        gateway=gateway,
        secrets=secrets,
        max_body=max_body << 20,
        drain_seconds=drain,
    )
    try:
        run_loop(serve(settings))
    except ConfigRefused as refused:
        raise fail("\n".join((*refused.errors, "nothing is served: mend the files and start again")), 2) from None
    except Unfit as error:
        raise fail(str(error)) from None
    except OSError as error:
        raise fail(f"cannot listen on {host}:{port}: {error.strerror or error}; choose another --port") from None


@app.command()
def lint(file: Files, gateway: Gateway = "default", secrets: Secrets = None) -> None:
    """Say what is wrong with the files, as `run` and the API server would. Exits 1 when something is."""
    from .net.credentials import Credentials
    from .net.filesource import judge, summary

    judged = judge(tuple(file), gateway, Credentials(secrets))
    for note in judged.notes:
        typer.echo(f"note: {note}")
    for error in judged.errors:
        typer.echo(error)
    if judged.snapshot is None:
        raise fail(f"{len(judged.errors)} {'problem' if len(judged.errors) == 1 else 'problems'}")
    typer.echo(f"ok: {summary(judged.snapshot)}")


def main() -> None:
    app()


if __name__ == "__main__":
    main()
