"""What a sidecar does not send itself: the gateway gets it as it came, and has the last word on it."""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tests.net.sidecars import TOKEN, beside

from spillway_balancer.core.forwarded import Forwarded
from spillway_balancer.wire.forwarded import parse


def signed(data: bytes) -> bytes:
    """An answer that says that it is a gateway's."""
    head, _, rest = data.partition(b"\r\n")
    return head + b"\r\nx-spillway-served-by: gateway\r\n" + rest


@pytest.fixture
def cloud(objects, tmp_path):
    """A provider's pool, and the key for it."""
    (tmp_path / "keys" / "a").mkdir(parents=True)
    (tmp_path / "keys" / "a" / "api-key").write_text("sk-account-a")

    def make(endpoint: Any, **spec: Any) -> dict[str, Any]:
        return objects.provider("cloud", endpoint.url + "/v1", "a", **spec)

    return make


def tiers(*names: str, **first: Any) -> list[dict[str, Any]]:
    """One of each of these pools, in their order."""
    made: list[dict[str, Any]] = [{"name": each, "pools": [{"name": each}]} for each in names]
    for each in made[1:]:
        each["enterOn"] = ["Capacity", "Transient"]
    made[0] |= first
    return made


async def test_what_it_knows_nothing_of_goes_to_the_gateway_as_it_came(serve, endpoint, dial, say, tmp_path) -> None:
    token = tmp_path / "token"
    token.write_text(TOKEN + "\n")
    answer = signed(say.message(200, b'{"from": "afar"}', x_spillway_route="a/b", x_request_id="r1", set_cookie="a"))
    gateway = await endpoint(say.steps(answer))
    car = await beside(serve, tmp_path, gateway, knows=False, token_file=token)
    headers = [
        ("authorization", f"Bearer {say.KEY}"),
        ("cookie", "a=b"),
        ("x-api-key", say.KEY),
        ("x-spillway-explain", "1"),
        ("x-spillway-pod", "Bearer forged"),
        ("x-session-id", "s"),
        ("connection", "keep-alive, x-hop"),
        ("x-hop", "1"),
    ]
    body = b'{ "model" : "anything:floor", "messages" :[], "api_base_": 1}'
    client = await dial(car)
    reply = await client.post("/v1/chat/completions", body, [*headers, ("content-type", "application/json")])
    assert (reply.status, reply.json()) == (200, {"from": "afar"})
    assert reply.header("x-spillway-route") == "a/b"
    assert reply.header("x-spillway-served-by") == "gateway"
    assert reply.header("x-request-id") == "r1"
    (call,) = gateway.calls
    assert (call.target, call.body) == ("/v1/chat/completions", body)
    got = {name: value for name, value in call.headers if name not in ("host", "content-length")}
    forwarded = parse(got.pop("x-spillway-forwarded"))
    assert got == {
        "accept-encoding": "identity",
        "authorization": f"Bearer {say.KEY}",
        "content-type": "application/json",
        "cookie": "a=b",
        "x-api-key": say.KEY,
        "x-session-id": "s",
        "x-spillway-explain": "1",
        "x-spillway-pod": f"Bearer {TOKEN}",
    }
    assert forwarded._replace(deadline=0) == Forwarded(0, 10)
    assert 86000 < forwarded.deadline < 86400


async def test_the_token_is_read_again_as_it_rotates(serve, endpoint, dial, say, tmp_path) -> None:
    gateway = await endpoint(say.steps(signed(say.completion())))
    token = tmp_path / "token"
    car = await beside(serve, tmp_path, gateway, knows=False, token_file=token)
    client = await dial(car)
    shown = []
    for text in (None, "first", "second", "", None):
        if text is None:
            token.unlink(missing_ok=True)
        else:
            new = tmp_path / "new"
            new.write_text(text)
            new.replace(token)
        assert (await client.chat()).status == 200
        shown.append(gateway.calls[-1].header("x-spillway-pod"))
    assert shown == [None, "Bearer first", *["Bearer second"] * 3]


