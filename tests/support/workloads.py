"""Does: everyday code in a plain kernel and in a sandboxed one, side by side, under the policy a user would write.

What is compared is what a user sees: text, results, pictures. Both kernels see the same servers, under the names that
``Site`` says; only the sandboxed one asks DNS for them, since nobody may write a test's names into /etc/hosts.
"""

from __future__ import annotations

import json
import ssl
import subprocess
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import kernels
from tests.support.dns_server import DnsServer
from tests.support.kernels import PLAIN, REAL, Kernel, Outcome
from tests.support.servers import HttpServer

NAME = "files.test"


@dataclass
class Site:
    """One host with an HTTP and an HTTPS server; ``pages`` serves both and may change at any time."""

    http: HttpServer
    https: HttpServer
    certificate: Path
    name_servers: str  # a resolv.conf that knows NAME

    @property
    def pages(self) -> dict[str, bytes]:
        return self.http.pages

    @property
    def allow(self) -> str:
        """The line of the policy. ``private``: on loopback, where no name from DNS may lead by itself."""
        return f'{{ host = "{NAME}", ports = [{self.http.port}, {self.https.port}], private = true }}'

    def variables(self, host: str) -> str:
        """What cells find these servers by."""
        return f'HTTP, HTTPS = "http://{host}:{self.http.port}", "https://{host}:{self.https.port}"'


@contextmanager
def serving(folder: Path, pages: Mapping[str, bytes]) -> Iterator[Site]:
    certificate = make_certificate(folder)
    with HttpServer(pages) as http, HttpServer(pages) as https, DnsServer({NAME: ["127.0.0.1"]}) as dns:
        https.pages = http.pages
        for server in (http, https):
            server._server.socket.listen(1024)  # 5 is its own: of 200 clients at once most would wait for seconds
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, folder / "key.pem")
        # Handshakes in the handlers' threads: one slow client must not hold up the next.
        https._server.socket = context.wrap_socket(
            https._server.socket, server_side=True, do_handshake_on_connect=False
        )
        yield Site(http, https, certificate, dns.write_resolver_config(folder))


def make_certificate(folder: Path) -> Path:
    """A certificate for NAME and 127.0.0.1 that vouches for itself; its key beside it."""
    certificate = folder / "certificate.pem"
    subject = ["-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME},IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
    command += ["-keyout", str(folder / "key.pem"), "-out", str(certificate)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return certificate


@contextmanager
def sandboxed(
    folder: Path, policy: str, *, name_servers: str = "/etc/resolv.conf", variables: Mapping[str, str] | None = None
) -> Iterator[Kernel]:
    """The real kernel under ``policy``, set up through files, as a user does; ``variables`` are the launcher's."""
    settings = folder / "config"
    settings.mkdir()
    (settings / "policy.toml").write_text(policy)
    config = {"policy_file": str(settings / "policy.toml"), "resolv_conf": name_servers}
    (settings / "sandboxed_kernel_config.json").write_text(json.dumps({"SandboxedKernel": config}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_CONFIG_PATH", str(settings))
        for name, value in (variables or {}).items():
            patch.setenv(name, value)
        with kernels.running(REAL, folder) as kernel:
            yield kernel


def text_of(outcome: Outcome) -> str:
    """What the cell printed and what its last line was worth; AssertionError with the traceback if it failed."""
    content = outcome.reply["content"]
    notices = "\n".join(str(shown["content"]["data"].get("text/plain", "")) for shown in outcome.displays)
    told = "\n".join([*content.get("traceback", []), outcome.text, notices])
    assert content["status"] == "ok", told
    results = [result["content"]["data"]["text/plain"] for result in outcome.of("execute_result")]
    return outcome.text + "".join(results)


@dataclass
class Both:
    """The same cells, first in a plain kernel, then in a sandboxed one."""

    plain: Kernel
    inside: Kernel

    def run(self, code: str, *, refused: Collection[str] = ()) -> Outcome:
        """The outcome inside; both must succeed and say the same.

        Nothing may be refused inside but the hosts ``refused``, and nothing taken out: each would stand in a notice.
        """
        expected = text_of(self.plain.run(code))
        outcome = self.inside.run(code)
        assert text_of(outcome) == expected
        shown = [str(display["content"]["data"].get("text/plain", "")) for display in outcome.displays]
        told = [text for text in shown if "[sandbox]" in text and not any(host in text for host in refused)]
        assert not told, told
        return outcome

    def say(self, code: str, *, refused: Collection[str] = ()) -> str:
        """What both say: not nothing."""
        text = text_of(self.run(code, refused=refused)).strip()
        assert text, "the cell says nothing, so nothing was compared"
        return text


@contextmanager
def side_by_side(folder: Path, site: Site, policy: str) -> Iterator[Both]:
    """Two kernels in folders of their own; the sandboxed one may reach ``site`` beside what ``policy`` says."""
    (folder / "plain").mkdir()
    (folder / "inside").mkdir()
    certificates = {name: str(site.certificate) for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")}
    inside = sandboxed(folder / "inside", policy, name_servers=site.name_servers, variables=certificates)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in certificates.items():
            patch.setenv(name, value)
        with kernels.running(PLAIN, folder / "plain") as plain, inside as sandbox:
            text_of(plain.run(site.variables("127.0.0.1")))
            text_of(sandbox.run(site.variables(NAME)))
            yield Both(plain, sandbox)
