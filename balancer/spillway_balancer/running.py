"""`spillway run`: its options, and the process that serves.

With argparse, where the other commands have Typer: Typer brings Pydantic with it, and both together take a fifth of the
memory of a sidecar and of its time to come up.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import math
import sys
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from .app import ConfigRefused, Settings, Unfit, serve
from .net.operator_source import Where
from .run_options import is_server, sidecar_of

T = TypeVar("T")


def run(words: Sequence[str]) -> None:
    """Serve until told to end. Ends the process by itself only where it cannot serve: 2 for options or files that do
    not fit, 1 for what the machine refuses."""
    options = parser().parse_args(words, Options())
    _set_up_logging(options.log_level)
    settings = _settings(options)
    try:
        _run_loop(serve(settings))
    except ConfigRefused as refused:
        _fail("\n".join((*refused.errors, "nothing is served: mend the files and start again")))
    except Unfit as error:
        _fail(str(error), 1)
    except OSError as error:
        ports, other = f"{settings.host}:{settings.port}", "--port"
        if settings.admin_port is not None:
            ports += f" and {settings.admin_host or settings.host}:{settings.admin_port}"
            other += " or --admin-port"
        _fail(f"cannot listen on {ports}: {error.strerror or error}; choose another {other}", 1)


class Options(argparse.Namespace):
    """The options as they are given."""

    file: list[Path] | None
    operator: str | None
    token_file: Path | None
    ca_file: Path | None
    state: Path | None
    boot: Path | None
    host: str
    port: int
    admin_port: int | None
    admin_host: str | None
    gateway: str
    sidecar: bool
    gateway_url: str | None
    route: list[str] | None
    gateway_token_file: Path | None
    pod_ip: str | None
    secrets: Path | None
    prices: Path | None
    max_body: int
    linger: float
    drain: float
    record: Path | None
    record_limit: int
    log_level: str


def parser() -> argparse.ArgumentParser:
    """All options, each with what it is for."""
    made = _Parser(
        "spillway run",
        description="Serve ModelPools and RoutePolicies from YAML files (-f) or from the operator, and follow them as "
        "they change.",
        allow_abbrev=False,
    )
    say, port = made.add_argument, _number(int, 0, 65535)

    def path(name: str, what: str, metavar: str = "FILE") -> None:
        say(name, type=Path, metavar=metavar, help=what)

    say(
        "-f",
        "--file",
        action="append",
        type=Path,
        help="YAML file or folder with ModelPools and RoutePolicies; repeatable",
    )
    say("--operator", metavar="URL", help="serve what the operator at this https URL says, in place of files")
    path("--token-file", "token to show to the operator; read anew at every connect")
    path("--ca-file", "certificates to trust the operator by; the system's unless told")
    path(
        "--state", "folder where the last good state of the operator's is kept; with -f what budgets have spent", "DIR"
    )
    path("--boot", "state to start from when the folder has none that is later; may be absent")
    say("--host", default="127.0.0.1", help="address to listen on; %(default)s")
    say("--port", type=port, default=8787, help="port to listen on; 0 takes a free one; %(default)s")
    say("--admin-port", type=port, help="port for /metrics, /healthz and /readyz, away from clients")
    say("--admin-host", help="address for those, where it is another than --host, as for a sidecar's probes")
    say("--gateway", metavar="NAME", default="default", help="serve the RoutePolicies that name it; %(default)s")
    say(
        "--sidecar",
        action="store_true",
        help="run beside a client: send to endpoints, and what that takes keys for to the gateway",
    )
    say("--gateway-url", metavar="URL", help="with --sidecar: http(s)://HOST:PORT of the gateway")
    say(
        "--route",
        action="append",
        metavar="NAME",
        help="with --sidecar: NAME or NAMESPACE/NAME of a RoutePolicy to serve; repeatable. Without: all it may",
    )
    path("--gateway-token-file", "with --sidecar: token of its Pod to show to the gateway")
    say("--pod-ip", metavar="ADDRESS", help="with --sidecar: where its clients are, for keys by ClientIP")
    path("--secrets", "folder of credentials: NAME/KEY, or NAMESPACE/NAME/KEY", "DIR")
    path("--prices", "file with prices of providers' models, over those that are known")
    say("--max-body", type=_number(int, 1, 1024), default=32, metavar="MIB", help="largest request body; %(default)s")
    say(
        "--linger",
        type=_number(float, 0.0),
        default=0.0,
        metavar="SECONDS",
        help="on SIGTERM: for so long clients that come are still served, and told to go; 0",
    )
    say(
        "--drain",
        type=_number(float, 0.0),
        default=30.0,
        metavar="SECONDS",
        help="after that: how long streams may take to end; 30",
    )
    path("--record", "append a line for every request, for `spillway simulate --trace`")
    say(
        "--record-limit",
        type=_number(int, 1),
        default=256,
        metavar="MIB",
        help="largest size of that file; %(default)s",
    )
    say("--log-level", metavar="LEVEL", default="info", help="debug, info, warning or error; %(default)s")
    return made


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """In one line, as everything else that is wrong."""
        _fail(f"{message}; spillway run --help says more")


def _number(kind: type[int] | type[float], least: float, most: float = math.inf) -> Callable[[str], float]:
    """Reads a number within bounds."""

    def read(word: str) -> float:
        try:
            number = kind(word)
        except ValueError:
            number = math.nan
        if not least <= number <= most or math.isinf(number):
            within = f"from {least} to {most}" if most < math.inf else f"of {least} or more"
            raise argparse.ArgumentTypeError(f"{word!r}: use a number {within}")
        return number

    return read


def _settings(options: Options) -> Settings:
    """What a balancer is told; ends the process where options do not fit together."""
    where: Where | None = None
    try:
        beside = sidecar_of(
            options.sidecar,
            operator=options.operator,
            url=options.gateway_url,
            routes=options.route,
            token_file=options.gateway_token_file,
            address=options.pod_ip,
            secrets=options.secrets,
            boot=options.boot,
        )
    except ValueError as error:
        _fail(str(error))
    if options.admin_host is not None and options.admin_port is None:
        _fail("--admin-host without --admin-port: without one the pages are on --host and --port")
    if options.operator is not None:
        if options.file:
            _fail("-f and --operator exclude each other: one balancer has one source")
        if options.prices is not None:
            _fail("--prices without -f: in a cluster the operator knows them, by its own --prices")
        if not is_server(options.operator, "https"):
            _fail(f"--operator {options.operator!r}: use https://HOST:PORT")
        where = Where(options.operator.rstrip("/"), options.gateway, options.token_file, options.ca_file, beside)
    else:
        if not options.file:
            _fail("nothing to serve: use -f FILE, or --operator URL in a cluster")
        only = {"--token-file": options.token_file, "--ca-file": options.ca_file, "--boot": options.boot}
        if idle := [name for name, value in only.items() if value is not None]:
            _fail(f"{', '.join(idle)} without --operator: files are read anew at every start")
    return Settings(
        paths=tuple(options.file or ()),
        operator=where,
        state=options.state,
        boot=options.boot,
        host=options.host,
        port=options.port,
        admin_port=options.admin_port,
        admin_host=options.admin_host,
        gateway=options.gateway,
        secrets=options.secrets,
        prices=options.prices,
        max_body=options.max_body << 20,
        linger_seconds=options.linger,
        drain_seconds=options.drain,
        record=options.record,
        record_limit=options.record_limit << 20,
    )


def _fail(message: str, code: int = 2) -> NoReturn:
    """Say what is wrong on standard error, and end."""
    sys.stderr.write(f"{message}\n")
    raise SystemExit(code)


def _run_loop(main: Coroutine[Any, Any, T]) -> T:
    """Run on uvloop where there is one; a fifth of a request's cost is the event loop's."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(main)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


def _set_up_logging(level: str) -> None:
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        _fail(f"--log-level {level!r}: use debug, info, warning or error")
    logging.basicConfig(level=number, stream=sys.stderr, format="%(asctime)s %(levelname)-7s %(name)s %(message)s")
    audit = logging.getLogger("spillway.audit")  # lines for programs: nothing else goes to standard output
    lines = logging.StreamHandler(sys.stdout)
    lines.setFormatter(logging.Formatter("%(message)s"))
    audit.addHandler(lines)
    audit.propagate = False