async def test_a_tier_that_takes_a_key_is_the_gateways_to_serve(
    serve, endpoint, objects, cloud, dial, say, tmp_path
) -> None:
    far = await endpoint(say.well("from afar"))
    near = await endpoint(say.steps(say.error(503)))
    docs = [objects.pool("local", near), cloud(far), objects.route(tiers=tiers("local", "cloud"))]
    lb = await serve(docs=docs, secrets=tmp_path / "keys")
    car = await beside(serve, tmp_path, lb)
    client = await dial(car)
    for stream in (False, True):
        assert (await client.chat(stream=stream)).text == "from afar"
    assert far.calls[0].header("authorization") == "Bearer sk-account-a"
    assert car.sample("spillway_attempts_total", pool="@gateway/default", endpoint="gateway", reason="ok") == 2
    assert car.sample("spillway_tier_requests_total", tier="cloud", spilled="true") == 2
    assert lb.sample("spillway_attempts_total", pool="default/cloud", reason="ok") == 2


async def test_the_gateway_is_told_what_is_left(serve, endpoint, objects, cloud, dial, say, tmp_path) -> None:
    gateway = await endpoint(say.steps(signed(say.completion("from afar"))))
    near = await endpoint(say.steps(say.error(503)))
    docs = [
        objects.pool("local", near, near.url.replace("127.0.0.1", "localhost")),
        cloud(near),
        objects.route(
            tiers=tiers("local", "cloud"), retry={"attempts": 5}, timeouts={"total": "20s", "firstByte": "5s"}
        ),
    ]
    lb = await serve(docs=docs, secrets=tmp_path / "keys")
    car = await beside(serve, tmp_path, gateway, knows=False)
    car.learns(lb)
    assert (await (await dial(car)).chat()).text == "from afar"
    (call,) = gateway.calls
    forwarded = parse(call.header("x-spillway-forwarded"))
    assert forwarded._replace(deadline=0) == Forwarded(0, 3, "default/chat", "all", "cloud")
    assert 15 < forwarded.deadline < 19.8
    assert call.json()["model"] == "chat"


@pytest.fixture
def between(serve, objects, cloud, tmp_path) -> Callable[[Any, Any, Any], Awaitable[Any]]:
    """A sidecar with the gateway's tier between two of its own."""

    async def sidecar(near: Any, gateway: Any, last: Any) -> Any:
        docs = [
            objects.pool("local", near),
            cloud(near),
            objects.pool("last", last),
            objects.route(tiers=tiers("local", "cloud", "last")),
        ]
        car = await beside(serve, tmp_path, gateway, knows=False)
        car.learns(await serve(docs=docs, secrets=tmp_path / "keys"))
        return car

    return sidecar


@pytest.mark.parametrize("status", [400, 404, 429, 500, 503])
async def test_a_gateways_error_is_the_last_word(endpoint, dial, say, between, status) -> None:
    near = await endpoint(say.steps(say.error(503)))
    last = await endpoint(say.well("not to be asked"))
    gateway = await endpoint(say.steps(signed(say.error(status, "its_own", retry_after="7"))))
    car = await between(near, gateway, last)
    reply = await (await dial(car)).chat()
    assert (reply.status, reply.error["code"], reply.header("retry-after")) == (status, "its_own", "7")
    assert not last.calls
    assert len(gateway.calls) == 1
    assert car.sample("spillway_requests_total", code=str(status)) == 1
    assert car.sample("spillway_attempts_total", pool="@gateway/default", reason="ok") == 1


@pytest.mark.parametrize(
    "fate", ["refuses", "resets", "unsigned 503", "unsigned 404", "unsigned page", "resets within its head"]
)
async def test_what_is_no_gateways_answer_leads_to_the_next_tier(endpoint, dial, say, between, refusing, fate) -> None:
    near, last = await endpoint(say.steps(say.error(503))), await endpoint(say.well("from the last"))
    says = {
        "resets": say.steps("reset"),
        "unsigned 503": say.steps(say.error(503)),
        "unsigned 404": say.steps(say.error(404, "model_not_found")),
        "unsigned page": say.steps(say.message(200, b"<html>", content_type="text/html")),
        "resets within its head": say.steps(signed(say.error(500))[:-5], "reset"),
    }
    gateway = await endpoint(says.get(fate))
    if fate == "refuses":
        gateway.url = refusing
    car = await between(near, gateway, last)
    client = await dial(car)
    for stream in (False, True):
        reply = await client.chat(stream=stream)
        assert (reply.status, reply.text) == (200, "from the last")
    assert len(last.calls) == 2


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_is_not_asked_for_again_where_its_signature_is_missing(
    serve, endpoint, dial, say, tmp_path, stream
) -> None:
    """It may have cost something. A gateway of before there were sidecars does not sign; proxies take headers away."""
    gateway = await endpoint(say.well("from afar"))
    car = await beside(serve, tmp_path, gateway, knows=False)
    reply = await (await dial(car)).chat(stream=stream)
    assert (reply.status, reply.text) == (200, "from afar")
    assert len(gateway.calls) == 1


