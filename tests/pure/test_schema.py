"""Whatever the sandbox sends, a client gets a message of its type's shape, or a reason; never anything else.

``python tests/pure/test_schema.py [TIMES]`` is the long form of the property tests.
"""

from __future__ import annotations

import json
import random
import sys
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jupyter_client.jsonutil import extract_dates
from nbformat.v4 import nbbase, nbjson, new_notebook

from sandboxed_kernel.relay import messages, rules, schema
from sandboxed_kernel.relay.messages import DELIMITER, MAX_DEPTH, Claimed, Json, Unusable
from sandboxed_kernel.relay.widgets import Widgets
from tests.support.effort import examples, few

TEXT, NUMBER, FLAG, OBJECT = (
    {"type": "string"},
    {"type": "integer", "minimum": 0},
    {"type": "boolean"},
    {"type": "object"},
)


def shape(required: str = "", **properties: Any) -> Json:
    """A JSON schema of an object that has these properties and no others."""
    names = required.split() if required else list(properties)
    return {"type": "object", "properties": properties, "required": names, "additionalProperties": False}


def reply(**properties: Any) -> Json:
    """What the protocol says of every reply: its status, and what went wrong."""
    error = {"ename": TEXT, "evalue": TEXT, "traceback": {"type": "array", "items": TEXT}}
    return {
        "anyOf": [
            shape(status={"const": "ok"}, **properties),
            shape("status ename evalue traceback", status={"const": "error"}, **error, **properties),
            shape(status={"enum": ["aborted", "abort"]}),
        ]
    }


# "Messaging in Jupyter", written down once more and by hand, for the judge (jsonschema) to go by.
MIME_BUNDLE = {
    "type": "object",
    "patternProperties": {r"^(application/json|.*\+json)$": {}},
    "additionalProperties": {"anyOf": [TEXT, {"type": "array", "items": TEXT}]},
}
DISPLAY = shape(data=MIME_BUNDLE, metadata=OBJECT, transient=shape(required=" ", display_id=TEXT))
LINE = {"type": "array", "minItems": 3, "maxItems": 3}
PROTOCOL: dict[str, Json] = {
    "stream": shape(name={"enum": ["stdout", "stderr"]}, text=TEXT),
    "display_data": DISPLAY,
    "update_display_data": DISPLAY,
    "execute_result": shape(
        "execution_count data metadata",
        execution_count=NUMBER,
        data=MIME_BUNDLE,
        metadata=OBJECT,
        transient=shape(required=" ", display_id=TEXT),
    ),
    "execute_input": shape(code=TEXT, execution_count=NUMBER),
    "error": shape(ename=TEXT, evalue=TEXT, traceback={"type": "array", "items": TEXT}),
    "clear_output": shape(wait=FLAG),
    "comm_open": shape(comm_id=TEXT, target_name=TEXT, data=OBJECT),
    "comm_msg": shape(comm_id=TEXT, data=OBJECT),
    "comm_close": shape(comm_id=TEXT, data=OBJECT),
    "debug_event": shape("type event seq", type=TEXT, event=TEXT, seq=NUMBER, body=OBJECT),
    "input_request": shape(prompt=TEXT, password=FLAG),
    "execute_reply": reply(execution_count=NUMBER, payload={"type": "array", "items": OBJECT}, user_expressions=OBJECT),
    "inspect_reply": reply(found=FLAG, data=MIME_BUNDLE, metadata=OBJECT),
    "complete_reply": reply(
        matches={"type": "array", "items": TEXT}, cursor_start=NUMBER, cursor_end=NUMBER, metadata=OBJECT
    ),
    "history_reply": reply(history={"type": "array", "items": LINE}),
    "is_complete_reply": shape(
        "status", status={"enum": ["complete", "incomplete", "invalid", "unknown"]}, indent=TEXT
    ),
    "comm_info_reply": reply(comms={"type": "object", "additionalProperties": shape(target_name=TEXT)}),
    "shutdown_reply": reply(restart=FLAG),
    "create_subshell_reply": reply(subshell_id=TEXT),
    "delete_subshell_reply": reply(),
    "list_subshell_reply": reply(subshell_id={"type": "array", "items": TEXT}),
    "usage_reply": OBJECT,
    "debug_reply": shape(
        "type request_seq success seq",
        type=TEXT,
        request_seq=NUMBER,
        success=FLAG,
        command=TEXT,
        message=TEXT,
        seq=NUMBER,
        body=OBJECT,
    ),
}
# A failed reply need not have what a good one has.
for _reply_type in ("inspect", "complete", "history", "comm_info", "shutdown", "create_subshell", "list_subshell"):
    _failed = PROTOCOL[f"{_reply_type}_reply"]["anyOf"][1]
    _failed["properties"] = {name: _failed["properties"][name] for name in ("status", "ename", "evalue", "traceback")}
