"""What Amazon Bedrock says is wrong: the name of an exception, in a header or in a frame, and a message.

Names and statuses are those of the public service model (bedrock-runtime 2023-09-30) and of what stands before every
AWS service (https://docs.aws.amazon.com/bedrock/latest/APIReference/CommonErrors.html). Messages are read only for
what no name tells; they are not kept.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple


class Told(NamedTuple):
    """`code` is the one that OpenAI has for it, None without one; `type` is the name in lower case and `status` HTTP's,
    None for a name that is not known."""

    code: str | None
    type: str | None
    status: int | None


_STATUS: Final = {
    "accessdeniedexception": 403,
    "expiredtokenexception": 403,
    "incompletesignature": 403,
    "incompletesignatureexception": 403,
    "internalfailure": 500,
    "internalserverexception": 500,
    "invalidclienttokenid": 403,
    "invalidsignatureexception": 403,
    "missingauthenticationtoken": 403,
    "missingauthenticationtokenexception": 403,
    "modelerrorexception": 424,
    "modelnotreadyexception": 429,
    "modelstreamerrorexception": 424,
    "modeltimeoutexception": 408,
    "notauthorized": 403,
    "optinrequired": 403,
    "requestexpired": 403,
    "resourcenotfoundexception": 404,
    "servicequotaexceededexception": 400,
    "serviceunavailable": 503,
    "serviceunavailableexception": 503,
    "throttlingexception": 429,
    "toomanyrequestsexception": 429,
    "unrecognizedclientexception": 403,
    "validationexception": 400,
}

_TOO_LONG = re.compile(
    r"input is too long|prompt is too long|input length and `?max_tokens`? exceed context limit|too many input tokens"
    r"|number of input tokens exceeds|maximum context length|context window|input tokens? exceed",
    re.IGNORECASE,
)
_NO_MODEL = re.compile(
    r"You don't have access to the model|The provided model identifier is invalid"
    r"|Could not resolve the foundation model|This model version has reached the end of its life"
)
_OF_A_DAY = re.compile(r"Too many (?:tokens|requests) per day", re.IGNORECASE)


def told(name: str, message: str = "") -> Told:
    """What an exception stands for. `name` may have what is written behind one in `x-amzn-errortype`
    (`ThrottlingException:http://…`) and before one in `__type` (`com.amazon.coral.service#…`)."""
    plain = name.partition(":")[0].rpartition("#")[2].strip().lower()
    status = _STATUS.get(plain)
    if status is None:
        return Told(None, None, None)
    code = None
    if plain == "servicequotaexceededexception":
        code, status = "insufficient_quota", 429  # 400 on the wire: it is no mistake of the client's
    elif plain == "throttlingexception" and _OF_A_DAY.match(message):
        code = "insufficient_quota"
    elif plain in ("validationexception", "accessdeniedexception") and _NO_MODEL.match(message):
        code, status = "model_not_found", 404
    elif plain == "validationexception" and _TOO_LONG.search(message):
        code = "context_length_exceeded"
    return Told(code, plain, status)
