"""Identities over real sockets: small clouds that give tokens, and accounts that are shown them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
import trustme
from aiohttp import web

from spillway_api.snapshot import Endpoint, Identity
from spillway_api.types import AwsIdentity, AzureIdentity, GcpIdentity
from spillway_balancer.core.endpoint import EndpointState
from spillway_balancer.core.grants import AwsKeys, Bearer
from spillway_balancer.core.load import RequestSize
from spillway_balancer.net.credentials import Credentials, wanted
from spillway_balancer.net.identities import HOSTS, NAMESPACES, PROXY, Identities, Kept
from spillway_balancer.net.reporting import report
from spillway_balancer.provider.keys import Key
from spillway_balancer.provider.server import ProviderServer
from spillway_balancer.provider.state import Settings

URL = "https://team.openai.azure.com"
TENANT, CLIENT = "72f988bf-86f1-41af-91ab-2d7cd011db47", "6731de76-14a6-49ae-97bc-6eba6914391e"


class Cloud:
    """Gives tokens to whoever asks, or answers as it is told; keeps what it was asked."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.asked: list[tuple[str, str, str]] = []
        self.headers: list[Any] = []
        self.life: float = 3600
        self.instead: web.Response | None = None
        self.pause = 0.0
        self.url = self.plain = ""

    async def start(self, context: ssl.SSLContext) -> None:
        self._runner = web.ServerRunner(web.Server(self._answer))  # type: ignore[arg-type]
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=context).start()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        ports = [address[1] for address in self._runner.addresses]
        self.url, self.plain = f"https://localhost:{ports[0]}", f"127.0.0.1:{ports[1]}"

    async def stop(self) -> None:
        await self._runner.cleanup()

    @property
    def token(self) -> str:
        """What it has given last."""
        return f"{self.key}-{len(self.asked)}"

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        self.asked.append((request.method, request.path, (await request.read()).decode()))
        self.headers.append(request.headers)
        await asyncio.sleep(self.pause)
        if self.instead is not None:
            return web.Response(status=self.instead.status, body=self.instead.body, headers=self.instead.headers)
        said = {"access_token": self.token, "expires_in": self.life, "token_type": "Bearer"}
        return web.json_response(said, headers={"metadata-flavor": "Google"})

    def form(self, number: int = -1) -> dict[str, str]:
        return {name: values[0] for name, values in parse_qs(self.asked[number][2]).items()}


@pytest.fixture
async def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, say: Any) -> AsyncIterator[Cloud]:
    """One whose certificate the system believes, and an environment as webhooks make it, for all three clouds."""
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost").configure_cert(context)
    one = Cloud(f"{say.KEY}-given")
    await one.start(context)
    (tmp_path / "token").write_text(f"{say.KEY}-of-kubernetes\n")
    config = {
        "type": "external_account",
        "audience": "//iam.googleapis.com/x",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": f"{one.url}/v1/token",
        "credential_source": {"file": str(tmp_path / "token")},
    }
    (tmp_path / "gcp.json").write_text(json.dumps(config))
    for name, value in {
        "AZURE_AUTHORITY_HOST": one.url,
        "AZURE_TENANT_ID": TENANT,
        "AZURE_CLIENT_ID": CLIENT,
        "AZURE_FEDERATED_TOKEN_FILE": str(tmp_path / "token"),
        "GOOGLE_APPLICATION_CREDENTIALS": str(tmp_path / "gcp.json"),
        "GCE_METADATA_HOST": one.plain,
        "AWS_ENDPOINT_URL_STS": one.url,
        "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/spillway",
        "AWS_WEB_IDENTITY_TOKEN_FILE": str(tmp_path / "token"),
        HOSTS: "127.0.0.1",
    }.items():
        monkeypatch.setenv(name, value)
    yield one
    await one.stop()


# -- one identity, by a clock of ours


class Keeping:
    """One account with an identity, and the time."""

    def __init__(self, identity: Identity, url: str) -> None:
        self.now = 1_000_000.0
        self.spec = Endpoint("main", url, identity=identity)
        self.endpoint = EndpointState("team/cloud", self.spec, RequestSize())
        self.endpoint.keyed = False
        self.credentials = Credentials(None, {})
        self.counted: list[tuple[str, str]] = []
        self.identities = Identities(
            self.credentials, random.Random(1), lambda *each: self.counted.append(each), clock=lambda: self.now
        )
        want = wanted(self.spec)
        assert want is not None
        self.kept = Kept(want, self.now)
        self.kept.endpoints = [self.endpoint]

    async def at(self, seconds: float) -> None:
        """What is due so many seconds after the beginning."""
        self.now = 1_000_000.0 + seconds
        await self.identities.tend(self.kept)

    @property
    def line(self) -> bytes:
        return self.credentials.line(self.spec)


