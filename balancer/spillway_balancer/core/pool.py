"""One pool made ready to serve: its endpoints with what is known of each, and the choice among them."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from functools import partial
from math import inf
from typing import Any, NamedTuple

from spillway_api import snapshot
from spillway_api.durations import seconds
from spillway_api.types import Model

from .apis import Apis
from .attention import pairs
from .circuit import CircuitPolicy, may_eject, spares, warmth
from .endpoint import EndpointState
from .exchange import Sisters
from .funds import Fund
from .health import UNPROBED
from .herding import HERDS, apart
from .homes import Homes
from .keys import KeyFacts, key_of
from .learning import PoolLearned
from .load import RequestSize
from .notes import Begun, Note
from .prefix import BLOCK_BYTES, Prompt
from .quotas import passed_over
from .reasons import REASONS, Failure, Reason
from .strategies import BLIND, STRATEGIES, Ask, Candidate, Choice, Strategy
from .upkeep import Upkeep
from .visits import Forecast, Visit


class Want(NamedTuple):
    """A request, as far as the choice of an endpoint depends on it."""

    key: int | None
    """Of the session; None when it has none."""
    prompt_tokens: int
    """An estimate, for pools that do not read prompts."""
    output_tokens: int
    """The most that may be generated."""
    prompt: Prompt | None = None
    streams: bool = True
    model: str = ""
    """As the pool's engines call it."""


class Picked(NamedTuple):
    endpoint: EndpointState
    choice: Choice
    forecast: Forecast


