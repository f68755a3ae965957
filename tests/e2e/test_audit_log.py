"""The audit log as programs read it: lines of JSON on standard output and nothing else, whatever the log level."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys

import aiohttp

PROGRAM = (sys.executable, "-m", "spillway_balancer.cli")
OBJECTS = """
apiVersion: spillway.dev/v1alpha1
kind: ModelPool
metadata: {{name: home}}
spec:
  models: [{{name: demo}}]
  source: {{static: {{endpoints: [{{name: one, url: "http://127.0.0.1:{engine}"}}]}}}}
  dataHandling: {{jurisdictions: [EU]}}
---
apiVersion: spillway.dev/v1alpha1
kind: RoutePolicy
metadata: {{name: chat}}
spec:
  models: [chat]
  guards: [{{name: eu-only, require: {{jurisdictions: [EU]}}}}]
  rules: [{{name: all, tiers: [{{name: only, pools: [{{name: home}}]}}]}}]
"""


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


async def test_standard_output_is_the_audit_log_and_nothing_else(tmp_path) -> None:
    port, nowhere = free_port(), free_port()
    file = tmp_path / "p.yaml"
    file.write_text(OBJECTS.format(engine=nowhere))
    args = ("run", "-f", str(file), "--port", str(port), "--log-level", "error")
    pipes = {"stdout": asyncio.subprocess.PIPE, "stderr": asyncio.subprocess.PIPE}
    process = await asyncio.create_subprocess_exec(*PROGRAM, *args, **pipes)
    try:
        async with asyncio.timeout(60), aiohttp.ClientSession() as client:
            while True:
                try:
                    async with client.get(f"http://127.0.0.1:{port}/readyz") as answer:
                        if answer.status == 200:
                            break
                except aiohttp.ClientConnectionError:
                    await asyncio.sleep(0.05)
            body = {"model": "chat", "messages": [{"role": "user", "content": "a zebra"}]}
            async with client.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=body) as answer:
                assert answer.status == 503
            process.send_signal(signal.SIGTERM)
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
    (line,) = map(json.loads, out.splitlines())
    assert (line["route"], line["guards"], line["status"]) == ("default/chat", ["eu-only"], 503)
    assert line["sentTo"] == [{"tier": "only", "pool": "default/home", "endpoint": "one"}]
    assert b"zebra" not in out + err
