"""The reconcile: what is published and written, when, and what it does while the API server says no."""

from __future__ import annotations

import asyncio
import base64
import itertools
import logging

import pytest
import tests.operator.objects as make
from tests.operator.balancers import says
from tests.operator.bench import CHAT, LLAMA, MARKER, OPENAI, USUAL, Api, Bench
from tests.operator.clock import run

from spillway_api.credentials import file_of
from spillway_api.stream import PoolReport
from spillway_operator.plan import saved_in
from spillway_operator.reconcile import BOOT_SECONDS, SETTLE_SECONDS, Key


def test_from_objects_to_balancers_children_and_statuses(monkeypatch):
    async def main():
        bench = await Bench(monkeypatch).start()
        await asyncio.sleep(5)
        ((gateway, at, snapshot),) = bench.streams.published
        assert gateway == "default"
        assert at < 0.2
        assert [pool.name for pool in snapshot.pools] == ["default/llama", "default/openai"]
        assert bench.streams.synced
        assert bench.it.serving
        assert bench.api.secret() == {file_of("default/openai", "api-key"): MARKER}
        assert saved_in(bench.api.last("ConfigMap")).snapshot == snapshot
        assert bench.api.conditions(CHAT)["Ready"] == ("True", "Programmed")
        assert bench.api.conditions(LLAMA)["Ready"] == ("True", "EndpointsReady")
        assert bench.api.events == []
        await bench.it.queue.close()

    run(main())


def test_when_all_is_written_nothing_is_written_again(monkeypatch):
    async def main():
        bench = await Bench(monkeypatch).start()
        await asyncio.sleep(30)
        before = len(bench.api.writes)
        for _ in range(10):
            bench.see()
            await asyncio.sleep(2)  # less than until all of it is written anew
        assert len(bench.api.writes) == before
        assert len(bench.streams.published) == 1
        await bench.it.queue.close()

    run(main())


def test_a_replica_that_does_not_lead_publishes_and_writes_nothing(monkeypatch):
    async def main():
        bench = await Bench(monkeypatch, leads=False).start()
        await asyncio.sleep(60)
        assert len(bench.streams.published) == 1
        assert bench.streams.synced
        assert bench.api.writes == bench.api.events == []
        bench.leads = True
        bench.it.leadership_changed()
        await asyncio.sleep(5)
        assert {each for each, _, _ in bench.api.writes} == {"Secret", "ConfigMap", LLAMA, OPENAI, CHAT}
        bench.leads = False
        bench.it.leadership_changed()
        before = len(bench.api.writes)
        bench.edit("chat", models=["other"])
        await asyncio.sleep(60)
        assert len(bench.streams.published) == 2
        assert len(bench.api.writes) == before
        await bench.it.queue.close()

    run(main())


def test_an_endpoint_is_published_at_once_and_many_at_a_time_together(monkeypatch):
    async def main():
        bench = await Bench(monkeypatch).start()
        await asyncio.sleep(5)
        now = asyncio.get_running_loop().time()
        for number in range(20):
            bench.see(*USUAL, *(make.pod(f"p{each}") for each in range(number)))
        await asyncio.sleep(1)
        assert len(bench.streams.published) == 2
        assert bench.streams.published[-1][1] - now < 0.2
        assert len(bench.streams.published[-1][2].pools[0].endpoints) == 20
        await bench.it.queue.close()

    run(main())


def test_the_config_map_is_written_rarely_and_ends_up_right(monkeypatch):
    async def main():
        bench = await Bench(monkeypatch).start()
        await asyncio.sleep(5)
        for number in range(100):
            await bench.pods(make.pod(f"p{number}"))
        await asyncio.sleep(2 * BOOT_SECONDS)
        written = bench.api.written("ConfigMap")
        assert len(bench.streams.published) == 101
        assert len(written) <= 6
        pauses = [later - before for before, later in itertools.pairwise(written)]
        assert min(pauses) > BOOT_SECONDS - 0.1
        assert saved_in(bench.api.last("ConfigMap")).snapshot == bench.streams.published[-1][2]
        assert len(bench.api.written("Secret")) == 1
        await bench.it.queue.close()

    run(main())


