"""What a call points at is read exactly as far as it can be, by either of Linux's two ways."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from sandboxed_kernel.broker import process
from sandboxed_kernel.broker.calls import Malformed
from sandboxed_kernel.linux import memory


@pytest.fixture(params=["process_vm_readv", "/proc/PID/mem"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The second is taken where a container's profile forbids the first."""
    if request.param != "process_vm_readv":

        def forbidden(tid: int, address: int, length: int) -> bytes:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

        monkeypatch.setattr(memory, "read", forbidden)
    return str(request.param)


@contextmanager
def two_pages(text: bytes) -> Iterator[int]:
    """The address of ``text``, which ends where the memory that can be read does."""
    with mmap.mmap(-1, 3 * mmap.PAGESIZE) as pages:
        start = ctypes.addressof(ctypes.c_char.from_buffer(pages))
        end = mmap.PAGESIZE * 2
        pages[end - len(text) : end] = text
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        assert libc.munmap(ctypes.c_void_p(start + end), ctypes.c_size_t(mmap.PAGESIZE)) == 0
        try:
            yield start + end - len(text)
        finally:
            # Given back, so that the mapping can be closed as the whole that Python takes it for.
            fixed = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x10  # MAP_FIXED
            libc.mmap.restype = ctypes.c_void_p
            libc.mmap(ctypes.c_void_p(start + end), ctypes.c_size_t(mmap.PAGESIZE), 3, fixed, -1, ctypes.c_long(0))


def test_the_quick_way_reads_up_to_where_memory_ends() -> None:
    with two_pages(b"address") as start:
        assert memory.read(os.getpid(), start, 7) == b"address"
        assert memory.read(os.getpid(), start, 100) == b"address"


@pytest.mark.usefixtures("way")
def test_exactly_the_bytes_asked_for_are_read() -> None:
    with two_pages(b"x" * 5000 + b"address") as start:
        assert process.read_memory(os.getpid(), start + 5000, 7) == b"address"


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("beyond", [1, 4096])
def test_less_than_asked_for_is_nothing(beyond: int) -> None:
    with two_pages(b"address") as start, pytest.raises(Malformed) as refused:
        process.read_memory(os.getpid(), start, 7 + beyond)
    assert refused.value.error == errno.EFAULT


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("address", [0, 1, 1 << 47, (1 << 64) - 8, (1 << 64) - 1])
def test_an_address_that_means_nothing_is_refused(address: int) -> None:
    with pytest.raises(Malformed):
        process.read_memory(os.getpid(), address, 16)
    with pytest.raises(Malformed):
        process.read_string(os.getpid(), address)


@pytest.mark.usefixtures("way")
def test_a_path_may_end_where_memory_does() -> None:
    with two_pages(b"/a/path\0") as start:
        assert process.read_string(os.getpid(), start) == b"/a/path"
    with two_pages(b"p" * 4095 + b"\0") as start:
        assert process.read_string(os.getpid(), start) == b"p" * 4095


@pytest.mark.usefixtures("way")
def test_a_path_without_an_end_is_refused() -> None:
    with two_pages(b"/a/path") as start, pytest.raises(Malformed):
        process.read_string(os.getpid(), start)
    with two_pages(b"p" * 5000 + b"\0") as start, pytest.raises(Malformed) as refused:
        process.read_string(os.getpid(), start)
    assert refused.value.error == errno.ENAMETOOLONG


def test_a_datagram_is_longer_than_one_quick_read() -> None:
    data = os.urandom(60_000)
    buffer = ctypes.create_string_buffer(data, len(data))
    assert process.read_memory(os.getpid(), ctypes.addressof(buffer), len(data)) == data
