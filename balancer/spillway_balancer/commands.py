"""The subcommands of `spillway`. Each imports what it needs, so that an engine loads no view."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .simulate.options import simulate

app = typer.Typer(
    name="spillway",
    help="A load balancer for LLM inference that knows prefix caches and queues, and spills over.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
)

Files = Annotated[
    list[Path],
    typer.Option("--file", "-f", help="YAML file or folder with ModelPools and RoutePolicies; repeatable."),
]
Gateway = Annotated[str, typer.Option(help="Serve the RoutePolicies that name this gateway.")]
Secrets = Annotated[
    Path | None, typer.Option(help="Folder of credentials: NAME/KEY, or NAMESPACE/NAME/KEY.", file_okay=False)
]
PriceList = Annotated[
    Path | None,
    typer.Option("--prices", help="File with prices of providers' models, over those that are known.", dir_okay=False),
]


def fail(message: str, code: int = 1) -> typer.Exit:
    """Say what is wrong on standard error; the caller raises what comes back."""
    typer.echo(message, err=True)
    return typer.Exit(code)


@app.command(
    add_help_option=False,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "allow_interspersed_args": False},
)
def run(words: typer.Context) -> None:
    """Serve ModelPools and RoutePolicies from YAML files (-f) or from the operator, and follow them as they change."""
    from . import running

    running.run(words.args)


@app.command()
def lint(file: Files, gateway: Gateway = "default", secrets: Secrets = None, prices: PriceList = None) -> None:
    """Say what is wrong with the files, as `run` and the API server would. Exits 1 when something is."""
    from .net.credentials import Credentials
    from .net.filesource import judge
    from .net.serving import summary
    from .pricing import unknown

    judged = judge(tuple(file), gateway, Credentials(secrets), prices=prices)
    for note in judged.notes:
        typer.echo(f"note: {note}")
    for error in judged.errors:
        typer.echo(error)
    if judged.snapshot is None:
        raise fail(f"{len(judged.errors)} {'problem' if len(judged.errors) == 1 else 'problems'}")
    for line in unknown(judged.snapshot):
        typer.echo(f"note: {line}")
    typer.echo(f"ok: {summary(judged.snapshot)}")


@app.command(name="prices")
def show_prices(
    model: Annotated[list[str] | None, typer.Argument(help="Names of models, as they are sent to providers.")] = None,
    file: Annotated[
        list[Path] | None, typer.Option("--file", "-f", help="YAML file or folder with ModelPools; repeatable.")
    ] = None,
    prices: PriceList = None,
) -> None:
    """Say what a million tokens of a model cost, and who says so: the pool, the file, or the table that is shipped."""
    from .pricing import listed

    if not model and not file:
        raise fail("of what? Name models, or files with pools: spillway prices gpt-5-mini, spillway prices -f FILE", 2)
    try:
        for line in listed(model or (), file or (), prices):
            typer.echo(line)
    except ValueError as error:
        raise fail(str(error), 2) from None


@app.command()
def explain(
    request: Annotated[
        Path, typer.Argument(help="JSON file with the body of a request, or with path, headers and body; - reads it.")
    ],
    file: Files,
    header: Annotated[
        list[str] | None, typer.Option("--header", "-H", help="'name: value' of the request; repeatable.")
    ] = None,
    path: Annotated[str, typer.Option(help="Where the request is sent.")] = "/v1/chat/completions",
    state: Annotated[
        Path | None,
        typer.Option(help="YAML file with what is assumed of pools and callers; else all is ready and idle."),
    ] = None,
    gateway: Gateway = "default",
    secrets: Annotated[
        Path | None,
        typer.Option(help="Folder of credentials; unless told, all are taken to be there.", file_okay=False),
    ] = None,
    prices: PriceList = None,
    seed: Annotated[int, typer.Option(help="Of the dice, for what is drawn by lot.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="The whole account for programs.")] = False,
) -> None:
    """Say what becomes of a request and why, offline. Exits 1 when it is refused, 2 when nothing can be said."""
    from .explain.command import run_explain
    from .explain.document import Unusable

    try:
        code = run_explain(
            request=request,
            file=file,
            gateway=gateway,
            secrets=secrets,
            prices=prices,
            headers=header or (),
            path=path,
            state=state,
            seed=seed,
            as_json=as_json,
        )
    except Unusable as error:
        raise fail("\n".join(error.lines), 2) from None
    raise typer.Exit(code)


@app.command(name="test")
def hold(
    policies: Annotated[Path, typer.Argument(help="File or folder with ModelPools and RoutePolicies.")],
    cases: Annotated[list[Path], typer.Argument(help="Files with cases, or folders of them.")],
    file: Annotated[
        list[Path] | None, typer.Option("--file", "-f", help="More files or folders with objects; repeatable.")
    ] = None,
    gateway: Gateway = "default",
    secrets: Annotated[
        Path | None, typer.Option(help="Folder of credentials; without it all are taken to be there.", file_okay=False)
    ] = None,
    prices: PriceList = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Explain what is not as expected.")] = False,
    junit: Annotated[Path | None, typer.Option(help="Write the results for a CI system.", dir_okay=False)] = None,
) -> None:
    """Hold policies to cases, offline. Exits 1 when something is not as expected, 2 when the files are wrong."""
    from .explain.document import Unusable
    from .explain.testing import run_test

    try:
        code = run_test(
            policies=(policies, *(file or ())),
            cases=cases,
            gateway=gateway,
            secrets=secrets,
            prices=prices,
            verbose=verbose,
            junit=junit,
        )
    except Unusable as error:
        raise fail("\n".join(error.lines), 2) from None
    except OSError as error:
        raise fail(f"{error.filename}: {error.strerror}", 2) from None
    raise typer.Exit(code)


@app.command()
def engine(
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.", min=0, max=65535)] = 8000,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    name: Annotated[str, typer.Option(help="Said in the header x-spillway-engine of every answer.")] = "engine",
    model: Annotated[list[str] | None, typer.Option(help="Model that it serves; repeatable.")] = None,
    profile: Annotated[str, typer.Option(help="How fast it is: hardware and model.")] = "laptop-demo",
    speed: Annotated[float, typer.Option(help="Times faster than the profile.", min=0.001)] = 1.0,
    block_size: Annotated[
        int | None, typer.Option(help="Tokens of a block of its prefix cache; 16 unless told.", min=1)
    ] = None,
    api_key: Annotated[
        list[str] | None, typer.Option(help="Ask for this key, as vLLM does; repeatable, any of them will do.")
    ] = None,
    faults: Annotated[str | None, typer.Option(help="Faults as JSON; also set at run time under /sim/faults.")] = None,
    drain: Annotated[float, typer.Option(help="Seconds that streams may take to end on SIGTERM.", min=0)] = 30.0,
    log_requests: Annotated[bool, typer.Option(help="A line for every request, without its text.")] = False,
) -> None:
    """Serve a simulated inference engine that speaks vLLM's API."""
    from .engine.command import run_engine

    try:
        run_engine(
            host=host,
            port=port,
            name=name,
            models=model or ["demo"],
            profile=profile,
            speed=speed,
            block_size=block_size,
            api_key=api_key,
            faults=faults,
            drain=drain,
            log_requests=log_requests,
            ready=lambda url: typer.echo(f"{name} serves {', '.join(model or ['demo'])} on {url}/v1"),
        )
    except ValueError as error:
        raise fail(str(error), 2) from None
    except OSError as error:
        raise fail(f"cannot listen on {host}:{port}: {error.strerror or error}; choose another --port") from None


