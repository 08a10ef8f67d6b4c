"""Pure: what of the private home lasts, for whom, and whether a folder is still the one that it lasts for.

What no row names is made anew at each start. So nothing that programs run or obey by themselves (settings of shells, of
git and of IPython, ``usercustomize``) comes from a notebook before, and nobody has to know all such names.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from sandboxed_kernel.policy.model import Policy
from sandboxed_kernel.policy.paths import is_within
from sandboxed_kernel.records import Record, as_dict
from sandboxed_kernel.signing import sha256


class LastingRow(Record):
    """``place``: in the private home, a link. ``lasts``: where it leads beneath the lasting home; the first folder of
    it has a Landlock rule of its own, so nothing inside can move it or put another in its place."""

    place: str
    lasts: str
    reason: str

    @property
    def folder(self) -> str:
        return self.lasts.split("/")[0]


CACHE, PACKAGES = "cache", "packages"
LASTING: tuple[LastingRow, ...] = (
    LastingRow(".cache", CACHE, "what programs fetched or worked out, and would again: models, wheels, compiled code"),
    LastingRow(".packages", PACKAGES, "what %pip installed; Python finds it behind its own packages"),
    LastingRow(".ipython/profile_default/history.sqlite", "history/history.sqlite", "inputs, read when asked for"),
    LastingRow(".ipython/profile_default/db/autorestore", "store", "%store; read when a cell says %store -r"),
    LastingRow(".keras/datasets", "keras-datasets", "data that Keras fetched"),
    LastingRow(".keras/models", "keras-models", "models that Keras fetched"),
    LastingRow("nltk_data", "nltk_data", "data that NLTK fetched"),
    LastingRow("scikit_learn_data", "scikit_learn_data", "data that scikit-learn fetched"),
)
FOLDERS = tuple(dict.fromkeys(row.folder for row in LASTING))


class Owner(Record):
    """Whose a lasting home is. ``more``: of kernels whose policy opens more than the notebook's folder and hosts; they
    share none with kernels whose policy does not."""

    folder: str  # the notebook's, real
    kernel: str  # in lower case, as Jupyter takes it
    more: bool

    @property
    def name(self) -> str:
        """Of its folder. Two owners have different ones, but for an accident that ``Meta`` shows."""
        text = json.dumps([self.folder, self.kernel, self.more])
        return sha256(text.encode()).hex()[:16]


def opens_more(policy: Policy, folder: str, real_paths: Mapping[str, str]) -> bool:
    """Whether code inside is given files, variables, devices or the page, which an earlier notebook of ``folder`` may
    have wanted. ``real_paths``: where each grant leads that is there.
    """
    elsewhere = any(
        not is_within(path, folder)
        for grant in policy.grants
        for path in (grant.path, real_paths.get(grant.path, folder))
    )
    variables = policy.environment_pass or policy.environment_set or policy.environment_from
    return bool(elsewhere or policy.unix or variables or policy.accelerators or policy.active_content != "strip")


class Meta(Record):
    """What is written beside a lasting home, where nothing inside can write. Times in seconds, but ``birth`` in ns."""

    folder: str
    kernel: str
    more: bool
    inode: int  # of the folder
    birth: int  # likewise; 0 where the file system does not say
    created: int
    used: int  # the last start
    runs: int

    @property
    def owner(self) -> Owner:
        return Owner(self.folder, self.kernel, self.more)

    def to_json(self) -> str:
        return json.dumps(as_dict(self))


_FIELDS: Mapping[str, type] = {
    "folder": str, "kernel": str, "more": bool, "inode": int, "birth": int, "created": int, "used": int, "runs": int,
}  # fmt: skip


def meta_from(text: str) -> Meta | None:
    """None for what is not what ``to_json`` wrote."""
    try:
        found = json.loads(text)
    except ValueError:
        return None
    if not isinstance(found, dict) or any(type(found.get(name)) is not kind for name, kind in _FIELDS.items()):
        return None
    return Meta(**{name: found[name] for name in _FIELDS})


def is_same_folder(meta: Meta, inode: int, birth: int) -> bool:
    """Whether it is still the folder that the home was made for. Where the file system says when a folder was made,
    that decides: some give a new one the number of the one removed last. Devices get other numbers at a reboot."""
    return meta.birth == birth if meta.birth and birth else meta.inode == inode


def former_homes(metas: Mapping[str, Meta], meta: Meta) -> list[str]:
    """The names, out of ``metas``, of homes that the owner of the new one, ``meta``, may mean: set aside, of the same
    kernel under another policy, of a folder that was moved here. The last used comes first."""
    found = [
        name
        for name, other in metas.items()
        if other.kernel == meta.kernel
        and (other.folder == meta.folder or (meta.birth and (other.birth, other.inode) == (meta.birth, meta.inode)))
    ]
    return sorted(found, key=lambda name: -metas[name].used)


def size_about(size: int) -> str:
    """For people: three digits at most."""
    value = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.0f} TB"