AZURE = Identity("team", azure=AzureIdentity())


@pytest.fixture
async def keeping(cloud: Cloud, caplog: pytest.LogCaptureFixture, say: Any) -> AsyncIterator[Callable[..., Keeping]]:
    """Make one; in the end no token may have been logged."""
    caplog.set_level(logging.DEBUG)
    made: list[Keeping] = []

    def make(identity: Identity = AZURE, url: str = URL) -> Keeping:
        made.append(Keeping(identity, url))
        return made[-1]

    yield make
    for each in made:
        await each.identities.close()
    assert not [record for record in caplog.get_records("call") if say.KEY in f"{record.getMessage()}{record.args}"]


async def test_a_token_is_renewed_while_the_old_one_lives(keeping, cloud) -> None:
    one = keeping()
    assert one.line == b""
    await one.at(0)
    assert (one.line, one.endpoint.keyed) == (f"Authorization: Bearer {cloud.token}\r\n".encode(), True)
    await one.at(3600 * 0.69)
    assert len(cloud.asked) == 1
    await one.at(3600 * 0.81)
    assert len(cloud.asked) == 2
    assert one.line == f"Authorization: Bearer {cloud.token}\r\n".encode()
    assert one.counted == [("azure", "ok")] * 2


async def test_the_token_file_is_read_at_every_exchange(keeping, cloud, tmp_path) -> None:
    one = keeping()
    await one.at(0)
    (tmp_path / "token").write_text("changed")
    await one.at(3500)
    assert [cloud.form(number)["client_assertion"][-7:] for number in (0, 1)] == ["ernetes", "changed"]


async def test_while_renewing_fails_the_old_one_serves_on_to_its_end_and_no_longer(keeping, cloud, caplog) -> None:
    one = keeping()
    await one.at(0)
    good = one.line
    cloud.instead = web.Response(status=503, body=b"")
    for seconds in (3000, 3100, 3599):
        await one.at(seconds)
        assert (one.line, one.endpoint.keyed) == (good, True)
    assert "the present one lasts 600 s more: Microsoft Entra answers 503" in caplog.text
    await one.at(3600)
    assert (one.line, one.endpoint.keyed) == (b"", False)
    cloud.instead = None
    await one.at(3700)
    assert (one.line != b"", one.endpoint.keyed) == (True, True)


async def test_it_is_not_asked_at_every_look_while_it_fails(keeping, cloud) -> None:
    one = keeping()
    cloud.instead = web.Response(status=500, body=b"")
    for tenth in range(600):
        await one.at(tenth / 10)
    assert 5 <= len(cloud.asked) <= 9  # 1, 2, 4 … seconds, from the upper half of each


async def test_a_refused_token_is_renewed_at_once_and_its_successor_after_a_while(keeping, cloud) -> None:
    one = keeping()
    identities = one.identities
    identities._kept[one.kept.want] = one.kept
    await one.at(0)
    begun = one.kept.since + 0.001
    one.endpoint.refused = True
    identities.refused(one.spec, begun)
    identities.refused(one.spec, begun)
    await one.at(1)
    assert (len(cloud.asked), one.endpoint.refused) == (2, False)
    # An attempt that began with the token before says nothing of this one.
    assert not identities.refused(one.spec, begun - 1)
    await one.at(2)
    assert len(cloud.asked) == 2
    one.endpoint.refused = True
    identities.refused(one.spec, one.kept.since + 0.001)
    await one.at(200)
    assert (len(cloud.asked), one.endpoint.refused) == (2, True)
    await one.at(400)
    assert (len(cloud.asked), one.endpoint.refused) == (3, False)


async def test_a_redirect_of_the_cloud_is_not_followed(keeping, cloud, endpoint, caplog) -> None:
    thief = await endpoint()
    cloud.instead = web.Response(status=307, body=b"", headers={"location": thief.url})
    one = keeping()
    await one.at(0)
    assert "Microsoft Entra answers 307" in caplog.text
    assert (thief.calls, one.line) == ([], b"")


async def test_a_cloud_without_a_certificate_that_is_trusted_gets_no_token(
    keeping, cloud, caplog, tmp_path, monkeypatch
) -> None:
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    one = keeping()
    await one.at(0)
    assert "localhost has no certificate that is trusted" in caplog.text
    assert cloud.asked == []


