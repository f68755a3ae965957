"""What the API refuses, word for word as the API server does: every bound and every rule of every field, as tables.

One truth for two: `test_api_refusals.py` holds files and `spillway lint` to it, `tests/kube/test_refusals.py` a real
kube-apiserver. A row is a base object, edits that break it, and the error that must come of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.api.rules import RULES
from tests.api.tables import (
    ALLOWED,
    AMOUNT,
    BAD_URLS,
    CALLERS,
    CHOICES,
    CURRENCY,
    DURATION,
    ENDPOINT,
    GOOGLE,
    KEY,
    LISTS,
    NUMBERS,
    PLACE,
    PODS,
    PROVIDER,
    REQUIRED,
    ROLE,
    SELECTED,
    SERVICE,
    SPILL,
    TEXTS,
    TIER,
    TYPES,
    URLS,
    UUID,
)


def _filled(entry: Any, index: int) -> Any:
    if isinstance(entry, str):
        return entry.format(index)
    return {
        key: value.format(index) if isinstance(value, str) else index + 1 if value is int else value
        for key, value in entry.items()
    }


def _around(path: str, value: Any) -> dict[str, Any]:
    """The edit that puts `value` at `path`; a list on the way that no base has is made of it alone."""
    if path.endswith("[0]") and path != "spec.models[0]":
        return {path.removesuffix("[0]"): [value]}
    return {path: value}


def refusals() -> Iterator[tuple[str, dict[str, Any], str]]:
    """Every row of the tables as: base, edits, the error that they must give."""
    for base, path, low, high in NUMBERS:
        yield (
            base,
            _around(path, low - 1),
            f"{path}: Invalid value: {low - 1}: {path} in body should be greater than or equal to {low}",
        )
        if high is not None:
            yield (
                base,
                _around(path, high + 1),
                f"{path}: Invalid value: {high + 1}: {path} in body should be less than or equal to {high}",
            )
    for base, path, short, long, pattern, _, bad in TEXTS:
        yield base, _around(path, "a" * (long + 1)), f"{path}: Too long: may not be more than {long} bytes"
        if short:
            text = f'{path}: Invalid value: "": {path} in body should be at least {short} chars long'
            yield base, _around(path, ""), text
        if bad is not None:
            shown = bad.replace("\n", "\\n")
            yield (
                base,
                _around(path, bad),
                f"{path}: Invalid value: \"{shown}\": {path} in body should match '{pattern}'",
            )
    for base, path, choices in CHOICES:
        listed = ", ".join(f'"{choice}"' for choice in choices)
        yield base, _around(path, "Nonsense"), f'{path}: Unsupported value: "Nonsense": supported values: {listed}'
    for base, path, fewest, most, entry, twice in LISTS:
        many = [_filled(entry, index) for index in range(most + 1)]
        yield base, {path: many}, f"{path}: Too many: {most + 1}: must have at most {most} items"
        if fewest:
            yield base, {path: []}, f"{path}: Invalid value: 0: {path} in body should have at least {fewest} items"
        if twice is not None:
            yield base, {path: [many[0], many[1], many[0]]}, f"{path}[2]: Duplicate value: {twice}"
    at_least_one = "should have at least 1 items"
    rule = {"tiers": [{"name": "t", "pools": [{"name": "p"}]}]}
    rules = [{"name": f"r{index}", **rule} for index in range(17)]
    yield "policy", {"spec.rules": rules}, "spec.rules: Too many: 17: must have at most 16 items"
    yield "policy", {"spec.rules": []}, "spec.rules: Invalid value: 0: spec.rules in body should have at least 1 items"
    yield "policy", {"spec.rules": [rules[0], rules[0]]}, 'spec.rules[1]: Duplicate value: {"name":"r0"}'
    yield "pods", {f"{PODS}.ports": []}, f"{PODS}.ports: Invalid value: 0: {PODS}.ports in body {at_least_one}"
    yield "pods", {f"{PODS}.ports": list(range(1, 10))}, f"{PODS}.ports: Too many: 9: must have at most 8 items"
    yield "pods", {f"{PODS}.ports": [80, 81, 80]}, f"{PODS}.ports[2]: Duplicate value: 80"
    many = {f"l{index}": "" for index in range(65)}
    for path in (f"{PODS}.selector.matchLabels", "spec.allowedRoutes.selector.matchLabels"):
        yield "pods", {path: many}, f"{path}: Too many: 65: must have at most 64 items"
    path = CALLERS
    yield "closed", {path: {}}, f"{path}: Invalid value: 0: {path} in body should have at least 1 properties"
    labels = {f"l{index}": "" for index in range(17)}
    yield "closed", {path: labels}, f"{path}: Too many: 17: must have at most 16 items"
    codes = list(range(400, 433))
    path = "spec.retry.retryStatusCodes"
    yield "policy", {path: codes}, f"{path}: Too many: 33: must have at most 32 items"
    yield "policy", {path: [429, 503, 429]}, f"{path}[2]: Duplicate value: 429"
    path = "spec.retry.retryOn"
    yield "policy", {path: ["Reset"] * 9}, f"{path}: Too many: 9: must have at most 8 items"
    yield "policy", {path: ["Reset", "Reset"]}, f'{path}[1]: Duplicate value: "Reset"'
    path = "spec.models[0].capabilities"
    yield "pool", {path: ["Chat"] * 17}, f"{path}: Too many: 17: must have at most 16 items"
    yield "pool", {path: ["Chat", "Chat"]}, f'{path}[1]: Duplicate value: "Chat"'
    path = f"{TIER}.enterOn"
    yield "policy", {path: ["Auth"] * 9}, f"{path}: Too many: 9: must have at most 8 items"
    yield "policy", {path: ["Auth", "Auth"]}, f'{path}[1]: Duplicate value: "Auth"'
    yield "policy", {path: []}, f"{path}: Invalid value: 0: {path} in body should have at least 1 items"
    path = "spec.overrides.allow"
    yield "policy", {path: ["Rule"] * 4}, f"{path}: Too many: 4: must have at most 3 items"
    yield "policy", {path: ["Rule", "Rule"]}, f'{path}[1]: Duplicate value: "Rule"'
    yield "policy", {path: []}, f"{path}: Invalid value: 0: {path} in body {at_least_one}"
    path = "spec.rules[0].set"
    yield "policy", {path: {}}, f"{path}: Invalid value: 0: {path} in body should have at least 1 properties"
    path = "spec.guards[0].require"
    yield "guarded", {path: {}}, f"{path}: Invalid value: 0: {path} in body should have at least 1 properties"
    for base, path in REQUIRED:
        yield base, {path: "ABSENT"}, f"{path}: Required value"
    for base, path, scheme in URLS:
        for url, message in BAD_URLS.items():
            yield base, {path: url.replace("https://", f"{scheme}://")}, f'{path}: Invalid value: "string": {message}'
        yield (
            base,
            {path: "http://"},
            f'{path}: Invalid value: "http://": {path} in body should be at least 8 chars long',
        )
        yield base, {path: f"{scheme}://".ljust(2049, "a")}, f"{path}: Too long: may not be more than 2048 bytes"
    for base, edits, path, kind, message in RULES:
        yield base, edits, f'{path}: Invalid value: "{kind}": {message}'
    for base, path, value, wanted, found in TYPES:
        text = f'{path}: Invalid value: "{found}": {path} in body must be of type {wanted}: "{found}"'
        yield base, _around(path, value), text


REFUSALS = list(refusals())


HELD_BY_RULES = (
    f"{KEY}.type",
    f"{PROVIDER}.type",
    f"{SELECTED}.operator",
    f"{ALLOWED}.operator",
    "spec.allowedRoutes.from",
)
"""Choices of which another field must be fit as well."""


def accepted() -> Iterator[tuple[str, dict[str, Any]]]:
    """What lies right on the bounds."""
    for base in ("pool", "pods", "service", "inference", "provider", "policy", "mirrored", "closed"):
        yield base, {}
    for base, path, low, high in NUMBERS:
        # A pool of weight 0 needs another beside it, and start and full hold each other: the rules' tables have them.
        if not path.startswith(f"{TIER}.spill") and not path.endswith("pools[0].weight"):
            yield base, _around(path, low)
        if high is not None and not path.endswith("start"):
            yield base, _around(path, high)
    for base, path, _, longest, pattern, good, _ in TEXTS:
        yield base, _around(path, good)
        if pattern not in (DURATION, AMOUNT, CURRENCY, UUID, GOOGLE, ROLE):
            letter = "A" if pattern == PLACE else "a"
            yield base, _around(path, ("/" if pattern == "^/" else letter) + letter * (longest - 1))
    for base, path, choices in CHOICES:
        for choice in choices:
            if path not in HELD_BY_RULES:
                yield base, _around(path, choice)
    for base, path, _, most, entry, _ in LISTS:
        yield base, {path: [_filled(entry, index) for index in range(most)]}
    for base, path, scheme in URLS:
        for url in ("https://host", "https://host:8443/v1/", "https://[::1]:80/", "https://192.168.0.1"):
            yield base, {path: url.replace("https", scheme)}
    yield "pool", {f"{ENDPOINT}.url": "HTTP://host/"}
    yield "provider", {f"{PROVIDER}.baseURL": "http://host/v1", f"{PROVIDER}.allowPlainHTTP": True}
    for port in (1, 65535, "8000", "http", "a-0"):
        yield "service", {f"{SERVICE}.port": port}
    yield "pods", {f"{PODS}.ports": list(range(8000, 8008))}
    yield "pods", {f"{PODS}.selector.matchLabels": {f"l{index}": "" for index in range(64)}}
    yield "pods", {f"{PODS}.selector.matchExpressions": "ABSENT"}
    yield "closed", {CALLERS: {f"l{index}": "" for index in range(16)}}
    for operator in ("Exists", "DoesNotExist"):
        yield "pods", {f"{SELECTED}.operator": operator, f"{SELECTED}.values": "ABSENT"}
        yield "pods", {f"{SELECTED}.operator": operator, f"{SELECTED}.values": []}
    for who in ("Same", "All"):
        yield "pods", {"spec.allowedRoutes": {"from": who}}
    yield "pool", {"spec.allowedRoutes": {"from": "Selector", "selector": {}}}
    yield "policy", {f"{TIER}.pools": [{"name": "a", "weight": 0}, {"name": "b"}]}
    yield "policy", {f"{SPILL}.inFlightPerEndpoint": {"start": 0, "full": 1}}
    for signal, start, full in (
        ("queuedPerEndpoint", 3, 3),
        ("predictedTTFT", "1m", "60s"),
        ("kvCachePercent", 100, 100),
        ("errorPercent", 0, 1),
    ):
        yield "policy", {SPILL: {signal: {"start": start, "full": full}, "whenUnavailable": False}}
    yield "policy", {SPILL: {}}
    yield "policy", {"spec.retry.retryOn": [], "spec.retry.retryStatusCodes": []}
    yield "policy", {"spec.streams": {}}
    yield "policy", {"spec.retry": {"backoffBase": "2s", "backoffMax": "2000ms"}}
    yield "pool", {"spec.models[0].upstreamName": None}
    yield "pool", {"spec.models[0].name": "no\u00a0break"}  # RE2's \s is ASCII
    yield "pool", {"spec.models[0].name": "é" * 253}
    yield "pool", {f"{ENDPOINT}.weight": 5.0}
    yield "pool", {"spec.capacity.maxInFlightPerEndpoint": 2**63 - 1}


ACCEPTED = list(accepted())