class Pool:
    """Interchangeable endpoints: one ring, one load book, whichever route leads here."""

    remote = False
    """Whether it is a gateway, which decides itself: `remote.RemotePool`."""

    def __init__(self, spec: snapshot.Pool, previous: Pool | None = None) -> None:
        self.spec = spec
        self.name = spec.name
        kept = previous.endpoints if previous else {}
        self.size: RequestSize = previous.size if previous else RequestSize()
        self.learned: PoolLearned = previous.learned if previous else PoolLearned()
        self.last_asked: float = previous.last_asked if previous else float("-inf")
        """When a request was last looked after here; seconds, monotonic."""
        self.tell_sisters: Callable[[Note], None] | None = previous.tell_sisters if previous else None
        """Carries notes to the other balancers; None when there are none, or they do not speak."""
        self.partial: bool = previous.partial if previous else False
        """Whether others send to its endpoints too, seen or not: then all send what they do not know to its home."""
        self._visits: int = previous._visits if previous else 0
        self._sisters: Sisters = previous._sisters if previous else Sisters()
        self._block_size: int = previous._block_size if previous else BLOCK_BYTES
        self.endpoints: dict[str, EndpointState] = {}
        for endpoint in spec.endpoints:
            state = kept.get(endpoint.name)
            if state is None or state.url != endpoint.url:
                # A stranger at a known name inherits neither its circuit nor its load.
                state = EndpointState(spec.name, endpoint, self.size)
            state.follow(endpoint, spec.provider is not None)
            self.endpoints[endpoint.name] = state
        self.asleep = spec.wakes and not spec.endpoints
        """Scaled to zero, and woken when a request wants it."""
        self.circuits = CircuitPolicy.of(spec.health.passive)
        self.slow_start = seconds(spec.health.slow_start)
        self.stale_after = seconds(spec.metrics.stale_after)
        self._accounts = any(endpoint.quota is not None for endpoint in self.endpoints.values())
        self._by_tokens = spec.dispatch.load == "Tokens"
        self.members = members = {endpoint.name: endpoint.weight for endpoint in spec.endpoints}
        if previous and previous.members == members and previous.spec.dispatch == spec.dispatch:
            # A round-robin cursor or a ring need not start anew.
            self.strategy: Strategy = previous.strategy
            self._homes: Homes | None = previous._homes
        else:
            self.strategy = STRATEGIES[spec.dispatch.strategy](members, spec.dispatch)
            self._homes = Homes(members, spec.dispatch.chwbl.vnodes) if self.strategy.reads == "cache" else None
        self.wants_prompt = self.strategy.reads == "cache"
        """Whether the choice depends on what is cached where, so that `Want.prompt` is worth its making."""
        self._wants_latency = self.strategy.reads == "latency"
        self._herds = spec.dispatch.strategy in HERDS
        self.models = {model.name: model.upstream_name or model.name for model in spec.models}
        self._models = {model.name: model for model in spec.models}
        self.apis = Apis(spec)
        """What its endpoints speak."""
        self.declares = self.apis.paths is not None or any(
            model.capabilities or model.context_window for model in spec.models
        )
        """Whether a model says what it can do, so that a request may be beyond it."""
        self.upkeep: Upkeep | None = Upkeep.of(spec.cost, previous.upkeep if previous else None)
        self.fund: Fund | None = Fund.of(spec.budget, previous.fund if previous else None)
        self.priced = self.fund is not None or any(model.price is not None for model in spec.models)
        """Whether it matters what some request to it costs."""

    def upstream_model(self, requested: str, target_model: str | None) -> str | None:
        """What this pool calls the model: the target's own, else the requested name, else the pool's only one."""
        if target_model is not None:
            return self.models.get(target_model)
        if requested in self.models:
            return self.models[requested]
        return next(iter(self.models.values())) if len(self.models) == 1 else None

    def model(self, requested: str, target_model: str | None) -> Model | None:
        """The same model with all that its owner says of it."""
        if target_model is not None:
            return self._models.get(target_model)
        if requested in self._models:
            return self._models[requested]
        return next(iter(self._models.values())) if len(self._models) == 1 else None

    def key(self, facts: KeyFacts) -> int | None:
        """The key whose requests this pool keeps together, None when the request has none."""
        return key_of(self.spec.dispatch.key, facts)

    def usable(self, endpoint: EndpointState, now: float) -> bool:
        """Whether the endpoint may take a request now, its load aside."""
        return endpoint.keyed and not endpoint.refused and endpoint.probe.usable and endpoint.circuit.admits(now)

    def ready(self, now: float) -> int:
        """How many endpoints are usable."""
        return sum(self.usable(endpoint, now) for endpoint in self.endpoints.values())

    def requests(self, now: float) -> int:
        """Requests in flight on the usable endpoints, by own count and scrape."""
        return sum(
            endpoint.load.requests(now, self.stale_after)
            for endpoint in self.endpoints.values()
            if self.usable(endpoint, now)
        )

    def pick(self, want: Want, exclude: Collection[EndpointState], now: float, dice: random.Random) -> Picked | Reason:
        """An endpoint for a request, or why there is none."""
        self.last_asked = now
        candidates, why, guessed = self.candidates(want, exclude, now)
        if self.slow_start:
            candidates = self._warmed(candidates, want.key, now, dice)
        if self.partial and self._herds:
            own = sum(self.endpoints[at.name].load.in_flight for at in candidates)
            candidates = apart(candidates, own, dice)
        cost = float(want.prompt_tokens + want.output_tokens) if self._by_tokens else 1.0
        choice = self.strategy.choose(Ask(want.key, cost), candidates, dice)
        if choice is None:
            return why
        cached: float | None = None
        if not guessed:  # else it is not what the mirror of the endpoint says
            for at in candidates:
                if at.name == choice.name:
                    cached = at.cached
                    break
        return self._take(self.endpoints[choice.name], choice, want, now, cached)

    def candidates(
        self, want: Want, exclude: Collection[EndpointState], now: float
    ) -> tuple[list[Candidate], Reason, bool]:
        """The endpoints that may take a request, slow start aside, in the order of the pool; why there are none; and
        whether what they have cached was guessed."""
        prompt = want.prompt if self.wants_prompt else None
        tokens: float = want.prompt_tokens
        if prompt is not None:
            self._block_size = prompt.block_size
            tokens = self._tokens(prompt)
        candidates, why, elsewhere = self._candidates(prompt, tokens, exclude, now, want.output_tokens)
        if prompt is None or self._homes is None or not (elsewhere or self.partial) or not candidates:
            return candidates, why, False
        block, key = self.block_tokens, want.key
        return self._homes.guess(candidates, elsewhere, key, prompt, tokens, block, self.partial), why, True

    def _candidates(
        self,
        prompt: Prompt | None,
        tokens: float,
        exclude: Collection[EndpointState],
        now: float,
        output_tokens: int = 0,
    ) -> tuple[list[Candidate], Reason, int]:
        """The endpoints that may take the request, with what the strategy wants to know of them; why there are none;
        and how many requests others have in flight there.

        Most of the time of a decision is spent here: what is asked of every endpoint is asked with few calls.
        """
        by_tokens, stale_after, learned = self._by_tokens, self.stale_after, self.learned
        bound = self.spec.capacity.max_in_flight_per_endpoint
        wants_cache, wants_latency = self.wants_prompt, self._wants_latency
        blocks = prompt.blocks if prompt is not None else ()
        block_tokens = self.block_tokens
        most = tokens - 1.0  # the last token is always computed: the answer needs it
        candidates: list[Candidate] = []
        add = candidates.append
        elsewhere = 0
        full = limited = False
        if self._accounts:
            over = passed_over(self, round(tokens), output_tokens, exclude, now)
            full, limited = over.full, over.limited
            if over.accounts:
                exclude = {*exclude, *over.accounts}
        why: Reason = "no-ready-endpoint"
        for name, endpoint in self.endpoints.items():
            if endpoint in exclude or endpoint.probe.healthy is False or not endpoint.keyed:
                continue
            if endpoint.refused:
                why = "auth"
                continue
            if not endpoint.circuit.admits(now):
                if now < endpoint.circuit.shut_until:
                    why = "rate-limited"
                elif why != "rate-limited":
                    why = "circuit-open"
                continue
            if endpoint.unseen:
                endpoint.settle(now)
            weight, book, seen = endpoint.spec.weight, endpoint.load, endpoint.learned
            others = book.others(now, stale_after)
            requests = book.in_flight + others
            if bound and requests * 100 >= bound * weight:
                full = True
                continue
            load: float = book.tokens + others * self.size.tokens if by_tokens else requests
            if not wants_cache:
                latency = seen.latency(now) if wants_latency else None
                add(_candidate((name, weight, load, requests, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, True, latency)))
                continue
            cached = endpoint.cache.match(blocks) * block_tokens
            if cached > most:
                cached = most
            queue = book.pending_tokens
            pending: float = book.pending
            context: float = book.context
            if others:
                elsewhere += others
                waiting = book.others_waiting(now, stale_after)
                pending += waiting
                queue += waiting * learned.miss_tokens
                context += book.others_context(now, stale_after, seen.cache_tokens)
            miss = tokens - cached
            add(
                _candidate(
                    (
                        name,
                        weight,
                        load,
                        requests,
                        miss,
                        cached,
                        queue,
                        pending,
                        context,
                        seen.speed,
                        seen.trusted,
                        None,
                    )
                )
            )
        # One that is full has room soon: of several reasons that is the one that says most of the pool.
        return candidates, "saturated" if full else "rate-limited" if limited else why, elsewhere

    def _warmed(self, candidates: list[Candidate], key: int | None, now: float, dice: random.Random) -> list[Candidate]:
        """The candidates as a strategy is to see them while some of them are slowly started.

        Who looks at load sees less weight, so that a cold endpoint holds less of it. Yet weights do not decide where
        caches, keys or turns do: so a part of the requests does not see the endpoint at all. It is the same sessions
        that stay away the longest. All is relative to the warmest of the candidates, for when all are new there is
        nobody to spare the newcomers.
        """
        warm: list[float] = []
        for at in candidates:
            endpoint = self.endpoints[at.name]
            circuit = endpoint.circuit
            if endpoint.since is None:
                endpoint.since = now
            # A trial goes out at once: it is one request.
            trial = circuit.ejected_until is not None
            since = max(endpoint.since, circuit.closed_at)
            warm.append(1.0 if trial else warmth(since, now, self.slow_start))
        most = max(warm, default=1.0)
        if min(warm, default=1.0) == most:
            return candidates
        by_weight = self.spec.dispatch.strategy not in BLIND
        seen = []
        for at, share in zip(candidates, warm, strict=True):
            if spares(share / most, key, dice):
                continue
            if by_weight:  # in hundredths: small weights are to be told apart, too
                at = at._replace(weight=max(1, round(100 * at.weight * share / most)))
            seen.append(at)
        return seen

    def forecast(self, endpoint: EndpointState, want: Want, now: float, cached: float | None = None) -> Forecast:
        """What is expected of the request there. `cached`: the tokens of its prompt that the mirror has, where it has
        been asked already."""
        prompt = want.prompt if self.wants_prompt else None
        if prompt is None:
            return Forecast(want.prompt_tokens, 0.0, want.output_tokens, streams=want.streams, model=want.model)
        tokens = self._tokens(prompt)
        if cached is None:
            cached = min(tokens - 1.0, endpoint.cache.match(prompt.blocks) * self.block_tokens)
        own = self.learned.attention.work(tokens - cached, pairs(tokens, cached))
        ttft = endpoint.ttft(self.work_ahead(endpoint, now) + own, now)
        answer, streams = want.output_tokens, want.streams
        return Forecast(tokens, cached, answer, prompt.blocks, prompt.size, streams, ttft, want.model)

    def _tokens(self, prompt: Prompt) -> float:
        """Of a prompt, as far as is known of the tokenizer."""
        return max(1.0, prompt.size / self.learned.bytes_per_token)

    def cached(self, prompt: Prompt, now: float) -> tuple[float, float]:
        """Tokens of a prompt, and how many of them are believed to be cached where most of it is."""
        tokens = self._tokens(prompt)
        block = prompt.block_size / self.learned.bytes_per_token
        found = (each.cache.match(prompt.blocks) for each in self.endpoints.values() if self.usable(each, now))
        return tokens, max(0.0, min(tokens - 1.0, max(found, default=0) * block))

    @property
    def block_tokens(self) -> float:
        """Tokens in a block of a prompt, as far as is known of the tokenizer."""
        return self._block_size / self.learned.bytes_per_token

    def work_ahead(self, endpoint: EndpointState, now: float) -> float:
        """What the endpoint has to compute before it comes to a newcomer, in tokens of short prompts.

        Of what waits, one prompt may be computed in part, and how far it is the clock tells.
        """
        book, learned = endpoint.load, self.learned
        attention = learned.attention
        ahead = 0.0
        if book.pending:
            ahead = attention.work(book.pending_tokens, book.pending_pairs)
            ahead = min(ahead, max(endpoint.remaining(now), ahead * (1 - 1 / book.pending)))
        waiting = book.others_waiting(now, self.stale_after)
        return ahead + waiting * attention.work(learned.miss_tokens, learned.miss_pairs) if waiting else ahead

    def visit(self, picked: Picked, now: float) -> Visit:
        """The request is on its way to the endpoint. `Visit.end` must be called on every path."""
        return Visit(self, picked.endpoint, picked.forecast, now)

    def visit_of_sister(self, endpoint: EndpointState, forecast: Forecast, now: float) -> Visit:
        """Another balancer has sent a request there."""
        return Visit(self, endpoint, forecast, now, own=False)

    def told(self, endpoint: EndpointState, forecast: Forecast) -> int:
        """Tell the other balancers of a visit; returns its number, 0 when nobody listens."""
        if self.tell_sisters is None:
            return 0
        self._visits += 1
        prompt, cached, output, blocks, _, streams, _, _ = forecast
        self.tell_sisters(Begun(self._visits, endpoint.name, prompt, cached, output, streams, tuple(blocks)))
        return self._visits

    def tell(self, note: Note) -> None:
        """Tell them how one that they know of goes on."""
        if self.tell_sisters is not None:
            self.tell_sisters(note)

    def heard(self, sender: str, note: Note, now: float) -> None:
        """Another balancer tells of its visits at the endpoints of this pool."""
        self._sisters.heard(self, sender, note, now)

    def trim(self, endpoint: EndpointState, now: float) -> None:
        """Let the mirror forget what the engine has no room for any more.

        Room for prompts that have ended is what the cache holds, less the prompts in flight, as far as they are
        computed, and what is being generated (half of a mean answer each), others' included. What others have left
        of theirs is not counted: what was forgotten too early would be computed again elsewhere, and what is forgotten
        too late is computed once, here.
        """
        mirror = endpoint.cache
        if not mirror.idle:
            return
        book, learned = endpoint.load, self.learned
        capacity = endpoint.learned.cache_tokens
        block = self.block_tokens
        generated = (book.in_flight - book.pending) * learned.output_tokens / 2
        used = mirror.pinned * block - book.pending_tokens + generated
        room = capacity - used
        room -= book.others_context(now, self.stale_after, capacity)
        mirror.trim(room / block)

    def requests_at(self, endpoint: EndpointState, now: float) -> int:
        """Requests in flight on one endpoint, others' included as far as a fresh scrape tells."""
        return endpoint.load.requests(now, self.stale_after)

    def full(self, now: float) -> bool:
        """Whether every usable endpoint holds as many requests as it may, and there is one."""
        bound = self.spec.capacity.max_in_flight_per_endpoint
        if not bound:
            return False
        there = [each for each in self.endpoints.values() if self.usable(each, now)]
        return bool(there) and all(self.requests_at(each, now) * 100 >= bound * each.spec.weight for each in there)

    def soonest_back(self, exclude: Collection[EndpointState], now: float) -> EndpointState | None:
        """The ejected endpoint that is due back first: better than nothing when every other way is closed. After
        these come those that have not taken their credential, lest one odd 403 take the last account away for good.

        One that is off by its own word (a Retry-After, a spent quota) is not asked: it has answered already.
        """
        ejected = [
            endpoint
            for endpoint in self.endpoints.values()
            if endpoint not in exclude
            and endpoint.keyed
            and endpoint.probe.usable
            and now >= endpoint.limited_until
            and (endpoint.refused or not endpoint.circuit.admits(now))
        ]
        return min(ejected, key=lambda each: (each.due_back, each.name), default=None)

    def take(self, endpoint: EndpointState, want: Want, now: float) -> Picked:
        """This endpoint and no other, since all is lost."""
        return self._take(endpoint, Choice(endpoint.name, "panic"), want, now)

    def limited_for(self, now: float, exclude: Collection[EndpointState] = ()) -> float | None:
        """Seconds until the first endpoint is back of those that are off by their own word; None without any."""
        waits = [
            endpoint.limited_until - now
            for endpoint in self.endpoints.values()
            if now < endpoint.limited_until < inf
            and endpoint.keyed
            and endpoint.probe.usable
            and endpoint not in exclude
        ]
        return min(waits, default=None)

    def _take(
        self, endpoint: EndpointState, choice: Choice, want: Want, now: float, cached: float | None = None
    ) -> Picked:
        endpoint.circuit = endpoint.circuit.trial(now)
        return Picked(endpoint, choice, self.forecast(endpoint, want, now, cached))

    def succeeded(self, endpoint: EndpointState, begun: float, now: float) -> None:
        """Learn from an attempt that `begun` then and ended well."""
        endpoint.circuit = endpoint.circuit.succeeded(now, self.circuits, begun)
        if endpoint.refused:
            endpoint.refused = False

    def untried(self, endpoint: EndpointState, begun: float, now: float) -> None:
        """An attempt that `begun` then ended without a verdict (the client left): if a trial, another may go."""
        endpoint.circuit = endpoint.circuit.untried(now, begun)

    def failed(self, endpoint: EndpointState, failure: Failure, begun: float, now: float) -> bool:
        """Learn from an attempt that failed. True when it has just ejected the endpoint.

        Never more than `maxEjectedPercent` of the pool is ejected at once, whatever fails. A limit that the
        endpoint has announced itself (Retry-After on a 429) is no ejection: it is believed.
        """
        before = endpoint.circuit
        if failure.reason == "rate-limited" and failure.retry_after:
            wait = min(failure.retry_after, MAX_RETRY_AFTER)
            endpoint.circuit = before.untried(now, begun).shut(now, now + wait)
            return False
        if failure.reason == "quota-exhausted":
            endpoint.circuit = before.untried(now, begun).quota_spent(now)
            return False
        if failure.reason == "auth" and endpoint.shows:
            endpoint.refused = True
        if not REASONS[failure.reason].counts:
            self.untried(endpoint, begun, now)
            return False
        others = sum(each.circuit.ejected_until is not None for each in self.endpoints.values() if each is not endpoint)
        may_open = may_eject(others, len(self.endpoints), self.circuits.max_ejected_percent)
        endpoint.circuit = before.failed(now, self.circuits, begun, may_open)
        ejected = before.ejected_until is None and endpoint.circuit.ejected_until is not None
        if endpoint.probe != UNPROBED and endpoint.circuit.ejected_until != before.ejected_until:
            endpoint.circuit = endpoint.circuit.probe_failed()  # the next one is still to come
        if ejected and failure.reason == "connect":
            endpoint.restarted()  # nobody is there: whoever answers next has an empty cache
        return ejected


_candidate: Callable[[tuple[Any, ...]], Candidate] = partial(tuple.__new__, Candidate)
"""Made of all fields in their order. It is done for every endpoint and request, and naming the fields doubles it."""

MAX_RETRY_AFTER = 300.0
"""Seconds. A longer Retry-After is asked again by then: limits are lifted early, and a wrong clock must not shut an
account for a day."""
