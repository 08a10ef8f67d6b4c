"""Pure: the peers' test suites, and how two runs of one of them are compared.

A test takes part if, with plain ipykernel, one of ``KERNELS`` was started or spoken to while it ran (observe.py sees
it). The others are about the peer's own classes, about kernels in the test's own process, or about kernels that
the test brings itself: our kernel is not in them, so they would say nothing about it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass

# The names under which a suite finds the kernel under test. "echo" is pytest-jupyter's, of which jupyter_client asks
# what any kernel can do; in its place a real one answers.
KERNELS = ("python3", "echo")

PASSED = "passed"
NOT_RUN = "not run"


@dataclass(frozen=True)
class Suite:
    """A peer by its name on PyPI; pytest arguments beside its own settings; a policy, where it needs one. ``{scratch}``
    in it is the folder beneath which pytest makes ``tmp_path``.
    """

    project: str
    arguments: tuple[str, ...] = ("tests",)
    policy: str | None = None


SUITES = (
    Suite(
        "nbclient",
        # What its notebooks are told by variables, and the folder by which some of them meet.
        policy='[environment]\npass = ["IPYKERNEL_CELL_NAME", "NBEXECUTE_TEST_PARALLEL_TMPDIR"]\n'
        '[filesystem]\nwrite = [".", "{scratch}"]\n',
    ),
    Suite("ipykernel"),
    # test_restarter starts none but its own problematic kernel, and takes two minutes for it.
    Suite("jupyter_client", arguments=("tests", "--ignore=tests/test_restarter.py")),
)


@dataclass(frozen=True)
class Result:
    """How one test ended: pytest's word for it, the first line of what it said, and the kernels it had to do with."""

    outcome: str
    said: str = ""
    used: bool = False


@dataclass(frozen=True)
class Difference:
    """A test that does not end as with plain ipykernel."""

    test: str
    plain: str
    sandboxed: str

    def __str__(self) -> str:
        return f"{self.test}: plain {self.plain}, sandboxed {self.sandboxed}"


def read_differences(text: str, project: str) -> dict[Difference, str]:
    """The expected differences of one suite, each with its reason. ``text`` is differences.toml."""
    rows = tomllib.loads(text)["difference"]
    return {
        Difference(test, row["plain"], row["sandboxed"]): row["reason"]
        for row in rows
        if row["suite"] == project
        for test in row["tests"]
    }


def taking_part(plain: Mapping[str, Result]) -> dict[str, Result]:
    return {test: result for test, result in plain.items() if result.used}


def differences(plain: Mapping[str, Result], sandboxed: Mapping[str, Result]) -> set[Difference]:
    missing = Result(NOT_RUN)
    both = ((test, plain[test].outcome, sandboxed.get(test, missing).outcome) for test in plain)
    return {Difference(*row) for row in both if row[1] != row[2]}


def surprises(found: Collection[Difference], expected: Collection[Difference]) -> dict[Difference, str]:
    """What is not as the table says, and in which direction: one that is gone is to be taken out of it."""
    new = {difference: "not in differences.toml" for difference in found if difference not in expected}
    gone = {difference: "in differences.toml, but not found" for difference in expected if difference not in found}
    return {**new, **gone}


def passed(results: Mapping[str, Result]) -> int:
    return sum(result.outcome == PASSED for result in results.values())
