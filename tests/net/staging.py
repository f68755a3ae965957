"""Examples brought to life: the objects of a file, with endpoints of a test in the place of those that it names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

EXAMPLES = Path(__file__).parents[2] / "examples"
KEY = "sk-staged"


def staged(example: str, urls: Mapping[str, str], secrets: Path) -> list[dict[str, Any]]:
    """The documents of an example, each pool with one endpoint or account at `urls[its name]`, and nothing probed.
    Writes the Secrets that accounts refer to into `secrets`."""
    docs: list[dict[str, Any]] = list(yaml.safe_load_all((EXAMPLES / example).read_text()))
    for doc in docs:
        if doc["kind"] != "ModelPool":
            continue
        source, url = doc["spec"]["source"], urls[doc["metadata"]["name"]]
        if "static" in source:
            source["static"]["endpoints"] = [{"name": "e1", "url": url}]
        else:
            provider = source["provider"]
            provider |= {"type": "OpenAICompatible", "baseURL": f"{url}/v1", "allowPlainHTTP": True}
            for account in provider["accounts"]:
                ref = account["secretRef"]
                folder = secrets / "default" / ref["name"]
                folder.mkdir(parents=True, exist_ok=True)
                (folder / ref.get("key", "api-key")).write_text(KEY)
        doc["spec"] |= {"metrics": {"mode": "None"}, "health": {"active": {"mode": "None"}}}
    return docs
