"""What the poller remembers of the last scrapes over sockets, and that a change of one pool leaves the rest alone."""

from __future__ import annotations

from time import monotonic, time
from typing import Any

import pytest
from tests.conftest import Say as say  # by its full name, as pytest has imported it

from spillway_balancer.net.reporting import report

SCRAPED = {"engine": "vLLM", "metrics": {"mode": "Prometheus", "interval": "100ms", "staleAfter": "100ms"}}


def metrics(lb: Any) -> tuple[str, str]:
    poller = lb.balancer.poller
    made = report(lb.balancer.serving.current, poller.dialects, poller.scrapes, monotonic(), time())
    return (made.pools[0].metrics, made.pools[0].metrics_message) if made.pools else ("Off", "")


@pytest.mark.parametrize(
    ("page", "state"),
    [
        (
            say.message(body=b"vllm:num_requests_waiting 1\nvllm:num_requests_running 1\nvllm:kv_cache_usage_perc 0\n"),
            "Ok",
        ),
        (say.message(body=b"vllm:num_requests_waiting 1\nvllm:num_requests_running 1\n"), "UnknownNames"),
        (say.message(body=b"go_goroutines 1\n"), "UnknownNames"),
        (say.message(401), "AuthRequired"),
        (say.message(404), "NotExposed"),
        (say.message(500), "Stale"),
    ],
)
async def test_what_a_metrics_page_answers_becomes_the_state_of_the_pool(serve, endpoint, page, state) -> None:
    server = await endpoint()
    server.pages["/metrics"] = page
    lb = await serve(server, pool=SCRAPED)
    await lb.until(lambda: metrics(lb)[0] == state)


async def test_the_missing_name_is_told(serve, endpoint) -> None:
    server = await endpoint()
    server.pages["/metrics"] = say.message(body=b"waiting 1\n")
    names = {"waiting": "waiting", "running": "my_running", "kvCacheUsage": "waiting"}
    lb = await serve(server, pool={**SCRAPED, "metrics": {**SCRAPED["metrics"], "names": names}})  # type: ignore[dict-item]
    await lb.until(lambda: metrics(lb) == ("UnknownNames", "e1: the metrics page lacks my_running (1 of 1)"))


async def test_a_port_where_nobody_listens_is_told_from_a_page_that_is_late(serve, refusing) -> None:
    lb = await serve(refusing, pool=SCRAPED)
    await lb.until(lambda: metrics(lb) == ("NotExposed", "e1: nobody listens on the port of the metrics (1 of 1)"))


async def test_a_change_of_one_pool_leaves_the_tasks_of_the_others_alone(serve, endpoint, objects) -> None:
    servers = [await endpoint() for _ in range(3)]
    page = b"vllm:num_requests_waiting 1\nvllm:num_requests_running 1\nvllm:kv_cache_usage_perc 0\n"
    for server in servers:
        server.pages["/metrics"] = say.message(body=page)
    one, two = objects.pool("one", servers[0], **SCRAPED), objects.pool("two", servers[1], **SCRAPED)
    routed = objects.route("one", "two")
    lb = await serve(docs=[one, two, routed])
    poller = lb.balancer.poller
    await lb.until(lambda: len(poller.scrapes) == 2)
    first, gone = lb.endpoint("e1", "one"), lb.endpoint("e1", "two")
    task = poller._tasks[first]["scrape"]
    lb.write(one, objects.pool("two", servers[2], **SCRAPED), routed)
    await lb.until(lambda: lb.endpoint("e1", "two").url == servers[2].url)
    await lb.until(lambda: lb.endpoint("e1", "two") in poller.scrapes)
    assert poller._tasks[first]["scrape"] is task
    assert not task.done()
    assert gone not in poller._tasks
    assert gone not in poller.scrapes
    lb.write(objects.pool("one", servers[0]), objects.pool("two", servers[2], **SCRAPED), routed)
    await lb.until(lambda: first not in poller.scrapes)
    await lb.until(task.done)
