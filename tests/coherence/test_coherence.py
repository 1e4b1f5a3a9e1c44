"""Several mounts of one cluster are one file system: random operations on all of them, also while servers, links and
mounts fail. See run, and docs/coherence.md for what is guaranteed."""
import contextlib
import errno
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "fault"))
from cluster import BIN, Cluster, alive, need_fuse, wait_for  # noqa: E402
from network import NetworkCluster  # noqa: E402

SECONDS = float(os.environ.get("CAIRN_COHERENCE_SECONDS", "6"))
SEED = int(os.environ.get("CAIRN_COHERENCE_SEED") or random.SystemRandom().randrange(1 << 30))
CHECK = BIN / "coherence_check"
# What a mount's program sees when its servers are away for longer than its deadline, or took it for dead.
EXCUSED = (errno.ETIMEDOUT, errno.EIO)


def check(*words, timeout=None):
    """Runs coherence_check; fails with what it said."""
    words = [str(w) for w in words]
    process = subprocess.Popen([str(CHECK), *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        said, _ = process.communicate(timeout=timeout or SECONDS * 4 + 120)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise AssertionError(f"coherence_check {' '.join(words)}: did not end") from None
    print(said.splitlines()[-1] if said else "", file=sys.stderr)
    if process.returncode != 0:
        raise AssertionError(f"coherence_check {' '.join(words)}\n{said}")


class Repeated:
    """Does something bad again and again in the background, until the block ends."""

    def __init__(self, what, pause):
        self.what, self.pause = what, pause
        self.stop = threading.Event()
        self.error = None
        self.count = 0

    def __enter__(self):
        self.thread = threading.Thread(target=self.run)
        self.thread.start()
        return self

    def run(self):
        try:
            while not self.stop.wait(self.pause):
                self.what(self.count)
                self.count += 1
        except BaseException as e:  # noqa: B902  kept for the test
            self.error = e

    def __exit__(self, kind, error, trace):
        self.stop.set()
        self.thread.join()
        if kind is None and self.error:
            raise self.error


class OnLocalDisk(unittest.TestCase):
    """The checks themselves: one directory of a local file system, as if seen through three mounts, is right."""

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="cairn-coherence-", dir=os.environ.get("CAIRN_TEST_LOCAL", "/var/tmp"))
        self.addCleanup(shutil.rmtree, self.folder)

    def test_script(self):
        check("script", "--seed", SEED, "--ops", 20000, *[self.folder] * 3)

    def test_races(self):
        check("races", "--seed", SEED, "--seconds", 4, *[self.folder] * 3)


class Mounts(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster(mount=True)
        cls.cluster.__enter__()
        cls.addClassCleanup(cls.cluster.close)
        cls.mounts = [cls.cluster.mnt]
        for n in (2, 3):
            cls.mounts.append(cls.cluster.folder / f"mnt{n}")
            cls.cluster.mount(cls.mounts[-1])

    def test_script(self):
        check("script", "--seed", SEED, "--seconds", SECONDS, *self.mounts)

    def test_races(self):
        check("races", "--seed", SEED, "--seconds", SECONDS * 2, *self.mounts)


class Outages(unittest.TestCase):
    """Servers that die and come back, or hang for less than the deadline of the mounts: nobody notices but by waiting."""

    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster(mount=True)
        cls.cluster.__enter__()
        cls.addClassCleanup(cls.cluster.close)
        cls.other = cls.cluster.folder / "mnt2"
        cls.cluster.mount(cls.other)

    def bad(self, number):
        c, rng = self.cluster, random.Random(SEED + number)
        part = rng.choice(["meta", "chunkserver-1", "chunkserver-2", "chunkserver-3"])
        if rng.random() < 0.5:
            c.kill(part)
            time.sleep(rng.random())
            c.start(part)
        else:
            c.signal(part, signal.SIGSTOP)
            time.sleep(rng.random() * 2)
            c.signal(part, signal.SIGCONT)

    def test_script(self):
        with Repeated(self.bad, 1):
            check("script", "--seed", SEED, "--seconds", SECONDS * 1.5, self.cluster.mnt, self.other)

    def test_races(self):
        with Repeated(self.bad, 1):
            check("races", "--seed", SEED, "--seconds", SECONDS * 2, self.cluster.mnt, self.other)


class Network(unittest.TestCase):
    """Each mount on a host of its own; links are cut."""

    def test_short_cuts_are_only_waited_for(self):
        need_fuse()
        with NetworkCluster(mounts=2) as c:
            def bad(number):
                n = number % 2
                c.cut(n)
                time.sleep(1)
                c.heal(n)
            with Repeated(bad, 1):
                check("script", "--seed", SEED, "--seconds", SECONDS, c.where(0), c.where(1))

    def test_long_cuts_lose_only_what_was_not_synced(self):
        need_fuse()
        with NetworkCluster(mounts=2, options="timeout=2", settings={"lease_ms": 1500}) as c:
            def bad(number):
                n = number % 2
                c.cut(n)
                time.sleep(4)
                c.heal(n)
            with Repeated(bad, 2):
                check("races", "--seed", SEED, "--seconds", SECONDS * 2, "--may-fail", c.where(0), c.where(1))


class Paused(unittest.TestCase):
    """A mount whose process is stopped for longer than its lease, and then goes on."""

    def setUp(self):
        need_fuse()
        self.c = Cluster(mount=True)
        self.c.__enter__()
        self.addCleanup(self.c.close)
        self.other = self.c.folder / "mnt2"
        self.c.mount(self.other)

    def test_late_writes_are_refused_and_told(self):
        c, a, b = self.c, self.c.mnt, self.other
        (a / "f").write_bytes(b"0" * 100)
        fd = os.open(a / "f", os.O_RDWR)
        reader = os.open(a / "f", os.O_RDONLY)
        self.addCleanup(os.close, reader)
        os.write(fd, b"synced")
        os.fsync(fd)
        os.pwrite(fd, b"unsynced", 10)
        made = os.open(a / "made", os.O_RDWR | os.O_CREAT)
        os.write(made, b"never synced")
        c.signal_mount(a, signal.SIGSTOP)
        self.addCleanup(lambda: contextlib.suppress(AssertionError) and c.signal_mount(a, signal.SIGCONT))
        # Another host carries on within the lease, the fence, and a margin for this machine.
        began = time.monotonic()
        (b / "f").write_bytes(b"successor")
        (b / "made").write_bytes(b"other")
        self.assertLess(time.monotonic() - began, 30)
        self.assertEqual((b / "f").read_bytes(), b"successor")
        # A write that was waiting in the kernel all the time.
        late = []

        def write():
            try:
                late.append(os.pwrite(fd, b"late", 20))
            except OSError as e:
                late.append(e.errno)
        writer = threading.Thread(target=write)
        writer.start()
        c.signal_mount(a, signal.SIGCONT)
        writer.join(60)
        self.assertEqual(late, [errno.EIO])
        for handle in (fd, made):
            with self.assertRaises(OSError) as raised:
                os.fsync(handle)
                os.close(handle)
            self.assertEqual(raised.exception.errno, errno.EIO)
        # All mounts, the one that was paused too, have what the successor wrote.
        for where in (b, a):
            self.assertEqual((where / "f").read_bytes(), b"successor")
            self.assertEqual((where / "made").read_bytes(), b"other")
        self.assertEqual(os.pread(reader, 100, 0), b"successor")
        # And work on.
        (a / "f").write_bytes(b"again")
        self.assertEqual((b / "f").read_bytes(), b"again")

    def test_kernel_serves_nothing_old_for_longer_than_the_lease(self):
        """What is cached in the kernel of a host whose daemon is stopped: names and attributes end with the lease."""
        c, a, b = self.c, self.c.mnt, self.other
        (a / "d").mkdir()
        (a / "d/f").write_bytes(b"old")
        self.assertEqual((a / "d/f").stat().st_size, 3)
        c.signal_mount(a, signal.SIGSTOP)
        (b / "d/f").write_bytes(b"newer")     # granted when the paused one is fenced
        os.rename(b / "d/f", b / "d/g")
        seen = []

        def look():
            try:
                seen.append(os.stat(a / "d/f").st_size)
            except OSError as e:
                seen.append(e.errno)
        looker = threading.Thread(target=look)
        looker.start()      # waits for the daemon: nothing is answered from the cache any more
        looker.join(1)
        self.assertTrue(looker.is_alive(), f"the kernel answered {seen}")
        c.signal_mount(a, signal.SIGCONT)
        looker.join(60)
        self.assertEqual(seen, [errno.ENOENT])
        self.assertEqual((a / "d/g").read_bytes(), b"newer")


class Crash(unittest.TestCase):
    def test_killed_mount_leaves_a_prefix(self):
        """kill -9 of the mount's processes at random moments."""
        need_fuse()
        rng = random.Random(SEED)
        with Cluster(mount=True) as c:
            rounds, end = 0, time.monotonic() + SECONDS
            while rounds < 2 or time.monotonic() < end:
                seed = rng.randrange(1 << 30)
                other = c.folder / f"victim{rounds}"
                c.mount(other)
                name = f"crash{rounds}"
                (c.mnt / name).mkdir()
                log = c.folder / f"crash{rounds}.txt"
                work = subprocess.Popen([CHECK, "crash-work", "--seed", str(seed), other / name, log],
                                        stdout=subprocess.PIPE, text=True)
                wait_for("changes are made", lambda: log.exists() and log.stat().st_size > 500)
                time.sleep(rng.random() * 1.5)
                c.signal_mount(other, signal.SIGKILL)
                said, _ = work.communicate(timeout=60)
                self.assertEqual(work.returncode, 0, said)
                subprocess.run(["umount", "-l", other], check=True)
                c.mounts.remove(other)
                check("crash-check", "--seed", seed, c.mnt / name, log)
                rounds += 1


if __name__ == "__main__":
    unittest.main(verbosity=2)
