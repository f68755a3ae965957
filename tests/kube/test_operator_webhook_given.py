"""A webhook whose certificate is given, as by cert-manager.

In a module of its own: the API server would ask another webhook beside it about the same Pods.
"""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from tests.kube.access import until
from tests.kube.background import Junction
from tests.kube.operating import Installation, of_the_chart
from tests.kube.plane import ControlPlane
from tests.kube.pretend import PretendNode
from tests.kube.test_operator_webhook import YES, addresses, authority, has_sidecar, made, pod

from spillway_operator.certificates import needed, service_names


def test_a_certificate_that_is_given_serves_as_one_of_its_own(
    plane: ControlPlane,
    node: PretendNode,
    helm: str,
    namespace: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """As of cert-manager: the Secret has no key of the authority, and the operator may not write it."""
    values = {"sidecars": {"enabled": True}, "operator": {"tls": {"given": True}}, "watchNamespaces": [namespace]}
    with Junction() as service:
        render = of_the_chart(helm, values, service.port)
        folder = tmp_path_factory.mktemp("given")
        with Installation(plane, folder, render=render, options=("--given-tls", "--refresh", "1")) as installed:
            names = (*service_names("spillway-operator", installed.namespace), "localhost")
            given = needed(None, names, datetime.now(UTC))
            assert given is not None
            data = {name: value for name, value in given.data().items() if name != "ca.key"}
            kind = {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls"}
            plane.apply(
                {**kind, "metadata": {"name": "spillway-operator-tls"}, "data": data}, namespace=installed.namespace
            )
            service.backends = addresses(installed.operator())
            name = f"{installed.namespace}-spillway-sidecars"
            path = f"/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/{name}"
            bundles = {each["clientConfig"]["caBundle"] for each in plane.api.get(path)["webhooks"]}
            assert bundles == {data["ca.crt"]}
            until(lambda: has_sidecar(made(plane, namespace, pod("app", YES, generate=True))), "it is asked", 10.0)
            assert authority(plane, namespace) == given.authority.decode()
