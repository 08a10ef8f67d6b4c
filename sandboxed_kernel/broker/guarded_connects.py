"""Does: connect(2) to where the name in the TLS greeting is checked: the broker connects, and the guard gets it.

Imported when the first such connect comes.
"""

from __future__ import annotations

import errno

from sandboxed_kernel.broker import descriptors
from sandboxed_kernel.broker.calls import AF_INET6, Call, InetAddress
from sandboxed_kernel.broker.connecting import Connecting
from sandboxed_kernel.broker.decisions import IpAddress, Refuse
from sandboxed_kernel.broker.guarding import Guarding
from sandboxed_kernel.broker.meeting import Attempt, MeetingPlaces, begin_far
from sandboxed_kernel.broker.outcomes import Answer, Outcome, Refusal
from sandboxed_kernel.broker.sockets import Reference
from sandboxed_kernel.linux.sockets import DEFAULT_TTL, HIGHEST_TTL, default_ttl

_NO_TOKEN = Refuse(
    errno.EACCES,
    "where a name is checked, this Linux has to tell our packets from others, and its net.ipv4.ip_default_ttl (or"
    " net.ipv6.conf.lo.hop_limit) is 255. An administrator can set it to 64",
)
_MAX_ATTEMPTS = 2048  # at once; each has two sockets beside the sandbox's own, of at most an eighth of our descriptors


class GuardedConnects:
    def __init__(self, connecting: Connecting, guarding: Guarding) -> None:
        self._connecting, self._guarding = connecting, guarding
        self._may_meet = all(default_ttl(path) != HIGHEST_TTL for path in DEFAULT_TTL.values())
        self._most = min(_MAX_ATTEMPTS, descriptors.share() // 2)
        self._places = {version: MeetingPlaces(version) for version in (4, 6)}

    def _is_full(self) -> bool:
        return self._connecting.attempts + self._guarding.queued >= self._most or not self._guarding.has_room

    def finish(self, seconds: float) -> None:
        """See ``Guarding.finish``."""
        self._guarding.finish(seconds)

    def connect(self, call: Call, reference: Reference, address: IpAddress, to: InetAddress) -> Outcome:
        """``address``: the normalised one of ``to``, which a rule allows."""
        if self._is_full():
            self._connecting.end_abandoned()
        if self._is_full():
            return Answer(error=errno.ENOBUFS, inode=reference.inode)
        self._guarding.begin()
        if not self._may_meet:
            return Refusal(_NO_TOKEN, "connect", str(address), "tcp", port=to.port, inode=reference.inode)
        version = to.address.version if reference.family == AF_INET6 and address.version == 6 else 4
        try:
            far = begin_far(address, to.port, to.scope)
        except OSError as error:  # no route, say: as it would be without us
            return Answer(error=error.errno or errno.EACCES, inode=reference.inode)
        try:
            try:
                near = self._places[version].bind_one()
            except OSError:
                if version == 4:
                    raise
                version = 4  # a machine without ::1: an IPv6 socket meets an IPv4 one at its mapped address
                near = self._places[version].bind_one()
        except OSError as error:
            far.close()
            return Answer(error=error.errno or errno.EACCES, inode=reference.inode)
        attempt = Attempt(near, far, version, address, to.port, call.tid)
        return self._connecting.connect_guarded(call, reference, attempt, self._guarding.hand_over)
