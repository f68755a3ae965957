"""What stands in the city, read from the same YAML that the balancer serves: which engines, on which ports."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import yaml

from spillway_api.files import load
from spillway_api.types import ModelPool, Price, RoutePolicy

QUICKSTART: Final = "quickstart.yaml"
LOOPBACK: Final = ("127.0.0.1", "localhost")
ENGINE_PROFILE: Final = "laptop-demo"
FAKES: Final = {"OpenAICompatible": "openai", "AzureOpenAI": "azure", "VertexAI": "vertex"}
"""Types of providers whose fakes are not called as they are, in small letters."""


class Trouble(Exception):
    """Why the city cannot be built or went down, in words for the person who started it."""


@dataclass(frozen=True, slots=True)
class Fake:
    """What stands for a provider: the type of the fake, its accounts and where their keys are, a price for /books."""

    type: str
    keys: tuple[tuple[str, Path], ...]
    price: str | None = None


@dataclass(frozen=True, slots=True)
class Engine:
    """A simulated engine, or a fake provider, that some endpoint of the YAML points to."""

    name: str
    port: int
    model: str
    profile: str = ENGINE_PROFILE
    fake: Fake | None = None  # set for a provider
    block_size: int | None = None  # tokens; None is the profile's

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@dataclass(frozen=True, slots=True)
class Layout:
    """The city as the YAML has it. `pool` is the self-hosted one, `model` the public name that people ask for."""

    file: Path
    secrets: Path
    engines: tuple[Engine, ...]
    pool: str
    strategy: str
    model: str


def find_examples(start: Path) -> Path:
    """The folder `examples` of the checkout: below `start`, else beside the package. Trouble when there is none."""
    beside = Path(__file__).resolve().parents[3]
    for root in (start, beside):
        if (root / "examples" / QUICKSTART).is_file():
            return root / "examples"
    raise Trouble(f"no examples/{QUICKSTART} in {start}: run this in a checkout of Spillway")


def read_layout(file: Path, secrets: Path) -> Layout:
    """What `file` asks for. Trouble, with a line for every problem, when no city can be built of it."""
    loaded = load([file])
    if loaded.problems:
        raise Trouble("\n".join(str(problem) for problem in loaded.problems))
    pools = [each for each in loaded.objects if isinstance(each, ModelPool)]
    models = [name for each in loaded.objects if isinstance(each, RoutePolicy) for name in each.spec.models]
    own = [pool for pool in pools if pool.spec.source.static is not None]
    engines = tuple(engine for pool in pools for engine in _engines(pool, secrets))
    if not own or not engines or not models:
        raise Trouble(f"{file} needs a ModelPool with static endpoints on 127.0.0.1 and a RoutePolicy")
    return Layout(
        file=file,
        secrets=secrets,
        engines=engines,
        pool=own[0].metadata.name,
        strategy=own[0].spec.dispatch.strategy,
        model=models[0].rstrip("*"),
    )


def moved(layout: Layout, base_port: int, folder: Path) -> Layout:
    """The same city with its lowest engine port at `base_port`; its YAML is a copy in `folder`."""
    offset = base_port - min(engine.port for engine in layout.engines)
    text = layout.file.read_text("utf-8")
    # From the far end, so that a port that has moved is not taken for one that has yet to.
    for port in sorted({engine.port for engine in layout.engines}, reverse=offset > 0):
        for host in LOOPBACK:
            text = text.replace(f"{host}:{port}", f"{host}:{port + offset}")
    file = folder / layout.file.name
    file.write_text(text, "utf-8")
    engines = tuple(replace(engine, port=engine.port + offset) for engine in layout.engines)
    return replace(layout, file=file, engines=engines)


def under(layout: Layout, strategy: str, folder: Path) -> Layout:
    """The same city with another strategy for its own pools and nothing else changed, in a file in `folder`."""
    documents: list[Any] = [each for each in yaml.safe_load_all(layout.file.read_text("utf-8")) if each]
    for document in documents:
        if document.get("kind") == "ModelPool" and "static" in document["spec"]["source"]:
            document["spec"].setdefault("dispatch", {})["strategy"] = strategy
    file = folder / f"{layout.file.stem}-{strategy}.yaml"
    file.write_text(yaml.safe_dump_all(documents, sort_keys=False), "utf-8")
    return replace(layout, file=file, strategy=strategy)


def _engines(pool: ModelPool, secrets: Path) -> list[Engine]:
    spec = pool.spec
    model = spec.models[0].upstream_name or spec.models[0].name
    if spec.source.static is not None:
        return [
            Engine(endpoint.name, port, model)
            for endpoint in spec.source.static.endpoints
            if (port := _local_port(endpoint.url)) is not None
        ]
    provider = spec.source.provider
    if provider is None or (port := _local_port(provider.base_url or "")) is None:
        return []
    # One server stands for the provider; it takes the keys of all accounts.
    references = [(account.name, account.secret_ref) for account in provider.accounts]
    keys = tuple((name, secrets / each.name / each.key) for name, each in references if each is not None)
    fake = Fake(FAKES.get(provider.type, provider.type.lower()), keys, _price(spec.models[0].price))
    return [Engine(pool.metadata.name, port, model, fake=fake)]


def _price(price: Price | None) -> str | None:
    """As `spillway provider --price` takes it: what the YAML leaves out costs as other tokens do."""
    if price is None:
        return None
    fresh = price.input or "0"
    return ",".join((fresh, price.cached_input or fresh, price.cache_write or fresh, price.output or "0"))


def _local_port(url: str) -> int | None:
    parts = urlsplit(url)
    return parts.port if parts.hostname in LOOPBACK else None
