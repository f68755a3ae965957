"""Exchanges of identities, step by step, as the clouds document them: what is asked, and what is made of answers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_api.snapshot import Identity
from spillway_api.types import AwsIdentity, AzureIdentity, GcpIdentity
from spillway_balancer.core.grants import AwsKeys, Bearer, Grant
from spillway_balancer.wire.identity import Ask, Denied, File, Reply, exchange, may_see

NOW = 1_700_000_000.0
TOKEN = "eyJhbGciOi.JSUzI1NiIs.marker-of-kubernetes"
AWS = Identity("team", aws=AwsIdentity())
GCP = Identity("team", gcp=GcpIdentity())
AZURE = Identity("team", azure=AzureIdentity())

IRSA = {
    "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/spillway",
    "AWS_WEB_IDENTITY_TOKEN_FILE": "/var/run/secrets/eks.amazonaws.com/serviceaccount/token",
    "AWS_REGION": "eu-central-1",
    "HOSTNAME": "llm-gateway-7d9f",
}
POD = {
    "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://169.254.170.23/v1/credentials",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": "/var/run/secrets/pods.eks.amazonaws.com/eks-pod-identity-token",
}
ENTRA = {
    "AZURE_CLIENT_ID": "6731de76-14a6-49ae-97bc-6eba6914391e",
    "AZURE_TENANT_ID": "72f988bf-86f1-41af-91ab-2d7cd011db47",
    "AZURE_FEDERATED_TOKEN_FILE": "/var/run/secrets/azure/tokens/azure-identity-token",
    "AZURE_AUTHORITY_HOST": "https://login.microsoftonline.com/",
}

# https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html, Examples
ASSUMED = b"""<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
  <AssumeRoleWithWebIdentityResult>
    <SubjectFromWebIdentityToken>amzn1.account.AF6RHO7KZU5XRVQJGXK6HB56KR2A</SubjectFromWebIdentityToken>
    <Audience>client.5498841531868486423.1548@apps.example.com</Audience>
    <AssumedRoleUser>
      <Arn>arn:aws:sts::123456789012:assumed-role/FederatedWebIdentityRole/app1</Arn>
      <AssumedRoleId>AROACLKWSDQRAOEXAMPLE:app1</AssumedRoleId>
    </AssumedRoleUser>
    <Credentials>
      <SessionToken>AQoDYXdzEE0a8ANXXXXXXXXNO1ewxE5TijQyp+IEXAMPLE</SessionToken>
      <SecretAccessKey>wJalrXUtnFEMI/K7MDENG/bPxRfiCYzEXAMPLEKEY</SecretAccessKey>
      <Expiration>2014-10-24T23:00:23Z</Expiration>
      <AccessKeyId>ASgeIAIOSFODNN7EXAMPLE</AccessKeyId>
    </Credentials>
    <SourceIdentity>SourceIdentityValue</SourceIdentity>
    <Provider>www.amazon.com</Provider>
  </AssumeRoleWithWebIdentityResult>
  <ResponseMetadata>
    <RequestId>ad4156e9-bce1-11e2-82e6-6b6efEXAMPLE</RequestId>
  </ResponseMetadata>