def test_a_rotated_secret_reaches_the_gateway_and_no_balancer_is_told(monkeypatch, caplog):
    async def main():
        bench = await Bench(monkeypatch).start()
        following = asyncio.ensure_future(bench.it.secrets.follow(bench.it.config_changed))
        await asyncio.sleep(5)
        bench.api.secrets["default/openai"]["data"]["api-key"] = base64.b64encode(b"sk-quagga-new").decode()
        await asyncio.sleep(15)
        assert bench.api.secret() == {file_of("default/openai", "api-key"): "sk-quagga-new"}
        assert len(bench.streams.published) == 1
        assert len(bench.api.written("ConfigMap")) == 1
        del bench.api.secrets["default/openai"]
        await asyncio.sleep(15)
        assert bench.api.secret() == {}
        assert bench.api.conditions(OPENAI)["ResolvedRefs"] == ("False", "SecretNotFound")
        assert bench.streams.published[-1][2].pools[1].endpoints == ()
        following.cancel()
        await bench.it.queue.close()

    with caplog.at_level(logging.DEBUG):
        run(main())
    assert "sk-quagga" not in caplog.text


def test_a_bad_edit_is_told_at_once_with_an_event_and_so_is_its_mending(monkeypatch):
    async def main():
        bench = await Bench(monkeypatch).start()
        await asyncio.sleep(25)
        rules = USUAL[2]["spec"]["rules"]
        bench.edit("chat", rules=[{"name": "default", "tiers": [{"name": "t", "pools": [{"name": "gone"}]}]}])
        await asyncio.sleep(1)
        assert bench.api.conditions(CHAT)["Ready"] == ("False", "PoolNotFound")
        assert ("RoutePolicy", "chat", "Warning", "PoolNotFound") in bench.api.events
        assert len(bench.streams.published) == 1
        bench.edit("chat", rules=rules)
        await asyncio.sleep(1)
        assert bench.api.conditions(CHAT)["Ready"] == ("True", "Programmed")
        assert ("RoutePolicy", "chat", "Normal", "Programmed") in bench.api.events
        assert len(bench.streams.published) == 1
        await bench.it.queue.close()

    run(main())


def test_numbers_are_written_every_ten_seconds_at_most(monkeypatch):
    async def main():
        bench = await Bench(monkeypatch).start()
        await asyncio.sleep(30)
        before = len(bench.api.written(LLAMA))
        for number in range(60):
            await bench.pods(make.pod("a"), *([make.pod("b")] if number % 2 else []))
        assert len(bench.api.written(LLAMA)) - before <= 4
        await asyncio.sleep(30)
        assert bench.api.last(LLAMA)["status"]["endpointSummary"] == "2/2"
        await bench.it.queue.close()

    run(main())


def test_a_new_leader_waits_for_its_balancers_before_it_calls_them_behind(monkeypatch):
    async def main():
        old = await Bench(monkeypatch).start()
        await asyncio.sleep(10)
        await old.it.queue.close()
        before = len(old.api.writes)
        new = Bench(monkeypatch, old.api)
        new.streams.replicas = 0
        await new.start()
        await asyncio.sleep(SETTLE_SECONDS - 1)
        assert [each for each, _, _ in old.api.writes[before:] if each == CHAT] == []
        await asyncio.sleep(10)
        assert old.api.conditions(CHAT)["Programmed"] == ("False", "PartiallyProgrammed")
        new.streams.replicas = 2
        new.it.status_changed()
        await asyncio.sleep(1)
        assert old.api.conditions(CHAT)["Programmed"] == ("True", "Programmed")
        await new.it.queue.close()

    run(main())


def test_a_new_operator_keeps_the_last_good_version_that_the_config_map_holds(monkeypatch):
    async def main():
        old = await Bench(monkeypatch).start()
        await asyncio.sleep(10)
        await old.it.queue.close()
        new = Bench(monkeypatch, old.api)
        rules = [{"name": "default", "tiers": [{"name": "t", "pools": [{"name": "gone"}]}]}]
        new.api.objects = [
            {**each, "spec": {**each["spec"], "rules": rules}} if each["metadata"]["name"] == "chat" else each
            for each in new.api.objects
        ]
        await new.start()
        await asyncio.sleep(5)
        assert new.streams.published[-1][2] == old.streams.published[-1][2]
        await new.it.queue.close()

    run(main())


