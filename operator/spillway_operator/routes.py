"""Which routes sidecars may have: a word of the command line, which is read before anything slow is loaded."""

from __future__ import annotations

from typing import Literal, TypeAlias

Routes: TypeAlias = Literal["All", "Same", "None"]
"""Those of a gateway that ask for no key: all of them, as anybody may ask the gateway for them; those of the sidecar's
own namespace; or none, and then there are no sidecars."""