</AssumeRoleWithWebIdentityResponse>"""
KEYS = AwsKeys(
    "ASgeIAIOSFODNN7EXAMPLE",
    "wJalrXUtnFEMI/K7MDENG/bPxRfiCYzEXAMPLEKEY",
    "AQoDYXdzEE0a8ANXXXXXXXXNO1ewxE5TijQyp+IEXAMPLE",
    1_414_191_623.0,
)


class Walk:
    """Goes through an exchange: files are answered by `files`, requests by `answers` in their order."""

    def __init__(self, files: Mapping[str, str], *answers: Reply | dict[str, Any]) -> None:
        self.files = files
        self.answers = [each if isinstance(each, Reply) else Reply(json.dumps(each).encode()) for each in answers]
        self.asked: list[Ask] = []

    def through(self, identity: Identity, environ: Mapping[str, str], region: str | None = None) -> Grant:
        steps = exchange(identity, region, environ, NOW)
        try:
            step = next(steps)
            while True:
                if isinstance(step, File):
                    step = steps.send(Reply(self.files[step.path].encode()))
                else:
                    self.asked.append(step)
                    step = steps.send(self.answers.pop(0))
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]

    def form(self, number: int = 0) -> dict[str, str]:
        ask = self.asked[number]
        assert ask.method == "POST"
        assert ("content-type", "application/x-www-form-urlencoded") in ask.headers
        return {name: values[0] for name, values in parse_qs(ask.body.decode(), strict_parsing=True).items()}


# -- AWS


def test_aws_gives_keys_for_a_web_identity() -> None:
    walk = Walk({IRSA["AWS_WEB_IDENTITY_TOKEN_FILE"]: f"{TOKEN}\n"}, Reply(ASSUMED))
    assert walk.through(AWS, IRSA, "us-east-1") == KEYS
    assert walk.asked[0].url == "https://sts.eu-central-1.amazonaws.com/"
    assert walk.form() == {
        "Action": "AssumeRoleWithWebIdentity",
        "Version": "2011-06-15",
        "RoleArn": "arn:aws:iam::123456789012:role/spillway",
        "RoleSessionName": "spillway-llm-gateway-7d9f",
        "WebIdentityToken": TOKEN,
    }


def test_an_account_may_name_its_own_role_and_its_region_stands_in_for_the_pods() -> None:
    environ = {name: value for name, value in IRSA.items() if name != "AWS_REGION"}
    walk = Walk({IRSA["AWS_WEB_IDENTITY_TOKEN_FILE"]: TOKEN}, Reply(ASSUMED))
    own = Identity("team", aws=AwsIdentity("arn:aws-cn:iam::210987654321:role/team"))
    walk.through(own, environ, "cn-north-1")
    assert walk.asked[0].url == "https://sts.cn-north-1.amazonaws.com.cn/"
    assert walk.form()["RoleArn"] == "arn:aws-cn:iam::210987654321:role/team"


def test_eks_pod_identity_is_asked_with_the_token_of_its_file() -> None:
    # https://docs.aws.amazon.com/eks/latest/userguide/pod-id-how-it-works.html
    answer = {
        "AccessKeyId": "ASIAEXAMPLE",
        "SecretAccessKey": "hidden/EXAMPLE",
        "Token": "session+EXAMPLE=",
        "AccountId": "123456789012",
        "Expiration": "2023-11-14T22:28:20Z",
    }
    walk = Walk({POD["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"]: TOKEN}, answer)
    assert walk.through(AWS, POD) == AwsKeys("ASIAEXAMPLE", "hidden/EXAMPLE", "session+EXAMPLE=", 1_700_000_900.0)
    assert (walk.asked[0].method, walk.asked[0].url) == ("GET", "http://169.254.170.23/v1/credentials")
    assert ("authorization", TOKEN) in walk.asked[0].headers


@pytest.mark.parametrize("host", ["127.0.0.1:80", "localhost", "[::1]:8080", "169.254.170.2", "[fd00:ec2::23]"])
def test_plain_http_is_spoken_with_the_hosts_that_aws_sdks_allow(host: str) -> None:
    walk = Walk({}, {})
    with pytest.raises(Denied, match="missing"):
        walk.through(AWS, {"AWS_CONTAINER_CREDENTIALS_FULL_URI": f"http://{host}/x"})
    assert len(walk.asked) == 1


@pytest.mark.parametrize("host", ["169.254.169.254", "example.com", "169.254.170.23.example.com", "10.0.0.1"])
def test_and_with_no_other(host: str) -> None:
    with pytest.raises(Denied, match="must be https"):
        Walk({}).through(AWS, {"AWS_CONTAINER_CREDENTIALS_FULL_URI": f"http://{host}/x"})


def test_ecs_gives_a_path_alone() -> None:
    walk = Walk({}, {})
    with pytest.raises(Denied):
        walk.through(AWS, {"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/v2/credentials/1"})
    assert walk.asked[0].url == "http://169.254.170.2/v2/credentials/1"


# -- Google Cloud

METADATA = {"access_token": "ya29.metadata", "expires_in": 3599, "token_type": "Bearer"}
FLAVOR = {"metadata-flavor": "Google"}
# As gcloud iam workload-identity-pools create-cred-config writes it; https://google.aip.dev/auth/4117
CONFIG = {
    "type": "external_account",
    "audience": "//iam.googleapis.com/projects/123/locations/global/workloadIdentityPools/p/providers/k8s",
    "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
    "token_url": "https://sts.googleapis.com/v1/token",
    "credential_source": {"file": "/var/run/gcp/token", "format": {"type": "text"}},
}
EXCHANGED = {
    "access_token": "ya29.federated",
    "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
    "token_type": "Bearer",
    "expires_in": 3600,
}
# https://cloud.google.com/iam/docs/create-short-lived-credentials-direct
ACTING = {"accessToken": "ya29.acting", "expireTime": "2023-11-14T23:13:20Z"}
BOT = "llm@ml-1.iam.gserviceaccount.com"
ACT = f"https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/{BOT}:generateAccessToken"
WIF = {"GOOGLE_APPLICATION_CREDENTIALS": "/etc/gcp/config.json"}


def test_the_metadata_server_gives_the_pods_own_token() -> None:
    walk = Walk({}, Reply(json.dumps(METADATA).encode(), 200, FLAVOR))
    assert walk.through(GCP, {}) == Bearer("ya29.metadata", NOW + 3599)
    ask = walk.asked[0]
    assert ask.url == (
        "http://metadata.google.internal/computeMetadata/v1/instance/service-accounts/default/token"
        "?scopes=https%3A%2F%2Fwww.googleapis.com%2Fauth%2Fcloud-platform"
    )
    assert (ask.method, ask.headers) == ("GET", (("metadata-flavor", "Google"),))


def test_somebody_else_in_its_place_is_not_believed() -> None:
    with pytest.raises(Denied, match="in the place of the metadata server"):
        Walk({}, METADATA).through(GCP, {})


def test_a_service_account_is_acted_as() -> None:
    walk = Walk({}, Reply(json.dumps(METADATA).encode(), 200, FLAVOR), ACTING)
    assert walk.through(Identity("team", gcp=GcpIdentity(BOT)), {}) == Bearer("ya29.acting", 1_700_003_600.0)
    ask = walk.asked[1]
    assert ask.url == ACT
    assert ("authorization", "Bearer ya29.metadata") in ask.headers
    assert json.loads(ask.body) == {"scope": ["https://www.googleapis.com/auth/cloud-platform"], "lifetime": "3600s"}


def test_a_token_of_kubernetes_is_exchanged_for_one_of_google() -> None:
    walk = Walk({"/etc/gcp/config.json": json.dumps(CONFIG), "/var/run/gcp/token": TOKEN}, EXCHANGED)
    assert walk.through(GCP, WIF) == Bearer("ya29.federated", NOW + 3600)
    assert walk.asked[0].url == "https://sts.googleapis.com/v1/token"
    assert walk.form() == {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "requested_token_type": "urn:ietf:params:oauth:token-type:access_token",
        "audience": CONFIG["audience"],
        "scope": "https://www.googleapis.com/auth/cloud-platform",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "subject_token": TOKEN,
    }


def test_the_configuration_may_name_a_service_account_and_a_field_of_json() -> None:
    source = {"file": "/var/run/gcp/token", "format": {"type": "json", "subject_token_field_name": "id"}}
    config = CONFIG | {"service_account_impersonation_url": ACT, "credential_source": source}
    files = {"/etc/gcp/config.json": json.dumps(config), "/var/run/gcp/token": json.dumps({"id": TOKEN})}
    walk = Walk(files, EXCHANGED, ACTING)
    assert walk.through(GCP, WIF) == Bearer("ya29.acting", 1_700_003_600.0)
    assert walk.form()["subject_token"] == TOKEN
    assert walk.asked[1].url == ACT


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"type": "service_account", "private_key": "marker"}, "not of the type external_account"),
        ({"token_url": "https://sts.example.com/v1/token"}, "does not lead to googleapis.com"),
        ({"token_url": "https://evilgoogleapis.com/v1/token"}, "does not lead to googleapis.com"),
        ({"token_url": "http://sts.googleapis.com/v1/token"}, "must be https"),
        ({"token_url": None}, "is no URL"),
        ({"credential_source": {"url": "https://marker"}}, "is no file"),
        ({"credential_source": {"executable": {"command": "rm"}}}, "is no file"),
        ({"service_account_impersonation_url": "https://example.com/x"}, "does not lead to googleapis.com"),
    ],
)
def test_a_configuration_that_would_give_tokens_away_is_refused(change: dict[str, Any], why: str) -> None:
    walk = Walk({"/etc/gcp/config.json": json.dumps(CONFIG | change), "/var/run/gcp/token": TOKEN}, EXCHANGED)
    with pytest.raises(Denied, match=why) as denied:
        walk.through(GCP, WIF)
    assert "marker" not in str(denied.value)


# -- Azure


def test_azure_gives_a_token_for_a_federated_one() -> None:
    # https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow
    answer = {"token_type": "Bearer", "expires_in": 3599, "access_token": "eyJ0eXAiOiJKV1Qi.entra"}
    walk = Walk({ENTRA["AZURE_FEDERATED_TOKEN_FILE"]: TOKEN}, answer)
    assert walk.through(AZURE, ENTRA) == Bearer("eyJ0eXAiOiJKV1Qi.entra", NOW + 3599)
    assert walk.asked[0].url == (
        "https://login.microsoftonline.com/72f988bf-86f1-41af-91ab-2d7cd011db47/oauth2/v2.0/token"
    )
    assert walk.form() == {
        "client_id": "6731de76-14a6-49ae-97bc-6eba6914391e",
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        "client_assertion": TOKEN,
        "grant_type": "client_credentials",
        "scope": "https://cognitiveservices.azure.com/.default",
    }


@pytest.mark.parametrize(
    ("authority", "scope"),
    [
        ("https://login.microsoftonline.us", "https://cognitiveservices.azure.us/.default"),
        ("https://login.partner.microsoftonline.cn/", "https://cognitiveservices.azure.cn/.default"),
    ],
)
def test_sovereign_clouds_have_their_own_authority_and_audience(authority: str, scope: str) -> None:
    walk = Walk({ENTRA["AZURE_FEDERATED_TOKEN_FILE"]: TOKEN}, {"access_token": "t", "expires_in": "3599"})
    own = Identity("team", azure=AzureIdentity("11111111-1111-1111-1111-111111111111", ENTRA["AZURE_TENANT_ID"]))
    walk.through(own, ENTRA | {"AZURE_AUTHORITY_HOST": authority})
    assert walk.asked[0].url.startswith(authority.rstrip("/") + "/11111111-1111-1111-1111-111111111111/")
    assert (walk.form()["scope"], walk.form()["client_id"]) == (scope, ENTRA["AZURE_TENANT_ID"])


# -- what goes wrong

EVERY = [(AWS, IRSA), (AWS, POD), (GCP, {}), (GCP, WIF), (AZURE, ENTRA)]
FILES = {path: TOKEN for environ in (IRSA, POD, ENTRA) for path in environ.values()} | {
    "/etc/gcp/config.json": json.dumps(CONFIG),
    "/var/run/gcp/token": TOKEN,
}


@pytest.mark.parametrize(
    ("identity", "environ", "answer", "why"),
    [
        (
            AWS,
            IRSA,
            # https://docs.aws.amazon.com/STS/latest/APIReference/CommonErrors.html
            b'<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type>'
            b"<Code>ExpiredTokenException</Code><Message>Token expired: marker</Message></Error></ErrorResponse>",
            "AWS STS answers 400 ExpiredTokenException",
        ),
        (AWS, POD, b"no association: marker", "the container's credentials endpoint answers 400"),
        (
            GCP,
            WIF,
            b'{"error":"invalid_grant","error_description":"The audience in ID Token [marker] does not match"}',
            "Google's token service answers 400 invalid_grant",
        ),
        (
            AZURE,
            ENTRA,
            b'{"error":"invalid_client","error_description":"AADSTS700213: No matching federated identity record '
            b'found for presented assertion subject marker","error_codes":[700213]}',
            "Microsoft Entra answers 400 invalid_client AADSTS700213",
        ),
    ],
)
def test_a_refusal_is_told_by_its_code_and_not_by_its_text(identity, environ, answer, why) -> None:
    with pytest.raises(Denied) as denied:
        Walk(FILES, Reply(answer, 400)).through(identity, environ)
    assert str(denied.value) == why


@pytest.mark.parametrize(
    ("identity", "environ", "why"),
    [
        (AWS, {}, "neither AWS_WEB_IDENTITY_TOKEN_FILE"),
        (AWS, {"AWS_WEB_IDENTITY_TOKEN_FILE": "/t"}, "whose role"),
        (AWS, {"AWS_WEB_IDENTITY_TOKEN_FILE": "/t", "AWS_ROLE_ARN": "r"}, "no region"),
        (AWS, {"AWS_WEB_IDENTITY_TOKEN_FILE": "/t", "AWS_ROLE_ARN": "r", "AWS_REGION": "x.evil/"}, "no region"),
        (AWS, IRSA | {"AWS_ENDPOINT_URL_STS": "http://sts.internal"}, "must be https"),
        (Identity("t", aws=AwsIdentity("arn:aws:iam::123456789012:role/x")), POD, "needs a web identity"),
        (GCP, {"GCE_METADATA_HOST": "example.com"}, "must be https"),
        (AZURE, {}, "AZURE_FEDERATED_TOKEN_FILE is not set"),
        (AZURE, ENTRA | {"AZURE_AUTHORITY_HOST": "http://login.example"}, "must be https"),
        (Identity("t"), {}, "does not know"),
    ],
)
def test_what_is_missing_in_the_environment_is_named(identity: Identity, environ: dict[str, str], why: str) -> None:
    with pytest.raises(Denied, match=why):
        Walk(FILES).through(identity, environ)


@given(
    st.sampled_from(EVERY),
    st.integers(100, 599),
    st.binary()
    | st.dictionaries(
        st.sampled_from(["access_token", "expires_in", "error", "AccessKeyId", "Expiration", "error_description"]),
        st.recursive(st.none() | st.booleans() | st.floats() | st.text(), lambda each: st.lists(each), max_leaves=4),
    ).map(lambda value: json.dumps(value).encode()),
)
def test_whatever_comes_back_is_a_grant_or_a_denial_without_secrets(which, status: int, body: bytes) -> None:
    identity, environ = which
    walk = Walk(FILES, *[Reply(body, status, FLAVOR)] * 2)
    said = ""
    try:
        walk.through(identity, environ)
    except Denied as denied:
        said = str(denied)
    assert TOKEN not in said
    assert said.isprintable()


def test_what_is_exchanged_does_not_show_itself() -> None:
    walk = Walk({IRSA["AWS_WEB_IDENTITY_TOKEN_FILE"]: TOKEN}, Reply(ASSUMED))
    grant = walk.through(AWS, IRSA)
    shown = f"{walk.asked!r} {grant!r} {Reply(TOKEN.encode())!r} {Bearer(TOKEN, 1.0)!r}"
    for secret in (TOKEN, KEYS.secret_access_key, KEYS.session_token):
        assert secret not in shown


# -- to whom


@pytest.mark.parametrize(
    ("cloud", "url", "may"),
    [
        ("azure", "https://team.openai.azure.com", True),
        ("azure", "https://team.cognitiveservices.azure.us/openai", True),
        ("azure", "https://team.services.ai.azure.com", True),
        ("azure", "http://team.openai.azure.com", False),
        ("azure", "https://team.azure-api.net", False),
        ("azure", "https://openai.azure.com.example.com", False),
        ("azure", "https://evil-openai.azure.com", False),
        ("gcp", "https://us-central1-aiplatform.googleapis.com/v1", True),
        ("gcp", "https://evil.com/-aiplatform.googleapis.com", False),
        ("aws", "https://bedrock-runtime.us-east-1.amazonaws.com", True),
        ("aws", "https://bedrock-runtime.cn-north-1.amazonaws.com.cn", True),
        ("aws", "https://amazonaws.com.evil.com", False),
        ("azure", "https://llm.corp", True),
        ("azure", "http://llm.corp:8080", True),
    ],
)
def test_a_token_of_the_gateways_goes_to_the_cloud_or_to_whom_the_gateways_owner_names(cloud, url, may) -> None:
    assert may_see(cloud, url, {"llm.corp"}) is may
    assert may_see(cloud, url, {"llm.corp"}, own_tls=True) is ("llm.corp" in url)
