"""AWS keys as people keep them in a Secret: a line of JSON, or a file as the AWS command line writes it.

JSON has the names that AWS itself answers with, `{"accessKeyId": …, "secretAccessKey": …, "sessionToken": …}`, in any
case of letters (STS answers `AccessKeyId`, `aws configure export-credentials` too). The file is INI with
`aws_access_key_id`, `aws_secret_access_key` and perhaps `aws_session_token`, of the profile `default` or of the only
one (docs.aws.amazon.com/cli/latest/userguide/cli-configure-files.html).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from ...core.grants import AwsKeys

_object = msgspec.json.Decoder(dict[str, object]).decode
_word = re.compile(r"[\x21-\x7e]{1,8192}").fullmatch


def aws_keys(text: str) -> AwsKeys | None:
    """The keys that a Secret's value holds; None where it is anything else, such as a bearer key. They are taken not
    to end: who writes keys that do writes the next ones, too."""
    text = text.strip()
    if text.startswith("{"):
        try:
            said = _object(text.encode())
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return None
        return _keys(
            {name.lower(): value for name, value in said.items()}, "accesskeyid", "secretaccesskey", "sessiontoken"
        )
    if not text.startswith(("[", "aws_", "#", ";")):
        return None
    import configparser  # few have keys in this form

    profiles = configparser.ConfigParser(interpolation=None, default_section="", strict=False)
    try:
        profiles.read_string(text if text.startswith("[") else f"[default]\n{text}")
    except configparser.Error:
        return None
    names = profiles.sections()
    profile = "default" if "default" in names else names[0] if len(names) == 1 else None
    if profile is None:
        return None
    return _keys(profiles[profile], "aws_access_key_id", "aws_secret_access_key", "aws_session_token")


def _keys(said: Mapping[str, object], name: str, secret: str, session: str) -> AwsKeys | None:
    key, hidden, token = said.get(name), said.get(secret), said.get(session) or None
    if not (isinstance(key, str) and _word(key) and isinstance(hidden, str) and _word(hidden)):
        return None
    if token is not None and not (isinstance(token, str) and _word(token)):
        return None
    return AwsKeys(key, hidden, token)
