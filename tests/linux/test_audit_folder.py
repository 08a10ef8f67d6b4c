"""The audit log's folder is nobody's to make by hand: on a new account it is not there."""

from __future__ import annotations

import json
import time
from pathlib import Path

from sandboxed_kernel.notices.audit import AuditLog
from sandboxed_kernel.notices.events import Event


def test_a_missing_folder_is_made_for_the_user_alone(tmp_path: Path) -> None:
    path = tmp_path / "state" / "sandboxed-kernel" / "audit.jsonl"
    log = AuditLog(str(path))
    assert not path.parent.exists()  # not before there is something to say
    event = Event(kind="connect", verdict="refused", reason="r", protocol="tcp", when=time.time(), pid=1, process="p",
                  host=None, address="192.0.2.1", port=1)  # fmt: skip
    log.write(event)
    log.close()
    assert Event.from_json(json.loads(path.read_text())) == event
    assert path.parent.stat().st_mode & 0o777 == 0o700