def test_without_the_config_map_nothing_is_published_rather_than_something_worse(monkeypatch):
    """Else a policy that is bad by now would lose the version that serves."""

    async def main():
        bench = Bench(monkeypatch)
        bench.api.no["configmaps"] = 503
        await bench.start()
        await asyncio.sleep(60)
        assert bench.streams.published == []
        assert not bench.streams.synced
        bench.api.no.clear()
        await asyncio.sleep(60)
        assert len(bench.streams.published) == 1
        assert bench.streams.synced
        await bench.it.queue.close()

    run(main())


def test_losing_the_api_server_stops_nothing_and_loses_nothing(monkeypatch):
    async def main():
        bench = await Bench(monkeypatch).start()
        await asyncio.sleep(5)
        bench.api.no["*"] = 0
        await bench.pods(make.pod("a"), make.pod("b"))
        assert len(bench.streams.published[-1][2].pools[0].endpoints) == 2
        await asyncio.sleep(120)
        bench.api.no.clear()
        await asyncio.sleep(60)
        assert saved_in(bench.api.last("ConfigMap")).snapshot == bench.streams.published[-1][2]
        assert bench.api.last(LLAMA)["status"]["endpointSummary"] == "2/2"
        await bench.it.queue.close()

    run(main())


def test_a_status_that_cannot_be_written_keeps_no_other_from_being_written(monkeypatch):
    async def main():
        bench = Bench(monkeypatch)
        bench.api.no[LLAMA] = 500
        await bench.start()
        await asyncio.sleep(5)
        assert bench.api.written(CHAT)
        assert bench.api.written(OPENAI)
        bench.api.no.clear()
        await asyncio.sleep(60)
        assert bench.api.written(LLAMA)
        await bench.it.queue.close()

    run(main())


def test_an_event_that_cannot_be_written_is_no_reason_to_do_the_work_again(monkeypatch):
    async def main():
        bench = Bench(monkeypatch)
        bench.api.no["event"] = 403
        bench.api.objects = [make.model_pool("llama", make.pods()), make.route_policy("chat", "llama")]
        await bench.start()
        await asyncio.sleep(60)
        assert bench.api.events == []
        assert len(bench.api.written(LLAMA)) == 1
        await bench.it.queue.close()

    run(main())


def test_what_somebody_else_changed_heals(monkeypatch):
    async def main():
        bench = await Bench(monkeypatch).start()
        await asyncio.sleep(30)
        before = len(bench.api.written("Secret"))
        await asyncio.sleep(90)
        assert len(bench.api.written("Secret")) == before + 1
        assert len(bench.api.written("ConfigMap")) == 2
        await bench.it.queue.close()

    run(main())


def test_a_gateway_that_comes_and_goes(monkeypatch):
    async def main():
        bench = await Bench(monkeypatch).start()
        following = asyncio.ensure_future(bench.it.gateways.follow(bench.it.config_changed))
        await asyncio.sleep(5)
        bench.api.deployments = [*bench.api.deployments, make.deployment("spillway-gateway-edge", "edge")]
        await asyncio.sleep(5)
        assert bench.streams.published[-1][0] == "edge"
        assert bench.streams.synced
        names = {body["metadata"]["name"] for kind, _, body in bench.api.writes if kind == "Secret"}
        assert names == {"spillway-gateway-credentials", "spillway-gateway-edge-credentials"}
        bench.api.deployments = bench.api.deployments[1:]
        await asyncio.sleep(5)
        assert bench.streams.withdrawn == ["default"]
        assert bench.it.progress.keys() == {"edge"}
        assert bench.api.conditions(CHAT)["Accepted"] == ("False", "UnknownGateway")
        following.cancel()
        await bench.it.queue.close()

    run(main())


