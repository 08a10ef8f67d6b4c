"""Parts of the programs that promises run outside and inside: texts without a brace, so that they may be formatted."""

# ``raw("clone", ...)``: syscall(2) by name, full 64-bit registers. Needs ``NR``, name -> number, and ``libc``.
RAW = """
def raw(name, *args):
    args = [ctypes.c_long(a) if isinstance(a, int) else a for a in args]
    result = libc.syscall(ctypes.c_long(NR[name]), *args)
    if result < 0:
        raise OSError(ctypes.get_errno(), name)
    return result
"""

# Tries every one of ``WAYS``, name -> function, and prints ``told``: name -> what it returned, or its errno's name.
REPORT = """
for way, go in WAYS.items():
    try:
        told[way] = go()
    except OSError as error:
        told[way] = errno.errorcode[error.errno]
print(json.dumps(told))
"""
