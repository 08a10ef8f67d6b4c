"""curl, node, Java and a compiled C program resolve names and reach the allowed server, and no other."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.dns_server import DnsServer
from tests.support.sandbox import Result, run_command_inside
from tests.support.servers import HttpServer

NODE = 'require("http").get(process.argv[1], r => r.pipe(process.stdout)).on("error", e => { console.log(e.code); })'
JAVA = """
import java.net.*;
public class Main {
    public static void main(String[] words) throws Exception {
        try (var in = new URL(words[0]).openStream()) { System.out.print(new String(in.readAllBytes())); }
    }
}
"""
PROGRAMS = {
    "curl": ["curl", "-sS", "--max-time", "20"],
    "node": ["node", "-e", NODE],
    "java": ["java", "Main.java"],
    "gcc": ["sh", "-c", 'gcc -o fetch fetch.c && ./fetch "$0"'],
}
FETCH = r"""
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
int main(int count, char **words) {
    char host[200], port[20], reply[4096];
    if (sscanf(words[1], "http://%199[^:]:%19[0-9]", host, port) != 2) return 2;
    struct addrinfo wanted = {.ai_socktype = SOCK_STREAM}, *found;
    if (getaddrinfo(host, port, &wanted, &found)) return puts("unknown name"), 1;
    int s = socket(found->ai_family, SOCK_STREAM, 0);
    if (connect(s, found->ai_addr, found->ai_addrlen)) return puts("refused"), 1;
    const char *request = "GET / HTTP/1.0\r\n\r\n";
    if (write(s, request, strlen(request)) < 0) return 1;
    for (ssize_t n; (n = read(s, reply, sizeof reply)) > 0;) fwrite(reply, 1, n, stdout);
    return 0;
}
"""


@pytest.mark.parametrize("program", PROGRAMS)
def test_other_languages_reach_only_what_is_allowed(program: str, workspace: Path, tmp_path: Path) -> None:
    assert shutil.which(program), f"{program} is missing (Debian: curl, nodejs, default-jdk-headless, gcc)"
    (workspace / "Main.java").write_text(JAVA)
    (workspace / "fetch.c").write_text(FETCH)
    names = {"allowed.test": ["127.0.0.1"], "other.test": ["127.0.0.1"]}
    with HttpServer({"/": b"the page\n"}) as server, HttpServer({"/": b"another\n"}) as other, DnsServer(names) as dns:
        resolv_conf = Path(dns.write_resolver_config(tmp_path))
        policy = f'[network]\nallow = [{{ host = "allowed.test", port = {server.port}, private = true }}]'

        def fetch(url: str) -> Result:
            command = [*PROGRAMS[program], url]
            return run_command_inside(command, workspace=workspace, policy=policy, resolv_conf=resolv_conf)

        outside = subprocess.run([*PROGRAMS[program], other.url()], cwd=workspace, capture_output=True, timeout=60)
        assert b"another" in outside.stdout
        before = len(other.received()), other.connections
        allowed = fetch(server.url(host="allowed.test"))
        assert "the page" in allowed.stdout, allowed
        for url in (other.url(host="allowed.test"), other.url(host="other.test"), other.url()):
            assert "another" not in fetch(url).stdout
        assert (len(other.received()), other.connections) == before
        assert not dns.asked("other.test")
