"""Forms that several fields share: names, durations, URLs, weights, and what is read of the metadata."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from spillway_api.markup import INT32, Cel, checked, pattern

GROUP = "spillway.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

IN_WORDS: dict[str, str] = {
    r"^[a-z]([-a-z0-9]*[a-z0-9])?$": "lower-case letters, digits and -, beginning with a letter",
    r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$": "lower-case letters, digits and -",
    r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$": "lower-case letters, digits, - and .",
    r"^[-._a-zA-Z0-9]+$": "letters, digits, -, _ and .",
    r"^[-A-Za-z0-9_.]+$": "letters, digits, -, _ and .",
    r"^[-A-Za-z0-9]+$": "letters, digits and -",
    "^[A-Z0-9-]+$": "capital letters, digits and -",
    r"^([0-9]{1,5}(h|m|s|ms)){1,4}$": "a duration such as 300ms, 5s or 1m30s",
    r"^[a-zA-Z_:][a-zA-Z0-9_:]*(\{[^{}]*\})?$": 'a metric name, with labels if need be: name{label="value"}',
    r"^[^\s*?]+$": "no spaces, no * and no ?",
    r"^[^\s*?]*\*?$": "no spaces, and a * at the end only",
    "^/": "begins with /",
    r"^[0-9]{1,9}(\.[0-9]{1,9})?$": 'a decimal number as text, such as "0.25"',
    "^[A-Z]{3}$": "three capital letters, such as USD",
    r"^arn:aws[-a-z]*:iam::[0-9]{12}:role/[-A-Za-z0-9_+=,.@/]+$": "a role: arn:aws:iam::123456789012:role/NAME",
    r"^[-a-z0-9.]+@[-a-z0-9.]+\.gserviceaccount\.com$": "a service account: NAME@PROJECT.iam.gserviceaccount.com",
    r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$": "a UUID",
}
"""Every pattern of the API as a person would say it, for hints and for the reference page."""


# A ring is built from names, and a name becomes a metric label: hence DNS labels and short bounds.
LocalName = Annotated[str, Meta(min_length=1, max_length=63), pattern(r"^[a-z]([-a-z0-9]*[a-z0-9])?$")]
ObjectName = Annotated[str, Meta(min_length=1, max_length=63), pattern(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
Duration = Annotated[str, Meta(max_length=16), pattern(r"^([0-9]{1,5}(h|m|s|ms)){1,4}$")]
UrlPath = Annotated[str, Meta(max_length=256), pattern("^/")]
MetricName = Annotated[str, Meta(max_length=256), pattern(r"^[a-zA-Z_:][a-zA-Z0-9_:]*(\{[^{}]*\})?$")]
Weight = Annotated[int, Meta(ge=1, le=1000), INT32]
Url = Annotated[
    str,
    Meta(min_length=8, max_length=2048),
    checked(
        Cel(
            "isURL(self) && url(self).getScheme() in ['http', 'https'] && url(self).getHostname() != ''",
            "must be an absolute http or https URL",
        ),
        Cel(
            "!isURL(self) || (size(url(self).getQuery()) == 0 && !self.contains('@') && !self.contains('#'))",
            "must hold no query, fragment or credentials",
        ),
        Cel(
            "!isURL(self) || !(url(self).getHostname() in ['169.254.169.254', 'fd00:ec2::254', "
            "'metadata.google.internal', 'kubernetes.default.svc'])",
            "must not name a metadata service or the Kubernetes API",
        ),
    ),
]


IntOrName = Annotated[
    int | str,
    Meta(extra_json_schema={"x-kubernetes-int-or-string": True, "maxLength": 15}),
    checked(
        Cel(
            "type(self) == int ? self >= 1 && self <= 65535 : self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
            "must be a number from 1 to 65535 or the name of a port",
        )
    ),
]


class ObjectMeta(Struct, frozen=True, rename="camel"):
    """What Spillway reads of an object's metadata; everything else there belongs to Kubernetes."""

    name: str
    namespace: str = "default"
    creation_timestamp: str | None = None
    generation: int | None = None
    uid: str | None = None
