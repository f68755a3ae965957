"""What policies in Shadow would do is told beside what is done."""

from __future__ import annotations

import yaml


def test_each_shadow_is_told(bench, two_tiers) -> None:
    policies = two_tiers()
    docs = list(yaml.safe_load_all(policies.read_text()))
    tiers = {"to-other": [{"name": "new", "pools": [{"name": "other"}]}]}
    for name, when in (("next", "true"), ("strict", "false")):
        rules = [{"name": "r", "when": when, "tiers": tiers["to-other"]}]
        spec = {"models": ["ch*", "chat"], "mode": "Shadow", "rules": rules}
        docs.append({**docs[-1], "metadata": {"name": name}, "spec": spec})
    policies.write_text(yaml.safe_dump_all(docs))
    account = bench.account(policies)
    assert account["policy"] == "default/chat"
    assert account["outcome"]["pool"] == "default/own"
    assert account["shadows"] == [
        {"policy": "default/next", "rule": "r", "tier": "new", "pool": "default/other", "upstreamModel": "other-model"},
        {"policy": "default/strict", "rule": "", "tier": "", "pool": "", "upstreamModel": ""},
    ]
    assert account["header"].endswith("shadow=default/next:r:new:default/other,default/strict::nowhere")
    said = bench.explain(policies).out.splitlines()
    assert said[-2:] == [
        "shadow   default/next would send it to default/other as other-model (tier new), by rule r",
        "shadow   default/strict would send it nowhere, by no rule",
    ]