async def test_a_cloud_is_reached_through_a_proxy_and_what_is_near_is_not(keeping, cloud, monkeypatch) -> None:
    lines: list[bytes] = []

    async def tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines.append((await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[0])
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", int(cloud.url.rpartition(":")[2]))
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))

    server = await asyncio.start_server(tunnel, "127.0.0.1", 0)
    monkeypatch.setenv(PROXY, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    one = keeping()
    await one.at(0)
    assert one.line == f"Authorization: Bearer {cloud.token}\r\n".encode()
    assert lines == [f"CONNECT {cloud.url.removeprefix('https://')} HTTP/1.1".encode()]
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS")
    near = keeping(Identity("team", gcp=GcpIdentity()), "https://aiplatform.googleapis.com/v1")
    await near.at(0)
    assert near.line != b""
    assert len(lines) == 1
    server.close()


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
    writer.close()


async def test_an_answer_without_end_is_not_read_to_it(keeping, cloud, caplog) -> None:
    cloud.instead = web.Response(body=b"x" * 200_000)
    one = keeping()
    await one.at(0)
    assert "localhost answers with more than 65536 bytes" in caplog.text


async def test_a_missing_file_and_a_silent_host_are_named(keeping, cloud, caplog, tmp_path, monkeypatch) -> None:
    one = keeping()
    (tmp_path / "token").unlink()
    await one.at(0)
    assert f"the file {tmp_path / 'token'} cannot be read (FileNotFoundError)" in caplog.text
    (tmp_path / "token").write_text("t")
    monkeypatch.setenv("AZURE_AUTHORITY_HOST", "https://localhost:1")
    await one.at(10)
    assert "localhost cannot be reached" in caplog.text


@pytest.mark.parametrize(
    ("url", "own_tls"),
    [("https://gateway.example.com", False), ("http://team.openai.azure.com", False), (URL, True)],
)
async def test_a_url_that_is_not_the_clouds_is_shown_nothing(keeping, cloud, caplog, url, own_tls) -> None:
    one = keeping(Identity("team", own_tls, azure=AzureIdentity()), url)
    await one.at(0)
    assert cloud.asked == []
    assert (one.line, one.endpoint.keyed) == (b"", False)
    assert HOSTS in caplog.text


async def test_a_gateway_may_lend_its_identity_to_some_namespaces_only(keeping, cloud, caplog, monkeypatch) -> None:
    monkeypatch.setenv(NAMESPACES, "ml, search")
    one, other = keeping(), keeping(Identity("search", azure=AzureIdentity()))
    await one.at(0)
    assert "lends its identity to no pool of the namespace team" in caplog.text
    assert cloud.asked == []
    await other.at(0)
    assert other.line != b""


async def test_aws_keys_come_from_a_web_identity(keeping, cloud, say) -> None:
    cloud.instead = web.Response(
        body=b"<R><Credentials><AccessKeyId>ASIA1</AccessKeyId><SecretAccessKey>hidden</SecretAccessKey>"
        b"<SessionToken>session</SessionToken><Expiration>1970-01-12T14:46:40Z</Expiration></Credentials></R>"
    )
    one = keeping(Identity("team", aws=AwsIdentity()), "https://bedrock-runtime.us-east-1.amazonaws.com")
    await one.at(0)
    assert one.credentials.aws_keys(one.spec) == AwsKeys("ASIA1", "hidden", "session", 1_003_600.0)
    assert (one.line, one.endpoint.keyed) == (b"", True)
    assert cloud.form()["WebIdentityToken"] == f"{say.KEY}-of-kubernetes"


async def test_aws_keys_come_from_the_agent_of_pod_identity(keeping, cloud, say, tmp_path, monkeypatch) -> None:
    monkeypatch.delenv("AWS_WEB_IDENTITY_TOKEN_FILE")
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"http://{cloud.plain}/v1/credentials")
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", str(tmp_path / "token"))
    keys = {"AccessKeyId": "A", "SecretAccessKey": "s", "Token": "t", "Expiration": "1970-01-12T14:46:40Z"}
    cloud.instead = web.json_response(keys)
    one = keeping(Identity("team", aws=AwsIdentity()), "https://bedrock-runtime.us-east-1.amazonaws.com")
    await one.at(0)
    assert one.credentials.aws_keys(one.spec) == AwsKeys("A", "s", "t", 1_003_600.0)
    assert cloud.asked == [("GET", "/v1/credentials", "")]
    assert cloud.headers[0]["authorization"] == f"{say.KEY}-of-kubernetes"


