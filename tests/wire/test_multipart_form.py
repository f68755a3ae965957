"""Forms: the model is found and replaced, forbidden fields go, every other byte stays; what is ambiguous is refused."""

from __future__ import annotations

from email.parser import BytesParser
from email.policy import HTTP

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from spillway_balancer.core.errors import AmbiguousKey, BadRequest, InvalidMultipart, MissingModel
from spillway_balancer.wire import openai
from spillway_balancer.wire.paths import PATHS
from spillway_balancer.wire.peeked import Peeked

PATH = PATHS["/v1/audio/transcriptions"]


def field(name: str, value: bytes | str, *headers: str) -> bytes:
    content = value.encode() if isinstance(value, str) else value
    head = "".join(f"{line}\r\n" for line in (f'Content-Disposition: form-data; name="{name}"', *headers))
    return head.encode() + b"\r\n" + content


def file(name: str, content: bytes, filename: str = "a.wav") -> bytes:
    head = f'Content-Disposition: form-data; name="{name}"; filename="{filename}"\r\nContent-Type: audio/wav\r\n'
    return head.encode() + b"\r\n" + content


def form(*parts: bytes, boundary: str = "XyZ") -> bytes:
    opening = b"--" + boundary.encode()
    return b"".join(opening + b"\r\n" + part + b"\r\n" for part in parts) + opening + b"--\r\n"


def peek(body: bytes, boundary: str = "XyZ") -> Peeked:
    return openai.peek(PATH, f"multipart/form-data; boundary={boundary}", body)


def sent(body: bytes, upstream: str = "up") -> bytes:
    return b"".join(peek(body).forward(upstream))


AUDIO = file("file", b"RIFF\x00\xff\r\n--Xy not a boundary\r\n\r\n\r")
MODEL = field("model", "whisper-1")


def test_facts_of_a_form() -> None:
    peeked = peek(form(AUDIO, MODEL, field("prompt", "abcdefgh"), field("stream", "true"), field("user", "u1")))
    assert (peeked.model, peeked.stream, peeked.prompt_tokens, peeked.output_tokens) == ("whisper-1", True, 2, 256)
    assert peeked.body_field("user") == "u1"
    assert peeked.body_field("file") is None
    assert peeked.body_field("absent") is None
    assert peeked.prefix(None) is None


def test_nothing_to_change_gives_the_very_body() -> None:
    body = form(AUDIO, MODEL)
    (piece,) = peek(body).forward("whisper-1")
    assert piece is body


@pytest.mark.parametrize("before", [(), (AUDIO,), (AUDIO, field("language", "de"))])
@pytest.mark.parametrize("after", [(), (AUDIO,), (field("temperature", "0"),)])
def test_only_the_model_changes(before: tuple[bytes, ...], after: tuple[bytes, ...]) -> None:
    assert sent(form(*before, MODEL, *after)) == form(*before, field("model", "up"), *after)


@pytest.mark.parametrize("name", ["api_key", "API_Base", "cache_salt"])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_forbidden_fields_go_with_their_part(name: str, place: int) -> None:
    parts = [MODEL, AUDIO]
    parts.insert(place, field(name, "evil"))
    assert sent(form(*parts)) == form(field("model", "up"), AUDIO)


def test_fields_that_mean_nothing_to_us_may_repeat() -> None:
    repeated = field("timestamp_granularities[]", "word")
    assert sent(form(repeated, MODEL, repeated)) == form(repeated, field("model", "up"), repeated)


@pytest.mark.parametrize("boundary", ["b", "----WebKitFormBoundary7MA4YWxkTrZu0gW", "a'()+_,-./:=?z", "a" * 70])
def test_boundaries_plain_and_quoted(boundary: str) -> None:
    body = form(MODEL, AUDIO, boundary=boundary)
    assert openai.peek(PATH, f'multipart/form-data; boundary="{boundary}"', body).model == "whisper-1"
    if "," not in boundary:
        assert openai.peek(PATH, f"Multipart/Form-Data;boundary={boundary}; charset=utf-8", body).model == "whisper-1"


@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        'multipart/form-data; boundary="a b "',
        'multipart/form-data; boundary="ä"',
        f"multipart/form-data; boundary={'a' * 71}",
    ],
)
def test_a_form_without_a_boundary_is_refused(content_type: str) -> None:
    with pytest.raises(InvalidMultipart):
        openai.peek(PATH, content_type, form(MODEL))


def test_an_empty_line_before_the_first_boundary_is_taken() -> None:
    assert peek(b"\r\n" + form(MODEL)).model == "whisper-1"


@pytest.mark.parametrize(
    "parts",
    [
        (MODEL, MODEL),
        (MODEL, field("Model", "other")),
        (field("MODEL", "whisper-1"),),
        (MODEL, field("n", "1"), field("n", "2")),
        (MODEL, field("Stream", "true")),
        (MODEL, field("\u017ftream", "true")),
        (MODEL, field("prompt", "a"), file("prompt", b"b")),
        (MODEL, field("foo", "1"), field("Foo", "2")),
        (MODEL, field("api_key", "1"), field("API_KEY", "2")),
    ],
)
def test_names_that_two_readers_could_take_for_one_are_refused(parts: tuple[bytes, ...]) -> None:
    with pytest.raises(AmbiguousKey):
        peek(form(*parts))


