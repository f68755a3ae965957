"""The words of the command line made into values, with an answer for each that says nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from spillway_api import snapshot
from spillway_api.files import load, name_of
from spillway_api.types import Capacity, Dispatch, Health, Metrics, Model, ModelPool

from ..core.strategies import STRATEGIES
from ..engine.profiles import PROFILES
from .peers import PEERS

ENDPOINTS: Final = 8
"""Where nothing else is said."""
MOST_ENDPOINTS: Final = 256


class NoSense(ValueError):
    """An option that cannot be followed; the text says what could."""


def strategies(said: Sequence[str], pool: snapshot.Pool) -> tuple[str, ...]:
    """Names in the order given, each once. Those of the pool's own strategy and of round robin when none is given."""
    groups = {"ours": tuple(STRATEGIES), "peers": tuple(PEERS), "all": (*STRATEGIES, *PEERS)}
    names: list[str] = []
    for name in _parts(said) or [pool.dispatch.strategy, "RoundRobin"]:
        names.extend(groups.get(name) or [_strategy(name)])
    return tuple(dict.fromkeys(names))


def _strategy(name: str) -> str:
    bare, slash, load_unit = name.partition("/")
    if name in PEERS or (bare in STRATEGIES and (not slash or load_unit in ("Requests", "Tokens"))):
        return name
    raise NoSense(
        f"no strategy {name!r}; ours: {', '.join(STRATEGIES)} (or {next(iter(STRATEGIES))}/Requests, .../Tokens: how "
        f"load is counted); peers: {', '.join(PEERS)}; or all, ours, peers"
    )


def profiles(said: Sequence[str]) -> tuple[str, ...]:
    """One name for each endpoint of `6xh100-llama3-8b,2xl4-llama3-8b`; a name alone stands for all of them."""
    names: list[str] = []
    for part in _parts(said):
        number, times, name = part.partition("x")
        repeated = int(number) if times and number.isdigit() and name in PROFILES else 1
        name = name if times and number.isdigit() and name in PROFILES else part
        if name not in PROFILES:
            raise NoSense(
                f"--profile {part!r}: no such profile; there are: {', '.join(PROFILES)}; 2xNAME stands for two"
            )
        names.extend([name] * repeated)
    return tuple(names)


def pool(said: str | None, endpoints: int | None, kinds: tuple[str, ...]) -> tuple[snapshot.Pool, tuple[str, ...]]:
    """The pool to simulate, and the profile of each of its endpoints; () leaves the profile to the workload."""
    number = endpoints or (len(kinds) if len(kinds) > 1 else 0)
    if said is None:
        found = _plain(number or ENDPOINTS)
    else:
        found = _from_files(said)
        if endpoints:
            found = _sized(found, endpoints)
    size = len(found.endpoints)
    if size > MOST_ENDPOINTS:
        raise NoSense(f"{size} endpoints: at most {MOST_ENDPOINTS} can be simulated")
    if len(kinds) == 1:
        kinds *= size
    if kinds and len(kinds) != size:
        raise NoSense(
            f"--profile tells {len(kinds)} endpoints, and the pool has {size}; tell one for each, or one for all"
        )
    return found, kinds


def _plain(number: int) -> snapshot.Pool:
    """A pool with nothing set but its size."""
    return snapshot.Pool(
        name="default/simulated",
        models=(Model("simulated"),),
        engine="Auto",
        provider=None,
        endpoints=tuple(snapshot.Endpoint(f"e{index}", f"http://e{index}") for index in range(number)),
        dispatch=Dispatch(),
        capacity=Capacity(),
        metrics=Metrics(),
        health=Health(),
    )


def _sized(found: snapshot.Pool, number: int) -> snapshot.Pool:
    """With another number of endpoints, their weights repeated in order."""
    weights = [endpoint.weight for endpoint in found.endpoints]
    endpoints = tuple(
        snapshot.Endpoint(f"e{index}", f"http://e{index}", weights[index % len(weights)]) for index in range(number)
    )
    return replace(found, endpoints=endpoints)


def _from_files(said: str) -> snapshot.Pool:
    """FILE or FOLDER, or FILE:NAME where there are several pools; of those without a name the self-hosted one."""
    path, _, name = said.rpartition(":") if ":" in said and not Path(said).exists() else (said, "", "")
    loaded = load([Path(path)])
    if loaded.problems:
        raise NoSense("\n".join(map(str, loaded.problems)))
    found = [item for item in loaded.objects if isinstance(item, ModelPool) and name in ("", item.metadata.name)]
    if not name:
        found = [item for item in found if item.spec.source.static is not None] or found
    if not found:
        raise NoSense(f"--pool {said}: no ModelPool {name or 'in it'}".rstrip())
    if len(found) > 1:
        names = ", ".join(name_of(item) for item in found)
        raise NoSense(f"--pool {said}: several pools ({names}); say which, as {path}:{found[0].metadata.name}")
    return _compiled(found[0])


def _compiled(item: ModelPool) -> snapshot.Pool:
    """As it would be served, but for URLs and credentials, which a simulation has no use for."""
    spec = item.spec
    static, provider = spec.source.static, spec.source.provider
    given = static.endpoints if static is not None else provider.accounts if provider is not None else ()
    return snapshot.Pool(
        name=f"{item.metadata.namespace}/{item.metadata.name}",
        models=spec.models,
        engine=spec.engine,
        provider=None if provider is None else provider.type,
        endpoints=tuple(snapshot.Endpoint(each.name, f"http://{each.name}", each.weight) for each in given),
        dispatch=spec.dispatch,
        capacity=spec.capacity,
        metrics=spec.metrics,
        health=spec.health,
    )


def numbers(option: str, said: Sequence[str], least: float, most: float) -> tuple[float, ...]:
    """`0.5,0.8` as numbers from above `least` to `most`."""
    found = []
    for part in _parts(said):
        try:
            number = float(part)
        except ValueError:
            number = float("nan")
        if not least < number <= most:
            raise NoSense(f"{option} {part!r}: expected numbers above {least:g}, at most {most:g}, such as 0.5,0.8")
        found.append(number)
    return tuple(found)


def _parts(said: Sequence[str]) -> list[str]:
    """Repeated options and comma-separated lists mean the same."""
    return [part.strip() for each in said for part in each.split(",") if part.strip()]
