"""Pure: what the filter answers to each system call, as a table with a reason per row.

The table is what is compiled (``compile_filter.py``), what the tests simulate and what the docs show. It decides by
numbers in registers only; whatever lies in memory goes to the broker as a notification. Rows of one call are read from
top to bottom and the first whose conditions all hold is the answer; the last row of each call has no condition. What is
not in the table does not exist: ENOSYS. The table is not the only fence: Landlock stands behind it.

Kernel arguments are as wide as Linux declares them: an ``int`` is compared on its low 32 bits, because the high half of
its register is ignored by Linux and chosen by the caller (``socket(0x100000002, ...)`` is an AF_INET socket).
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import Literal

from sandboxed_kernel.confinement.numbers import AUDIT_ARCH, NUMBERS, X32_BIT
from sandboxed_kernel.records import Record

LOW32 = 0xFFFFFFFF
ALL64 = 0xFFFFFFFFFFFFFFFF


class Action(Record):
    """One answer of seccomp(2); ``errno`` 0 with "errno" is success without effect."""

    kind: Literal["allow", "notify", "errno", "kill"]
    errno: int = 0


ALLOW = Action("allow")
NOTIFY = Action("notify")  # the broker decides and acts
KILL = Action("kill")  # the whole process, SIGSYS
NO_EFFECT = Action("errno", 0)
EPERM = Action("errno", errno.EPERM)
ENOSYS = Action("errno", errno.ENOSYS)  # libraries take it as "an older Linux" and go on without
EINVAL = Action("errno", errno.EINVAL)
ENOTTY = Action("errno", errno.ENOTTY)
EOPNOTSUPP = Action("errno", errno.EOPNOTSUPP)
ENOPROTOOPT = Action("errno", errno.ENOPROTOOPT)
EPROTONOSUPPORT = Action("errno", errno.EPROTONOSUPPORT)
DEFAULT = ENOSYS


class Condition(Record):
    """``(args[arg] & mask)`` is one of ``values``; with ``negated``: is none of them.

    Several values, or a mask within the low 32 bits, or one 64-bit value: what the compiler can express.
    """

    arg: int
    mask: int
    values: tuple[int, ...]
    negated: bool = False

    def holds(self, args: Sequence[int]) -> bool:
        return ((args[self.arg] & self.mask) in self.values) != self.negated


def int_is(arg: int, *values: int, mask: int = LOW32) -> Condition:
    """A C ``int``, of which Linux sees the low 32 bits."""
    return Condition(arg, mask, values)


def any_bit(arg: int, mask: int) -> Condition:
    return Condition(arg, mask, (0,), negated=True)


def long_is(arg: int, value: int) -> Condition:
    """A pointer or C ``long``: all 64 bits."""
    return Condition(arg, ALL64, (value,))


def not_null(arg: int) -> Condition:
    return Condition(arg, ALL64, (0,), negated=True)


class Row(Record):
    name: str
    action: Action
    conditions: tuple[Condition, ...]
    reason: str


# --- calls answered without looking at arguments -------------------------------------------------------------------

# The tables are kept in columns by hand.
# fmt: off
_WHOLE: tuple[tuple[Action, str, str], ...] = (
    (ALLOW, "data on descriptors that are already open", """
        read write readv writev pread64 pwrite64 preadv pwritev preadv2 pwritev2 lseek sendfile splice tee vmsplice
        copy_file_range fsync fdatasync sync syncfs sync_file_range readahead fadvise64 fallocate ftruncate flock
        close close_range dup dup2 dup3 pipe pipe2"""),
    (ALLOW, "paths: Landlock decides", """
        stat fstat lstat newfstatat statx statfs fstatfs access faccessat faccessat2 readlink readlinkat getcwd chdir
        fchdir getdents getdents64 truncate rename renameat renameat2 link linkat unlink unlinkat
        rmdir umask execve execveat cachestat"""),
    (ALLOW, "Landlock decides, and Linux drops setuid and setgid bits here (vfs_mkdir)", "mkdir mkdirat"),
    (ALLOW, "reading attributes: covered by the threat model, not by Landlock", """
        getxattr lgetxattr fgetxattr getxattrat listxattr llistxattr flistxattr listxattrat file_getattr"""),
    (ALLOW, "waiting for descriptors", """
        poll ppoll select pselect6 epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2 eventfd
        eventfd2 signalfd signalfd4 timerfd_create timerfd_settime timerfd_gettime inotify_init inotify_init1
        inotify_add_watch inotify_rm_watch"""),
    (ALLOW, "asynchronous input and output on open files; it has no socket operations, unlike io_uring", """
        io_setup io_destroy io_submit io_cancel io_getevents io_pgetevents"""),
    (ALLOW, "established connections run at native speed", """
        accept accept4 recvfrom recvmsg recvmmsg shutdown getsockname getpeername getsockopt"""),
    (ALLOW, "the process's own memory", """
        brk mmap munmap mremap mprotect madvise mincore msync mlock mlock2 munlock mlockall munlockall
        remap_file_pages memfd_create mseal map_shadow_stack pkey_alloc pkey_free pkey_mprotect mbind set_mempolicy
        get_mempolicy set_mempolicy_home_node"""),
    (ALLOW, "threads and their synchronisation", """
        futex futex_waitv futex_wake futex_wait futex_requeue set_robust_list get_robust_list set_tid_address gettid
        membarrier rseq arch_prctl sched_yield getcpu sched_getaffinity sched_getparam sched_getscheduler
        sched_getattr sched_get_priority_max sched_get_priority_min sched_rr_get_interval getpriority ioprio_get"""),
    (ALLOW, "children of its own; they inherit every restriction", """
        fork vfork exit exit_group wait4 waitid getpid getppid getpgid getpgrp setpgid getsid setsid pidfd_open"""),
    (ALLOW, "signals: Landlock's scope keeps them inside", """
        kill tkill tgkill rt_sigqueueinfo rt_tgsigqueueinfo pidfd_send_signal rt_sigaction rt_sigprocmask
        rt_sigpending rt_sigtimedwait rt_sigsuspend rt_sigreturn sigaltstack pause restart_syscall"""),
    (ALLOW, "clocks and timers", """
        time gettimeofday clock_gettime clock_getres clock_nanosleep nanosleep alarm getitimer setitimer timer_create
        timer_settime timer_gettime timer_getoverrun timer_delete times"""),
    (ALLOW, "its own identity; without capabilities Linux changes only to ids it has", """
        getuid geteuid getgid getegid getresuid getresgid getgroups setuid setgid setreuid setregid setresuid
        setresgid setfsuid setfsgid setgroups capget capset"""),
    (ALLOW, "facts about the machine and its own use of it", "uname sysinfo getrusage getrlimit getrandom"),
    (ALLOW, "further restrictions of its own can only add to these", """
        landlock_create_ruleset landlock_add_rule landlock_restrict_self"""),
    (ALLOW, "called by trampolines that Linux itself places into a probed program", "uretprobe uprobe"),
    (NOTIFY, "only the broker makes sockets and gives them an address", "socket connect bind listen"),
    (NOTIFY, "Landlock does not cover metadata; the broker asks for a writable grant", """
        chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat utime utimes futimesat utimensat setxattr
        lsetxattr fsetxattr setxattrat removexattr lremovexattr fremovexattr removexattrat"""),
    (NOTIFY, "programs outside write through a link: the broker looks at where it leads", "symlink symlinkat"),
    (ENOSYS, "changes attributes past Landlock and the broker; libraries fall back to ioctl", "file_setattr"),
    (ENOSYS, "its mode lies in memory, where the filter cannot see setuid bits; callers go back to openat", "openat2"),
    (ENOSYS, "its flags lie in memory, where the filter cannot see namespaces; libc falls back to clone", "clone3"),
    (ENOSYS, "opens, sends and connects from kernel threads, past every filter", """
        io_uring_setup io_uring_enter io_uring_register"""),
    (ENOSYS, "System V objects belong to the user, not to the sandbox", """
        shmget shmat shmctl shmdt semget semop semtimedop semctl msgget msgsnd msgrcv msgctl"""),
    (ENOSYS, "POSIX queues belong to the user, not to the sandbox", """
        mq_open mq_unlink mq_timedsend mq_timedreceive mq_notify mq_getsetattr"""),
    (ENOSYS, "keyrings hold other programs' secrets", "add_key request_key keyctl"),
    (ENOSYS, "hides memory from the broker, which reads addresses out of it", "memfd_secret"),
    (ENOSYS, "acts on another process's memory; allocators fall back to madvise", "process_madvise process_mrelease"),
    (ENOSYS, "describes mounts and namespaces; tools fall back to /proc/self/mountinfo", "statmount listmount listns"),
    (ENOSYS, "security modules are not the sandbox's to ask or set", """
        lsm_get_self_attr lsm_set_self_attr lsm_list_modules"""),
    (ENOSYS, "rarely used, often buggy: 16-bit segments", "modify_ldt set_thread_area get_thread_area"),
    (ENOSYS, "removed from Linux, or never in it", """
        uselib ustat sysfs _sysctl create_module get_kernel_syms query_module nfsservctl getpmsg putpmsg afs_syscall
        tuxcall security vserver epoll_ctl_old epoll_wait_old lookup_dcookie"""),
    (EOPNOTSUPP, "handles are no use without open_by_handle_at; tools take this as a file system without them",
     "name_to_handle_at"),
    (EPERM, "opens files past the folders that Landlock guards", "open_by_handle_at"),
    (EPERM, "reads or controls another process", "ptrace process_vm_readv process_vm_writev pidfd_getfd kcmp"),
    (EPERM, "stalls the broker's reads of the caller's memory at a page fault", "userfaultfd"),
    (EPERM, "runs or observes code inside Linux", "bpf perf_event_open"),
    (EPERM, "watches what other programs do with whole file systems", "fanotify_init fanotify_mark"),
    (EPERM, "changes which files a path means", """
        mount umount2 pivot_root chroot open_tree open_tree_attr move_mount fsopen fsconfig fsmount fspick
        mount_setattr"""),
    (EPERM, "enters another namespace", "setns"),
    (EPERM, "administers the machine", """
        init_module finit_module delete_module kexec_load kexec_file_load reboot swapon swapoff acct quotactl
        quotactl_fd syslog vhangup sethostname setdomainname settimeofday clock_settime adjtimex clock_adjtime iopl
        ioperm"""),
)


# --- calls answered by their arguments -----------------------------------------------------------------------------

_SET_ID = 0o6000  # S_ISUID | S_ISGID, inode(7)
_CREATING = 0o100 | 0o20000000  # O_CREAT | __O_TMPFILE, asm-generic/fcntl.h; the same on both machines
_WRITABLE_AS_IT_IS = (1, 2)  # O_WRONLY, O_RDWR: nothing is made, emptied or added to
_IN_ANY_CASE = 0o2000000 | 0o100000 | 0o400000  # O_CLOEXEC; O_LARGEFILE, which musl always sets: asm/fcntl.h of both
_S_IFMT, _S_IFREG, _S_IFIFO = 0o170000, 0o100000, 0o010000
_SET_ID_REASON = "a setuid or setgid file made here would act for the user outside"


def _opening(name: str, flags: int) -> tuple[Row, ...]:
    """open(2): the mode counts only where the flags create a file, and is left undefined by C programs elsewhere."""
    refused = (any_bit(flags + 1, _SET_ID), any_bit(flags, _CREATING))
    own_threads = (int_is(flags, *_WRITABLE_AS_IT_IS, mask=LOW32 & ~_IN_ANY_CASE),)
    return (
        Row(name, EPERM, refused, _SET_ID_REASON),
        Row(name, NOTIFY, own_threads, "the broker opens the names of own threads in /proc; all else is Landlock's"),
        Row(name, ALLOW, (), "paths: Landlock decides"),
    )


def _making_node(name: str, mode: int) -> tuple[Row, ...]:
    """mknod(2): ``mode`` is 16 bits wide (umode_t)."""
    return (
        Row(name, EPERM, (any_bit(mode, _SET_ID),), _SET_ID_REASON),
        Row(name, ALLOW, (int_is(mode, 0, _S_IFREG, _S_IFIFO, mask=_S_IFMT),), "regular files and FIFOs"),
        Row(name, EPERM, (), "devices reach past the file system; sockets are made by bind"),
    )


_CLONE_NEW = 0x7E020000  # CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET: linux/sched.h
_CLONE_NEWTIME = 0x00000080  # unshare only: part of the exit signal in clone
_CLONE_PARENT = 0x00008000
_NAMESPACES = "a new user namespace gives capabilities inside it, and with them mounts and networks"

_AF_UNIX, _SOCK_STREAM, _SOCK_SEQPACKET, _SOCK_FLAGS = 1, 1, 5, 0o2000000 | 0o4000  # SOCK_CLOEXEC | SOCK_NONBLOCK
_MSG_FASTOPEN = 0x20000000


def _sending(name: str, flags: int) -> Row:
    return Row(name, EOPNOTSUPP, (any_bit(flags, _MSG_FASTOPEN),), "TCP Fast Open connects within a send: connect()")


def _own_or_asked(name: str) -> tuple[Row, ...]:
    """Calls whose first argument is a pid, 0 meaning the caller: sched_setscheduler(2)."""
    return (
        Row(name, ALLOW, (int_is(0, 0),), "the caller itself"),
        Row(name, NOTIFY, (), "another process: the broker allows descendants only"),
    )


def _own_process_or_asked(name: str, which_process: int, which_group: int) -> tuple[Row, ...]:
    """setpriority(2), ioprio_set(2): (which, who, value)."""
    return (
        Row(name, ALLOW, (int_is(0, which_process), int_is(1, 0)), "the caller itself"),
        Row(name, NOTIFY, (int_is(0, which_process),), "another process: the broker allows descendants only"),
        Row(name, NOTIFY, (int_is(0, which_group),), "a process group: the broker changes what of it is inside"),
        Row(name, EPERM, (), "whole users reach processes outside"),
    )


def _own_pages(name: str) -> tuple[Row, ...]:
    return (
        Row(name, ALLOW, (int_is(0, 0),), "the process's own memory"),
        Row(name, EPERM, (), "another process's memory"),
    )


_CORE = "RLIMIT_CORE stays 1: only that keeps Linux from handing a crash to a program outside, core(5)"

_PROCESSES: tuple[Row, ...] = (
    Row("clone", EPERM, (any_bit(0, _CLONE_NEW),), _NAMESPACES),
    Row("clone", EPERM, (any_bit(0, _CLONE_PARENT),), "would make the broker the parent of a process it did not start"),
    Row("clone", ALLOW, (), "children of its own; they inherit every restriction"),
    Row("unshare", EPERM, (any_bit(0, _CLONE_NEW | _CLONE_NEWTIME),), _NAMESPACES),
    Row("unshare", ALLOW, (), "own copy of the working directory, descriptors or semaphores"),
    Row("prlimit64", ALLOW, (long_is(2, 0),), "a question: no new limit is given"),
    Row("prlimit64", NO_EFFECT, (int_is(0, 0), int_is(1, 4)), _CORE),
    Row("prlimit64", ALLOW, (int_is(0, 0),), "the caller itself"),
    Row("prlimit64", NOTIFY, (), "another process: RLIMIT_CPU kills it in spite of Landlock's signal scope"),
    Row("setrlimit", NO_EFFECT, (int_is(0, 4),), _CORE),
    Row("setrlimit", ALLOW, (), "the caller itself"),
    *_own_or_asked("sched_setaffinity"),
    *_own_or_asked("sched_setscheduler"),
    *_own_or_asked("sched_setparam"),
    *_own_or_asked("sched_setattr"),
    *_own_process_or_asked("setpriority", 0, 1),  # PRIO_PROCESS, PRIO_PGRP
    *_own_process_or_asked("ioprio_set", 1, 2),  # IOPRIO_WHO_PROCESS, IOPRIO_WHO_PGRP
    *_own_pages("migrate_pages"),
    *_own_pages("move_pages"),
    Row("seccomp", EPERM, (any_bit(1, 8),), "SECCOMP_FILTER_FLAG_NEW_LISTENER would answer the calls instead of us"),
    Row("seccomp", ALLOW, (), "further filters can only add to this one"),
    # PER_LINUX, ADDR_NO_RANDOMIZE, the question 0xffffffff; 4 GiB limits and the like are not needed.
    Row("personality", ALLOW, (int_is(0, LOW32),), "asks which it has"),
    Row("personality", EPERM, (), "other personalities are old, rarely tested paths through Linux"),
)

_FILES: tuple[Row, ...] = (
    *_opening("open", 1),
    *_opening("openat", 2),
    Row("creat", EPERM, (any_bit(1, _SET_ID),), _SET_ID_REASON),
    Row("creat", ALLOW, (), "paths: Landlock decides"),
    *_making_node("mknod", 1),
    *_making_node("mknodat", 2),
    # F_SETLEASE, F_SETDELEG: linux/fcntl.h. EINVAL is what file systems without leases say.
    Row("fcntl", EINVAL, (int_is(1, 1024, 1040),), "a lease on a readable file delays every other program's open"),
    Row("fcntl", ALLOW, (), "flags, locks and copies of open descriptors"),
)

_SENDING: tuple[Row, ...] = (
    _sending("sendto", 3),
    Row("sendto", NOTIFY, (not_null(4),), "names a destination"),
    Row("sendto", ALLOW, (), "established connections run at native speed"),
    _sending("sendmsg", 2),
    Row("sendmsg", ALLOW, (), "no socket inside takes a destination from memory: datagram sockets are SEQPACKET pairs"),
    _sending("sendmmsg", 3),
    Row("sendmmsg", ALLOW, (), "as sendmsg"),
    Row("socketpair", ALLOW, (
        int_is(0, _AF_UNIX), int_is(1, _SOCK_STREAM, _SOCK_SEQPACKET, mask=LOW32 & ~_SOCK_FLAGS), int_is(2, 0),
    ), "both ends stay inside"),
    Row("socketpair", EPROTONOSUPPORT, (), "a unix datagram socket (SOCK_RAW is one too) sends to any path"),
)


# --- prctl(2) ------------------------------------------------------------------------------------------------------

_PRCTL_ALLOWED: dict[str, int] = {
    "PR_GET_PDEATHSIG": 2, "PR_GET_DUMPABLE": 3, "PR_GET_KEEPCAPS": 7, "PR_SET_KEEPCAPS": 8, "PR_SET_NAME": 15,
    "PR_GET_NAME": 16, "PR_GET_SECCOMP": 21, "PR_SET_SECCOMP": 22, "PR_CAPBSET_READ": 23, "PR_CAPBSET_DROP": 24,
    "PR_GET_TSC": 25, "PR_GET_SECUREBITS": 27, "PR_SET_TIMERSLACK": 29, "PR_GET_TIMERSLACK": 30,
    "PR_SET_CHILD_SUBREAPER": 36, "PR_GET_CHILD_SUBREAPER": 37, "PR_SET_NO_NEW_PRIVS": 38, "PR_GET_NO_NEW_PRIVS": 39,
    "PR_GET_TID_ADDRESS": 40, "PR_SET_THP_DISABLE": 41, "PR_GET_THP_DISABLE": 42, "PR_SVE_SET_VL": 50,
    "PR_SVE_GET_VL": 51, "PR_GET_SPECULATION_CTRL": 52, "PR_SET_SPECULATION_CTRL": 53, "PR_PAC_RESET_KEYS": 54,
    "PR_SET_TAGGED_ADDR_CTRL": 55, "PR_GET_TAGGED_ADDR_CTRL": 56, "PR_PAC_SET_ENABLED_KEYS": 60,
    "PR_PAC_GET_ENABLED_KEYS": 61, "PR_SME_SET_VL": 63, "PR_SME_GET_VL": 64, "PR_SET_MDWE": 65, "PR_GET_MDWE": 66,
    "PR_GET_SHADOW_STACK_STATUS": 74, "PR_SET_SHADOW_STACK_STATUS": 75, "PR_LOCK_SHADOW_STACK_STATUS": 76,
    "PR_FUTEX_HASH": 78, "PR_GET_AUXV": 0x41555856, "PR_SET_VMA": 0x53564D41,
}  # linux/prctl.h
_SIGKILL = 9

_PRCTL: tuple[Row, ...] = (
    Row("prctl", ALLOW, (int_is(0, 1), long_is(1, _SIGKILL)), "PR_SET_PDEATHSIG to what the first process has anyway"),
    # torch.multiprocessing fails where this call fails; that its workers then live until the broker ends is harmless.
    Row("prctl", NO_EFFECT, (int_is(0, 1),), "PR_SET_PDEATHSIG: the first process must die with the broker"),
    Row("prctl", ALLOW, (int_is(0, 4), long_is(1, 1)), "PR_SET_DUMPABLE to what it is"),
    Row("prctl", NO_EFFECT, (int_is(0, 4),), "PR_SET_DUMPABLE: the broker must be able to read a caller's memory"),
    Row("prctl", ALLOW, (int_is(0, *_PRCTL_ALLOWED.values()),), "its own: " + ", ".join(_PRCTL_ALLOWED)),
    Row("prctl", EINVAL, (), "what is not named above, as from an older Linux: PR_SET_MM, PR_SET_PTRACER ..."),
)


# --- ioctl(2): the request is an unsigned int, its second byte from the right the family -----------------------------

_FAMILY = 0xFF00
_SOCKET_QUESTIONS: dict[str, int] = {
    "FIOSETOWN": 0x8901, "SIOCSPGRP": 0x8902, "FIOGETOWN": 0x8903, "SIOCGPGRP": 0x8904, "SIOCATMARK": 0x8905,
    "SIOCGSTAMP": 0x8906, "SIOCGSTAMPNS": 0x8907, "SIOCGSTAMP_NEW": 0x80108906, "SIOCGSTAMPNS_NEW": 0x80108907,
    "SIOCGIFNAME": 0x8910, "SIOCGIFCONF": 0x8912, "SIOCGIFFLAGS": 0x8913, "SIOCGIFADDR": 0x8915,
    "SIOCGIFDSTADDR": 0x8917, "SIOCGIFBRDADDR": 0x8919, "SIOCGIFNETMASK": 0x891B, "SIOCGIFMETRIC": 0x891D,
    "SIOCGIFMTU": 0x8921, "SIOCGIFHWADDR": 0x8927, "SIOCGIFINDEX": 0x8933, "SIOCGIFTXQLEN": 0x8942,
    "SIOCETHTOOL": 0x8946, "SIOCOUTQNSD": 0x894B, "SIOCGIFMAP": 0x8970,
}  # linux/sockios.h
_FILE_QUESTIONS: dict[str, int] = {
    "FS_IOC_GETFLAGS": 0x80086601, "FS_IOC32_GETFLAGS": 0x80046601, "FS_IOC_FIEMAP": 0xC020660B,
    "FS_IOC_FSGETXATTR": 0x801C581F, "FICLONE": 0x40049409, "FICLONERANGE": 0x4020940D, "FIDEDUPERANGE": 0xC0189436,
}  # linux/fs.h
_TERMINAL_DANGERS: dict[str, int] = {
    "TIOCSTI": 0x5412, "TIOCLINUX": 0x541C, "TIOCCONS": 0x541D, "TIOCSETD": 0x5423,
}  # asm-generic/ioctls.h

_FREQUENT: dict[str, int] = {
    "TCGETS": 0x5401, "TIOCGWINSZ": 0x5413, "FIONREAD": 0x541B, "FIONBIO": 0x5421, "FIOCLEX": 0x5451,
}  # asm-generic/ioctls.h

_IOCTL: tuple[Row, ...] = (
    Row("ioctl", ALLOW, (int_is(1, *_FREQUENT.values()),), "first because frequent: " + ", ".join(_FREQUENT)),
    Row("ioctl", NOTIFY, (int_is(1, 0x5441),), "TIOCGPTPEER opens the other end of an own terminal past Landlock"),
    Row("ioctl", EPERM, (int_is(1, *_TERMINAL_DANGERS.values()),),
        "types into, or takes over, a terminal: " + ", ".join(_TERMINAL_DANGERS)),
    Row("ioctl", EPERM, (int_is(1, 0x4B00, 0x5600, mask=0xFFFFFF00),), "the machine's console and keyboard: KD*, VT_*"),
    Row("ioctl", ALLOW, (int_is(1, *_FILE_QUESTIONS.values()),), "questions about files, and sharing of their blocks"),
    # Linux asks for these only that the user owns the file, not that it was opened for writing; ENOTTY is what
    # a file system without them says, and tools go on.
    Row("ioctl", ENOTTY, (int_is(1, 0x6600, 0x5800, mask=_FAMILY),),
        "attributes, labels, verity, encryption through a read-only descriptor: FS_IOC_*, EXT4_IOC_*, XFS_IOC_*"),
    Row("ioctl", ENOTTY, (int_is(1, 0x9400, 0xF500, 0xBC00, mask=_FAMILY),),
        "snapshots, subvolumes and the like through a read-only descriptor: btrfs, f2fs, bcachefs"),
    Row("ioctl", ENOTTY, (int_is(1, 0x40047211),), "FAT_IOCTL_SET_ATTRIBUTES through a read-only descriptor"),
    Row("ioctl", ALLOW, (int_is(1, *_SOCKET_QUESTIONS.values()),), "questions about sockets and interfaces"),
    Row("ioctl", EPERM, (int_is(1, 0x8900, mask=_FAMILY),), "sets addresses, routes and interfaces of the machine"),
    Row("ioctl", EPERM, (int_is(1, 0x1200, 0x4C00, 0xFD00, 0xAE00, mask=_FAMILY),),
        "block devices, loop devices, device mapper, KVM: no notebook's"),
    Row("ioctl", ALLOW, (), "terminals, pipes and sockets; other devices are Landlock's to allow"),
)


# --- setsockopt(2): level, action, reason, options -------------------------------------------------------------------

_SOL_SOCKET, _IPPROTO_IP, _IPPROTO_TCP, _IPPROTO_IPV6 = 1, 0, 6, 41
_PAIRS = "datagram sockets inside are unix pairs, and resolvers, QUIC and ssh expect success"
_OPTIONS: tuple[tuple[int, Action, str, dict[str, int]], ...] = (
    (_SOL_SOCKET, ALLOW, "buffers, times and lifetime of the socket itself", {
        "SO_REUSEADDR": 2, "SO_BROADCAST": 6, "SO_SNDBUF": 7, "SO_RCVBUF": 8, "SO_KEEPALIVE": 9, "SO_OOBINLINE": 10,
        "SO_LINGER": 13, "SO_PASSCRED": 16, "SO_RCVLOWAT": 18, "SO_RCVTIMEO_OLD": 20, "SO_SNDTIMEO_OLD": 21,
        "SO_TIMESTAMP_OLD": 29, "SO_TIMESTAMPNS_OLD": 35, "SO_TIMESTAMPING_OLD": 37, "SO_RXQ_OVFL": 40,
        "SO_TIMESTAMP_NEW": 63, "SO_TIMESTAMPNS_NEW": 64, "SO_TIMESTAMPING_NEW": 65, "SO_RCVTIMEO_NEW": 66,
        "SO_SNDTIMEO_NEW": 67,
    }),
    (_SOL_SOCKET, NO_EFFECT, "a listener with it takes connections of an outside service; servers set it needlessly", {
        "SO_REUSEPORT": 15,
    }),
    (_SOL_SOCKET, NO_EFFECT, "picks routes and queues; nobody needs it to take effect", {"SO_PRIORITY": 12}),
    (_IPPROTO_TCP, ALLOW, "timing and buffering of one connection", {
        "TCP_NODELAY": 1, "TCP_MAXSEG": 2, "TCP_CORK": 3, "TCP_KEEPIDLE": 4, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 6,
        "TCP_SYNCNT": 7, "TCP_LINGER2": 8, "TCP_DEFER_ACCEPT": 9, "TCP_WINDOW_CLAMP": 10, "TCP_QUICKACK": 12,
        "TCP_USER_TIMEOUT": 18, "TCP_NOTSENT_LOWAT": 25, "TCP_INQ": 36,
    }),
    (_IPPROTO_IP, NO_EFFECT, _PAIRS, {
        "IP_TOS": 1, "IP_TTL": 2, "IP_PKTINFO": 8, "IP_MTU_DISCOVER": 10, "IP_RECVERR": 11, "IP_RECVTTL": 12,
        "IP_RECVTOS": 13, "IP_BIND_ADDRESS_NO_PORT": 24, "IP_MULTICAST_TTL": 33, "IP_MULTICAST_LOOP": 34,
    }),
    (_IPPROTO_IPV6, ALLOW, "the broker reads it from its own reference when it binds", {"IPV6_V6ONLY": 26}),
    (_IPPROTO_IPV6, NO_EFFECT, _PAIRS, {
        "IPV6_UNICAST_HOPS": 16, "IPV6_MULTICAST_HOPS": 18, "IPV6_MULTICAST_LOOP": 19, "IPV6_MTU_DISCOVER": 23,
        "IPV6_RECVERR": 25, "IPV6_RECVPKTINFO": 49, "IPV6_RECVHOPLIMIT": 51, "IPV6_DONTFRAG": 62,
        "IPV6_RECVTCLASS": 66, "IPV6_TCLASS": 67,
    }),
)  # asm-generic/socket.h, linux/tcp.h, linux/in.h, linux/in6.h

_SETSOCKOPT: tuple[Row, ...] = (
    *(
        Row("setsockopt", action, (int_is(1, level), int_is(2, *options.values())), f"{', '.join(options)}: {reason}")
        for level, action, reason, options in _OPTIONS
    ),
    Row("setsockopt", ENOPROTOOPT, (), "source routes, foreign addresses, devices, marks, filters, Fast Open, ULP ..."),
)


# --- the table -------------------------------------------------------------------------------------------------------

# fmt: on
TABLE: tuple[Row, ...] = (
    *(Row(name, action, (), reason) for action, reason, names in _WHOLE for name in names.split()),
    *_PROCESSES,
    *_FILES,
    *_SENDING,
    *_PRCTL,
    *_IOCTL,
    *_SETSOCKOPT,
)


def _by_name() -> dict[str, tuple[Row, ...]]:
    rows: dict[str, tuple[Row, ...]] = {}
    for row in TABLE:
        rows[row.name] = (*rows.get(row.name, ()), row)
    return rows


ROWS: dict[str, tuple[Row, ...]] = _by_name()

# Every call that the broker has to be able to answer.
NOTIFIED: frozenset[str] = frozenset(row.name for row in TABLE if row.action == NOTIFY)


# Where the notebook's folder is guarded (policy/guarded.py) the broker is asked of these too: it does what Landlock has
# no rule for, and lets all else go on to Landlock. openat2 does not exist inside; mknod is Landlock's alone.
_IN_GUARDED_FOLDERS = """
    open openat creat mkdir mkdirat unlink unlinkat rmdir rename renameat renameat2 link linkat truncate
