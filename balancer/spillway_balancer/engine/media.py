"""The routes that make no text: embeddings, rerank, speech both ways, pictures. Plausible answers, honest
timing.

All run through the engine as prefill of what they were sent, so they queue and show in its metrics.
"""

from __future__ import annotations

import base64
import math
import struct
import time
import wave
import zlib
from io import BytesIO
from uuid import uuid4

from aiohttp import BodyPartReader, web

from . import requests, text
from .requests import invalid
from .shapes import encode
from .simulated import ENGINE

_AUDIO_RATE = 16_000  # samples a second
# One prompt token for so many bytes of audio: a second of 16-bit mono is 32,000 bytes and 25 tokens, as in
# Whisper.
_AUDIO_BYTES_A_TOKEN = 1280


async def embeddings(request: web.Request) -> web.Response:
    body = requests.decode(await request.read(), requests.EmbeddingBody)
    if body.encoding_format not in ("float", "base64"):
        raise invalid("encoding_format must be float or base64.", "encoding_format")
    prompts = requests.inputs(body)
    tokens = await request.app[ENGINE].compute(body.model, prompts)
    data = []
    for index, prompt in enumerate(prompts):
        vector = text.vector(prompt, body.dimensions)
        shown: object = vector
        if body.encoding_format == "base64":
            shown = base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
        data.append({"object": "embedding", "index": index, "embedding": shown})
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return _json(
        {
            "id": f"embd-{uuid4().hex}",
            "object": "list",
            "created": int(time.time()),
            "model": body.model,
            "data": data,
            "usage": usage,
        }
    )


async def rerank(request: web.Request) -> web.Response:
    body = requests.decode(await request.read(), requests.RerankBody)
    if not body.documents:
        raise invalid("There are no documents to rank.", "documents")
    texts = [one if isinstance(one, str) else one.text for one in body.documents]
    prompts = [f"{body.query}\n{one}".encode("utf-8", "replace") for one in texts]
    tokens = await request.app[ENGINE].compute(body.model, prompts)
    results = [
        {"index": index, "document": {"text": one}, "relevance_score": text.relevance(body.query, one)}
        for index, one in enumerate(texts)
    ]
    results.sort(key=lambda result: -float(str(result["relevance_score"])))
    top = results[: body.top_n] if body.top_n else results
    return _json(
        {"id": f"rerank-{uuid4().hex}", "model": body.model, "usage": {"total_tokens": tokens}, "results": top}
    )


async def transcriptions(request: web.Request) -> web.Response:
    if not request.content_type.startswith("multipart/"):
        raise invalid("A transcription is asked for as multipart/form-data.")
    fields: dict[str, str] = {}
    audio: bytes | None = None
    try:
        async for part in await request.multipart():
            if not isinstance(part, BodyPartReader):
                continue
            if part.name == "file":
                audio = bytes(await part.read())
            elif part.name:
                fields[part.name] = await part.text()
    except ValueError:
        raise invalid("The multipart body cannot be read.") from None
    if audio is None:
        raise invalid("The field `file` is missing.", "file")
    if "model" not in fields:
        raise invalid("The field `model` is missing.", "model")
    prompt = text.media(audio)[:16].ljust(4 * max(1, len(audio) // _AUDIO_BYTES_A_TOKEN), b" ")
    await request.app[ENGINE].compute(fields["model"], [prompt])
    heard = text.Answer(prompt, 8 + len(audio) // 32_000).text
    if fields.get("response_format") == "text":
        return web.Response(text=heard + "\n")
    seconds = math.ceil(len(audio) / (2 * _AUDIO_RATE))
    return _json({"text": heard, "usage": {"type": "duration", "seconds": seconds}})


async def speech(request: web.Request) -> web.Response:
    body = requests.decode(await request.read(), requests.SpeechBody)
    prompt = body.input.encode("utf-8", "replace")
    await request.app[ENGINE].compute(body.model, [prompt])
    spoken = BytesIO()
    with wave.open(spoken, "wb") as file:  # a hum of 50 ms a token: whatever was asked for, it is WAV inside
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(_AUDIO_RATE)
        samples = text.tokens_in(prompt) * _AUDIO_RATE // 20
        file.writeframes(b"\0\x10" * samples)
    kinds = {"wav": "audio/wav", "mp3": "audio/mpeg", "opus": "audio/ogg", "flac": "audio/flac"}
    kind = kinds.get(body.response_format, "application/octet-stream")
    return web.Response(body=spoken.getvalue(), content_type=kind)


async def images(request: web.Request) -> web.Response:
    body = requests.decode(await request.read(), requests.ImageBody)
    prompt = body.prompt.encode("utf-8", "replace")
    await request.app[ENGINE].compute(body.model, [prompt])
    picture = base64.b64encode(_png(text.vector(prompt, 3))).decode()
    return _json({"created": int(time.time()), "data": [{"b64_json": picture}] * (body.n or 1)})


def _png(colour: list[float]) -> bytes:
    """A picture of one dot, in the colour of the prompt."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    dot = bytes(int(127 + 127 * part) for part in colour)
    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    image = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" + dot)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + image


def _json(data: object) -> web.Response:
    return web.Response(body=encode(data), content_type="application/json")
