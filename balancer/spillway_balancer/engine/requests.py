"""What clients ask of the simulated engine: JSON bodies in, one small value out, vLLM's refusals for the
rest.

Fields that change nothing here (temperature, stop, logprobs, ...) are accepted and ignored, as are unknown
ones. No message repeats what the client sent beyond the name of a model.
"""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple, TypeVar

import msgspec

from . import text

Count = Annotated[int, msgspec.Meta(ge=1)]
T = TypeVar("T")
# A text, texts, the token ids of one text, or of several.
Inputs = str | list[str | int | list[int]]


class Refusal(Exception):
    """An error answer in the shape vLLM gives it: status, and message, type, param, code inside `error`."""

    def __init__(
        self, status: int, message: str, type: str, *, param: str | None = None, code: str | int | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = msgspec.json.encode(
            {"error": {"message": message, "type": type, "param": param, "code": code or status}}
        )


def no_such_model(model: str) -> Refusal:
    return Refusal(404, f"The model `{model}` does not exist.", "NotFoundError", param="model")


def too_long(prompt_tokens: int, longest: int) -> Refusal:
    return Refusal(
        400,
        f"This model's maximum context length is {longest} tokens. However, your request has {prompt_tokens} input "
        "tokens. Please reduce the length of the input messages.",
        "BadRequestError",
        param="input_tokens",
        code="context_length_exceeded",
    )


def invalid(message: str, param: str | None = None) -> Refusal:
    return Refusal(400, message, "BadRequestError", param=param)


class StreamOptions(msgspec.Struct):
    include_usage: bool = False


class _Generating(msgspec.Struct):
    model: str
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: Count | None = None
    n: int | None = 1
    cache_salt: str | None = None


class ChatBody(_Generating, kw_only=True):
    messages: Annotated[list[dict[str, Any]], msgspec.Meta(min_length=1)]
    max_completion_tokens: Count | None = None
    tools: Any = None
    add_generation_prompt: bool = True
    continue_final_message: bool = False


class CompletionBody(_Generating, kw_only=True):
    prompt: Inputs


class ResponsesBody(msgspec.Struct, kw_only=True):
    model: str
    input: str | list[dict[str, Any]]
    instructions: str | None = None
    stream: bool = False
    max_output_tokens: Count | None = None
    tools: Any = None
    metadata: dict[str, str] | None = None
    cache_salt: str | None = None


class EmbeddingBody(msgspec.Struct, kw_only=True):
    model: str
    input: Inputs
    encoding_format: str = "float"
    dimensions: Annotated[int, msgspec.Meta(ge=1, le=4096)] = 64


class Document(msgspec.Struct):
    text: str


class RerankBody(msgspec.Struct, kw_only=True):
    model: str
    query: str
    documents: list[str | Document]
    top_n: int | None = None


class SpeechBody(msgspec.Struct, kw_only=True):
    model: str
    input: str
    response_format: str = "mp3"


class ImageBody(msgspec.Struct, kw_only=True):
    model: str
    prompt: str
    n: Annotated[int, msgspec.Meta(ge=1, le=10)] | None = 1


class Ask(NamedTuple):
    """A request for text, whichever way it came."""

    model: str
    prompt: bytes
    limit: int | None  # output tokens, when the request says
    stream: bool
    include_usage: bool
    salt: str | None
    said: str = ""  # what the answer began with elsewhere; the prompt ends with it


def decode(body: bytes, type: type[T]) -> T:
    """A body of that type; raises a Refusal with status 400 that says where it is wrong."""
    try:
        return msgspec.json.decode(body, type=type)
    except msgspec.ValidationError as error:
        raise Refusal(400, str(error), "Bad Request") from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise Refusal(400, "The request body is not valid JSON.", "Bad Request") from None


def chat(body: bytes) -> Ask:
    asked = decode(body, ChatBody)
    _check(asked)
    limit = asked.max_completion_tokens or asked.max_tokens
    if not asked.continue_final_message:
        return _ask(asked, text.render_chat(asked.messages, asked.tools), limit)
    if asked.add_generation_prompt:
        raise invalid("Cannot set both `continue_final_message` and `add_generation_prompt` to True.")
    *before, last = asked.messages
    said = last.get("content")
    if last.get("role") != "assistant" or not isinstance(said, str):
        raise invalid("There is no final message of the assistant to continue.")
    prompt = text.render_chat(before, asked.tools) + said.encode("utf-8", "replace")
    return _ask(asked, prompt, limit)._replace(said=said)


def completion(body: bytes) -> Ask:
    asked = decode(body, CompletionBody)
    _check(asked)
    prompts = _inputs(asked.prompt)
    if len(prompts) != 1:
        raise invalid("This engine takes one prompt a request.", "prompt")
    return _ask(asked, prompts[0], asked.max_tokens)


def responses(body: bytes) -> tuple[ResponsesBody, Ask]:
    asked = decode(body, ResponsesBody)
    messages: list[dict[str, Any]] = []
    if asked.instructions:
        messages.append({"role": "system", "content": asked.instructions})
    if isinstance(asked.input, str):
        messages.append({"role": "user", "content": asked.input})
    else:
        for item in asked.input:
            if "content" in item:
                messages.append(item)
            else:  # a call, its output, a reasoning item: no message, but part of the prompt
                messages.append({"role": str(item.get("type", "item")), "content": [item]})
    prompt = text.render_chat(messages, asked.tools)
    return asked, Ask(asked.model, prompt, asked.max_output_tokens, asked.stream, True, asked.cache_salt)


def inputs(body: EmbeddingBody) -> list[bytes]:
    """The texts of an embedding request, each as the bytes of a prompt."""
    found = _inputs(body.input)
    if not found:
        raise invalid("There is nothing to embed.", "input")
    return found


def _check(asked: _Generating) -> None:
    if asked.n not in (None, 1):
        raise invalid("This engine gives one choice a request: n must be 1.", "n")
    if asked.stream_options is not None and not asked.stream:
        raise invalid("Stream options can only be defined when `stream=True`.", "stream_options")


def _ask(asked: _Generating, prompt: bytes, limit: int | None) -> Ask:
    usage = asked.stream_options is not None and asked.stream_options.include_usage
    return Ask(asked.model, prompt, limit, asked.stream, usage, asked.cache_salt)


def _inputs(given: Inputs) -> list[bytes]:
    if isinstance(given, str):
        return [given.encode("utf-8", "replace")]
    ids = [one for one in given if isinstance(one, int)]
    if ids:
        if len(ids) != len(given):
            raise invalid("Token ids and texts cannot be mixed.")
        return [text.render_tokens(ids)]
    return [
        one.encode("utf-8", "replace") if isinstance(one, str) else text.render_tokens(one)
        for one in given
        if not isinstance(one, int)
    ]
