"""`make test-peers`: the suites of nbclient, ipykernel and jupyter_client pass with our kernel as with a plain one.

jupyter_kernel_test's is in the default suite, in tests/jupyter/test_clients.py. Not called test_*: a plain call of
pytest has neither the peers' sdists nor the minutes.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.peers import runs, suites
from tests.peers.suites import Result, Suite

DIFFERENCES = Path(__file__).with_name("differences.toml")


def both(suite: Suite, folder: Path) -> tuple[dict[str, Result], dict[str, Result], int]:
    """Both runs of the tests that take part, and how many there are altogether.

    What ends otherwise than the table says is run again, without the others: what then ends as the table says was a
    matter of time, or of a test before it.
    """
    benches = [runs.prepare(suite, folder / name, sandboxed=name == "ours") for name in ("plain", "ours")]
    everything = runs.run(benches[0])
    plain = suites.taking_part(everything)
    sandboxed = runs.run(benches[1], plain)
    expected = suites.read_differences(DIFFERENCES.read_text(), suite.project)
    again = {one.test for one in suites.surprises(suites.differences(plain, sandboxed), expected)} & plain.keys()
    if again:
        print(f"\n{suite.project}: run again:", *sorted(again), sep="\n    ")
        plain.update(runs.run(benches[0], again))
        sandboxed.update(runs.run(benches[1], again))
    return plain, sandboxed, len(everything)


@pytest.mark.container
@pytest.mark.parametrize("suite", suites.SUITES, ids=lambda suite: suite.project)
def test_a_peers_suite_passes_as_with_a_plain_kernel(suite: Suite, tmp_path_factory: pytest.TempPathFactory) -> None:
    expected = suites.read_differences(DIFFERENCES.read_text(), suite.project)
    plain, sandboxed, altogether = both(suite, tmp_path_factory.mktemp("k"))
    found = suites.differences(plain, sandboxed)
    print(
        f"\n{suite.project}: {altogether} tests, of which {len(plain)} have to do with the kernel. "
        f"Passed with plain ipykernel: {suites.passed(plain)}, sandboxed: {suites.passed(sandboxed)}."
    )
    for difference in sorted(found, key=str):
        print(f"    {difference}: {expected.get(difference, 'NOT EXPECTED')}")
    wrong = [
        f"{one} ({why}): {plain.get(one.test, Result('')).said} / {sandboxed.get(one.test, Result('')).said}"
        for one, why in suites.surprises(found, expected).items()
    ]
    assert wrong == []
