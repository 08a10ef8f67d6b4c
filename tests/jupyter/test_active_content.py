"""Outputs of a real kernel arrive without what acts in a page, and say so; where the policy allows it, as they are."""

from __future__ import annotations

import html
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandboxed_kernel.relay.markup import ALLOW_LINE
from tests.support import kernels
from tests.support.kernels import Kernel, Outcome, running

ATTACK = "<img src=x onerror=alert(1)>"
SCRIPT = "display({'text/html': '<script>x</script>', 'application/javascript': 'x', 'text/plain': 'kept'}, raw=True)"


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    with running(kernels.REAL, tmp_path_factory.mktemp("k")) as running_kernel:
        yield running_kernel


def states(outcome: Outcome) -> list[dict[str, object]]:
    return [message["content"]["data"].get("state", {}) for message in outcome.of("comm_open", "comm_msg")]


def test_a_script_does_not_arrive_and_its_place_says_so(kernel: Kernel) -> None:
    (shown,) = kernel.run(SCRIPT).displays
    data = shown["content"]["data"]
    assert "application/javascript" not in data
    assert "<script" not in data["text/html"]
    assert data["text/plain"] == "kept"
    assert ALLOW_LINE in html.unescape(data["text/html"])


def test_a_help_page_is_cleaned_as_an_output_is(kernel: Kernel) -> None:
    outcome = kernel.run(
        "get_ipython().payload_manager.write_payload("
        f"{{'source': 'page', 'start': 0, 'data': {{'text/html': '{ATTACK}', 'text/plain': 'x'}}}})"
    )
    (page,) = outcome.reply["content"]["payload"]
    assert "onerror" not in page["data"]["text/html"]


def test_a_widget_of_html_is_clean_and_one_with_its_own_code_does_not_open(kernel: Kernel) -> None:
    pytest.importorskip("ipywidgets")
    outcome = kernel.run(f"import ipywidgets\nw = ipywidgets.HTML({ATTACK!r})\nw.value = '<b>b</b>{ATTACK}'\nw")
    values = [state["value"] for state in states(outcome) if state.get("value")]
    assert [str(value).partition("<div")[0] for value in values] == ["<img>", "<b>b</b><img>"]
    code = """
import traitlets
class Own(ipywidgets.DOMWidget):
    _model_module = _view_module = traitlets.Unicode("own-module").tag(sync=True)
    _model_name = _view_name = traitlets.Unicode("Own").tag(sync=True)
    _esm = traitlets.Unicode("export default {}").tag(sync=True)
Own()"""
    outcome = kernel.run(code)
    assert "own-module" not in str(states(outcome))
    shown = outcome.displays[-1]["content"]["data"]
    assert shown["text/plain"] == "Own()"
    assert ALLOW_LINE in html.unescape(shown["text/html"])


def test_a_slider_goes_there_and_back(kernel: Kernel) -> None:
    pytest.importorskip("ipywidgets")
    outcome = kernel.run("import ipywidgets\ns = ipywidgets.IntSlider(description='n')\ns")
    opened = [m["content"] for m in outcome.of("comm_open")]
    slider = next(content for content in opened if content["data"]["state"]["_model_name"] == "IntSliderModel")
    data = {"method": "update", "state": {"value": 7}, "buffer_paths": []}
    session, shell = kernel.client.session, kernel.client.shell_channel
    shell.send(session.msg("comm_msg", {"comm_id": slider["comm_id"], "data": data}))
    assert kernel.run("s.value").displays[-1]["content"]["data"]["text/plain"] == "7"


def test_where_the_policy_allows_it_a_script_arrives(short_path: Path) -> None:
    policy = short_path / "policy.toml"
    policy.write_text(ALLOW_LINE.replace("] ", "]\n") + "\n")
    command = [sys.executable, "-I", "-m", "sandboxed_kernel", "--policy", str(policy), "-f", "{connection_file}"]
    with running(command, short_path) as kernel:
        (shown,) = kernel.run(SCRIPT).displays
    assert shown["content"]["data"]["application/javascript"] == "x"
    assert shown["content"]["data"]["text/html"] == "<script>x</script>"
