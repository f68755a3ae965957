"""AWS: keys that end, for a token of Kubernetes (IRSA), or from the agent of EKS Pod Identity or of ECS.

- https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html, at the region's endpoint.
- https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html: over plain HTTP only the
  hosts that AWS' own SDKs allow.

The machine's own role (EC2's metadata service) is left alone on purpose: it is the node's, not the gateway's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from spillway_api.types import AwsIdentity

from ...core.grants import AwsKeys
from .steps import Ask, Denied, Exchange, Reply, answers, date, post, said, token_in, url_of, visible

STS: Final = "AWS STS"
AGENT: Final = "the container's credentials endpoint"
AGENT_HOSTS: Final = frozenset({"169.254.170.2", "169.254.170.23", "fd00:ec2::23"})

_region = re.compile(r"[a-z]{2,4}(-[a-z]+)+-\d{1,2}").fullmatch
_word = re.compile(r"[A-Za-z][\w.:-]{0,63}").fullmatch


def exchange(identity: AwsIdentity, region: str | None, environ: Mapping[str, str], now: float) -> Exchange:
    """`region` is the account's; where the environment names one that is nearer, STS is asked there."""
    file = environ.get("AWS_WEB_IDENTITY_TOKEN_FILE")
    if file:
        role = identity.role_arn or environ.get("AWS_ROLE_ARN")
        if not role:
            raise Denied("neither roleArn nor AWS_ROLE_ARN says whose role to take")
        url = _sts(environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or region, environ)
        token = yield from token_in(file)
        form = {
            "Action": "AssumeRoleWithWebIdentity",
            "Version": "2011-06-15",
            "RoleArn": role,
            "RoleSessionName": _session(environ),
            "WebIdentityToken": token,
        }
        return _assumed((yield post(url, form)))
    full, relative = (environ.get(f"AWS_CONTAINER_CREDENTIALS_{each}_URI") for each in ("FULL", "RELATIVE"))
    if not (full or relative):
        raise Denied("neither AWS_WEB_IDENTITY_TOKEN_FILE nor AWS_CONTAINER_CREDENTIALS_FULL_URI is set")
    if identity.role_arn is not None:
        raise Denied("roleArn needs a web identity (IRSA); EKS Pod Identity has the role of its association")
    url = url_of(full or f"http://169.254.170.2{relative}", "AWS_CONTAINER_CREDENTIALS_FULL_URI", AGENT_HOSTS)
    headers: tuple[tuple[str, str], ...] = (("accept", "application/json"),)
    file = environ.get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE")
    shown = (yield from token_in(file)) if file else environ.get("AWS_CONTAINER_AUTHORIZATION_TOKEN")
    if shown:
        headers += (("authorization", visible(shown, "AWS_CONTAINER_AUTHORIZATION_TOKEN")),)
    keys = said((yield Ask("GET", url, headers)), AGENT)
    return _keys(keys.get("AccessKeyId"), keys.get("SecretAccessKey"), keys.get("Token"), keys.get("Expiration"), AGENT)


def _sts(region: str | None, environ: Mapping[str, str]) -> str:
    own = environ.get("AWS_ENDPOINT_URL_STS")
    if own:
        return url_of(own, "AWS_ENDPOINT_URL_STS")
    if not region or not _region(region):
        raise Denied("no region is known to ask AWS STS in: set AWS_REGION")
    return f"https://sts.{region}.amazonaws.com{'.cn' if region.startswith('cn-') else ''}/"


def _session(environ: Mapping[str, str]) -> str:
    """What CloudTrail shows: the pod."""
    name = environ.get("AWS_ROLE_SESSION_NAME") or f"spillway-{environ.get('HOSTNAME', 'gateway')}"
    return re.sub(r"[^\w+=,.@-]", "-", name, flags=re.ASCII)[:64].ljust(2, "-")


def _assumed(reply: Reply) -> AwsKeys:
    """`Credentials` of the answer's XML; of an error's, `Code`. The four elements that are read hold plain words, each
    stands once, and nothing else of XML is wanted: so no parser is let near what a stranger may have sent."""
    text = reply.body.decode("utf-8", "replace")
    if reply.status != 200:
        code = _element(text, "Code")
        raise Denied(answers(STS, reply.status, *([code] if code and _word(code) else [])))
    key, hidden = _element(text, "AccessKeyId"), _element(text, "SecretAccessKey")
    return _keys(key, hidden, _element(text, "SessionToken"), _element(text, "Expiration"), STS)


def _element(text: str, name: str) -> str | None:
    found = re.search(rf"<{name}>([^<>&]*)</{name}>", text)
    return None if found is None else found[1].strip()


def _keys(key: object, hidden: object, session: object, expires: object, who: str) -> AwsKeys:
    what = f"a key of {who}"
    return AwsKeys(visible(key, what), visible(hidden, what), visible(session, what), date(expires, who))