@pytest.mark.parametrize("parts", [(AUDIO,), (field("model", ""),)])
def test_the_model_must_be_there(parts: tuple[bytes, ...]) -> None:
    with pytest.raises(MissingModel):
        peek(form(*parts))


@pytest.mark.parametrize("value", ["2", "maybe", " true"])
def test_stream_must_be_a_boolean(value: str) -> None:
    with pytest.raises(BadRequest):
        peek(form(MODEL, field("stream", value)))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--XyZ",
        b"--XyZ--\r\n"[:-4],
        b"preamble\r\n" + form(MODEL),
        form(MODEL).removesuffix(b"--XyZ--\r\n"),
        form(MODEL).removesuffix(b"--\r\n"),
        form(MODEL) + b"epilogue",
        form(MODEL).replace(b"\r\n", b"\n"),
        form(MODEL).replace(b"--XyZ\r\n", b"--XyZ \r\n"),
        form(MODEL).replace(b"--XyZ\r\n", b"--XyZextra\r\n"),
        form(field("a", b"text\n--XyZ\r\nmore"), MODEL),
        b'--XyZ\r\nContent-Disposition: form-data; name="model"\r\n\r\n--XyZ--\r\n',
        form(b"\r\nno headers", MODEL),
        form(b"Content-Type: text/plain\r\n\r\nno name", MODEL),
        form(b'Content-Disposition: attachment; name="a"\r\n\r\nx', MODEL),
        form(b"Content-Disposition: form-data\r\n\r\nx", MODEL),
        form(b'Content-Disposition: form-data; name="a"; name="b"\r\n\r\nx', MODEL),
        form(b"Content-Disposition: form-data; name=\"a\"; name*=utf-8''model\r\n\r\nx", MODEL),
        form(b'Content-Disposition: form-data; name="a"\r\nContent-Disposition: form-data; name="b"\r\n\r\nx', MODEL),
        form(b'Content-Disposition: form-data;\r\n name="a"\r\n\r\nx', MODEL),
        form(b'Content-Disposition : form-data; name="a"\r\n\r\nx', MODEL),
        form(b'Content-Disposition: form-data; name="a\\"b"\r\n\r\nx', MODEL),
        form(b'Content-Disposition: form-data; name="a"; filename="x\\"; name=\\"model"\r\n\r\nx', MODEL),
        form(b'Content-Disposition: form-data; name="mod\\el"\r\n\r\nx', MODEL),
        form(b'Content-Disposition: form-data; name="\xff"\r\n\r\nx', MODEL),
        form(field("model", b"d2hpc3Blcg==", "Content-Transfer-Encoding: base64")),
        form(field("model", "whisper-1".encode("utf-16"), "Content-Type: text/plain; charset=utf-16")),
        form(field("model", b"\xff\xfe")),
        form(file("model", b"whisper-1")),
        form(field("a", "x", "X-Long: " + "y" * 5000), MODEL),
        form(*[field(f"f{number}", "x") for number in range(300)], MODEL),
    ],
)
def test_forms_that_readers_would_not_agree_on_are_refused(body: bytes) -> None:
    with pytest.raises(InvalidMultipart):
        peek(body)


def test_an_unquoted_name_and_a_percent_in_one_are_taken_as_they_are() -> None:
    body = form(b"Content-Disposition: form-data; name=model\r\n\r\nw", field("a%22b", "x"))
    assert peek(body).model == "w"


NAMES = st.text(st.characters(codec="ascii", categories=["Ll", "Nd"]), min_size=1, max_size=8).map(
    lambda name: f"x{name}"
)
CONTENTS = st.binary(max_size=40) | st.sampled_from([b"", b"\r\n", b"--", b"\r\n--", b"\r\n--Xy"])


@given(
    st.lists(st.tuples(NAMES, CONTENTS, st.booleans()), max_size=4), st.integers(0, 4), st.sampled_from(["m", "up/é"])
)
def test_another_reader_of_forms_finds_the_same_fields_and_the_new_model(
    fields: list[tuple[str, bytes, bool]], place: int, upstream: str
) -> None:
    assume(all(b"--XyZ" not in content for _, content, _ in fields))
    parts = [file(name, content) if is_file else field(name, content) for name, content, is_file in fields]
    parts.insert(place, field("model", "m"))
    expected = [*fields]
    expected.insert(place, ("model", upstream.encode(), False))
    result = sent(form(*parts), upstream)
    message = BytesParser(policy=HTTP).parsebytes(b"Content-Type: multipart/form-data; boundary=XyZ\r\n\r\n" + result)
    assert [part.get_param("name", header="content-disposition") for part in message.iter_parts()] == [
        name for name, _, _ in expected
    ]
    assert result == form(
        *(file(name, content) if is_file else field(name, content) for name, content, is_file in expected)
    )


@given(st.binary(max_size=80))
def test_no_bytes_make_it_fail_in_another_way_than_said(noise: bytes) -> None:
    for body in (noise, b"--XyZ\r\n" + noise, form(MODEL, noise), form(MODEL, b"Content-Disposition: " + noise)):
        try:
            peek(body).forward("up")
        except BadRequest:
            continue
