"""The bytes of a body that are judged are those that go on: spliced, stripped, and refused where they are ambiguous."""

from __future__ import annotations

import json

import pytest

CHAT = "/v1/chat/completions"
JSON = [("content-type", "application/json")]
MESSAGES = b'"messages":[{"role":"user","content":"zebra-prompt-text"}]'


@pytest.fixture
async def engine(endpoint):
    return await endpoint()


@pytest.fixture
async def client(serve, engine, dial):
    return await dial(await serve(engine))


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"model":"chat","MODEL":"large",' + MESSAGES + b"}", "ambiguous_key"),
        (b'{"model":"chat","Model":"large",' + MESSAGES + b"}", "ambiguous_key"),
        (b'{"MODEL":"large",' + MESSAGES + b"}", "ambiguous_key"),
        (b'{"model":"chat","model":"large",' + MESSAGES + b"}", "ambiguous_key"),
        (b'{"model":"chat","mod\\u0065l":"large",' + MESSAGES + b"}", "ambiguous_key"),
        (b'{"mod\\u0065l":"chat",' + MESSAGES + b"}", "ambiguous_key"),
        (b'{"model":"chat","stream":false,"\\u0073tream":true,' + MESSAGES + b"}", "ambiguous_key"),
        (b'{"model":"chat","\xc5\xbftream":true,' + MESSAGES + b"}", "ambiguous_key"),
        (b'{"model":"chat",' + MESSAGES + b"," + MESSAGES + b"}", "ambiguous_key"),
        (b'{"model":"chat",' + MESSAGES + b"} trailing", "invalid_json"),
        (b'{"model":"chat",' + MESSAGES, "invalid_json"),
        (b'{"model":"chat","x":\xff\xfe}', "invalid_json"),
        (b'{"model":"chat","x":"\xff"}', "invalid_json"),
        (b'\xef\xbb\xbf{"model":"chat"}', "invalid_json"),
        (b'["model","chat"]', "invalid_json"),
        (b"", "invalid_json"),
        (b"null", "invalid_json"),
        (b"[" * 100_000, "invalid_json"),
        (b'{"model":"chat","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "invalid_json"),
        (b'{"model":"chat","x":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}", "invalid_json"),
        (b"{" + MESSAGES + b"}", "missing_model"),
        (b'{"model":null,' + MESSAGES + b"}", "missing_model"),
        (b'{"model":"",' + MESSAGES + b"}", "missing_model"),
        (b'{"model":["chat"],' + MESSAGES + b"}", "missing_model"),
        (b'{"model":"' + b"x" * 300 + b'",' + MESSAGES + b"}", "bad_request"),
        (b'{"model":"chat\\r\\nx: y",' + MESSAGES + b"}", "bad_request"),
        (b'{"model":"chat","stream":"yes",' + MESSAGES + b"}", "bad_request"),
    ],
)
async def test_a_body_that_can_be_read_in_two_ways_or_none_is_refused(client, engine, body, code) -> None:
    reply = await client.post(CHAT, body, JSON)
    assert (reply.status, reply.error["code"], reply.error["type"]) == (400, code, "invalid_request_error")
    assert b"zebra" not in reply.body
    assert engine.calls == []
    assert (await client.chat()).status == 200  # and the connection goes on


async def test_all_bytes_but_the_models_name_go_on_as_they_came(client, engine) -> None:
    body = (
        b'\n{ "x" : 1e2 ,"model"\t:"ch\\u0061t",' + MESSAGES + b', "y":"\\ud83d\\ude00 \xc3\xa9", "temperature":0.10}  '
    )
    assert (await client.post(CHAT, body, JSON)).status == 200
    assert engine.calls[0].body == body.replace(b'"ch\\u0061t"', b'"demo"')


async def test_a_body_that_needs_no_change_goes_on_byte_for_byte(serve, endpoint, dial) -> None:
    engine = await endpoint()
    client = await dial(await serve(engine, pool={"models": [{"name": "chat"}]}))
    body = b'{"model":"ch\\u0061t" , ' + MESSAGES + b"}"
    assert (await client.post(CHAT, body, JSON)).status == 200
    assert engine.calls[0].body == body


@pytest.mark.parametrize(
    "name", ["api_base", "base_url", "api_key", "api_version", "custom_llm_provider", "extra_headers", "cache_salt"]
)
@pytest.mark.parametrize("spelling", [str, str.upper, str.title])
async def test_fields_that_redirect_or_open_a_tenants_cache_are_stripped(client, engine, name, spelling) -> None:
    for fields in (
        {spelling(name): "evil", **client.chat_body()},
        {**client.chat_body(), spelling(name): {"a": ["evil"]}},
        {"model": "chat", spelling(name): 1, "messages": []},
    ):
        assert (await client.post(CHAT, fields)).status == 200
        call = engine.calls.pop()
        assert call.json() == {**{k: v for k, v in fields.items() if k != spelling(name)}, "model": "demo"}


async def test_escaped_spellings_of_stripped_fields_are_stripped_too(client, engine) -> None:
    body = b'{"model":"chat","c\\u0061che_salt":"evil",' + MESSAGES + b',"api\\u005fbase":"http://evil"}'
    assert (await client.post(CHAT, body, JSON)).status == 200
    assert engine.calls[0].json() == {**json.loads(b"{" + MESSAGES + b"}"), "model": "demo"}


async def test_forms_go_on_with_another_model_name(client, engine, say) -> None:
    engine.then = say.steps(say.message())
    audio = bytes(range(256)) * 40
    parts = [
        b'--bnd\r\ncontent-disposition: form-data; name="file"; filename="a.wav"\r\n\r\n' + audio + b"\r\n",
        b'--bnd\r\ncontent-disposition: form-data; name="model"\r\n\r\nchat\r\n',
        b'--bnd\r\ncontent-disposition: form-data; name="api_base"\r\n\r\nhttp://evil\r\n',
        b"--bnd--\r\n",
    ]
    reply = await client.post(
        "/v1/audio/transcriptions", b"".join(parts), [("content-type", "multipart/form-data; boundary=bnd")]
    )
    assert reply.status == 200
    parts[1] = parts[1].replace(b"chat", b"demo")
    assert engine.calls[0].body == parts[0] + parts[1] + parts[3]
    assert engine.calls[0].target == "/v1/audio/transcriptions"


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=utf-16"]
)
async def test_other_media_types_are_415(client, engine, kind) -> None:
    reply = await client.post(CHAT, b'{"model":"chat"}', [("content-type", kind)])
    assert (reply.status, reply.error["code"]) == (415, "unsupported_media_type")
    assert engine.calls == []
