"""The `spillway-operator` command."""

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

from .logs import Format, set_up
from .routes import Routes

cli = typer.Typer(
    name="spillway-operator",
    help="Reconciles ModelPools and RoutePolicies and configures the balancers.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
)


@cli.callback()
def _commands() -> None:
    """With one command alone typer would leave its name out."""


@cli.command()
def run(
    namespace: Annotated[str, typer.Option(envvar="POD_NAMESPACE", help="The operator's own namespace.")],
    name: Annotated[str, typer.Option(envvar="POD_NAME", help="Name of its Pod, told to the other replicas.")],
    pod_ip: Annotated[str, typer.Option(envvar="POD_IP", help="Where the other replicas reach it.")] = "127.0.0.1",
    fullname: Annotated[str, typer.Option(help="Beginning of the names of this installation's objects.")] = "spillway",
    watch_namespace: Annotated[
        list[str] | None, typer.Option(help="A namespace with pools and policies; repeatable. Without any: all.")
    ] = None,
    pod_selector: Annotated[
        str | None, typer.Option(help="Only Pods with these labels can be endpoints; spares big clusters the rest.")
    ] = None,
    consumers: Annotated[
        bool,
        typer.Option("--consumers", help="Find consumers by their Secrets' labels; takes the right to list Secrets."),
    ] = False,
    sidecar_routes: Annotated[
        Routes,
        typer.Option(
            help="Which routes of the gateway that it names a sidecar may have, of those that ask for no key: All, "
            "Same (of its Pod's namespace) or None (no sidecars)."
        ),
    ] = "None",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "0.0.0.0",  # noqa: S104 - for other Pods
    port: Annotated[int, typer.Option(help="Port of the config stream.", min=0, max=65535)] = 9443,
    admin_port: Annotated[int, typer.Option(help="Port of /healthz, /readyz and /metrics.", min=0, max=65535)] = 8081,
    tls_name: Annotated[
        list[str] | None, typer.Option(help="A further name for the serving certificate; repeatable.")
    ] = None,
    given_tls: Annotated[
        bool, typer.Option("--given-tls", help="The serving certificate comes from elsewhere, as of cert-manager.")
    ] = False,
    token_file: Annotated[
        Path | None, typer.Option(help="The ServiceAccount token shown to the other replicas.")
    ] = None,
    prices: Annotated[
        Path | None,
        typer.Option(help="File with prices of providers' models, over those that are known.", dir_okay=False),
    ] = None,
    sidecars: Annotated[
        Path | None,
        typer.Option(help="File with what Pods get that ask for a sidecar; without it none does.", dir_okay=False),
    ] = None,
    webhook_port: Annotated[
        int, typer.Option(help="Port on which API servers ask for sidecars.", min=0, max=65535)
    ] = 9444,
    refresh: Annotated[
        float, typer.Option(hidden=True, envvar="SPILLWAY_REFRESH_SECONDS", help="Between two looks without a reason.")
    ] = 60.0,
    silence: Annotated[
        float, typer.Option(hidden=True, envvar="SPILLWAY_SILENCE_SECONDS", help="For which a watch may bring nothing.")
    ] = 70.0,
    log_format: Annotated[Format, typer.Option(help="json or text.")] = Format.TEXT,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
) -> None:
    """Run until SIGTERM."""
    from spillway_api.prices import BadPrices, Prices, read_overlay

    from .app import Unfit, serve
    from .settings import TOKEN_FILE, Settings
    from .sidecar_settings import BadSidecars, read_sidecars

    level = logging.getLevelNamesMapping().get(log_level.upper())
    if level is None:
        typer.echo(f"--log-level {log_level!r}: use debug, info, warning or error", err=True)
        raise typer.Exit(2)
    set_up(level, log_format, sys.stderr)
    try:
        known = Prices() if prices is None else read_overlay(prices)
    except BadPrices as error:
        typer.echo(f"--prices {error}", err=True)
        raise typer.Exit(2) from None
    try:
        sidecar = None if sidecars is None else read_sidecars(sidecars)
    except BadSidecars as error:
        typer.echo(f"--sidecars {error}", err=True)
        raise typer.Exit(2) from None
    settings = Settings(
        namespace=namespace,
        name=name,
        address=pod_ip,
        fullname=fullname,
        watched=tuple(watch_namespace or ()),
        pod_selector=pod_selector,
        consumers=consumers,
        prices=known,
        sidecar_routes=sidecar_routes,
        host=host,
        port=port,
        admin_port=admin_port,
        given_tls=given_tls,
        tls_names=tuple(tls_name or ()),
        token_file=token_file or TOKEN_FILE,
        sidecars=sidecar,
        webhook_port=webhook_port,
        refresh=refresh,
        silence=silence,
    )
    try:
        asyncio.run(serve(settings))
    except Unfit as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None


def main() -> None:
    cli()


if __name__ == "__main__":
    main()
