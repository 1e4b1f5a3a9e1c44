"""A process that holds file locks, told what to do by lines on its standard input; one line answers each.

    open NAME PATH [rdonly]   close NAME   dup NAME AS   read NAME   write NAME TEXT
    flock NAME sh|ex|un [nb]
    posix|ofd NAME sh|ex|un FIRST LENGTH [nb]
    getlk NAME FIRST LENGTH
    alarm SECONDS             a signal whose handler does nothing else than end the next wait with EINTR
    fork                      a child of the same process group that keeps all descriptors
Answers: "ok [value]", or the name of the errno.
"""
import errno
import fcntl
import os
import signal
import struct
import sys

OFD = {False: 37, True: 38}  # F_OFD_SETLK, F_OFD_SETLKW
POSIX = {False: fcntl.F_SETLK, True: fcntl.F_SETLKW}
TYPES = {"sh": fcntl.F_RDLCK, "ex": fcntl.F_WRLCK, "un": fcntl.F_UNLCK}
FLOCK = {"sh": fcntl.LOCK_SH, "ex": fcntl.LOCK_EX, "un": fcntl.LOCK_UN}
LAYOUT = "hhqqi4x"  # struct flock on 64-bit Linux


class Interrupted(Exception):
    pass


def on_alarm(*_):
    raise Interrupted  # else Python calls again after EINTR


files = {}


def record(command, fd, kind, first, length):
    packed = struct.pack(LAYOUT, kind, os.SEEK_SET, int(first), int(length), 0)
    return struct.unpack(LAYOUT, fcntl.fcntl(fd, command, packed))


def do(word, *args):
    if word == "open":
        flags = os.O_RDONLY if args[2:] == ("rdonly",) else os.O_RDWR | os.O_CREAT
        files[args[0]] = os.open(args[1], flags, 0o644)
    elif word == "close":
        os.close(files.pop(args[0]))
    elif word == "dup":
        files[args[1]] = os.dup(files[args[0]])
    elif word == "read":
        return os.pread(files[args[0]], 1000, 0).decode()
    elif word == "write":
        os.pwrite(files[args[0]], args[1].encode(), 0)
    elif word == "flock":
        fcntl.flock(files[args[0]], FLOCK[args[1]] | (fcntl.LOCK_NB if "nb" in args else 0))
    elif word in ("posix", "ofd"):
        commands = OFD if word == "ofd" else POSIX
        record(commands["nb" not in args], files[args[0]], TYPES[args[1]], args[2], args[3])
    elif word == "getlk":
        kind, _, first, length, pid = record(fcntl.F_GETLK, files[args[0]], fcntl.F_WRLCK, args[1], args[2])
        if kind == fcntl.F_UNLCK:
            return "free"
        return f"{'ex' if kind == fcntl.F_WRLCK else 'sh'} {first} {length} {pid}"
    elif word == "alarm":
        signal.setitimer(signal.ITIMER_REAL, float(args[0]))
    elif word == "fork":
        if os.fork() == 0:
            signal.pause()
    else:
        raise AssertionError(word)
    return ""


signal.signal(signal.SIGALRM, on_alarm)
for line in sys.stdin:
    try:
        said = ("ok " + do(*line.split())).strip()
    except Interrupted:
        said = "EINTR"
    except OSError as e:
        said = "EDEADLK" if e.errno == errno.EDEADLK else errno.errorcode[e.errno]
    print(said, flush=True)
