"""Who a gateway is to a cloud, in the place of a Secret: its pods' own identity, which the cloud trusts."""

from __future__ import annotations

from typing import Annotated, ClassVar

from msgspec import Struct

from spillway_api.markup import Cel, doc, pattern

_UUID = r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"


class AwsIdentity(Struct, frozen=True, rename="camel"):
    """Of AWS: a role, by a web identity (IRSA) or by EKS Pod Identity."""

    role_arn: (
        Annotated[
            str,
            doc(
                "Role to take with the gateway's web identity. Without it the one that the pod's environment names "
                "(AWS_ROLE_ARN); with EKS Pod Identity it is the association's, and cannot be set here.",
                max_length=256,
            ),
            pattern(r"^arn:aws[-a-z]*:iam::[0-9]{12}:role/[-A-Za-z0-9_+=,.@/]+$"),
        ]
        | None
    ) = None


class GcpIdentity(Struct, frozen=True, rename="camel"):
    """Of Google Cloud: that of the pod on GKE, or by workload identity federation."""

    service_account: (
        Annotated[
            str,
            doc(
                "Google service account to act as. Without it the identity itself is shown, or the account that "
                "GOOGLE_APPLICATION_CREDENTIALS names.",
                max_length=256,
            ),
            pattern(r"^[-a-z0-9.]+@[-a-z0-9.]+\.gserviceaccount\.com$"),
        ]
        | None
    ) = None


class AzureIdentity(Struct, frozen=True, rename={"tenant_id": "tenantID", "client_id": "clientID"}):
    """Of Azure: a managed identity or an application, by a federated token."""

    tenant_id: (
        Annotated[
            str,
            doc("Tenant of Microsoft Entra. Without it AZURE_TENANT_ID of the pod.", max_length=36),
            pattern(_UUID),
        ]
        | None
    ) = None
    client_id: (
        Annotated[
            str,
            doc("Client of the identity. Without it AZURE_CLIENT_ID of the pod.", max_length=36),
            pattern(_UUID),
        ]
        | None
    ) = None


class Identity(Struct, frozen=True, rename="camel"):
    """The identity of the gateway's own pods at one cloud."""

    aws: Annotated[AwsIdentity, doc("At AWS, for Bedrock. {} is what the environment says.")] | None = None
    gcp: Annotated[GcpIdentity, doc("At Google Cloud, for VertexAI. {} is what the environment says.")] | None = None
    azure: Annotated[AzureIdentity, doc("At Azure, for AzureOpenAI. {} is what the environment says.")] | None = None

    RULES: ClassVar[tuple[Cel, ...]] = (
        Cel(
            "[has(self.aws), has(self.gcp), has(self.azure)].filter(x, x).size() == 1",
            "exactly one of aws, gcp, azure must be set",
        ),
    )