JUDGES = {msg_type: jsonschema.Draft7Validator(each) for msg_type, each in PROTOCOL.items()}

# Honest messages, to be spoilt.
HONEST: dict[str, Json] = {
    "stream": {"name": "stdout", "text": "x\n"},
    "display_data": {
        "data": {"text/plain": "x", "application/json": [1]},
        "metadata": {},
        "transient": {"display_id": "a"},
    },
    "update_display_data": {"data": {"text/html": "<b>x</b>"}, "metadata": {}, "transient": {"display_id": "a"}},
    "execute_result": {
        "execution_count": 1,
        "data": {"text/plain": "1"},
        "metadata": {},
        "transient": {"display_id": "here"},
    },
    "execute_input": {"code": "1", "execution_count": 1},
    "error": {"ename": "E", "evalue": "v", "traceback": ["\x1b[31mE\x1b[39m: v"]},
    "clear_output": {"wait": True},
    "comm_open": {"comm_id": "c", "target_name": "t", "data": {"state": {}}},
    "comm_msg": {"comm_id": "c", "data": {"method": "update", "state": {"value": 1}}},
    "comm_close": {"comm_id": "c", "data": {}},
    "debug_event": {"type": "event", "event": "stopped", "seq": 1, "body": {"threadId": 1}},
    "input_request": {"prompt": "? ", "password": False},
    "execute_reply": {
        "status": "ok",
        "execution_count": 1,
        "payload": [{"source": "page", "data": {"text/plain": "help"}, "start": 0}],
        "user_expressions": {"x": {"status": "ok", "data": {"text/plain": "1"}, "metadata": {}}},
    },
    "inspect_reply": {"status": "ok", "found": True, "data": {"text/plain": "x"}, "metadata": {}},
    "complete_reply": {
        "status": "ok",
        "matches": ["print"],
        "cursor_start": 0,
        "cursor_end": 2,
        "metadata": {
            "_jupyter_types_experimental": [
                {"start": 0, "end": 2, "text": "print", "type": "function", "signature": "(x)"}
            ]
        },
    },
    "history_reply": {"status": "ok", "history": [[0, 1, "x = 1"], [0, 2, ["y", "2"]]]},
    "is_complete_reply": {"status": "incomplete", "indent": "    "},
    "comm_info_reply": {"status": "ok", "comms": {"c": {"target_name": "t"}}},
    "shutdown_reply": {"status": "ok", "restart": False},
    "create_subshell_reply": {"status": "ok", "subshell_id": "s"},
    "delete_subshell_reply": {"status": "ok"},
    "list_subshell_reply": {"status": "ok", "subshell_id": ["s"]},
    "usage_reply": {"hostname": "h", "pid": 1, "kernel_cpu": 0.5, "host_virtual_memory": {"total": 8}},
    "debug_reply": {"type": "response", "request_seq": 1, "success": True, "command": "attach", "seq": 2, "body": {}},
}
FAILED = {"status": "error", "ename": "E", "evalue": "v", "traceback": ["t"]}


def test_every_type_that_may_pass_has_a_shape() -> None:
    may_pass = {name for table in rules.FROM_KERNEL.values() for name in table} - {"status", "iopub_welcome"}
    assert may_pass == set(PROTOCOL) == set(HONEST)


