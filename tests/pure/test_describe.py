"""An effective policy in words: every part that is in force is named, with the line it comes from."""

from __future__ import annotations

from sandboxed_kernel.policy.describe import describe, describe_absent
from sandboxed_kernel.policy.file import parse
from sandboxed_kernel.policy.model import PathGrant, Policy


def test_the_default_allows_no_network_and_says_so() -> None:
    text = describe(Policy(), [PathGrant("/w", True, ".", "the notebook's folder")], file="/c/policy.toml")
    assert text.splitlines() == [
        "Policy: the default (/c/policy.toml does not exist)",
        "Network:",
        "    nothing",
        "Folders:",
        "    write  /w                                the notebook's folder",
        "Active content of outputs:",
        "    stripped",
    ]


def test_every_part_of_a_policy_is_named_with_its_line() -> None:
    policy = parse(
        """
        best_effort = ["signals"]
        [network]
        allow = ["pypi.org:443"]
        unix = ["/run/db.sock"]
        [filesystem]
        read = ["/data"]
        [environment]
        pass = ["MODEL"]
        set = { TZ = "UTC" }
        [limits]
        memory = "1 GiB"
        processes = 50
        [outputs]
        active_content = "allow"
        """,
        place="policy.toml",
        workspace="/w",
        home="/h",
    )
    text = describe(policy, policy.grants, missing=("signals",), file="policy.toml")
    for part in (
        "Policy: policy.toml",
        "pypi.org:443",
        "policy.toml: network.allow[0]",
        "/run/db.sock",
        "read   /data",
        "passed: MODEL",
        "TZ=UTC",
        'memory = "1 GiB"',
        "processes = 50",
        "    allowed",
        "NOT ENFORCED on this host (best_effort):\n    signals",
    ):
        assert part in text


def test_what_is_granted_and_not_there_is_one_sentence() -> None:
    data = PathGrant("/h/data", False, "~/data", "policy.toml: filesystem.read[0]")
    out = PathGrant("/w/out", True, "./out", "policy.toml: filesystem.write[0]")
    assert describe_absent([]) == ""
    assert describe_absent([data]) == (
        '"~/data" (policy.toml: filesystem.read[0]) does not exist, so it is left out; what is made there now is opened'
        " by the next start of the kernel."
    )
    both = describe_absent([data, out, data])
    assert both.count("\n") == 0
    assert both.startswith(
        '"~/data" (policy.toml: filesystem.read[0]), "./out" (policy.toml: filesystem.write[0]) do not exist, so they'
    )
    text = describe(Policy(), [data, out], absent=[data], file="p.toml")
    assert "Folders:\n    write  /w/out " in text
    assert "Folders that do not exist, left out:\n    read   /h/data " in text
