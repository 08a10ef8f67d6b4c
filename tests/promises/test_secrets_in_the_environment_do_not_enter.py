"""Tokens and keys in the launcher's environment are not in the sandbox's, nor in any process that it can read."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.support.sandbox import run_inside, run_outside

SECRETS = {
    "JPY_API_TOKEN": "s3cret-1",
    "JUPYTERHUB_API_TOKEN": "s3cret-2",
    "JUPYTERHUB_SERVICE_PREFIX": "s3cret-3",
    "JUPYTER_TOKEN": "s3cret-4",
    "AWS_SECRET_ACCESS_KEY": "s3cret-5",
    "AWS_SESSION_TOKEN": "s3cret-6",
    "AZURE_CLIENT_SECRET": "s3cret-7",
    "GOOGLE_APPLICATION_CREDENTIALS": "s3cret-8",
    "OPENAI_API_KEY": "s3cret-9",
    "HF_TOKEN": "s3cret-10",
    "GITHUB_TOKEN": "s3cret-11",
    "PGPASSWORD": "s3cret-12",
    "SSH_AUTH_SOCK": "/s3cret-13",
    "DBUS_SESSION_BUS_ADDRESS": "unix:path=/s3cret-14",
    "KUBERNETES_SERVICE_HOST": "s3cret-15",
    "HTTPS_PROXY": "http://user:s3cret-16@proxy:3128",
    "PIP_INDEX_URL": "https://user:s3cret-17@index",
    "XAUTHORITY": "/s3cret-18",
    "LC_API_KEY": "s3cret-19",
    "OMP_TOKEN": "s3cret-20",
    "BASH_FUNC_f%%": "() { echo s3cret-21; }",
    "a variable": "s3cret-22",
}

CODE = """
import ctypes, json, os, re, subprocess
found = {}

def look(where, read):
    try:
        data = read()
    except OSError as error:
        data = b""
    found[where] = sorted(set(int(number) for number in re.findall(rb"s3cret-(\\d+)", data)))

def file(path):
    with open(path, "rb") as file:
        return file.read()

look("environ", lambda: repr(os.environb).encode())
look("own file", lambda: file("/proc/self/environ"))
look("a child", lambda: subprocess.run(["env"], capture_output=True, timeout=20).stdout)
look("a shell", lambda: subprocess.run(["bash", "-lc", "set"], capture_output=True, timeout=20).stdout)
for pid in filter(str.isdigit, os.listdir("/proc")):
    if int(pid) != os.getpid():
        look("another", lambda: file(f"/proc/{pid}/environ"))
        if found["another"]:
            break
look("the stack", lambda: stack())
print(json.dumps(found))
"""

STACK = """
def stack():
    # Above the stack's end lie the strings that execve(2) got.
    for line in open("/proc/self/maps"):
        if line.endswith("[stack]\\n"):
            first, last = (int(part, 16) for part in line.split()[0].split("-"))
            return ctypes.string_at(last - 65536, 65536)
"""


def test_secrets_in_the_environment_do_not_enter(workspace: Path) -> None:
    code = STACK + CODE
    with subprocess.Popen(["sleep", "60"], env={**os.environ, **SECRETS}) as another:
        try:
            outside = run_outside(code, workspace=workspace, env=SECRETS).json()
            inside = run_inside(code, workspace=workspace, env=SECRETS).json()
        finally:
            another.kill()
    assert outside.pop("a shell"), "bash shows those whose names it can spell"
    assert set(map(tuple, outside.values())) == {tuple(range(1, len(SECRETS) + 1))}, outside
    assert not any(inside.values()), inside


def test_what_the_policy_passes_enters(workspace: Path) -> None:
    names = ("OPENAI_API_KEY", "HF_TOKEN", "LANG", "HOME")
    code = f"import json, os; print(json.dumps([os.environ.get(name) for name in {names}]))"
    policy = '[environment]\npass = ["OPENAI_API_KEY"]'
    env = {**SECRETS, "LANG": "C.UTF-8"}
    key, token, language, home = run_inside(code, workspace=workspace, policy=policy, env=env).json()
    assert (key, token, language) == ("s3cret-9", None, "C.UTF-8")
    assert home not in (os.environ.get("HOME"), None)
