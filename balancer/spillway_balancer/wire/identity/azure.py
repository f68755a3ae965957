"""Microsoft Entra: a token of Kubernetes for one of Azure (federated credential of a managed identity or application).

POST {authority}/{tenant}/oauth2/v2.0/token with a client assertion:
https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow, third case. The variables are
those that the webhook of Azure Workload Identity sets: https://azure.github.io/azure-workload-identity/docs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import quote, urlsplit

from spillway_api.types import AzureIdentity

from ...core.grants import Bearer
from .steps import Denied, Exchange, post, said, token_in, until, url_of, visible

WHO: Final = "Microsoft Entra"
PUBLIC: Final = "https://login.microsoftonline.com/"

_SCOPES: Final = {
    "login.microsoftonline.us": "https://cognitiveservices.azure.us/.default",
    "login.chinacloudapi.cn": "https://cognitiveservices.azure.cn/.default",
    "login.partner.microsoftonline.cn": "https://cognitiveservices.azure.cn/.default",
}
"""Of sovereign clouds, by their authority: the audience of Azure AI services there."""

SCOPE: Final = "https://cognitiveservices.azure.com/.default"


def exchange(identity: AzureIdentity, environ: Mapping[str, str], now: float) -> Exchange:
    tenant = identity.tenant_id or environ.get("AZURE_TENANT_ID", "")
    client = identity.client_id or environ.get("AZURE_CLIENT_ID", "")
    file = environ.get("AZURE_FEDERATED_TOKEN_FILE", "")
    for value, name in ((file, "AZURE_FEDERATED_TOKEN_FILE"), (tenant, "AZURE_TENANT_ID"), (client, "AZURE_CLIENT_ID")):
        if not value:
            raise Denied(f"{name} is not set: the pod has no federated token of Azure Workload Identity")
    authority = url_of(environ.get("AZURE_AUTHORITY_HOST") or PUBLIC, "AZURE_AUTHORITY_HOST")
    assertion = yield from token_in(file)
    reply = yield post(
        f"{authority.rstrip('/')}/{quote(tenant, safe='')}/oauth2/v2.0/token",
        {
            "client_id": client,
            "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            "client_assertion": assertion,
            "grant_type": "client_credentials",
            "scope": _SCOPES.get(urlsplit(authority).hostname or "", SCOPE),
        },
    )
    token = said(reply, WHO)
    return Bearer(visible(token.get("access_token"), f"the token of {WHO}"), until(token.get("expires_in"), now, WHO))
