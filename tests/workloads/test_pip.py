"""``%pip install`` from an allowed index: into a private place, imported in the next cell, and nothing else changed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

from tests.support.wheels import wheel
from tests.support.workloads import Both, Site, side_by_side, text_of

pytestmark = pytest.mark.container


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, site: Site) -> Iterator[Both]:
    """Packages go with the kernel, and come before this Python's. What lasts: tests/jupyter/test_what_lasts.py."""
    policy = f"[network]\nallow = [{site.allow}]\n[home]\nkeep = false\n"
    with side_by_side(tmp_path_factory.mktemp("w"), site, policy) as kernels:
        yield kernels


@pytest.fixture(scope="module", autouse=True)
def index(site: Site) -> None:
    """A package index (PEP 503) of two packages, one of them in two versions and one that is already installed."""
    wheels = [("greeter", "1.0", "tqdm>=1"), ("greeter", "2.0", "tqdm>=1"), ("tqdm", "9999.0")]
    for name in {name for name, *_ in wheels}:
        files = {f"/{name}-{version}-py3-none-any.whl": wheel(name, version, *needs)
                 for found, version, *needs in wheels if found == name}  # fmt: skip
        site.pages.update(files)
        site.pages[f"/simple/{name}/"] = "".join(f'<a href="{path}">{path[1:]}</a>\n' for path in files).encode()


def pip(both: Both, command: str) -> str:
    return text_of(both.inside.run(f"%pip {command} --quiet --index-url {{HTTPS}}/simple"))


def tell(both: Both, code: str) -> str:
    return text_of(both.inside.run(code)).strip()


FRESH = "!{__import__('sys').executable} -c "  # a Python of its own


def test_a_package_comes_is_replaced_and_goes(both: Both, site: Site) -> None:
    before = sorted(Path(sys.prefix).rglob("greeter*"))
    asked = len(site.https.requests)
    pip(both, "install greeter==1.0")
    tell(both, "import greeter, os")
    assert tell(both, "print(greeter.version, greeter.__file__.startswith(os.environ['HOME']))") == "1.0 True"
    assert tell(both, "!greeter") == "greeter 1.0"
    assert tell(both, FRESH + "'import greeter; greeter.main()'") == "greeter 1.0"
    # What it needs was there already, outside, and was not fetched once more.
    assert not [request for request in site.https.requests[asked:] if "/tqdm-" in request.path]
    # From code, as many notebooks do it; nothing says which version, but there is a newer one.
    tell(
        both,
        """
import subprocess, sys
options = ["-q", "--upgrade", "--index-url", HTTPS + "/simple"]
subprocess.check_call([sys.executable, "-m", "pip", "install", *options, "--no-deps", "greeter"])
""",
    )
    assert tell(both, "!greeter") == "greeter 2.0"
    both.inside.run("%pip uninstall --yes --quiet greeter")
    assert "No module named 'greeter'" in tell(both, FRESH + "'import greeter'")
    assert sorted(Path(sys.prefix).rglob("greeter*")) == before == []


def test_a_package_of_the_environment_can_be_replaced_inside_only(both: Both) -> None:
    pip(both, "install tqdm==9999.0")
    assert tell(both, FRESH + "'import tqdm; print(tqdm.version)'") == "9999.0"
    both.inside.run("%pip uninstall --yes --quiet tqdm")
    assert tell(both, FRESH + "'import tqdm; print(tqdm.__version__)'") == metadata.version("tqdm")


def test_an_environment_that_the_notebook_made_is_left_its_own_pip(both: Both) -> None:
    told = tell(
        both,
        """
%%bash -s {HTTPS}
set -e
rm -rf env && /usr/bin/python3 -m venv env
env/bin/pip install -q --index-url "$1/simple" --no-deps greeter
env/bin/python -c 'import greeter, sys; print(greeter.__file__.startswith(sys.prefix))'
""",
    )
    assert told == "True"


def test_uv_is_told_of_the_private_environment(both: Both) -> None:
    """uv asks the Python that UV_PYTHON names where packages go. This one is an environment, and runs as any."""
    code = """
import subprocess, os
ask = "import sys, sysconfig; print(sys.prefix != sys.base_prefix, sys.executable, sysconfig.get_path('purelib'))"
python = os.environ["UV_PYTHON"]
differs, executable, packages = subprocess.check_output([python, "-I", "-c", ask], text=True).split()
print(differs, executable == python, packages in sys.path, os.path.islink(python), os.access(packages, os.W_OK))
"""
    assert tell(both, "import sys" + code) == "True True True False True"


def test_the_note_says_how_long_it_lasts(both: Both) -> None:
    index = "--quiet --index-url {HTTPS}/simple"
    said = text_of(both.inside.run(f"%pip install {index} --no-deps greeter==1.0"))
    assert "installed for this kernel only; gone after a restart" in said
    assert "you may need to restart" not in said
    assert "installed" not in text_of(both.inside.run(f"%pip install {index} nothing-of-this-name")).splitlines()[-1]
    assert "does not see an editable install" in text_of(both.inside.run("%pip install --quiet -e ."))
    both.inside.run("%pip uninstall --yes --quiet greeter")
    assert text_of(both.inside.run("%pip --version")) == text_of(both.plain.run("%pip --version"))
