"""What kopf forgets: objects that were deleted while its watch was away.

After an outage the API server may not know any more what happened since ("410 Gone"), as after each of its restarts.
kopf then lists anew and hands out what there is; of what is not there any more it says nothing, so that it would stay
in the indices for ever: a Pod that is gone, on an address that may be somebody else's by now. Hence a memory beside
each watch, which turns what a listing lacks into the deletions that were missed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection
from typing import Any
from weakref import WeakKeyDictionary

from kopf._cogs.clients import watching

Event = Any
"""A watch event as kopf has it (a dict with type and object, the type None for what was listed), or a Bookmark."""
Watch = Callable[..., AsyncIterator[Event]]
Known = dict[str, dict[str, Any]]
"""What there is by uid, as far as kopf needs it to delete it."""

_resources: set[tuple[str, str, str]] = set()


def install(resources: Collection[tuple[str, str, str]]) -> None:
    """From now on kopf's watches of these resources (group, version, plural) tell what they missed."""
    _resources.update(resources)
    if not isinstance(watching.continuous_watch, _Remembering):
        watching.continuous_watch = _Remembering(watching.continuous_watch)


class _Remembering:
    """Stands for kopf's function that lists once and then watches until it has to list again."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        # kopf has a task for each resource and namespace, which calls this again and again.
        self._known: WeakKeyDictionary[asyncio.Task[Any], Known] = WeakKeyDictionary()

    def __call__(self, *, resource: Any, **kwargs: Any) -> AsyncIterator[Event]:
        events = self._watch(resource=resource, **kwargs)
        task = asyncio.current_task()
        if task is None or (resource.group, resource.version, resource.plural) not in _resources:
            return events
        return with_missed(events, self._known.setdefault(task, {}))


async def with_missed(events: AsyncIterator[Event], known: Known) -> AsyncGenerator[Event, None]:
    """The events of one listing and the watch behind it, and deletions of what was known and is not listed."""
    listed: set[str] = set()
    assert isinstance(events, AsyncGenerator)
    async with contextlib.aclosing(events):
        async for event in events:
            if event is watching.Bookmark.LISTED:
                for uid in known.keys() - listed:
                    yield {"type": "DELETED", "object": known.pop(uid)}
            elif event["type"] == "DELETED":
                known.pop(event["object"]["metadata"]["uid"], None)
            elif event["type"] != "BOOKMARK":
                body = event["object"]
                meta = {
                    name: body["metadata"][name] for name in ("namespace", "name", "uid") if name in body["metadata"]
                }
                listed.add(meta["uid"])
                known[meta["uid"]] = {"apiVersion": body.get("apiVersion"), "kind": body.get("kind"), "metadata": meta}
            yield event