async def test_the_metadata_server_of_gke_gives_a_token(keeping, cloud, monkeypatch) -> None:
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS")
    one = keeping(Identity("team", gcp=GcpIdentity()), "https://aiplatform.googleapis.com/v1")
    await one.at(0)
    assert one.credentials.grants[one.kept.want] == Bearer(cloud.token, one.now + 3600)
    assert cloud.asked[0][:2] == ("GET", "/computeMetadata/v1/instance/service-accounts/default/token")
    assert cloud.headers[0]["metadata-flavor"] == "Google"


# -- the whole balancer


def lent(objects: Any, kind: str, url: str, **account: Any) -> dict[str, Any]:
    pool: dict[str, Any] = objects.provider("cloud", url, "a", source={"provider": {"type": kind}})
    pool["spec"]["source"]["provider"]["accounts"] = [{"name": "a"} | account]
    return pool


async def test_an_account_of_azure_is_shown_the_token(serve, dial, endpoint, objects, cloud) -> None:
    one = await endpoint()
    lb = await serve(docs=[lent(objects, "AzureOpenAI", one.url, identity={"azure": {}}), objects.route("cloud")])
    await lb.until(lambda: lb.balancer.identities.settled)
    reply = await (await dial(lb)).chat([("authorization", "Bearer mine"), ("api-key", "mine")])
    assert reply.status == 200
    assert one.calls[0].header("authorization") == f"Bearer {cloud.token}"
    assert one.calls[0].header("api-key") is None
    assert lb.sample("spillway_identity_exchanges_total", cloud="azure", result="ok") == 1


async def test_vertex_is_shown_what_federation_brings(serve, dial, endpoint, objects, cloud) -> None:
    one = await endpoint()
    account = {"identity": {"gcp": {}}, "region": "europe-west4", "project": "ml"}
    lb = await serve(docs=[lent(objects, "VertexAI", one.url, **account), objects.route("cloud")])
    await lb.until(lambda: lb.balancer.identities.settled)
    assert (await (await dial(lb)).chat()).status == 200
    assert one.calls[0].target == "/v1/projects/ml/locations/europe-west4/endpoints/openapi/chat/completions"
    assert one.calls[0].header("authorization") == f"Bearer {cloud.token}"
    assert cloud.form()["audience"] == "//iam.googleapis.com/x"


async def test_requests_to_bedrock_are_signed_with_the_keys_that_come(serve, dial, objects, cloud) -> None:
    """Those that end: when they do not hold any more, new ones are there for the next request."""
    given = "<AccessKeyId>ASIA{0}</AccessKeyId><SecretAccessKey>hidden-{0}</SecretAccessKey>"
    ends = "<SessionToken>to/2==</SessionToken><Expiration>2999-01-01T00:00:00Z</Expiration>"
    cloud.instead = web.Response(body=given.format(1).encode() + ends.encode())
    fake = ProviderServer(Settings("bedrock", keys=(Key("main", "ASIA2:hidden-2:to/2=="),)))
    await fake.start()
    try:
        account = {"identity": {"aws": {}}, "region": "eu-west-1"}
        lb = await serve(docs=[lent(objects, "Bedrock", fake.url, **account), objects.route("cloud")])
        await lb.until(lambda: lb.balancer.identities.settled)
        assert cloud.form()["RoleArn"] == "arn:aws:iam::123456789012:role/spillway"
        cloud.instead = web.Response(body=given.format(2).encode() + ends.encode())
        assert (await (await dial(lb)).chat()).status != 200
        await lb.until(lambda: len(cloud.asked) == 2 and not lb.endpoint("a", "cloud").refused)
        assert (await (await dial(lb)).chat()).status == 200
        assert lb.sample("spillway_identity_exchanges_total", cloud="aws", result="ok") == 2
    finally:
        await fake.stop()


