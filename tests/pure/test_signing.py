"""The HMAC of messages: the digests of Python's ``hmac``, whoever computes them."""

from __future__ import annotations

import hashlib
import hmac
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandboxed_kernel import signing
from sandboxed_kernel.inside.imports import SessionHmac
from sandboxed_kernel.relay.connection import DIGESTS
from sandboxed_kernel.signing import Keyed

# RFC 4231, test cases 1, 2, 6 (a key longer than a block)
VECTORS = [
    (b"\x0b" * 20, b"Hi There", "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
    (b"Jefe", b"what do ya want for nothing?", "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"),
    (
        b"\xaa" * 131,
        b"Test Using Larger Than Block-Size Key - Hash Key First",
        "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
    ),
]


@pytest.mark.parametrize(("key", "data", "digest"), VECTORS)
def test_the_vectors_of_the_standard(key: bytes, data: bytes, digest: str) -> None:
    assert Keyed(key).hexdigest([data]) == digest
    assert Keyed(key).hexdigest([data[:3], b"", memoryview(data)[3:]]) == digest


@given(st.binary(max_size=300), st.lists(st.binary(max_size=2000), max_size=5), st.sampled_from(DIGESTS))
def test_it_is_python_s_hmac(key: bytes, parts: list[bytes], digest: str) -> None:
    expected = hmac.new(key, b"".join(parts), getattr(hashlib, digest)).hexdigest()
    keyed = Keyed(key, digest)
    assert [keyed.hexdigest(parts), keyed.hexdigest(parts)] == [expected, expected]
    session = SessionHmac(key, getattr(hashlib, digest)).copy()
    for part in parts:
        session.update(part)
    assert session.hexdigest() == expected


def test_a_copy_begins_where_it_was_made() -> None:
    first = SessionHmac(b"k", hashlib.sha256)
    first.update(b"a")
    second = first.copy()
    second.update(b"b")
    assert first.hexdigest() == Keyed(b"k").hexdigest([b"a"])
    assert second.hexdigest() == Keyed(b"k").hexdigest([b"ab"])


@pytest.mark.parametrize("sizes", [[signing._WORTH_LOADING + 1], [1000] * 400], ids=["at once", "bit by bit"])
def test_openssl_takes_over_in_between(sizes: list[int]) -> None:
    keyed = Keyed(b"k")
    for size in sizes:
        assert keyed.hexdigest([b"x" * size]) == hmac.new(b"k", b"x" * size, "sha256").hexdigest()
    assert type(keyed._inner) is type(hashlib.sha256())


def test_a_little_is_signed_without_it() -> None:
    code = "import sys; from sandboxed_kernel.signing import Keyed; k = Keyed(b'k'); k.hexdigest([b'x' * 999]); "
    code += "print('_hashlib' in sys.modules); k.hexdigest([b'x' * 999_999]); print('_hashlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


def test_a_python_without_a_sha256_of_its_own_signs_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signing, "_own_sha256", None)
    key, data, digest = VECTORS[0]
    assert Keyed(key).hexdigest([data]) == digest
