"""curl, Python, node, git and pip reach the allowed host over HTTPS, by name, and no other host, port or address."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support.dns_server import DnsServer
from tests.support.sandbox import Result, run_command_inside
from tests.support.secure import Authority, SecureServer

NODE_FETCH = """
require("https").get(process.argv[2], r => r.pipe(process.stdout)).on("error", e => { console.log(e.code); });
"""
PYTHON_FETCH = """
import sys, urllib.request
print(urllib.request.urlopen(sys.argv[1], timeout=20).read().decode())
"""
PIP = f'"{sys.executable}" -m pip --isolated download -q --retries 0 --timeout 20 --no-deps'
# program -> what a shell runs, with the server's address as $0 and a new folder as $1, and what it prints on success
PROGRAMS = {
    "curl": ('curl -sS --max-time 20 "$0/"', "the page"),
    "python": (f'"{sys.executable}" fetch.py "$0/"', "the page"),
    "node": ('node fetch.js "$0/"', "the page"),
    "git": ('git clone -q "$0/git/project.git" "$1" && cat "$1/README"', "the project"),
    "pip": (f'{PIP} --index-url "$0/simple" --dest "$1" greeter && ls "$1"', "greeter-1.0-py3-none-any.whl"),
}
# Whom to trust, as these programs are told; the sandbox lets the variables through and the file they name be read.
VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "GIT_SSL_CAINFO")


def wheel() -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("greeter-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: greeter\nVersion: 1.0\n")
        archive.writestr(
            "greeter-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("greeter-1.0.dist-info/RECORD", "")
    return data.getvalue()


PAGES = {
    "/": b"the page\n",
    "/simple/greeter/": b'<a href="/greeter-1.0-py3-none-any.whl">greeter-1.0-py3-none-any.whl</a>',
    "/greeter-1.0-py3-none-any.whl": wheel(),
}


def make_repository(folder: Path) -> None:
    """A bare repository ``project.git`` with one commit."""
    work = folder / "work"
    work.mkdir()
    (work / "README").write_text("the project\n")
    person = {"GIT_AUTHOR_NAME": "A", "GIT_AUTHOR_EMAIL": "a@a.test"}
    committer = {"GIT_COMMITTER_NAME": "A", "GIT_COMMITTER_EMAIL": "a@a.test"}
    for words in (["init", "-q"], ["add", "README"], ["commit", "-q", "-m", "first"]):
        subprocess.run(["git", *words], cwd=work, env={**os.environ, **person, **committer}, check=True)
    subprocess.run(["git", "clone", "-q", "--bare", str(work), str(folder / "project.git")], check=True)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Its folder has the repositories too."""
    for needed in ("curl", "node", "git", "openssl"):
        assert shutil.which(needed), f"{needed} is missing (Debian: curl, nodejs, git, openssl)"
    folder = tmp_path_factory.mktemp("https")
    make_repository(folder)
    return Authority.create(folder, "allowed.test", "other.test", "127.0.0.1")


@pytest.mark.parametrize("tls", ["unchecked", "checked"])
@pytest.mark.parametrize("program", PROGRAMS)
def test_https_clients_reach_only_the_allowed_host(
    program: str, tls: str, authority: Authority, workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script, success = PROGRAMS[program]
    (workspace / "fetch.py").write_text(PYTHON_FETCH)
    (workspace / "fetch.js").write_text(NODE_FETCH)
    for name in VARIABLES:
        monkeypatch.setenv(name, str(authority.certificate))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)  # no index of this machine's
    names = {"allowed.test": ["127.0.0.1"], "other.test": ["127.0.0.1"]}
    repositories = authority.certificate.parent
    with (
        SecureServer(authority, PAGES, repositories) as server,
        SecureServer(authority, PAGES, repositories) as other,
        DnsServer(names) as dns,
    ):
        resolv_conf = Path(dns.write_resolver_config(tmp_path))
        line = f'{{ host = "allowed.test", port = {server.port}, private = true, tls = "{tls}" }}'
        policy = f"[network]\nallow = [{line}]"

        def inside(*bases: str) -> Result:
            return run_command_inside(
                ["sh", "-c", 'for base; do sh -c "$0" "$base" "copy$((n += 1))"; done', script, *bases],
                workspace=workspace,
                policy=policy,
                resolv_conf=resolv_conf,
            )

        outside = subprocess.run(
            ["sh", "-c", script, other.url(""), "outside"], cwd=workspace, capture_output=True, text=True, timeout=60
        )
        assert success in outside.stdout, outside.stderr
        before = other.connections()
        assert before > 0
        allowed = inside(server.url("", "allowed.test"))
        assert success in allowed.stdout, allowed.stderr
        assert not allowed.refused()
        shutil.rmtree(workspace / "copy1", ignore_errors=True)
        refused = inside(*[other.url("", host) for host in ("allowed.test", "other.test", "127.0.0.1")])
        assert success not in refused.stdout
        assert refused.refused(kind="name", host="other.test"), refused
        # By the allowed name and by the address; the log counts equal refusals.
        assert sum(event.count for event in refused.refused(kind="connect", port=other.port)) >= 2, refused
        assert other.connections() == before
        assert not dns.asked("other.test")
