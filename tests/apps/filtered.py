"""Makes the kernel refuse system calls of this process: accept4, with EPERM, at /refuse. For x86_64 and aarch64."""

import ctypes
import platform
import struct

ACCEPT4 = {"x86_64": 288, "aarch64": 242}[platform.machine()]
CLONE = {"x86_64": 56, "aarch64": 220}[platform.machine()]
CLONE3 = 435
SECCOMP = {"x86_64": 317, "aarch64": 277}[platform.machine()]
PR_SET_NO_NEW_PRIVS = 38
SET_MODE_FILTER, TSYNC = 1, 1
EPERM = 1


def refuse(call, error):
    steps = [
        (0x20, 0, 0, 0),  # load the number of the system call
        (0x15, 0, 1, call),
        (0x06, 0, 0, 0x00050000 | error),
        (0x06, 0, 0, 0x7FFF0000),  # allow
    ]
    filter = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    program = struct.pack("HxxxxxxQ", len(steps), ctypes.addressof(filter))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.syscall(SECCOMP, SET_MODE_FILTER, TSYNC, program):
        raise OSError(ctypes.get_errno(), "seccomp")


def application(environ, start_response):
    if environ["PATH_INFO"] == "/refuse":
        refuse(ACCEPT4, EPERM)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
    return [b"ok"]
