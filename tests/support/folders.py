"""Does: makes the folders that people really work in: a home with keys, a project with environment and repository."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

GIT = {
    **os.environ,
    "GIT_AUTHOR_DATE": "2026-01-01T00:00:00Z", "GIT_COMMITTER_DATE": "2026-01-01T00:00:00Z",
    "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@example.org", "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@example.org", "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null",
}  # fmt: skip

# Beneath the home folder: what must stay as it is, whatever runs inside, by its class in policy/guarded.py.
SECRETS = (".ssh/id_ed25519", ".aws/credentials", ".bash_history", "proj/.env", "proj/deep/er/.env", "proj/server.pem")
OBEYED = (
    ".bashrc", ".config/app/settings", "proj/.venv/lib/python/site-packages/evil.pth", "proj/.git/hooks/post-commit",
    "proj/.git/config", "proj/.git/commondir", "proj/.git/config.worktree", "proj/.git/info/attributes",
    "proj/.git/modules/sub/config", "proj/.git/worktrees/w/gitdir", "proj/.vscode/tasks.json", "proj/.envrc",
    "proj/.pre-commit-config.yaml", "proj/node_modules/x/index.js", "proj/.unheard-of", "dotfiles/profile",
)  # fmt: skip
CONTENT = "as it was"


def git(*words: str, folder: Path) -> str:
    done = subprocess.run(["git", *words], cwd=folder, env=GIT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"git {words}: {done.stderr}"
    return done.stdout


def make_home(folder: Path) -> Path:
    """``folder/me``: a home folder with keys, links into ~/dotfiles, and the project ``proj``."""
    home = folder / "me"
    (home / "proj" / "src").mkdir(parents=True)
    git("init", "--quiet", "--initial-branch=main", folder=home / "proj")
    (home / "proj" / "src" / "code.py").write_text("x = 1\n")
    git("add", ".", folder=home / "proj")
    git("commit", "--quiet", "-m", "first", folder=home / "proj")
    for name in (*SECRETS, *OBEYED):
        path = home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name != "proj/.git/config":
            path.write_text(CONTENT)
    for name in ("commondir", "config.worktree", "modules", "worktrees"):  # git would stumble over what is in them
        _remove(home / "proj" / ".git" / name)
    (home / "proj" / ".venv" / "pyvenv.cfg").write_text("home = /usr/bin\n")
    (home / "proj" / "data.csv").write_text("a,b\n1,2\n")
    (home / ".profile").symlink_to("dotfiles/profile")
    (home / "notes.txt").write_text("notes\n")
    (home / "data").mkdir()
    (home / "data" / "big.csv").write_text("1\n")
    return home


def _remove(path: Path) -> None:
    if path.is_dir():
        for each in path.iterdir():
            _remove(each)
        path.rmdir()
    else:
        path.unlink()


def picture(folder: Path) -> dict[str, tuple[int, bytes | str]]:
    """Every entry beneath ``folder`` with its mode and content, or where it leads. No link is followed."""
    found: dict[str, tuple[int, bytes | str]] = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        content: bytes | str = ""
        if path.is_symlink():
            content = os.readlink(path)
        elif path.is_file():
            content = path.read_bytes()
        found[str(path.relative_to(folder))] = (status.st_mode, content)
    return found
