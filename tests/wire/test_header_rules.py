"""Headers: nothing of one connection survives into the other; what servers could read differently is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_balancer.core.errors import MethodNotAllowed, ProtocolError, UnsupportedEncoding, VersionNotSupported
from spillway_balancer.wire.headers import (
    HOP_BY_HOP,
    check_request,
    forwarded_headers,
    request_headers,
    response_headers,
)

Pairs = list[tuple[bytes, bytes]]


def pairs(*lines: str) -> Pairs:
    return [(name.encode(), value.strip().encode()) for name, _, value in (line.partition(":") for line in lines)]


def names(headers: Pairs) -> list[str]:
    return [name.decode() for name, _ in headers]


# -- requests going on


def test_what_a_client_sends_goes_on_in_order_and_lower_case() -> None:
    headers = pairs(
        "Host: a", "Content-Type: application/json", "User-Agent: sdk", "Accept: */*", "X-Trace: 1", "X-Trace: 2"
    )
    assert request_headers(headers) == [
        (b"accept-encoding", b"identity"),
        (b"content-type", b"application/json"),
        (b"user-agent", b"sdk"),
        (b"accept", b"*/*"),
        (b"x-trace", b"1"),
        (b"x-trace", b"2"),
    ]


@pytest.mark.parametrize(
    "name",
    [
        *(name.decode() for name in sorted(HOP_BY_HOP)),
        "authorization",
        "x-api-key",
        "api-key",
        "x-goog-api-key",
        "cookie",
        "openai-organization",
        "x-spillway-rule",
        "X-Spillway-Anything",
        "host",
        "content-length",
        "expect",
        "accept-encoding",
        "forwarded",
        "via",
        "x-real-ip",
        "x-forwarded-for",
        "X-Forwarded-Anything",
    ],
)
def test_what_does_not_go_to_an_endpoint(name: str) -> None:
    for spelled in (name, name.upper(), name.title()):
        assert request_headers(pairs(f"{spelled}: value")) == [(b"accept-encoding", b"identity")]


def test_answers_are_asked_for_as_they_are_whatever_the_client_takes() -> None:
    assert request_headers(pairs("Accept-Encoding: gzip, br", "Connection: accept-encoding")) == [
        (b"accept-encoding", b"identity")
    ]


def test_a_nominated_header_stays_behind() -> None:
    headers = pairs("X-A: 1", "Connection: close, x-a ,X-B,", "X-B: 2", "connection: x-c", "X-C: 3", "X-D: 4")
    assert names(request_headers(headers)) == ["accept-encoding", "x-d"]
    assert names(response_headers(headers)) == ["x-d"]


def test_a_peer_cannot_nominate_what_gives_a_message_its_meaning() -> None:
    headers = pairs("Connection: content-type, content-length, host, authorization", "Content-Type: application/json")
    assert names(request_headers(headers)) == ["accept-encoding", "content-type"]
    assert names(response_headers(headers)) == ["content-type"]


@pytest.mark.parametrize("value", [b"a\r\nX-Evil: 1", b"a\nb", b"a\rb", b"a\0b"])
def test_a_value_that_would_end_its_line_is_dropped(value: bytes) -> None:
    assert request_headers([(b"x-a", value)]) == [(b"accept-encoding", b"identity")]
    assert response_headers([(b"x-a", value)]) == []


# -- answers going back


def test_what_an_endpoint_answers_goes_back() -> None:
    headers = pairs(
        "Content-Type: text/event-stream",
        "X-Request-Id: 7",
        "x-ratelimit-remaining-requests: 9",
        "Cache-Control: no-cache",
    )
    assert response_headers(headers) == [(name.lower(), value) for name, value in headers]


@pytest.mark.parametrize(
    "name",
    [
        *(name.decode() for name in sorted(HOP_BY_HOP)),
        "set-cookie",
        "content-length",
        "date",
        "alt-svc",
        "strict-transport-security",
        "openai-organization",
        "x-spillway-endpoint",
    ],
)
def test_what_does_not_go_back(name: str) -> None:
    for spelled in (name, name.upper(), name.title()):
        assert response_headers(pairs(f"{spelled}: value")) == []


NAMES = st.sampled_from(
    [
        *sorted(HOP_BY_HOP),
        b"x-a",
        b"x-b",
        b"content-type",
        b"authorization",
        b"x-spillway-x",
        b"cookie",
        b"set-cookie",
        b"accept",
    ]
).flatmap(lambda name: st.sampled_from([name, name.upper(), name.title()]))
HEADERS = st.lists(
    st.tuples(NAMES, st.sampled_from([b"", b"v", b"chunked"]))
    | st.tuples(st.sampled_from([b"Connection", b"connection"]), st.lists(NAMES, max_size=3).map(b" ,".join)),
    max_size=8,
)


@given(HEADERS)
def test_nothing_of_the_connection_survives(headers: Pairs) -> None:
    nominated = {
        token.strip().lower() for name, value in headers if name.lower() == b"connection" for token in value.split(b",")
    }
    protected = {b"content-type", b"authorization", b"accept-encoding"}
    for kept in (request_headers(headers), response_headers(headers)):
        for name, _ in kept:
            assert name == name.lower()
            assert name not in HOP_BY_HOP
            assert name not in nominated - protected
            assert not name.startswith(b"x-spillway-")
        for name in (b"content-type", b"x-a"):
            if name not in nominated or name in protected:
                assert [v for n, v in kept if n == name] == [v for n, v in headers if n.lower() == name]


@given(HEADERS)
def test_a_clients_credentials_never_go_on_and_an_endpoints_cookies_never_come_back(headers: Pairs) -> None:
    assert not {b"authorization", b"cookie"} & {name for name, _ in request_headers(headers)}
    assert b"set-cookie" not in {name for name, _ in response_headers(headers)}


@given(HEADERS)
def test_passing_twice_changes_nothing_more(headers: Pairs) -> None:
    assert request_headers(request_headers(headers)) == request_headers(headers)
    assert response_headers(response_headers(headers)) == response_headers(headers)


# -- requests to our own gateway, and its answers


@given(HEADERS)
def test_to_the_gateway_goes_all_but_the_framing(headers: Pairs) -> None:
    headers = [*headers, (b"X-Spillway-Forwarded", b"forged"), (b"x-spillway-pod", b"forged"), (b"Host", b"a")]
    kept = forwarded_headers(headers)
    as_ever = [pair for pair in kept if pair[0] not in (b"authorization", b"cookie", b"x-spillway-x")]
    assert as_ever == request_headers(headers)
    nominated = {
        token.strip().lower() for name, value in headers if name.lower() == b"connection" for token in value.split(b",")
    }
    for name in {b"authorization", b"cookie", b"x-spillway-x"} - (nominated - {b"authorization"}):
        assert [v for n, v in kept if n == name] == [v for n, v in headers if n.lower() == name]


@given(HEADERS)
def test_what_our_own_gateway_says_to_clients_is_theirs(headers: Pairs) -> None:
    passed = response_headers(headers, ours=True)
    assert [pair for pair in passed if pair[0] != b"x-spillway-x"] == response_headers(headers)
    if not any(name.lower() == b"connection" for name, _ in headers):
        assert [v for n, v in passed if n == b"x-spillway-x"] == [v for n, v in headers if n.lower() == b"x-spillway-x"]


# -- requests that are refused

HOST = "Host: gateway"


@pytest.mark.parametrize(
    "lines",
    [
        (HOST,),
        (HOST, "Content-Length: 5"),
        (HOST, "Content-Length: 0"),
        (HOST, "Transfer-Encoding: chunked"),
        (HOST, "transfer-encoding: CHUNKED "),
        (HOST, "Content-Encoding: identity"),
        (HOST, "Content-Encoding:"),
        (HOST, "X-A: 1", "X-A: 2"),
    ],
)
def test_plain_requests_pass(lines: tuple[str, ...]) -> None:
    check_request("POST", (1, 1), pairs(*lines))


@pytest.mark.parametrize(
    "lines",
    [
        (),
        (HOST, HOST),
        (HOST, "host: other"),
        (HOST, "Content-Length: 5", "Transfer-Encoding: chunked"),
        (HOST, "Content-Length: 5", "Content-Length: 5"),
        (HOST, "Content-Length: 5, 5"),
        (HOST, "Content-Length: +5"),
        (HOST, "Content-Length: 0x5"),
        (HOST, "Content-Length:"),
        (HOST, "Content-Length: -1"),
        (HOST, "Transfer-Encoding: gzip, chunked"),
        (HOST, "Transfer-Encoding: gzip"),
        (HOST, "Transfer-Encoding: identity"),
        (HOST, "Transfer-Encoding: chunked, chunked"),
        (HOST, "Transfer-Encoding: xchunked"),
        (HOST, "Transfer-Encoding:"),
        (HOST, "Transfer-Encoding: \x0bchunked"),
        (HOST, "Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
        (HOST, "Content-Type: application/json", "Content-Type: text/plain"),
        (HOST, "Content-Encoding: identity", "Content-Encoding: gzip"),
    ],
)
def test_requests_that_two_servers_could_read_differently_are_refused(lines: tuple[str, ...]) -> None:
    headers = [
        (name.encode(), value.removeprefix(" ").encode()) for name, _, value in (line.partition(":") for line in lines)
    ]
    with pytest.raises(ProtocolError):
        check_request("POST", (1, 1), headers)


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate", "zstd", "identity, gzip", "x-unknown"])
def test_compressed_bodies_are_refused(encoding: str) -> None:
    with pytest.raises(UnsupportedEncoding):
        check_request("POST", (1, 1), pairs(HOST, f"Content-Encoding: {encoding}"))


@pytest.mark.parametrize("version", [(0, 9), (1, 2), (2, 0), (3, 0), (9, 9)])
def test_other_versions_are_refused(version: tuple[int, int]) -> None:
    with pytest.raises(VersionNotSupported):
        check_request("GET", version, pairs(HOST))


@pytest.mark.parametrize("method", ["TRACE", "CONNECT"])
def test_methods_that_no_api_needs_are_refused(method: str) -> None:
    with pytest.raises(MethodNotAllowed):
        check_request(method, (1, 1), pairs(HOST))


def test_http_1_0_needs_no_host_and_has_no_chunks() -> None:
    check_request("GET", (1, 0), [])
    with pytest.raises(ProtocolError):
        check_request("POST", (1, 0), pairs("Transfer-Encoding: chunked"))
    with pytest.raises(ProtocolError):
        check_request("GET", (1, 0), pairs(HOST, HOST))
