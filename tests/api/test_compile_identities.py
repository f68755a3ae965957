"""Accounts in clouds, compiled: whose identity they have, and where they are."""

from __future__ import annotations

import pytest
from msgspec import UNSET
from tests.api.tables import ACCOUNT, PROVIDER

from spillway_api.compile import compile_snapshot
from spillway_api.snapshot import Endpoint, Identity, Snapshot, decode, encode
from spillway_api.types import AzureIdentity, GcpIdentity

VERTEX = "https://europe-west4-aiplatform.googleapis.com/v1/projects/ml/locations/europe-west4/endpoints/openapi"


@pytest.fixture
def compiled(built):
    def make(base, edits=None):
        rules = [{"name": "r", "tiers": [{"name": "t", "pools": [{"name": "openai"}]}]}]
        objects = [built(base, edits), built("policy", {"spec.rules": rules})]
        return compile_snapshot(objects, "default", lambda _secret, _key: True)

    return make


def endpoints(snapshot: Snapshot) -> list[Endpoint]:
    return [endpoint for pool in snapshot.pools for endpoint in pool.endpoints]


def test_an_identity_is_that_of_its_cloud_for_pools_of_its_namespace(compiled):
    tenant = "00000000-0000-0000-0000-000000000000"
    (main,) = endpoints(compiled("lent", {f"{ACCOUNT}.identity.azure.tenantID": tenant}).snapshot)
    assert main.identity == Identity("default", azure=AzureIdentity(tenant))
    assert main.credential is None
    assert main.region is UNSET


def test_a_pool_with_authorities_of_its_own_says_so(compiled):
    (main,) = endpoints(compiled("lent", {"spec.tls": {"serverName": "other.example.com"}}).snapshot)
    assert main.identity.own_tls


def test_an_account_is_where_its_region_and_project_are(compiled):
    (main,) = endpoints(compiled("vertex").snapshot)
    assert (main.url, main.region) == (VERTEX, "europe-west4")
    assert main.identity == Identity("default", gcp=GcpIdentity())


@pytest.mark.parametrize("region", ["evil.com/", "a b", "..", "EU", "x/../y", "-a"])
def test_what_is_no_region_leads_nowhere(compiled, region):
    done = compiled("vertex", {f"{ACCOUNT}.region": region})
    assert endpoints(done.snapshot) == []
    (problem,) = [each for each in done.problems if each.path == f"{PROVIDER}.accounts[0].region"]
    assert (problem.reason, problem.fatal) == ("Invalid", True)


def test_a_snapshot_says_it_all_and_endpoints_without_are_written_as_before(compiled):
    snapshot = compiled("vertex").snapshot
    assert decode(encode(snapshot)) == snapshot
    plain = encode(compiled("provider").snapshot)
    assert b"identity" not in plain
    assert b"region" not in plain