def test_where_pods_have_sidecars_a_gateway_may_go_and_what_it_serves_is_planned_on(monkeypatch):
    async def main():
        bench = await Bench(monkeypatch, sidecars=("default",)).start()
        following = asyncio.ensure_future(bench.it.gateways.follow(bench.it.config_changed))
        await asyncio.sleep(5)
        bench.api.deployments = []
        await asyncio.sleep(5)
        await bench.pods()
        assert bench.streams.withdrawn == []
        *_, (_, _, snapshot) = bench.streams.published
        assert [len(pool.endpoints) for pool in snapshot.pools if pool.name == "default/llama"] == [0]
        assert bench.api.conditions(CHAT)["Accepted"] == ("False", "UnknownGateway")
        before = len(bench.api.written("Secret"))
        await asyncio.sleep(90)
        assert len(bench.api.written("Secret")) == before, "nobody is there to read it"
        following.cancel()
        await bench.it.queue.close()

    run(main())


def test_an_operator_that_starts_without_the_gateway_has_its_routes_for_sidecars(monkeypatch):
    async def main():
        bench = Bench(monkeypatch, sidecars=("default",))
        bench.api.deployments = []
        await bench.start()
        await asyncio.sleep(5)
        assert [gateway for gateway, *_ in bench.streams.published] == ["default"]
        assert bench.streams.synced
        await bench.it.queue.close()

    run(main())


def test_without_a_gateway_the_operator_is_there_for_the_first_that_comes(monkeypatch):
    async def main():
        bench = Bench(monkeypatch)
        bench.api.deployments = []
        await bench.start()
        await asyncio.sleep(5)
        assert bench.streams.synced
        assert bench.api.conditions(CHAT)["Ready"] == ("False", "UnknownGateway")
        await bench.it.queue.close()

    run(main())


def test_before_anything_is_known_nothing_is_planned(monkeypatch):
    async def main():
        bench = Bench(monkeypatch)
        bench.it.config_changed()
        await asyncio.sleep(10)
        assert bench.api.writes == bench.streams.published == []
        assert not bench.it.serving
        assert not bench.streams.synced
        await bench.it.queue.close()

    run(main())


def test_a_pool_that_names_another_secret_while_secrets_are_read_never_loses_its_account(monkeypatch):
    async def main():
        bench = await Bench(monkeypatch).start()
        bench.api.secrets["default/groq"] = bench.api.secrets["default/openai"]
        await asyncio.sleep(5)
        bench.edit("openai", source=make.provider("nobody"))
        await asyncio.sleep(0.0505)  # its Secret is being read
        bench.edit("openai", source=make.provider("groq"))
        await asyncio.sleep(5)
        assert all(snapshot.pools[1].endpoints for _, _, snapshot in bench.streams.published)
        assert bench.streams.published[-1][2].pools[1].endpoints[0].name == "groq"
        await bench.it.queue.close()

    run(main())


def test_what_balancers_report_reaches_the_status(monkeypatch):
    async def main():
        bench = await Bench(monkeypatch).start()
        await asyncio.sleep(30)
        bench.streams.reports["default"] = says(PoolReport("default/llama", "vLLM", ejected=("a:8000",)))
        bench.it.status_changed()
        await asyncio.sleep(1)
        assert bench.api.conditions(LLAMA)["Ready"] == ("False", "AllEjected")
        assert ("ModelPool", "llama", "Warning", "AllEjected") in bench.api.events
        await bench.it.queue.close()

    run(main())


@pytest.mark.parametrize(
    ("key", "text"),
    [
        (Key("status"), "status"),
        (Key("snapshot", "default"), "snapshot of gateway default"),
        (Key("children", "edge"), "children of gateway edge"),
    ],
)
def test_keys_as_logs_name_them(key, text):
    assert str(key) == text


def test_no_status_is_written_before_every_gateway_is_planned(monkeypatch):
    """A policy of a gateway that is about to be planned would be told that there is no such gateway."""

    async def main():
        api = Api()
        api.no["configmaps"] = 500
        bench = await Bench(monkeypatch, api).start()
        await asyncio.sleep(5)
        assert api.writes == []
        del api.no["configmaps"]
        await asyncio.sleep(40)
        assert bench.api.conditions(CHAT)["Accepted"] == ("True", "Accepted")
        assert ("RoutePolicy", "chat", "Warning", "UnknownGateway") not in api.events
        await bench.it.queue.close()

    run(main())
