"""File locks between two mounts of one cluster: real processes, kill -9, restarts. Run: tests/fault/run test_locks"""
import contextlib
import fcntl
import os
import pathlib
import select
import signal
import subprocess
import sys
import unittest

from cluster import Cluster, wait_for

LOCKER = pathlib.Path(__file__).with_name("locker.py")


class Locker:
    """A process with locks; see locker.py."""

    def __init__(self, test, path=None):
        self.process = subprocess.Popen([sys.executable, LOCKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        text=True, bufsize=1, start_new_session=True)
        test.addCleanup(self.kill)
        if path:
            self.ok(f"open f {path}")

    def send(self, line):
        self.process.stdin.write(line + "\n")

    def waits(self):
        return not select.select([self.process.stdout], [], [], 0)[0]

    def answer(self, timeout=60):
        if not select.select([self.process.stdout], [], [], timeout)[0]:
            raise AssertionError(f"no answer after {timeout} s")
        return self.process.stdout.readline().strip()

    def ask(self, line):
        self.send(line)
        return self.answer()

    def ok(self, line):
        said = self.ask(line)
        if said.split(" ")[0] != "ok":
            raise AssertionError(f"{line}: {said}")
        return said[3:]

    def kill(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


class TwoMounts(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster(chunkservers=1, replicas=1, mount=True)
        cls.cluster.__enter__()
        cls.other = cls.cluster.folder / "mnt2"
        cls.cluster.mount(cls.other)
        # Closes of descriptors that only read are heard from the first record lock of a mount on (docs/locks.md).
        for mount in (cls.cluster.mnt, cls.other):
            with open(mount / "first", "w") as f:
                fcntl.lockf(f, fcntl.LOCK_EX)

    @classmethod
    def tearDownClass(cls):
        cls.cluster.close()

    def setUp(self):
        name = self.id().rsplit(".", 1)[1]
        (self.cluster.mnt / name).write_bytes(b"")
        self.a = Locker(self, self.cluster.mnt / name)
        self.b = Locker(self, self.other / name)
        self.path_a, self.path_b = self.cluster.mnt / name, self.other / name

    def blocked(self, locker, line):
        """Sends a request that has to wait, and lets a moment pass in which it might wrongly be granted."""
        locker.send(line)
        self.assertFalse(select.select([locker.process.stdout], [], [], 0.3)[0], f"{line} did not wait")

    def test_conflicts(self):
        a, b = self.a, self.b
        a.ok("flock f ex")
        self.assertEqual(b.ask("flock f sh nb"), "EAGAIN")
        a.ok("flock f sh")
        b.ok("flock f sh nb")
        self.assertEqual(b.ask("flock f ex nb"), "EAGAIN")
        a.ok("posix f ex 0 10")
        self.assertEqual(b.ask("posix f sh 9 1 nb"), "EAGAIN")
        self.assertEqual(b.ask("ofd f sh 9 1 nb"), "EAGAIN")
        b.ok("ofd f ex 10 10 nb")
        self.assertEqual(a.ask("posix f sh 0 0 nb"), "EAGAIN")
        self.assertEqual(b.ok("getlk f 0 0"), "ex 0 10 0")
        beside = Locker(self, self.path_a)
        self.assertEqual(beside.ok("getlk f 0 5"), f"ex 0 10 {a.process.pid}")
        a.ok("posix f un 3 4")
        b.ok("posix f ex 3 4 nb")
        self.assertEqual(b.ask("posix f ex 2 1 nb"), "EAGAIN")
        self.assertEqual(b.ask("posix f ex 7 1 nb"), "EAGAIN")

    def test_waits_until_unlocked(self):
        a, b = self.a, self.b
        for lock, unlock in [("flock f ex", "flock f un"), ("posix f ex 0 0", "posix f un 0 0"),
                             ("ofd f ex 5 5", "ofd f un 5 5")]:
            a.ok(lock)
            self.blocked(b, lock)
            a.ok(unlock)
            self.assertEqual(b.answer(), "ok")
            self.assertEqual(a.ask(f"{lock} nb"), "EAGAIN")
            b.ok(unlock)

    def test_close_gives_back(self):
        a, b = self.a, self.b
        a.ok(f"open g {self.path_a}")
        a.ok(f"open r {self.path_a} rdonly")
        a.ok("posix f ex 0 10")
        a.ok("ofd g ex 20 10")
        a.ok("close r")     # any close of the file, also of another descriptor that only reads
        b.ok("posix f ex 0 10 nb")
        self.assertEqual(b.ask("posix f ex 20 10 nb"), "EAGAIN")
        a.ok("dup g h")
        a.ok("close g")
        self.assertEqual(b.ask("posix f ex 20 10 nb"), "EAGAIN")
        self.blocked(b, "posix f ex 20 10")
        a.ok("close h")
        self.assertEqual(b.answer(), "ok")

    def test_read_lock_of_a_forked_process(self):
        a, b = self.a, self.b
        a.ok(f"open r {self.path_a} rdonly")
        a.ok("fork")
        a.ok("posix r sh 0 0")
        a.ok("flock r sh")
        self.assertEqual(b.ask("posix f ex 0 0 nb"), "EAGAIN")
        a.ok("close r")     # the child has it open still
        b.ok("posix f ex 0 0 nb")
        self.assertEqual(b.ask("flock f ex nb"), "EAGAIN")

    def test_death_gives_back(self):
        self.a.ok("posix f ex 0 0")
        self.a.ok("flock f ex")
        waits = Locker(self, self.path_b)
        self.blocked(self.b, "posix f sh 5 1")
        self.blocked(waits, "flock f ex")
        self.a.kill()
        self.assertEqual(self.b.answer(), "ok")
        self.assertEqual(waits.answer(), "ok")

    def test_deadlock(self):
        a, b = self.a, self.b
        a.ok("posix f ex 0 1")
        b.ok("posix f ex 1 1")
        self.blocked(a, "posix f ex 1 1")
        self.assertEqual(b.ask("posix f ex 0 1"), "EDEADLK")
        b.ok("posix f un 1 1")
        self.assertEqual(a.answer(), "ok")

    def test_interrupted_wait(self):
        a, b = self.a, self.b
        a.ok("posix f ex 0 0")
        a.ok("flock f ex")
        for lock in ("posix f ex 0 0", "flock f ex"):
            b.ok("alarm 0.2")
            self.assertEqual(b.ask(lock), "EINTR")
        dying = Locker(self, self.path_b)
        self.blocked(dying, "posix f ex 0 0")
        dying.kill()
        a.ok("posix f un 0 0")
        a.ok("flock f un")
        third = Locker(self, self.path_a)
        third.ok("posix f ex 0 0 nb")
        third.ok("flock f ex nb")

    def test_counter(self):
        """Locks and data together: no increment is lost."""
        script = ("import fcntl,os,sys\n"
                  "fd=os.open(sys.argv[1],os.O_RDWR)\n"
                  "for i in range(100):\n"
                  "  fcntl.lockf(fd,fcntl.LOCK_EX) if sys.argv[2]=='posix' else fcntl.flock(fd,fcntl.LOCK_EX)\n"
                  "  n=int(os.pread(fd,20,0) or b'0'); os.pwrite(fd,b'%d'%(n+1),0)\n"
                  "  fcntl.lockf(fd,fcntl.LOCK_UN) if sys.argv[2]=='posix' else fcntl.flock(fd,fcntl.LOCK_UN)\n")
        for kind in ("posix", "flock"):
            self.path_a.write_bytes(b"")
            running = [subprocess.Popen([sys.executable, "-c", script, path, kind])
                       for path in (self.path_a, self.path_b, self.path_a, self.path_b)]
            self.assertEqual([p.wait(timeout=120) for p in running], [0] * 4)
            self.assertEqual(self.path_b.read_bytes(), b"400")

    def test_meta_restart(self):
        a, b, c = self.a, self.b, self.cluster
        a.ok("posix f ex 0 10")
        a.ok("flock f sh")
        self.blocked(b, "posix f ex 5 1")
        c.kill("meta")
        third = Locker(self, self.path_b)
        third.send("flock f ex nb")     # decided when all have named their locks
        c.start("meta")
        self.assertEqual(third.answer(), "EAGAIN")
        self.assertTrue(b.waits())
        self.assertEqual(third.ask("posix f sh 0 1 nb"), "EAGAIN")
        third.ok("posix f ex 10 10 nb")
        a.ok("posix f un 5 1")
        self.assertEqual(b.answer(), "ok")
        a.ok("flock f un")
        third.ok("flock f ex nb")

    def test_process_dies_while_the_server_is_down(self):
        a, b, c = self.a, self.b, self.cluster
        a.ok("posix f ex 0 0")
        self.blocked(b, "posix f ex 0 0")
        c.kill("meta")
        b.kill()     # a waiter can be killed
        os.kill(a.process.pid, signal.SIGKILL)
        c.start("meta")
        a.kill()
        third = Locker(self, self.path_b)
        third.ok("posix f ex 0 0")


class LostMount(unittest.TestCase):
    def test_killed_mount_gives_back(self):
        with Cluster(chunkservers=1, replicas=1, mount=True) as c:
            other = c.folder / "mnt2"
            c.mount(other)
            (c.mnt / "f").write_bytes(b"")
            a, b = Locker(self, c.mnt / "f"), Locker(self, other / "f")
            a.ok("posix f ex 0 0")
            b.send("posix f ex 0 0")
            c.signal_mount(c.mnt, signal.SIGKILL)
            self.assertEqual(b.answer(), "ok")

    def test_paused_mount_knows_that_it_lost_its_locks(self):
        with Cluster(chunkservers=1, replicas=1, mount=True) as c:
            other = c.folder / "mnt2"
            c.mount(other)
            (c.mnt / "f").write_bytes(b"before")
            a, b = Locker(self, c.mnt / "f"), Locker(self, other / "f")
            a.ok("flock f ex")
            c.signal_mount(c.mnt, signal.SIGSTOP)
            b.ok("flock f ex")      # when the session of the other has ended
            b.ok("write f after")
            c.signal_mount(c.mnt, signal.SIGCONT)
            wait_for("the loss is known", lambda: a.ask("flock f ex nb") == "ENOLCK")
            self.assertEqual(a.ask("read f"), "EIO")
            self.assertEqual(a.ask("write f x"), "EIO")
            a.ok("flock f un")
            a.ok("close f")
            a.ok(f"open f {c.mnt / 'f'}")
            self.assertEqual(a.ok("read f"), "aftere")
            self.assertEqual(a.ask("flock f ex nb"), "EAGAIN")
            b.ok("flock f un")
            a.ok("flock f ex")

    def test_mount_ends_with_processes_waiting(self):
        with Cluster(chunkservers=1, replicas=1, mount=True) as c:
            other = c.folder / "mnt2"
            c.mount(other)
            (c.mnt / "f").write_bytes(b"")
            a, b = Locker(self, c.mnt / "f"), Locker(self, other / "f")
            a.ok("flock f ex")
            b.send("flock f ex")
            c.signal_mount(other, signal.SIGTERM)
            self.assertNotEqual(b.answer(), "ok")
            c.mounts.remove(other)


if __name__ == "__main__":
    unittest.main()
