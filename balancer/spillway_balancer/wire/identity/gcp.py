"""Google Cloud: a token of the metadata server (GKE, Workload Identity), or one of Kubernetes for one of Google's.

- The metadata server: https://cloud.google.com/compute/docs/access/authenticate-workloads.
- Workload identity federation, with a configuration file that `gcloud iam workload-identity-pools create-cred-config`
  writes, whose form is https://google.aip.dev/auth/4117: https://cloud.google.com/iam/docs/reference/sts/rest/v1.
- Impersonation of a service account with either:
  https://cloud.google.com/iam/docs/reference/credentials/rest/v1/projects.serviceAccounts/generateAccessToken.
"""

from __future__ import annotations

import base64
from collections.abc import Generator, Mapping
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from spillway_api.types import GcpIdentity

from ...core.grants import Bearer
from .steps import (
    Ask,
    Denied,
    Exchange,
    File,
    Reply,
    Step,
    Text,
    date,
    is_loopback,
    post,
    said,
    until,
    url_of,
    visible,
)

SCOPE: Final = "https://www.googleapis.com/auth/cloud-platform"
METADATA: Final = "metadata.google.internal"
_PLAIN: Final = frozenset({METADATA, "169.254.169.254"})
_LIFE: Final = "3600s"

Bearing = Generator[Step, Reply, Bearer]

_any = msgspec.json.Decoder().decode


def exchange(identity: GcpIdentity, environ: Mapping[str, str], now: float) -> Exchange:
    file = environ.get("GOOGLE_APPLICATION_CREDENTIALS")
    account = identity.service_account
    if not file:
        bearer = yield from _metadata(environ, now)
        return bearer if account is None else (yield from _impersonated(_acting(account, "googleapis.com"), bearer))
    config = yield from _config(file)
    bearer = yield from _federated(config, now)
    acts = config.get("service_account_impersonation_url")
    if account is not None:
        acts = _acting(account, _domain(config))
    return bearer if not acts else (yield from _impersonated(_google(acts, config, "its impersonation URL"), bearer))


def _acting(account: str, domain: str) -> str:
    return (
        f"https://iamcredentials.{domain}/v1/projects/-/serviceAccounts/{quote(account, safe='@')}:generateAccessToken"
    )


def _domain(config: Mapping[str, Any]) -> str:
    return str(config.get("universe_domain") or "googleapis.com")


def _metadata(environ: Mapping[str, str], now: float) -> Bearing:
    """The token of the pod's own Google service account, or of its Kubernetes one where GKE federates that itself."""
    who = "the metadata server"
    host = environ.get("GCE_METADATA_HOST") or METADATA
    path = "/computeMetadata/v1/instance/service-accounts/default/token"
    url = url_of(f"http://{host}{path}?{urlencode({'scopes': SCOPE})}", "GCE_METADATA_HOST", _PLAIN)
    reply = yield Ask("GET", url, (("metadata-flavor", "Google"),))
    if reply.headers.get("metadata-flavor") != "Google":
        raise Denied("what answers in the place of the metadata server is none")
    token = said(reply, who)
    return Bearer(visible(token.get("access_token"), f"the token of {who}"), until(token.get("expires_in"), now, who))


def _config(file: str) -> Generator[Step, Reply, dict[str, Any]]:
    config = said((yield File(file)), "GOOGLE_APPLICATION_CREDENTIALS")
    if config.get("type") != "external_account":
        # A key of a service account is a password that does not end; it would be no identity but a Secret.
        raise Denied("GOOGLE_APPLICATION_CREDENTIALS is not of the type external_account")
    return config


def _federated(config: Mapping[str, Any], now: float) -> Bearing:
    who = "Google's token service"
    subject = yield from _subject(config.get("credential_source"))
    headers: tuple[tuple[str, str], ...] = ()
    if config.get("client_id") and config.get("client_secret"):
        pair = f"{config['client_id']}:{config['client_secret']}".encode()
        headers = (("authorization", f"Basic {base64.b64encode(pair).decode()}"),)
    reply = yield post(
        _google(config.get("token_url"), config, "its token_url"),
        {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "requested_token_type": "urn:ietf:params:oauth:token-type:access_token",
            "audience": str(config.get("audience")),
            "scope": SCOPE,
            "subject_token_type": str(config.get("subject_token_type")),
            "subject_token": subject,
        },
        *headers,
    )
    token = said(reply, who)
    return Bearer(visible(token.get("access_token"), f"the token of {who}"), until(token.get("expires_in"), now, who))


def _subject(source: object) -> Text:
    """The token to be exchanged. Files alone: other sources are commands and URLs that a file could name."""
    if not isinstance(source, dict) or not isinstance(source.get("file"), str):
        raise Denied("its credential_source is no file")
    path, form = source["file"], source.get("format")
    reply = yield File(path)
    found: object = reply.body.decode("utf-8", "replace").strip()
    if isinstance(form, dict) and form.get("type") == "json":
        try:
            found = _any(reply.body)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            found = None
        name = form.get("subject_token_field_name")
        found = found.get(name) if isinstance(found, dict) else None
    return visible(found, f"the token in {path}")


def _impersonated(url: str, bearer: Bearer) -> Bearing:
    who = "Google's service account"
    headers = (("authorization", f"Bearer {bearer.token}"), ("content-type", "application/json"))
    body = msgspec.json.encode({"scope": [SCOPE], "lifetime": _LIFE})
    token = said((yield Ask("POST", url, headers, body)), who)
    return Bearer(visible(token.get("accessToken"), f"the token of {who}"), date(token.get("expireTime"), who))


def _google(url: object, config: Mapping[str, Any], what: str) -> str:
    """A URL of the configuration, where it leads to Google: a file that came from a stranger must not take tokens."""
    checked = url_of(str(url), what)
    host = urlsplit(checked).hostname or ""
    domain = _domain(config)
    if not (host.endswith(f".{domain}") or is_loopback(host)):
        raise Denied(f"{what} does not lead to {domain}")
    return checked