@pytest.mark.parametrize("msg_type", HONEST)
def test_an_honest_message_passes_unchanged(msg_type: str) -> None:
    content = json.loads(json.dumps(HONEST[msg_type]))
    checked = schema.check(msg_type, content, {"msg_id": "p"}, {}, [])
    assert checked.content == HONEST[msg_type]
    JUDGES[msg_type].validate(checked.content)


@pytest.mark.parametrize("msg_type", [name for name in HONEST if name.endswith("_reply")])
def test_a_reply_that_says_what_went_wrong_says_so_to_the_client(msg_type: str) -> None:
    for content in (dict(FAILED), schema.unreadable_reply(msg_type, "larger than 128 MB")):
        checked = schema.check(msg_type, content, {}, {}, [])
        JUDGES[msg_type].validate(checked.content)


# --- property: mutated messages --------------------------------------------------------------------------------------

ODD: list[Any] = [
    None,
    True,
    0,
    -1,
    1.5,
    2**70,
    1e300,
    "",
    "x",
    "2024-99-99T99:99:99Z",
    "\ud800",
    "\x1b[31m<a href='#'>x</a>",
    [],
    [[]],
    ["a", "b"],
    ["a", 1],
    [None] * 3,
    {},
    {"": {}},
    {"status": "ok"},
    {"text/html": ["<b>", "</b>"]},
    {"msg_id": 7},
    "y" * 300,
    {"__proto__": 1},
    {"execution_state": "dead"},
    {"\udfff": "\udfff"},
    [[[[[[[[1]]]]]]]],
    "sandboxed-kernel-1",
]
KEYS = [
    "status",
    "data",
    "metadata",
    "transient",
    "execution_count",
    "text",
    "name",
    "comm_id",
    "payload",
    "\ud800",
    "x",
]


def mutate(value: Any, choose: random.Random) -> Any:
    """The same with something in it exchanged, gone, or added."""
    if choose.random() < 0.25 or not isinstance(value, dict | list) or not value:
        return choose.choice(ODD)
    if isinstance(value, list):
        place = choose.randrange(len(value))
        return [*value[:place], mutate(value[place], choose), *value[place + choose.randrange(2) :]]
    name = choose.choice(list(value))
    changed = {**value, name: mutate(value[name], choose)}
    if choose.random() < 0.2:
        del changed[name]
    if choose.random() < 0.2:
        changed[choose.choice(KEYS)] = choose.choice(ODD)
    return changed


def mutate_bytes(text: bytes, choose: random.Random) -> bytes:
    place = choose.randrange(len(text) + 1)
    odd = choose.choice(
        [b"", b"\\ud800", b"\xff", b"NaN", b"1e999", b"[" * 200, b'"x":1,' * 3, b"}", b'"', b"\\", b"9" * 5000]
    )
    return text[:place] + odd + text[place + choose.randrange(3) :]


def try_one(msg_type: str, seed: int) -> bool:
    """One mutated message through all that is pure of the relay's check. Whether it passed."""
    choose = random.Random(seed)
    parts: list[Json] = [
        {"msg_id": "1", "msg_type": msg_type, "session": "s", "username": "u", "date": "2024-01-01T00:00:00Z"},
        {"msg_id": "p", "msg_type": "execute_request", "session": "s", "date": "2024-01-01T00:00:00Z"},
        {"started": "2024-01-01T00:00:00.5Z", "dependencies_met": True},
        HONEST[msg_type] if choose.random() < 0.8 else FAILED,
    ]
    for _ in range(choose.randrange(4)):
        place = choose.choice([1, 2, 3, 3, 3, 3])
        changed = mutate(parts[place], choose)
        parts[place] = changed if isinstance(changed, dict) else parts[place]
    texts = [json.dumps(part).encode() for part in parts]
    if choose.random() < 0.3:
        place = choose.choice([1, 2, 3, 3, 3])
        texts[place] = mutate_bytes(texts[place], choose)
    try:
        message = Claimed([DELIMITER, b"", *texts, b"buffer"])
        parent = schema.check_parent(message.parent)
        checked = schema.check(message.msg_type, message.content(), parent, message.metadata(), message.buffers)
        written = [messages.write_object(part) for part in (checked.content, checked.parent, checked.metadata)]
    except Unusable:
        return False
    content, parent, metadata = (json.loads(part) for part in written)
    text = json.dumps([content, parent, metadata], ensure_ascii=False)
    text.encode()  # raises for a lone surrogate
    if msg_type != "usage_reply":  # whose fields have no names
        assert "<a " not in json.dumps(content.get("traceback", ""))
    JUDGES[msg_type].validate(content)
    extract_dates(parent)  # as jupyter_client does; raises for a day that there is none of
    assert messages._depth({"": content}) <= MAX_DEPTH + 1
    if msg_type in ("stream", "display_data", "execute_result", "error"):
        output = nbbase.output_from_msg({"header": {"msg_type": msg_type}, "content": content})
        nbjson.writes(new_notebook(cells=[nbbase.new_code_cell(outputs=[output])]))
    return True


