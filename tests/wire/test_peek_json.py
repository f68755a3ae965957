"""peek and forward of JSON bodies: what is read, what is refused, and that the same bytes go on."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from spillway_balancer.core.errors import (
    AmbiguousKey,
    BadRequest,
    InvalidJSON,
    MissingModel,
    ProtocolError,
    UnsupportedMediaType,
)
from spillway_balancer.wire import openai
from spillway_balancer.wire.names import ACTED_ON, FORBIDDEN, fold
from spillway_balancer.wire.paths import PATHS
from spillway_balancer.wire.peeked import Peeked

CHAT = PATHS["/v1/chat/completions"]


def peek(body: bytes | str, path: str = CHAT.path, content_type: str = "application/json") -> Peeked:
    return openai.peek(PATHS[path], content_type, body.encode() if isinstance(body, str) else body)


def sent(body: bytes | str, upstream: str = "up") -> bytes:
    return b"".join(peek(body).forward(upstream))


# -- what is read


def test_facts_of_a_chat_request() -> None:
    peeked = peek('{"model": "llama", "stream": true, "max_tokens": 99, "messages": [{"role":"user","content":"hi"}]}')
    assert (peeked.model, peeked.stream, peeked.output_tokens) == ("llama", True, 99)
    assert peeked.prompt_tokens == -(-len('[{"role":"user","content":"hi"}]') // 4)


@pytest.mark.parametrize(
    ("fields", "tokens"),
    [
        ("", 256),
        (',"max_tokens":7', 7),
        (',"max_completion_tokens":8', 8),
        (',"max_output_tokens":9', 9),
        (',"max_tokens":7,"max_completion_tokens":8', 8),
        (',"max_tokens":0', 1),
        (',"max_tokens":-5', 1),
        (',"max_tokens":999999999999999999999999', 131072),
        (',"max_tokens":null', 256),
        (',"max_tokens":"7"', 256),
        (',"max_tokens":true', 256),
        (',"max_tokens":7.5', 256),
        (',"max_tokens":1e400', 256),
    ],
)
def test_output_tokens(fields: str, tokens: int) -> None:
    assert peek(f'{{"model":"m"{fields}}}').output_tokens == tokens


@pytest.mark.parametrize(("value", "stream"), [("true", True), ("false", False), ("null", False)])
def test_stream_is_a_boolean_or_null(value: str, stream: bool) -> None:
    assert peek(f'{{"model":"m","stream":{value}}}').stream is stream


@pytest.mark.parametrize("value", ["1", '"true"', "[]", "{}", "0.0"])
def test_any_other_stream_is_refused(value: str) -> None:
    with pytest.raises(BadRequest) as caught:
        peek(f'{{"model":"m","stream":{value}}}')
    assert caught.value.param == "stream"


def test_prompt_tokens_are_at_least_one() -> None:
    assert peek('{"model":"m"}').prompt_tokens == 1


def test_base64_data_is_not_counted_as_text() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 400_000}}
    audio = {"type": "input_audio", "input_audio": {"format": "wav", "data": "B" * 400_000}}
    text = {"type": "text", "text": "what is this " * 100}
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": [image, audio, text]}]})
    assert 325 < peek(body).prompt_tokens < 1500


def test_long_text_counts_in_full_with_and_without_spaces() -> None:
    for words in ("lorem ipsum ", "loremipsum"):
        body = json.dumps({"model": "m", "prompt": words * 10_000})
        assert peek(body, "/v1/completions").prompt_tokens == pytest.approx(len(body) / 4, rel=0.01)


def test_body_fields() -> None:
    peeked = peek(
        '{"model":"m","user":"u1","n":3,"flag":true,"x":1.5,"none":null,"list":[1],"a.b":"exact",'
        '"a":{"b":"nested","c":{"d":42}},"escaped":"\\u00e9"}'
    )
    expected = {
        "user": "u1",
        "n": "3",
        "flag": "true",
        "x": None,
        "none": None,
        "list": None,
        "a": None,
        "a.b": "exact",
        "a.c.d": "42",
        "a.c": None,
        "a.x.d": None,
        "user.x": None,
        "escaped": "é",
        "absent": None,
        "": None,
        ".": None,
    }
    assert {name: peeked.body_field(name) for name in expected} == expected


def test_every_json_path_is_read_alike() -> None:
    for path in PATHS.values():
        assert peek('{"model":"m"}', path.path).path is path


# -- content types


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "application/json",
        "Application/JSON; charset=UTF-8",
        'application/json;charset="utf-8"',
        "application/x+json",
    ],
)
def test_json_content_types(content_type: str) -> None:
    assert peek('{"model":"m"}', content_type=content_type).model == "m"


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=utf-16", "json"]
)
def test_other_content_types_are_refused(content_type: str) -> None:
    with pytest.raises(UnsupportedMediaType):
        peek('{"model":"m"}', content_type=content_type)


def test_a_form_is_refused_where_json_is_taken() -> None:
    with pytest.raises(UnsupportedMediaType):
        peek(b"--b\r\n", content_type="multipart/form-data; boundary=b")


def test_a_content_type_that_says_a_thing_twice_is_refused() -> None:
    with pytest.raises(ProtocolError):
        peek('{"model":"m"}', content_type="application/json; charset=utf-8; charset=utf-16")


# -- what is refused


@pytest.mark.parametrize(
    ("body", "where"),
    [
        (b"", "cut short after 0 bytes"),
        (b"   ", "cut short after 3 bytes"),
        (b'{"model":"secret', "cut short after 16 bytes"),
        (b"[1]", "must be a JSON object"),
        (b'"secret"', "must be a JSON object"),
        (b"null", "must be a JSON object"),
        (b'{"model":"secret"} x', "byte 19"),
        (b'{"model":"secret"}\0', "byte 18"),
        (b'{"model":"secret",}', "byte 18"),
        (b'{"model":secret}', "byte 9"),
        (b"{'model':'secret'}", "byte 1"),
        (b'{"model":NaN}', "byte 9"),
        (b'{"model":"m","a":[{]}', "byte 19"),
        (b'{"model":"m","a":01}', "byte 18"),
        (b'{"model":"m","a":"\\q"}', "byte 19"),
        (b'{"model":"m","a":"\x01"}', "byte 18"),
        (b'{"model":"m","a":"\xff"}', "not UTF-8 (byte 18)"),
        (b'{"model":"m","\xff":1}', "not UTF-8 (byte 14)"),
        (b'{"model":"m","a":"\xed\xa0\x80"}', "not UTF-8 (byte 18)"),
        (b'{"model":"m","a":"\\ud800"}', "surrogate"),
        (b'\xef\xbb\xbf{"model":"m"}', "byte order mark"),
        ('{"model":"m"}'.encode("utf-16"), "byte 0"),
        (b'{"model":"m","a":' + b"[" * 200_000, "nested too deeply"),
        (b'{"model":"m","a":' + b'{"x":' * 200_000, "nested too deeply"),
    ],
)
def test_what_is_no_json_object_is_refused_by_position_and_never_by_content(body: bytes, where: str) -> None:
    with pytest.raises(InvalidJSON) as caught:
        peek(body)
    assert where in caught.value.message
    assert "secret" not in caught.value.message


def test_more_fields_than_any_api_has_are_refused() -> None:
    with pytest.raises(InvalidJSON):
        peek(json.dumps({"model": "m", **{f"k{i}": i for i in range(600)}}))


@pytest.mark.parametrize(
    "body", ["{}", '{"model":null}', '{"model":""}', '{"model":7}', '{"model":["m"]}', '{"model":{}}']
)
def test_model_must_be_there(body: str) -> None:
    with pytest.raises(MissingModel) as caught:
        peek(body)
    assert caught.value.param == "model"


@pytest.mark.parametrize("model", ["m" * 254, "a\\u0000b", "a\\nb", "a\\u007fb", "a\\u200bb"])
def test_model_must_be_short_and_printable(model: str) -> None:
    with pytest.raises(BadRequest) as caught:
        peek(f'{{"model":"{model}"}}')
    assert caught.value.param == "model"


def test_the_longest_model_name_is_taken() -> None:
    assert peek(f'{{"model":"{"m" * 253}"}}').model == "m" * 253


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ('{"model":"a","model":"b"}', "model"),
        ('{"model":"a","model":"a"}', "model"),
        ('{"model":"a","x":1,"model":"a"}', "model"),
        ('{"x":12,"model":"a","x":1}', "x"),
        ('{"model":"a","x":1,"x":12}', "x"),
        ('{"model":"a","x":12,"x":1}', "x"),
        ('{"model":"a", "x": 1, "x": 1, "y": 2}', "x"),
        ('{"model":"a","x":[],"y":{},"x":[]}', "x"),
        ('{"model":"a","mod\\u0065l":"b"}', "model"),
        ('{"mod\\u0065l":"b","model":"a"}', "model"),
        ('{"model":"a","x":1,"\\u0078":1}', "x"),
        ('{"model":"small","MODEL":"large"}', "MODEL"),
        ('{"MODEL":"large","model":"small"}', "model"),
        ('{"model":"a","foo":1,"Foo":2}', "Foo"),
        ('{"model":"a","user":1,"u\u017fer":2}', "u\\u017fer"),
        ('{"model":"a","tool_kind":1,"tool_\u212aind":2}', "tool_\\u212aind"),
        ('{"model":"a","Stream":true}', "Stream"),
        ('{"model":"a","\u017ftream":true}', "\\u017ftream"),
        ('{"model":"a","too\\u006cs":[]}', "tools"),
        ('{"model":"a","\\u0053tream":true}', "Stream"),
        ('{"model":"a","Messages":[]}', "Messages"),
        ('{"model":"a","MAX_TOKENS":1}', "MAX_TOKENS"),
        ('{"model":"a","\u0131nput":1}', "\\u0131nput"),
    ],
)
def test_bodies_that_two_readers_could_read_differently_are_refused(body: str, named: str) -> None:
    with pytest.raises(AmbiguousKey) as caught:
        peek(body)
    assert caught.value.param == named
    assert named in caught.value.message.replace("\\\\", "\\")


@pytest.mark.parametrize("name", sorted(ACTED_ON))
def test_no_name_that_is_acted_on_is_taken_in_another_case(name: str) -> None:
    with pytest.raises(AmbiguousKey):
        peek(json.dumps({"model": "m", name.upper(): 1}))


@pytest.mark.parametrize(
    "body",
    [
        '{"model":"m","Temperature":1}',
        '{"model":"m","\\u0074emperature":1}',
        '{"model":"m","a":{"x":1,"x":2,"MODEL":"deep"}}',
        '{"model":"\\u006d"}',
        '{"model":"m","":1}',
        '{"a": 1, "model":  "m" ,"b":\n2,\t"c" :3}',
    ],
)
def test_oddities_that_no_reader_trips_over_go_on_untouched(body: str) -> None:
    peeked = peek(body)
    assert peeked.model == "m"
    assert peeked.forward("m") == [body.encode()]


# -- forward


def test_nothing_to_change_gives_the_very_body() -> None:
    body = b'{"model": "m", "messages": []}'
    (piece,) = peek(body).forward("m")
    assert piece is body


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ('{"model":"m"}', '{"model":"up"}'),
        ('{ "model" : "m" }', '{ "model" : "up" }'),
        ('{"model":"m","api_key":"k"}', '{"model":"up"}'),
        ('{"api_key":"k","model":"m"}', '{"model":"up"}'),
        ('{"a":1,"api_key":"k","model":"m"}', '{"a":1,"model":"up"}'),
        ('{"api_key":"k","base_url":"u","model":"m"}', '{"model":"up"}'),
        ('{"model":"m","api_key":"k","base_url":"u"}', '{"model":"up"}'),
        ('{ "api_key" : "k" , "model" : "m" , "b" : 1 }', '{ "model" : "up" , "b" : 1 }'),
        ('{ "b" : 1 , "model" : "m" , "api_key" : "k" }', '{ "b" : 1 , "model" : "up" }'),
        ('{"API_Key":"k","model":"m","Cache_Salt":"s"}', '{"model":"up"}'),
        ('{"model":"m","api\\u005fkey":"k"}', '{"model":"up"}'),
        ('{"model":"m","x":{"api_key":"stays"}}', '{"model":"up","x":{"api_key":"stays"}}'),
        ('{"extra_headers":{"a":[1,{"b":"}"}]},"model":"m","api_base":null,"z":0}', '{"model":"up","z":0}'),
    ],
)
def test_the_model_is_spliced_and_forbidden_fields_go_with_just_their_commas(body: str, expected: str) -> None:
    assert sent(body) == expected.encode()


def test_forbidden_fields_go_even_when_the_model_stays() -> None:
    assert sent('{"model":"m","cache_salt":"x"}', "m") == b'{"model":"m"}'


@pytest.mark.parametrize("name", sorted(FORBIDDEN))
def test_every_forbidden_field_is_removed(name: str) -> None:
    assert sent(f'{{"{name}":1,"model":"m","n":1}}') == b'{"model":"up","n":1}'


def test_an_upstream_name_is_written_as_json() -> None:
    assert json.loads(sent('{"model":"m"}', 'a"b\\c/é')) == {"model": 'a"b\\c/é'}


# -- laws

SPACE = st.text(" \t\r\n", max_size=2)
SCALARS = st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(allow_nan=False, allow_infinity=False)
STRINGS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
VALUES = st.recursive(
    SCALARS | STRINGS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(STRINGS, inner, max_size=4),
    max_leaves=12,
)
KEYS = STRINGS | st.sampled_from(["temperature", "top_p", "seed", "metadata", "logprobs"])


@st.composite
def spaced(draw: st.DrawFn, value: Any) -> str:
    """`value` as JSON with whitespace wherever JSON allows it."""
    if isinstance(value, dict):
        entries = [
            f"{draw(SPACE)}{json.dumps(key, ensure_ascii=draw(st.booleans()))}{draw(SPACE)}:{draw(SPACE)}"
            f"{draw(spaced(item))}{draw(SPACE)}"
            for key, item in value.items()
        ]
        return "{" + ",".join(entries) + (draw(SPACE) if not entries else "") + "}"
    if isinstance(value, list):
        return "[" + ",".join(f"{draw(SPACE)}{draw(spaced(item))}{draw(SPACE)}" for item in value) + "]"
    return json.dumps(value, ensure_ascii=draw(st.booleans()))


@st.composite
def requests(draw: st.DrawFn) -> tuple[dict[str, Any], str]:
    """A JSON object with a model, forbidden fields among the others, in any order, and one way to write it."""
    fields = draw(st.dictionaries(KEYS, VALUES, max_size=6))
    forbidden = draw(st.lists(st.sampled_from(sorted(FORBIDDEN)), unique=True, max_size=3))
    fields.update({name: draw(VALUES) for name in forbidden})
    fields = {key: value for key, value in fields.items() if fold(key) not in ACTED_ON}
    folded: set[str] = set()
    fields = {key: value for key, value in fields.items() if fold(key) not in folded and not folded.add(fold(key))}
    fields["model"] = "m"
    order = draw(st.permutations(list(fields)))
    request = {key: fields[key] for key in order}
    return request, draw(SPACE) + draw(spaced(request)) + draw(SPACE)


@settings(max_examples=60)
@given(requests(), st.sampled_from(["m", "up", "org/model-8B", 'q"uote']))
def test_what_goes_on_is_the_same_object_but_for_model_and_forbidden_fields(
    request_: tuple[dict[str, Any], str], upstream: str
) -> None:
    request, body = request_
    expected = {key: value for key, value in request.items() if fold(key) not in FORBIDDEN}
    expected["model"] = upstream
    result = sent(body, upstream)
    assert json.loads(result) == expected
    assert list(json.loads(result)) == list(expected)
    if upstream == "m" and expected == request:
        assert result == body.encode()


@settings(max_examples=60)
@given(requests(), st.data())
def test_a_key_given_twice_is_always_found(request_: tuple[dict[str, Any], str], data: st.DataObject) -> None:
    request, _ = request_
    key = data.draw(st.sampled_from(list(request)))
    value = data.draw(VALUES | st.just(request[key]))
    entries = [(k, data.draw(spaced(v))) for k, v in request.items()]
    at = data.draw(st.integers(0, len(entries)))
    entries.insert(at, (key, data.draw(spaced(value))))
    separator = data.draw(st.sampled_from([",", ", ", " ,\n"]))
    body = "{" + separator.join(f"{json.dumps(k)}: {v}" for k, v in entries) + "}"
    with pytest.raises(AmbiguousKey):
        peek(body)


@given(st.binary(max_size=60))
@example(b'{"model":"m","model')
def test_no_bytes_make_it_fail_in_another_way_than_said(noise: bytes) -> None:
    for body in (noise, b'{"model":"m",' + noise, b'{"model":"m","a":' + noise + b"}"):
        try:
            result = b"".join(peek(body).forward("up"))
        except BadRequest:
            continue
        assert json.loads(result)["model"] == "up"