async def test_a_token_that_has_ended_is_not_shown(serve, endpoint, dial, say, tmp_path) -> None:
    """The gateway would refuse it, and serves as anybody's what comes without one."""
    gateway = await endpoint(say.steps(signed(say.completion())))
    token = tmp_path / "token"
    car = await beside(serve, tmp_path, gateway, knows=False, token_file=token)
    client = await dial(car)
    shown = []
    for ends in (1, 1 << 40):
        claims = base64.urlsafe_b64encode(json.dumps({"exp": ends}).encode()).decode()
        token.write_text(f"head.{claims.rstrip('=')}.{ends}")
        assert (await client.chat()).status == 200
        shown.append(gateway.calls[-1].header("x-spillway-pod"))
    assert shown == [None, f"Bearer {token.read_text()}"]


async def test_a_pods_requests_are_keyed_by_its_address_and_not_by_that_of_its_loopback(
    serve, endpoint, objects, dial, say, tmp_path
) -> None:
    engines = [await endpoint(say.well(name)) for name in ("one", "two", "three")]
    dispatch = {"strategy": "CHWBL", "key": [{"type": "ClientIP"}]}
    lb = await serve(docs=[objects.pool("local", *engines, dispatch=dispatch), objects.route(tiers=tiers("local"))])
    homes = []
    for number in range(8):
        car = await beside(serve, tmp_path, lb, address=f"10.1.2.{number}")
        client = await dial(car)
        (home,) = {(await client.chat()).text for _ in range(3)}
        homes.append(home)
    assert len(set(homes)) > 1


async def test_without_a_gateway_the_error_says_so(serve, dial, refusing, tmp_path, endpoint, caplog) -> None:
    gone = await endpoint()
    gone.url = refusing
    car = await beside(serve, tmp_path, gone, knows=False)
    reply = await (await dial(car)).chat()
    assert (reply.status, reply.error["code"]) == (503, "attempts_failed")
    assert all("gateway @gateway/default/gateway: connect" in each for each in reply.error["attempts"])
    assert len(reply.error["attempts"]) == 10
    told = [each.getMessage() for each in caplog.records if each.name == "spillway.endpoints"]
    assert told == ["the gateway cannot be reached: Connection refused"], "the log says why, and not every time"


async def test_loops_are_cut(serve, endpoint, dial, tmp_path) -> None:
    """A sidecar in front of a sidecar."""
    target = await endpoint()
    far = await beside(serve, tmp_path, target, knows=False)
    near = await beside(serve, tmp_path, far, knows=False)
    reply = await (await dial(near)).chat()
    assert (reply.status, reply.error["code"]) == (508, "loop_detected")
    assert not target.calls
    assert far.sample("spillway_requests_total") == 0
    client = await dial(far)
    for value in ("deadline=1", "", "garbage"):
        told = await client.chat([("x-spillway-forwarded", value)])
        assert (told.status, told.error["code"]) == (508, "loop_detected")
        assert told.header("x-spillway-served-by") is None


async def test_a_gateway_refuses_what_leads_to_a_gateway(serve, endpoint, dial, tmp_path) -> None:
    lb = await serve(await endpoint())
    car = await beside(serve, tmp_path, lb)
    before = lb.balancer.serving.current
    with pytest.raises(RuntimeError, match="for a sidecar"):
        lb.balancer.serving.swap(car.balancer.serving.current.spec)
    assert lb.balancer.serving.current is before
    assert (await (await dial(lb)).chat()).status == 200