@given(st.sampled_from(list(HONEST)), st.integers(0, 2**64))
@settings(max_examples=examples(300), deadline=None)
def test_a_mutated_message_is_one_of_its_shape_or_none(msg_type: str, seed: int) -> None:
    try_one(msg_type, seed)


def test_many_more_of_them() -> None:
    times = few(10_000) // len(HONEST)
    passed = sum(try_one(msg_type, seed) for seed in range(times) for msg_type in HONEST)
    everything = times * len(HONEST)
    assert everything / 2 < passed < everything  # else the mutations are too wild, or too tame


# --- what a content may cost -----------------------------------------------------------------------------------------


@pytest.fixture
def hundredth(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same limits, for texts that take a hundredth of the time."""
    monkeypatch.setattr(messages, "MAX_TEXT_BYTES", messages.MAX_TEXT_BYTES // 100)
    monkeypatch.setattr(messages, "MAX_PARSED_BYTES", messages.MAX_PARSED_BYTES // 100)


@pytest.mark.usefixtures("hundredth")
@pytest.mark.parametrize(
    "content",
    [
        b'{"data": [' + b"{}," * 20_000 + b"{}]}",
        b'{"data": [' + b"[]," * 20_000 + b"[]]}",
        b'{"data": [' + b"1," * 60_000 + b"1]}",
        b'{"data": {' + b'"":{},' * 10_000 + b'"":1}}',
    ],
    ids=["objects", "arrays", "numbers", "keys"],
)
def test_what_would_be_too_many_values_is_not_parsed(content: bytes) -> None:
    with pytest.raises(Unusable, match="more values"):
        messages.read_content(content)


@pytest.mark.usefixtures("hundredth")
def test_what_only_looks_like_many_values_is_parsed() -> None:
    text = "{},[]," * 15_000 + '\\"'
    assert messages.read_content(json.dumps({"text": text}).encode()) == {"text": text}
    numbers = [0.125] * 20_000
    assert messages.read_content(json.dumps({"data": numbers}).encode()) == {"data": numbers}


@pytest.mark.usefixtures("hundredth")
@pytest.mark.parametrize(("letter", "times"), [("x", 128 << 20), ("\u2013", 20 << 20), ("\U0001f600", 8 << 20)])
def test_a_text_may_be_as_long_as_it_is_as_a_string(letter: str, times: int) -> None:
    times = times // 100 - 1000
    content = b'{"text":"' + letter.encode() * times + b'"}'
    assert len(messages.read_content(content)["text"]) == times
    with pytest.raises(Unusable, match="MB"):
        messages.read_content(b'{"text":"' + letter.encode() + b"x" * messages.MAX_TEXT_BYTES + b'"}')


def test_a_search_for_strings_takes_as_long_as_the_text() -> None:
    """Also where none of the quotes is the last one."""
    for text in ('"' + '\\"' * 500_000, '"' * 999_999, '"\\' * 500_000, "\\" * 1_000_000):
        assert len(messages._STRING.sub("", text)) <= len(text)


@pytest.mark.parametrize("depth", [MAX_DEPTH - 1, MAX_DEPTH, MAX_DEPTH + 1, 900, 100_000])
def test_what_is_nested_too_deeply_is_not_passed(depth: int) -> None:
    content = b'{"":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"
    if depth <= MAX_DEPTH:
        messages.read_content(content)
    else:
        with pytest.raises(Unusable):
            messages.read_content(content)


def test_lone_surrogates_are_replaced_and_pairs_are_letters() -> None:
    assert messages.read_content(rb'{"a": "\ud83d\ude00 \ud800", "\uDFFF": "\\ud800"}') == {
        "a": "\U0001f600 \ufffd",
        "\ufffd": "\\ud800",
    }


# --- tracebacks ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "\x1b[31m---------------------------------------------------------------------------\x1b[39m",
        "\x1b[36mCell\x1b[39m\x1b[36m \x1b[39m\x1b[32mIn[1]\x1b[39m\x1b[32m, line 1\x1b[39m",
        "File ~/x.py:3, in <module>",
        "<ipython-input-1-abc>",
        "<cell line: 1>()",
        "<class 'int'>",
        "<function f at 0x7f>",
        "<__main__.A object at 0x7f>",
        "'<' not supported between instances of 'int' and 'str'",
        "a < b and c > d",
        "x << 2",
        "<lambda>(x)",
        "<Response [200]>",
        "<frozen importlib._bootstrap>",
        "x <= y",
    ],
)
def test_an_honest_line_of_a_traceback_stays_as_it_is(line: str) -> None:
    assert schema.defuse(line) == line


@pytest.mark.parametrize(
    "line",
    [
        "<a href='#'><img src=x onerror=alert(1)></a>",
        '<A\thref="x">y</a>',
        "<a x=1 href='#'>",
        "<a\x1b[40m href='#'>y</a>",
        "<\x1b[40ma href='#'>y</a>",
        "<a \x1b[40mhref='#'>",
        "<img/src=x onerror=1>",
        "<script>",
        "</script >",
        "<svg><use>",
        "<iframe src=x>",
        "<p style=x>",
        "<!-- x",
        "<  a href=x>",
        "<a",
        "<img ",
    ],
)
def test_what_a_renderer_could_take_for_html_is_text(line: str) -> None:
    shown = schema.defuse(line)
    assert shown.replace("\u200b", "") == line
    assert "<\u200b" in shown


def test_a_traceback_within_a_widget_is_text_too() -> None:
    error = {"output_type": "error", "ename": "E", "evalue": "v", "traceback": ["<a href='#'>x</a>", 7]}
    state = {"_model_module": "@jupyter-widgets/output", "_model_name": "OutputModel", "outputs": [error]}
    Widgets(lambda _bundle: None).clean("comm_msg", {"comm_id": "c", "data": {"method": "update", "state": state}})
    assert error["traceback"] == ["<\u200ba href='#'>x</a>", ""]


# --- what a cell asks for --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "asks"),
    [
        ("%load x.py", True),
        ("x = 1\n  %load x.py", True),
        ("load x.py", True),
        ("% load x", True),
        ("%loadpy x", True),
        ("get_ipython().run_line_magic('load', 'x.py')", True),
        ("json.load(f)", False),
        ("load = 1", True),
        ("print('%d' % loaded)", False),
        ("x = yaml.load(text)", False),
        ("1", False),
        ("%load_ext autoreload", False),
        ("np.load('x')", False),
        ("load(x)", False),
    ],
)
def test_a_cell_asks_to_be_replaced_as_ipython_would_do_it(code: str, asks: bool) -> None:
    assert schema.asks_to_replace(code) is asks


def test_a_payload_that_would_act_outside_does_not_pass() -> None:
    """qtconsole starts its editor with the file name in a shell's command line."""
    edit = {"source": "edit_magic", "filename": '"; touch /tmp/x; "', "line_number": 1}
    content = {**HONEST["execute_reply"], "payload": [edit, {"source": "ask_exit", "keepkernel": 1}, 7]}
    checked = schema.check("execute_reply", content, {}, {}, [])
    assert checked.content["payload"] == [{"source": "ask_exit", "keepkernel": False}]


if __name__ == "__main__":
    times = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    went = sum(try_one(msg_type, seed) for seed in range(times // len(HONEST)) for msg_type in HONEST)
    print(f"{times} messages: {went} passed, the others were dropped with a reason; no exception")
