"""Pure: active content -> what may reach a browser."""

from __future__ import annotations

from typing import Literal

from sandboxed_kernel.relay.messages import Json


class Cleaner:
    def __init__(self, mode: Literal["strip", "allow"]) -> None:
        self._mode = mode

    def clean(self, msg_type: str, content: Json) -> None:
        pass
