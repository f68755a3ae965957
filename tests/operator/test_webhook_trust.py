"""What API servers believe of the webhook, and when a replica shows something new."""

from __future__ import annotations

import base64
import copy
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.operator.rig import NAMES

from spillway_operator.certificates import AUTHORITY_LIFE, Made, needed
from spillway_operator.cluster import Conflict
from spillway_operator.settings import Settings
from spillway_operator.webhook_trust import KEEP, Bundle, Introduced, certificates, covers

SETTINGS = Settings(namespace="infra", name="operator-0", address="10.0.0.1")
SELECTORS = {"objectSelector": {"matchExpressions": []}}


def another(now: datetime | None = None) -> Made:
    made = needed(None, NAMES, now or datetime.now(UTC))
    assert made is not None
    return made


def _client(bundle: bytes) -> dict[str, str]:
    return {"caBundle": base64.b64encode(bundle).decode()} if bundle else {}


class Configured:
    """An API server with one configuration of two webhooks."""

    def __init__(self, *bundles: bytes) -> None:
        self.found: dict[str, Any] | None = {
            "metadata": {"name": SETTINGS.webhook, "resourceVersion": "1"},
            "webhooks": [
                {"name": f"w{at}", "clientConfig": _client(each), **SELECTORS}
                for at, each in enumerate(bundles or (b"", b""))
            ],
        }
        self.writes = 0
        self.conflict = False

    async def get(self, api: str, plural: str, namespace: str, name: str) -> Any:
        asked = (api, plural, namespace, name)
        assert asked == ("admissionregistration.k8s.io/v1", "mutatingwebhookconfigurations", "", SETTINGS.webhook)
        return copy.deepcopy(self.found)

    async def replace(self, api: str, plural: str, namespace: str, body: Any) -> Any:
        if self.conflict:
            raise Conflict(409, "Conflict", "changed")
        assert (namespace, body["metadata"]["resourceVersion"]) == ("", "1")
        self.writes += 1
        self.found = body
        return body

    @property
    def bundles(self) -> list[bytes]:
        assert self.found is not None
        return [base64.b64decode(hook["clientConfig"].get("caBundle", "")) for hook in self.found["webhooks"]]


class Clock:
    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


# ---- the leader


async def test_the_authority_is_told_for_both_webhooks_and_nothing_else_of_them_changes(
    made: Made, clock: Clock
) -> None:
    api = Configured()
    bundle = Bundle(SETTINGS, api, clock)  # type: ignore[arg-type]
    assert await bundle.read() == b""
    await bundle.keep(made.authority)
    assert api.bundles == [made.authority] * 2
    assert await bundle.read() == made.authority
    assert api.found is not None
    assert all(hook.keys() == {"name", "clientConfig", "objectSelector"} for hook in api.found["webhooks"])
    await bundle.keep(made.authority)
    assert api.writes == 1, "what is good is not written"


async def test_an_old_authority_is_told_for_a_while_beside_the_new_one(made: Made, clock: Clock) -> None:
    api = Configured(made.authority, made.authority)
    bundle = Bundle(SETTINGS, api, clock)  # type: ignore[arg-type]
    fresh = another()
    await bundle.keep(fresh.authority)
    for each in api.bundles:
        assert covers(each, made.authority)
        assert covers(each, fresh.authority)
    clock.now += KEEP - timedelta(seconds=1)
    await bundle.keep(fresh.authority)
    assert api.writes == 1
    clock.now += timedelta(seconds=1)
    await bundle.keep(fresh.authority)
    assert api.bundles == [fresh.authority] * 2


async def test_one_that_has_expired_is_told_no_more(clock: Clock) -> None:
    old = another(clock.now - AUTHORITY_LIFE - timedelta(days=1))
    fresh = another()
    api = Configured(old.authority)
    await Bundle(SETTINGS, api, clock).keep(fresh.authority)  # type: ignore[arg-type]
    assert api.bundles == [fresh.authority]


@pytest.mark.parametrize(
    "bundle", [b"", b"\xff\xfe", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
async def test_what_is_no_bundle_is_replaced(made: Made, clock: Clock, bundle: bytes) -> None:
    api = Configured(bundle)
    await Bundle(SETTINGS, api, clock).keep(made.authority)  # type: ignore[arg-type]
    assert api.bundles == [made.authority]


async def test_webhooks_that_are_told_different_things_are_told_nothing_for_sure(made: Made, clock: Clock) -> None:
    assert await Bundle(SETTINGS, Configured(made.authority, another().authority), clock).read() == b""  # type: ignore[arg-type]


async def test_without_a_configuration_there_is_nothing_to_keep(made: Made, clock: Clock) -> None:
    api = Configured()
    api.found = None
    bundle = Bundle(SETTINGS, api, clock)  # type: ignore[arg-type]
    await bundle.keep(made.authority)
    assert (await bundle.read(), api.writes) == (None, 0)


async def test_what_somebody_else_has_changed_meanwhile_is_not_written_over(made: Made, clock: Clock) -> None:
    api = Configured()
    api.conflict = True
    with pytest.raises(Conflict):
        await Bundle(SETTINGS, api, clock).keep(made.authority)  # type: ignore[arg-type]


# ---- every replica


class Told:
    """What the Secret holds and what API servers believe."""

    def __init__(self, made: Made | None, bundle: bytes | None) -> None:
        self.made = made
        self.bundle = bundle
        self.looks = 0
        self.introduced = Introduced(self._secret, self._bundle)

    async def _secret(self) -> Any:
        return {"data": self.made.data()} if self.made else None

    async def _bundle(self) -> bytes | None:
        self.looks += 1
        return self.bundle

    async def shown(self) -> Any:
        found = await self.introduced.read()
        return found and found["data"]["tls.crt"]


def of(made: Made) -> str:
    return made.data()["tls.crt"]


async def test_nothing_is_shown_before_it_is_believed(made: Made) -> None:
    told = Told(made, b"")
    with pytest.raises(ValueError, match="not been told"):
        await told.shown()
    told.bundle = made.authority
    assert await told.shown() == of(made)
    assert await told.shown() == of(made)
    assert told.looks == 2, "what is shown already is not looked up"


async def test_a_new_one_is_shown_at_the_second_look_that_finds_it_believed(made: Made) -> None:
    told = Told(made, made.authority)
    assert await told.shown() == of(made)
    told.made = fresh = another()
    for _ in range(3):
        assert await told.shown() == of(made), "nobody would believe it"
    told.bundle = fresh.authority + made.authority
    assert await told.shown() == of(made)
    assert await told.shown() == of(fresh)


async def test_one_that_is_replaced_between_the_two_looks_begins_anew(made: Made) -> None:
    told = Told(made, made.authority)
    await told.shown()
    second, third = another(), another()
    told.bundle = made.authority + second.authority + third.authority
    told.made = second
    assert await told.shown() == of(made)
    told.made = third
    assert await told.shown() == of(made)
    assert await told.shown() == of(third)


async def test_where_nobody_asks_it_is_shown_at_once(made: Made) -> None:
    assert await Told(made, None).shown() == of(made)


async def test_a_secret_that_has_gone_changes_nothing(made: Made) -> None:
    told = Told(made, made.authority)
    await told.shown()
    told.made = None
    assert await told.shown() == of(made)
    assert await Told(None, b"").shown() is None


def test_what_is_covered(made: Made) -> None:
    fresh = another()
    both = made.authority + fresh.authority
    assert covers(both, made.authority)
    assert not covers(made.authority, both)
    assert not covers(b"junk", made.authority)
    assert len(certificates(both)) == 2
