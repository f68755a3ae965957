"""What one answer teaches: how many tokens it took, and what the endpoint has cached since."""

from __future__ import annotations

from ..core.learning import Usage
from ..core.reasons import Failure
from ..core.visits import Visit
from ..wire.prompt_blocks import PromptBlocks, continue_blocks
from ..wire.usage import AnswerText, UsageWatch


class Lesson:
    """What an answer teaches while it goes by: how many tokens it took, and what the endpoint has cached since."""

    __slots__ = ("_events", "_known", "_prompt", "_said", "_streams", "_text", "_usage", "begun", "sent", "told")

    def __init__(self, prompt: PromptBlocks | None, streams: bool) -> None:
        self._prompt = prompt
        self._usage = UsageWatch()
        self._known: Usage | None = None
        self._text = AnswerText(streams)
        self._streams = streams
        self._events = 0
        self._said: str | None = None
        self.begun = False
        """Whether an answer has come, or its beginning."""
        self.sent = False
        """Whether the endpoint has been given the request."""
        self.told = True
        """Whether the answer itself says how many tokens it has."""

    def heard(self) -> Usage:
        """What it has said of its tokens so far."""
        return self._known or self._usage.usage() or Usage()

    def tell(self, usage: Usage) -> None:
        """What it has said so far in another API than it is heard in: nothing of that got lost in translation."""
        self.begun = True
        self._known = usage

    def hear(self, data: bytes) -> None:
        self.begun = self.begun or bool(data)
        self._usage.feed(data)
        self._text.feed(data)
        if self._streams:
            self._events += data.count(b"data:")

    def broken_off(self, failure: Failure | None) -> bool:
        """Whether a whole answer was made and did not arrive as a whole: one that is no stream has been computed when
        it begins. A failure with a status is what the endpoint itself says, and it charges nothing."""
        return self.begun and not self._streams and failure is not None and failure.status is None

    def end(self, bytes_per_token: float) -> Usage:
        """What the answer has used, as far as it has come. Call it once.

        Streams say how many tokens they had only if they are asked to; else it is estimated by their text, or as one
        token an event where that cannot be read.
        """
        usage = self.heard()
        self._said = text = self._text.text()
        self.told = usage.output_tokens is not None
        if usage.output_tokens is None and text:
            usage = usage._replace(output_tokens=max(1, round(len(text.encode("utf-8", "replace")) / bytes_per_token)))
        elif usage.output_tokens is None and self._events and text is None:
            usage = usage._replace(output_tokens=self._events)
        return usage

    def teach(self, visit: Visit, usage: Usage, now: float) -> None:
        """The answer has ended well, and with it the visit."""
        visit.usage(usage)
        text = self._said
        answer = continue_blocks(self._prompt, text) if text and self._prompt is not None else ()
        visit.end(now, answer)