"""
IN_GUARDED_FOLDERS = frozenset(_IN_GUARDED_FOLDERS.split())


def rows_of(name: str, *, guarded: bool) -> tuple[Row, ...]:
    """The rows of a call, for a sandbox whose folder is guarded, or is not."""
    if not guarded or name not in IN_GUARDED_FOLDERS:
        return ROWS[name]
    reason = "the broker makes, opens and removes what lies beside closed entries; all else goes on to Landlock"
    return tuple(Row(name, NOTIFY, row.conditions, reason) if row.action == ALLOW else row for row in ROWS[name])


def decide(machine: str, arch: int, nr: int, args: Sequence[int], *, guarded: bool = False) -> Action:
    """What the table says about call ``nr`` (unsigned 32 bits, as in seccomp_data) with six 64-bit ``args``.

    ``machine`` is a key of NUMBERS, ``arch`` an AUDIT_ARCH value, ``guarded``: see
    ``rows_of``. This is the meaning of the table, written without
    regard to speed; the compiled filter is tested against it.
    """
    if arch != AUDIT_ARCH[machine]:
        return KILL
    if machine == "x86_64" and nr & X32_BIT and nr != LOW32:  # -1 is no x32 call: ENOSYS like anything unknown
        return KILL
    for name, number in NUMBERS[machine].items():
        if number == nr:
            return next(
                row.action for row in rows_of(name, guarded=guarded) if all(c.holds(args) for c in row.conditions)
            )
    return DEFAULT