@app.command()
def provider(
    type: Annotated[
        str,
        typer.Option(
            help="anthropic, openai, azure, gemini, vertex, bedrock, mistral, groq, together, fireworks, deepseek, "
            "openrouter or xai."
        ),
    ],
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.", min=0, max=65535)] = 9000,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    key: Annotated[
        list[str] | None,
        typer.Option(help="Account as NAME=KEY; repeatable. For signed requests KEY is ID:SECRET or ID:SECRET:TOKEN."),
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="Model that it has; repeatable. Every one unless told.")
    ] = None,
    price: Annotated[
        list[str] | None,
        typer.Option(help="MODEL=INPUT,CACHED,WRITTEN,OUTPUT of a million tokens each, for /books; repeatable."),
    ] = None,
    requests_per_minute: Annotated[int | None, typer.Option(help="Limit of each account.", min=1)] = None,
    tokens_per_minute: Annotated[int | None, typer.Option(help="Limit of each account.", min=1)] = None,
    first_token: Annotated[float, typer.Option(help="Seconds until an answer begins.", min=0)] = 0.3,
    tokens_per_second: Annotated[float, typer.Option(help="How fast it goes on; 0 is at once.", min=0)] = 80.0,
    context: Annotated[int, typer.Option(help="Most tokens of a prompt.", min=1)] = 200_000,
    faults: Annotated[str | None, typer.Option(help="Faults as JSON; also set at run time under /sim/faults.")] = None,
) -> None:
    """Serve a fake provider: its API, its errors, its limits and its bill, without the money."""
    from .provider.command import run_provider

    try:
        run_provider(
            type=type,
            host=host,
            port=port,
            keys=key or (),
            models=model or (),
            prices=price or (),
            requests_per_minute=requests_per_minute,
            tokens_per_minute=tokens_per_minute,
            first_token=first_token,
            tokens_per_second=tokens_per_second,
            context=context,
            faults=faults,
            ready=typer.echo,
        )
    except ValueError as error:
        raise fail(str(error), 2) from None
    except OSError as error:
        raise fail(f"cannot listen on {host}:{port}: {error.strerror or error}; choose another --port") from None


app.command()(simulate)


@app.command()
def city(
    seconds: Annotated[float, typer.Option(help="How long the load lasts.", min=1)] = 22.0,
    seed: Annotated[int, typer.Option(help="Of the people and what they say.")] = 1,
    port: Annotated[int, typer.Option(help="The balancer's port.", min=1, max=65535)] = 8787,
    base_port: Annotated[int | None, typer.Option(help="Move the engines to this port and those after it.")] = None,
    compare: Annotated[bool, typer.Option(help="Play the same load under round robin as well.")] = True,
    exit: Annotated[bool, typer.Option("--exit", help="End after the summary instead of serving on.")] = False,
) -> None:
    """Start a small city on loopback: engines, a provider, the balancer and people who chat."""
    from .city.command import run_city

    raise typer.Exit(run_city(seconds=seconds, seed=seed, port=port, base_port=base_port, compare=compare, exit=exit))
