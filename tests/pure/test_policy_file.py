"""A policy's text becomes a Policy, or an error that names the key; what extends what, and what wins."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sandboxed_kernel.errors import PolicyError
from sandboxed_kernel.policy.file import MAX_DEPTH, MAX_SOURCES, parse
from sandboxed_kernel.policy.model import BEST_EFFORT_NAMES, Limits, PathGrant, Policy
from sandboxed_kernel.policy.read import presets
from sandboxed_kernel.policy.variables import KEPT_OUT, kept_out
from sandboxed_kernel.policy.words import shown

PRESETS = presets()
GiB = 1 << 30


def read(text: str, presets: dict[str, str] | None = None) -> Policy:
    known = PRESETS if presets is None else presets
    return parse(text, place="policy.toml", workspace="/home/u/book", home="/home/u", presets=known)


def error_of(text: str, presets: dict[str, str] | None = None) -> str:
    with pytest.raises(PolicyError) as caught:
        read(text, presets)
    return str(caught.value).partition("\n")[0]  # without the line and its caret


def hosts(policy: Policy) -> list[str]:
    return [rule.text for rule in policy.allow]


# --- what is said, key by key ----------------------------------------------------------------------------------------


def test_an_empty_policy_is_the_default() -> None:
    assert read("") == Policy(sources=("policy.toml",))


def test_every_key() -> None:
    policy = read(
        """
        best_effort = ["signals", "tcp"]
        [network]
        allow = ["a.example:1", { host = "b.example", port = 2 }]
        pins = "ttl"
        [filesystem]
        read = ["~/data"]
        write = ["out"]
        require = ["~/data"]
        [environment]
        pass = ["OPENAI_BASE_URL", "LANG", "LANG"]
        set = { TZ = "UTC", LD_PRELOAD = "/x.so", EMPTY = "" }
        [limits]
        memory = "4 GiB"
        processes = 200
        open_files = 1024
        cpu_seconds = 3600
        file_size = 4096
        [outputs]
        active_content = "allow"
        """
    )
    assert hosts(policy) == ["a.example:1", '{ host = "b.example", port = 2 }']
    assert [rule.place for rule in policy.allow] == ["policy.toml: network.allow[0]", "policy.toml: network.allow[1]"]
    assert (policy.pins, policy.active_content) == ("ttl", "allow")
    assert policy.best_effort == {"signals", "tcp"}
    assert policy.grants == (
        PathGrant("/home/u/data", False, "~/data", "policy.toml: filesystem.read[0]"),
        PathGrant("/home/u/book/out", True, "out", "policy.toml: filesystem.write[0]"),
    )
    assert policy.required == (PathGrant("/home/u/data", False, "~/data", "policy.toml: filesystem.require[0]"),)
    assert policy.environment_pass == ("OPENAI_BASE_URL", "LANG")
    assert policy.environment_set == (("TZ", "UTC"), ("LD_PRELOAD", "/x.so"), ("EMPTY", ""))
    assert policy.limits == Limits(4 * GiB, 200, 1024, 3600, 4096)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (".", "/home/u/book"),
        ("data", "/home/u/book/data"),
        ("../other/./x//y/", "/home/u/other/x/y"),
        ("../../../../..", "/"),
        ("~", "/home/u"),
        ("~/", "/home/u"),
        ("~//x", "/home/u/x"),
        ("~/../v", "/home/v"),
        ("/srv/data", "/srv/data"),
        ("//srv/data", "/srv/data"),
        ("/", "/"),
        ("a~b $c", "/home/u/book/a~b $c"),
    ],
)
def test_a_path_is_taken_from_the_workspace_or_the_home(text: str, path: str) -> None:
    assert [grant.path for grant in read(f'filesystem.read = ["{text}"]').grants] == [path]


@pytest.mark.parametrize(
    ("value", "size"),
    [
        ('"4 GiB"', 4 * GiB),
        ('"4GiB"', 4 * GiB),
        ('"4 gib"', 4 * GiB),
        ('"1.5 GiB"', 3 * GiB // 2),
        ('"4 GB"', 4 * 10**9),
        ('"100000 kB"', 10**8),
        ('"64 MiB"', 64 << 20),
        ('"2 TiB"', 2048 * GiB),
        ('"16777216 B"', 16 << 20),
        ("16777216", 16 << 20),
    ],
)
def test_sizes(value: str, size: int) -> None:
    assert read(f"limits.memory = {value}").limits.memory == size


@pytest.mark.parametrize(
    ("url", "proxy", "network"),
    [
        ("http://127.0.0.1:3128", ("127.0.0.1", 3128), "127.0.0.1/32"),
        ("http://127.0.0.1:3128/", ("127.0.0.1", 3128), "127.0.0.1/32"),
        ("HTTP://[::1]:8080", ("::1", 8080), "::1/128"),
        ("http://Proxy.Corp:3128", ("proxy.corp", 3128), "None"),
    ],
)
def test_a_proxy_is_the_only_reachable_endpoint(url: str, proxy: tuple[str, int], network: str) -> None:
    policy = read(f'network.proxy = "{url}"')
    assert policy.proxy == proxy
    [rule] = policy.allow
    assert (str(rule.network), rule.private, rule.place) == (network, True, "policy.toml: network.proxy")
    assert rule.has_port(proxy[1])
    assert not rule.has_port(443)


# --- what is wrong, with the exact words ---------------------------------------------------------------------------

_SIZE = 'is not a size with a unit (B, KiB, MiB, GiB, TiB). Write "4 GiB"'
_URL = 'Write "http://127.0.0.1:3128"'
_HOME_FOLDER = 'Write the path itself; "~" is the home folder'
_TOP = "Write one of: extends, best_effort, network, filesystem, accelerators, environment, limits, home, outputs"
_SERVER = "with the Jupyter server's token the code could start a terminal or a kernel outside the sandbox"

BAD: list[tuple[str, str]] = [
    # TOML
    ("x = = 1", "line 1, column 5: not TOML: two equals signs. Write one ="),
    ("[network]\n\nallow = [\n", "end of document: not TOML: Invalid value. Write TOML (toml.io)"),
    ("[a]\n[a]\n", 'line 2, column 3: not TOML: "a" stands there twice. Write it once, with all that belongs to it'),
    ("a = " + "[" * 5000, "not TOML: a value too long or too deep. Write TOML (toml.io)"),
    ("a = " + "9" * 5000, "not TOML: a value too long or too deep. Write TOML (toml.io)"),
    # keys
    ("netwrk = 1", 'netwrk: unknown key. Write "network"'),
    ("zzz = 1", f"zzz: unknown key. {_TOP}"),
    ('"" = 1', f'"": unknown key. {_TOP}'),
    ('"a\\u0007" = 1', f'"a\\u0007": unknown key. {_TOP}'),
    ("allow = []", 'allow: unknown key. Write "allow" under [network]'),
    ("memory = 1", 'memory: unknown key. Write "memory" under [limits]'),
    ("[network]\nalow = []", 'network.alow: unknown key. Write "allow"'),
    ("[network]\nextends = []", 'network.extends: unknown key. Write "extends" above the first [table]'),
    ("[network]\nbest_effort = []", 'network.best_effort: unknown key. Write "best_effort" above the first [table]'),
    ("[environment]\nzzz = 1", "environment.zzz: unknown key. Write one of: pass, set, from"),
    # types
    ("network = 3", "network: 3 is an integer, not a table. Write [network]"),
    ("limits = []", "limits: [] is an array, not a table. Write [limits]"),
    ('[network]\nallow = "a:1"', 'network.allow: "a:1" is a string, not an array. Write ["pypi.org:443"]'),
    (
        "[[network.allow]]\nhost = 'a'\nport = 0",
        (
            'network.allow[0]: { host = "a", port = 0 }: "0" is not a port. '
            "Write a number from 1 to 65535, a range 8000-8010, or *"
        ),
    ),
    ('network.allow = ["a:1", "b"]', 'network.allow[1]: "b": no port. Write "b:443"'),
    ("network.pins = 3", "network.pins: 3 is an integer, not a string. Write one of: session, ttl"),
    ('network.pins = "sesion"', 'network.pins: "sesion" is none of its values. Write "session"'),
    ('network.pins = "x"', 'network.pins: "x" is none of its values. Write one of: session, ttl'),
    ('outputs.active_content = "stripe"', 'outputs.active_content: "stripe" is none of its values. Write "strip"'),
    ('best_effort = "signals"', 'best_effort: "signals" is a string, not an array. Write ["signals"]'),
    ('best_effort = ["tcp", "signal"]', 'best_effort[1]: "signal" is none of its values. Write "signals"'),
    (
        "best_effort = [1979-05-27]",
        (
            "best_effort[0]: 1979-05-27 is a date or time, not a string. "
            "Write one of: tcp, signals, abstract, truncate, ioctl"
        ),
    ),
    # proxy
    ('network.proxy = "127.0.0.1:1"', f'network.proxy: "127.0.0.1:1" is not an http:// URL. {_URL}'),
    ('network.proxy = "https://a:1"', f'network.proxy: "https://a:1" is not an http:// URL. {_URL}'),
    ('network.proxy = "http://a"', f'network.proxy: "http://a": no port. {_URL}'),
    ('network.proxy = "http://a:1/x"', f'network.proxy: "http://a:1/x": a path. {_URL}'),
    ('network.proxy = "http://a:1,2"', f'network.proxy: "http://a:1,2" is not one endpoint. {_URL}'),
    ('network.proxy = "http://10.0.0.0/8:1"', f'network.proxy: "http://10.0.0.0/8:1": a path. {_URL}'),
    ('network.proxy = "http://*.a.b:1"', f'network.proxy: "http://*.a.b:1" is not one endpoint. {_URL}'),
    (
        'network.proxy = "http://169.254.169.254:80"',
        f'network.proxy: "http://169.254.169.254:80": metadata addresses are never allowed. {_URL}',
    ),
    (
        'network.proxy = "http://u:p@a:1"',
        f"network.proxy: a user name or password, which the sandboxed code would see. {_URL}",
    ),
    (
        '[network]\nproxy = "http://a:1"\nallow = ["b:1"]',
        (
            'network.allow[0]: "b:1", but policy.toml: network.proxy makes the proxy the only reachable endpoint. '
            "Remove one of the two, and list what is allowed in the proxy's own rules"
        ),
    ),
    # paths
    ('filesystem.read = "~/x"', 'filesystem.read: "~/x" is a string, not an array. Write ["~/x"]'),
    ('filesystem.read = [""]', 'filesystem.read[0]: "" is not a path. Write a path, for example "~/datasets"'),
    (
        'filesystem.read = ["a\\u0000"]',
        'filesystem.read[0]: "a\\u0000" is not a path. Write a path, for example "~/datasets"',
    ),
    (
        'filesystem.read = ["~root/x"]',
        'filesystem.read[0]: "~root/x": the home of another user. Write the absolute path',
    ),
    ('filesystem.write = ["$HOME/x"]', f'filesystem.write[0]: "$HOME/x": variables are not filled in. {_HOME_FOLDER}'),
    (
        'filesystem.write = ["*.csv"]',
        'filesystem.write[0]: "*.csv": patterns are not filled in. Write the folder; all that is in it is meant',
    ),
    # environment
    (
        'environment.pass = ["A B"]',
        (
            'environment.pass[0]: "A B" is not the name of a variable. '
            "Write letters, digits and _; each variable by its whole name"
        ),
    ),
    (
        'environment.pass = ["OPENAI_*"]',
        (
            'environment.pass[0]: "OPENAI_*" is not the name of a variable. '
            "Write letters, digits and _; each variable by its whole name"
        ),
    ),
    (
        'environment.pass = ["JUPYTERHUB_API_TOKEN"]',
        f"environment.pass[0]: JUPYTERHUB_API_TOKEN is kept out of every sandbox: {_SERVER}. Remove it",
    ),
    ("environment.set = []", 'environment.set: [] is an array, not a table. Write { TZ = "UTC" }'),
    ("environment.set = { A = 1 }", 'environment.set.A: 1 is an integer. Write "1"'),
    ("environment.set = { A = true }", 'environment.set.A: true is a boolean. Write "true"'),
    (
        'environment.set = { A = "\\u0000" }',
        "environment.set.A: a NUL character. Write text without it; no variable can hold one",
    ),
    (
        'environment.set = { "A B" = "" }',
        (
            'environment.set."A B": "A B" is not the name of a variable. '
            "Write letters, digits and _; each variable by its whole name"
        ),
    ),
    # limits
    ("limits.memory = 4", 'limits.memory: 4 is less than 16 MiB. Write "4 GiB", or remove the key for no limit'),
    ("limits.memory = true", 'limits.memory: true is a boolean, not a size. Write "4 GiB"'),
    ("limits.memory = 1.5", 'limits.memory: 1.5 is a float, not a size. Write "4 GiB"'),
    ('limits.memory = "4G"', f'limits.memory: "4G" {_SIZE}'),
    ('limits.memory = "4"', f'limits.memory: "4" {_SIZE}'),
    ('limits.memory = "-4 GiB"', f'limits.memory: "-4 GiB" {_SIZE}'),
    (
        'limits.memory = "4 KiB"',
        'limits.memory: "4 KiB" is less than a kernel can use. Write "4 GiB", or remove the key for no limit',
    ),
    (
        'limits.file_size = "9999999999 TiB"',
        (
            'limits.file_size: "9999999999 TiB" is more than a kernel can use. '
            'Write "10 GiB", or remove the key for no limit'
        ),
    ),
    ("limits.processes = 0", "limits.processes: 0 is less than 1. Write 200, or remove the key for no limit"),
    ("limits.processes = false", "limits.processes: false is a boolean, not an integer. Write 200"),
    ("limits.open_files = 3", "limits.open_files: 3 is less than 64. Write 1024, or remove the key for no limit"),
    (
        "limits.cpu_seconds = 9223372036854775808",
        "limits.cpu_seconds: 9223372036854775808 is more than any host has. Write 3600, or remove the key for no limit",
    ),
    # extends
    ('extends = "pypi"', 'extends: "pypi" is a string, not an array. Write ["pypi"]'),
    (
        'extends = ["pypy"]',
        (
            'extends[0]: "pypy": no such preset (presets: data-science, llm-api, offline, pypi, '
            'teaching) and no path that ends in .toml. Write "pypi"'
        ),
    ),
    ("extends = [3]", "extends[0]: 3 is an integer, not a string. Write it between quotes"),
]


@pytest.mark.parametrize(("text", "message"), BAD, ids=lambda value: str(value)[:40])
def test_an_error_says_where_what_and_what_to_write(text: str, message: str) -> None:
    where = "" if ": " in message.split(":")[0] else "policy.toml: "
    assert error_of(text) == where + message


@pytest.mark.parametrize("row", KEPT_OUT, ids=lambda row: row.pattern)
def test_a_variable_that_is_kept_out_can_be_neither_passed_nor_set(row: Any) -> None:
    name = row.pattern.replace("*", "X")
    assert row.reason in error_of(f'environment.pass = ["{name}"]')
    assert row.reason in error_of(f'environment.set = {{ {name} = "x" }}')


@pytest.mark.parametrize("name", ["JPY", "HOMES", "JUPYTER_TOKENS", "LD_PRELOAD", "PATH", "XDG_CACHE_HOME"])
def test_other_variables_are_not_kept_out(name: str) -> None:
    assert kept_out(name) is None


# --- extends ---------------------------------------------------------------------------------------------------------


def test_what_is_extended_comes_first_lists_add_up_and_single_values_override() -> None:
    base = """
        best_effort = ["tcp"]
        [network]
        allow = ["base.example:1"]
        pins = "ttl"
        [environment]
        set = { A = "base", B = "base" }
        [limits]
        memory = "1 GiB"
        processes = 10
    """
    mine = """
        extends = ["base"]
        best_effort = ["signals"]
        [network]
        allow = ["mine.example:1"]
        pins = "session"
        [environment]
        set = { A = "mine" }
        [limits]
        memory = "2 GiB"
    """
    policy = read(mine, {"base": base})
    assert hosts(policy) == ["base.example:1", "mine.example:1"]
    assert policy.allow[0].place == "preset base: network.allow[0]"
    assert policy.best_effort == {"tcp", "signals"}
    assert policy.pins == "session"
    assert dict(policy.environment_set) == {"A": "mine", "B": "base"}
    assert policy.limits == Limits(memory=2 * GiB, processes=10)
    assert policy.sources == ("policy.toml", "preset base")


def test_an_error_in_a_preset_names_the_preset() -> None:
    assert error_of('extends = ["base"]', {"base": "x = 1"}).startswith("preset base: x: unknown key.")


def test_a_preset_may_be_extended_twice() -> None:
    policy = read('extends = ["pypi", "teaching"]')
    assert hosts(policy) == ["pypi.org:443", "files.pythonhosted.org:443"] * 2
    assert policy.sources == ("policy.toml", "preset pypi", "preset teaching")


def test_a_cycle_is_named() -> None:
    circle = {"a": 'extends = ["b"]', "b": 'extends = ["a"]'}
    assert error_of('extends = ["a"]', circle) == (
        "preset b: extends[0]: a cycle: policy.toml -> preset a -> preset b -> preset a. Remove one of these extends"
    )


def test_depth_and_number_of_extended_files_are_bounded() -> None:
    chain = {f"p{i}": f'extends = ["p{i + 1}"]' for i in range(MAX_DEPTH)} | {f"p{MAX_DEPTH}": ""}
    assert f"more than {MAX_DEPTH} levels of extends" in error_of('extends = ["p0"]', chain)
    assert len(read('extends = ["p1"]', chain).sources) == MAX_DEPTH + 1  # p1 to p8, and the policy itself
    tree = {f"p{i}": f'extends = ["p{i + 1}", "p{i + 1}", "p{i + 1}"]' for i in range(6)} | {"p6": ""}
    assert f"more than {MAX_SOURCES} files and presets" in error_of('extends = ["p0"]', tree)


@pytest.mark.parametrize("name", PRESETS)
def test_each_preset_is_a_policy_and_opens_no_private_address(name: str) -> None:
    policy = read(f'extends = ["{name}"]')
    assert all(rule.name is not None and not rule.private for rule in policy.allow)
    assert all(rule.has_port(443) and not rule.has_port(80) for rule in policy.allow)
    assert (name == "offline") == (not policy.allow)
    assert not policy.grants
    assert not policy.environment_pass


def test_the_presets_are_these() -> None:
    assert list(PRESETS) == ["data-science", "llm-api", "offline", "pypi", "teaching"]
    assert read('extends = ["teaching"]').limits == Limits(2 * GiB, 100, None, 3600, GiB)


# --- over everything -------------------------------------------------------------------------------------------------

_KEYS = [
    "extends",
    "best_effort",
    "network",
    "filesystem",
    "environment",
    "limits",
    "outputs",
    "allow",
    "proxy",
    "pins",
]
_KEYS += ["read", "write", "require", "pass", "set", "memory", "processes", "active_content", "host", "port", "x"]
_texts = st.one_of(
    st.text(max_size=12),
    st.sampled_from(["pypi", "a.example:1", "http://a:1", "~/x", "4 GiB", "ttl", *BEST_EFFORT_NAMES]),
)
_scalars = st.one_of(_texts, st.integers(-(2**70), 2**70), st.booleans(), st.floats(), st.dates())
_values = st.recursive(
    _scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(st.sampled_from(_KEYS), st.text(max_size=4)), inner, max_size=3),
    ),
    max_leaves=6,
)


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_toml(str(key))} = {_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, str):
        return '"' + "".join(f"\\U{ord(c):08X}" if not c.isprintable() or c in '"\\' else c for c in value) + '"'
    return str(value).lower()


_tables = st.dictionaries(st.sampled_from(_KEYS), _values, max_size=4).map(
    lambda table: "\n".join(f"{key} = {_toml(value)}" for key, value in table.items())
)
_dotted = st.lists(
    st.tuples(st.sampled_from(_KEYS), st.sampled_from(_KEYS), _values).map(lambda t: f"{t[0]}.{t[1]} = {_toml(t[2])}"),
    max_size=4,
).map("\n".join)


@given(st.one_of(st.text(), _tables, _dotted))
@example("a = 1979-05-27T25:00:00")
@example("a.b.c = 1\na.b = 2")
@example("\ufeff")
@example("limits.memory = nan")
def test_any_text_is_a_policy_or_a_policy_error(text: str) -> None:
    try:
        policy = read(text)
    except PolicyError as error:
        message = str(error)
    else:
        assert policy.sources[0] == "policy.toml"
        return
    assert message.startswith(("policy.toml: ", "preset "))
    assert ". Write " in message or ". Remove " in message


@given(_values)
def test_a_shown_value_is_one_short_printable_line(value: object) -> None:
    assert shown(value).isprintable()
    assert len(shown(value)) <= 85


def test_sockets_of_services_are_named_by_path() -> None:
    policy = parse('[network]\nunix = ["/run/db/.s.PGSQL.5432", "db.sock"]', place="p.toml", workspace="/w", home="/h")
    assert [(grant.path, grant.writable, grant.place) for grant in policy.unix] == [
        ("/run/db/.s.PGSQL.5432", False, "p.toml: network.unix[0]"),
        ("/w/db.sock", False, "p.toml: network.unix[1]"),
    ]