async def test_requests_to_bedrock_are_signed_with_what_the_agent_of_eks_brings(
    serve, dial, endpoint, objects, cloud, say, tmp_path, monkeypatch
) -> None:
    monkeypatch.delenv("AWS_WEB_IDENTITY_TOKEN_FILE")
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"http://{cloud.plain}/v1/credentials")
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", str(tmp_path / "token"))
    keys = {
        "AccessKeyId": "ASIA1",
        "SecretAccessKey": say.KEY,
        "Token": "session",
        "Expiration": "2999-01-01T00:00:00Z",
    }
    cloud.instead = web.json_response(keys)
    said = {
        "output": {"message": {"role": "assistant", "content": [{"text": "signed"}]}},
        "stopReason": "end_turn",
        "usage": {"inputTokens": 3, "outputTokens": 1, "totalTokens": 4},
    }
    asked: list[Any] = []

    async def behave(call: Any) -> None:
        asked.append(call)
        call.write(say.message(200, json.dumps(said).encode(), content_type="application/json"))

    account = {"identity": {"aws": {}}, "region": "eu-west-1"}
    pool = lent(objects, "Bedrock", (await endpoint(behave)).url, **account)
    lb = await serve(docs=[pool, objects.route("cloud")])
    await lb.until(lambda: lb.balancer.identities.settled)
    reply = await (await dial(lb)).chat([("authorization", "Bearer mine")])
    assert (reply.status, reply.text) == (200, "signed")
    shown = asked[0].header("authorization")
    assert shown.startswith("AWS4-HMAC-SHA256 Credential=ASIA1/")
    assert "/eu-west-1/bedrock/aws4_request" in shown
    assert asked[0].header("x-amz-security-token") == "session"


async def test_an_account_that_refuses_a_token_is_shown_a_new_one(serve, dial, endpoint, objects, cloud, say) -> None:
    async def behave(call: Any) -> None:
        fresh = call.header("authorization") == f"Bearer {cloud.key}-2"
        call.write(say.completion() if fresh else b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n")

    base = (await endpoint(behave)).url
    lb = await serve(docs=[lent(objects, "AzureOpenAI", base, identity={"azure": {}}), objects.route("cloud")])
    await lb.until(lambda: lb.balancer.identities.settled)
    assert (await (await dial(lb)).chat()).status != 200
    await lb.until(lambda: not lb.endpoint("a", "cloud").refused)
    assert (await (await dial(lb)).chat()).status == 200
    assert len(cloud.asked) == 2


async def test_an_account_that_refuses_a_fresh_token_too_is_closed(serve, dial, endpoint, objects, cloud) -> None:
    async def behave(call: Any) -> None:
        call.write(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n")

    base = (await endpoint(behave)).url
    lb = await serve(docs=[lent(objects, "AzureOpenAI", base, identity={"azure": {}}), objects.route("cloud")])
    await lb.until(lambda: lb.balancer.identities.settled)
    await (await dial(lb)).chat()
    await lb.until(lambda: len(cloud.asked) == 2 and not lb.endpoint("a", "cloud").refused)
    await (await dial(lb)).chat()
    assert lb.endpoint("a", "cloud").refused
    assert len(cloud.asked) == 2


async def test_ready_only_when_clouds_have_been_asked_and_serving_whatever_they_said(
    serve, dial, endpoint, objects, cloud, caplog
) -> None:
    cloud.instead = web.Response(status=400, body=b'{"error":"invalid_client"}')
    one = await endpoint()
    docs = [lent(objects, "AzureOpenAI", one.url, identity={"azure": {}}), objects.route("cloud")]
    lb = await serve(docs=docs)
    first = await (await dial(lb)).get("/readyz")
    assert (first.status, first.body) == (503, b"asking clouds for credentials\n")
    await lb.until(lambda: lb.balancer.identities.settled)
    assert (await (await dial(lb)).get("/readyz")).status == 200
    assert (await (await dial(lb)).chat()).status == 503
    assert one.calls == []
    assert "no azure identity for default/cloud/a, they get no requests" in caplog.text
    assert "Microsoft Entra answers 400 invalid_client" in caplog.text
    (told,) = report(lb.balancer.serving.current, {}, {}, 0.0, 0.0).pools
    assert (told.refused, told.refused_message) == (("a",), "a: Microsoft Entra answers 400 invalid_client")
    # Another cloud that is slow does not take the balancer out of service.
    cloud.pause = 1.0
    fresh = {"azure": {"clientID": "00000000-0000-0000-0000-000000000000"}}
    lb.write(lent(objects, "AzureOpenAI", one.url, identity=fresh), objects.route("cloud"))
    await lb.until(lambda: not lb.balancer.identities.settled)
    assert (await (await dial(lb)).get("/readyz")).status == 200
    # The account goes, and with it all that was kept for it.
    lb.write(objects.pool("cloud", one.url), objects.route("cloud"))
    await lb.until(lambda: not lb.balancer.identities._kept)
    assert (await (await dial(lb)).chat()).status == 200
