"""How one operator process runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from spillway_api.prices import Prices

from .injection import Sidecar
from .routes import Routes

TOKEN_FILE = Path("/var/run/spillway/token/token")
"""A token of the own ServiceAccount for the config stream, by which replicas know each other."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the command line says."""

    namespace: str
    """Its own: here are the gateways, the Lease and what the operator writes."""
    name: str
    """Of its Pod."""
    address: str
    """Where the other replicas reach it."""
    fullname: str = "spillway"
    """Beginning of the names of what belongs to one installation."""
    watched: tuple[str, ...] = ()
    """Namespaces with ModelPools and RoutePolicies; none means all of them."""
    pod_selector: str | None = None
    """Only Pods with these labels can be endpoints, which spares big clusters the rest."""
    consumers: bool = False
    """Secrets may be listed, and consumers be found by their labels."""
    prices: Prices = field(default_factory=Prices)
    """What providers charge for the models that pools do not price."""
    sidecar_routes: Routes = "None"
    """Which open routes of a gateway sidecars may have."""
    host: str = "0.0.0.0"  # noqa: S104 - it serves other Pods
    port: int = 9443
    admin_port: int = 8081
    given_tls: bool = False
    """The serving certificate comes from elsewhere, such as cert-manager."""
    tls_names: tuple[str, ...] = ()
    """By which it is called besides, such as that of a load balancer; they go into its certificate."""
    token_file: Path = TOKEN_FILE
    sidecars: Sidecar | None = None
    """What Pods get that ask for one; None where there are no sidecars."""
    webhook_port: int = 9444
    refresh: float = 60.0
    """Seconds. Children and statuses are looked at anew without a reason, so that what somebody else changed heals."""
    silence: float = 70.0
    """Seconds. A quiet watch gets a bookmark every minute; one that gets not even that is dead and is opened anew."""

    @property
    def namespaces(self) -> tuple[str, ...]:
        """Namespaces to watch, the own one among them: of its Pod there is always news. None means all."""
        return tuple(sorted({*self.watched, self.namespace})) if self.watched else ()

    @property
    def stream_address(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{host}:{self.port}"

    @property
    def deployment(self) -> str:
        return f"{self.fullname}-operator"

    @property
    def service_account(self) -> str:
        return f"{self.fullname}-operator"

    @property
    def lease(self) -> str:
        return f"{self.fullname}-operator"

    @property
    def tls_secret(self) -> str:
        return f"{self.fullname}-operator-tls"

    @property
    def ca_config_map(self) -> str:
        return f"{self.fullname}-operator-ca"

    @property
    def webhook(self) -> str:
        """The MutatingWebhookConfiguration."""
        return f"{self.namespace}-{self.fullname}-sidecars"

    @property
    def budgets_config_map(self) -> str:
        return f"{self.fullname}-operator-budgets"

    @property
    def names(self) -> tuple[str, ...]:
        """By which the Service is called."""
        service = f"{self.fullname}-operator"
        ways = ("", f".{self.namespace}", f".{self.namespace}.svc", f".{self.namespace}.svc.cluster.local")
        return (*(service + way for way in ways), *self.tls_names)
