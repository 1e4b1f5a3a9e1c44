"""Copies that share chunks, while servers and mounts die. Run: tests/fault/run test_clones"""
import errno
import json
import os
import random
import signal
import unittest

from cluster import Cluster, wait_for
from workload import Background, pattern

CHUNK = 4 << 20
BLOCK = 4096


def copy(source, target):
    """As cp does it; returns the number of bytes."""
    done = 0
    with open(source, "rb") as a, open(target, "wb") as b:
        while n := os.copy_file_range(a.fileno(), b.fileno(), 1 << 30):
            done += n
    return done


def write_at(path, offset, data, sync=True):
    fd = os.open(path, os.O_RDWR)
    try:
        os.pwrite(fd, data, offset)
        if sync:
            os.fsync(fd)
    finally:
        os.close(fd)


def used(c):
    return sum(s["used_bytes"] for s in c.status()["servers"])


def chunks(c):
    return sum(target["chunks"] for s in c.servers() for target in s["targets"])


class Clones(unittest.TestCase):
    def check_nothing_is_left(self, c, mnt):
        """Whatever died when: with the last file the last chunk goes."""
        wait_for("the chunks are counted", lambda: chunks(c) > 0)
        for name in os.listdir(mnt):
            os.unlink(mnt / name)
        c.cairn("trash", "empty", "/", "--yes")
        wait_for("no chunk is left", lambda: chunks(c) == 0, timeout=90)

    def check(self, path, expected):
        got = path.read_bytes()
        self.assertEqual(len(got), len(expected), path)
        if got != expected:
            at = next(i for i in range(len(got)) if got[i] != expected[i])
            self.fail(f"{path} differs at {at}")

    def test_servers_die_while_copies_are_written(self):
        """The source never changes; of a copy every synced write is there, and around it the source's bytes."""
        with Cluster(mount=True) as c:
            source = bytearray(pattern(1, 3 * CHUNK + 5000))
            (c.mnt / "source").write_bytes(source)
            clones = {}
            rng = random.Random(7)

            def write(n):
                path = c.mnt / f"clone{n % 4}"
                if n % 4 not in clones or n % 16 >= 12:
                    if copy(c.mnt / "source", path) != len(source):
                        raise AssertionError("a short copy")
                    clones[n % 4] = bytearray(source)
                offset = rng.randrange(len(source) - BLOCK)
                data = pattern(n, BLOCK)
                write_at(path, offset, data)
                clones[n % 4][offset:offset + BLOCK] = data
                return n

            writer = Background(write)
            for part in ("meta", "chunkserver-1", "chunkserver-2", "meta"):
                reached = len(writer.done) + 12
                wait_for("writes go on", lambda: writer.error or len(writer.done) >= reached, timeout=120)
                c.kill(part)
                c.start(part)
                if part != "meta":
                    c.wait_health("ok")
            reached = len(writer.done) + 12
            wait_for("writes go on", lambda: writer.error or len(writer.done) >= reached, timeout=120)
            writer.stop()
            c.umount(c.mnt)
            c.mount(c.mnt)
            self.check(c.mnt / "source", source)
            for n, expected in clones.items():
                self.check(c.mnt / f"clone{n}", expected)
            self.check_nothing_is_left(c, c.mnt)

    def test_a_mount_dies_with_half_written_copies(self):
        """Bytes that were not synced are there or not, a write at a time; nothing else changes, in no file."""
        with Cluster(mount=True) as c:
            source = pattern(2, 4 * CHUNK)
            (c.mnt / "source").write_bytes(source)
            copy(c.mnt / "source", c.mnt / "clone")
            synced = pattern(3, BLOCK)
            write_at(c.mnt / "clone", CHUNK - 100, synced)
            unsynced = pattern(4, BLOCK)
            for index in range(4):
                write_at(c.mnt / "clone", index * CHUNK + 50_000, unsynced, sync=False)
            write_at(c.mnt / "source", 2 * CHUNK + 9, unsynced, sync=False)
            c.signal_mount(c.mnt, signal.SIGKILL)
            other = c.folder / "mnt2"
            c.mount(other)
            clone = bytearray((other / "clone").read_bytes())
            expected = bytearray(source)
            expected[CHUNK - 100:CHUNK - 100 + BLOCK] = synced
            for index in range(4):
                at = index * CHUNK + 50_000
                self.assertIn(bytes(clone[at:at + BLOCK]), (unsynced, source[at:at + BLOCK]))
                expected[at:at + BLOCK] = clone[at:at + BLOCK]
            self.assertEqual(clone, expected)
            got = (other / "source").read_bytes()
            at = 2 * CHUNK + 9
            self.assertIn(got[at:at + BLOCK], (unsynced, source[at:at + BLOCK]))
            self.assertEqual(got[:at] + got[at + BLOCK:], source[:at] + source[at + BLOCK:])
            # The next writer of the same places overwrites what the dead one may have left.
            for index in range(4):
                write_at(other / "clone", index * CHUNK + 70_000, b"successor")
                expected[index * CHUNK + 70_000:index * CHUNK + 70_009] = b"successor"
            c.umount(other)
            c.mount(other)
            self.check(other / "clone", expected)
            self.check_nothing_is_left(c, other)

    def test_what_one_host_writes_another_copies(self):
        """Nothing is synced: who copies gets what write() returned, on any host, and later writes stay apart."""
        with Cluster(chunkservers=2, mount=True) as c:
            other = c.folder / "mnt2"
            c.mount(other)
            source = bytearray(pattern(8, 2 * CHUNK + 777))
            with open(c.mnt / "source", "wb", buffering=0) as f:
                f.write(source)
                expected = {"source": source}

                def write(where, name, offset, data):
                    write_at(where / name, offset, data, sync=False)
                    expected[name][offset:offset + len(data)] = data

                for n in range(4):
                    here, there = (c.mnt, other) if n % 2 else (other, c.mnt)
                    self.assertEqual(copy(here / "source", here / f"copy{n}"), len(source))
                    expected[f"copy{n}"] = bytearray(source)
                    write(there, f"copy{n}", CHUNK - 3, b"written there")
                    write(here, f"copy{n}", CHUNK + 3, b"written here")
                    write(there, "source", n, b"and here")
                    self.assertEqual(copy(there / f"copy{n}", there / f"again{n}"), len(source))
                    expected[f"again{n}"] = bytearray(expected[f"copy{n}"])
                    write(here, "source", 2 * CHUNK + n, b"at the end")
            for where in (c.mnt, other):
                for name, data in expected.items():
                    self.check(where / name, data)

    def test_space_is_shared_and_comes_back(self):
        with Cluster(chunkservers=1, replicas=1, mount=True) as c:
            c.cairn("trash", "retention", c.mnt, "0")  # deleted files go at once
            size = 16 * CHUNK
            (c.mnt / "source").write_bytes(pattern(5, size))
            copy(c.mnt / "source", c.mnt / "first")
            before = wait_for("the source is counted", lambda: used(c) >= size and used(c))
            for n in range(20):
                self.assertEqual(copy(c.mnt / "source", c.mnt / f"clone{n}"), size)
            self.assertLess(used(c), before + size)
            os.unlink(c.mnt / "source")
            for n in range(20):
                os.unlink(c.mnt / f"clone{n}")
            self.check(c.mnt / "first", pattern(5, size))
            os.unlink(c.mnt / "first")
            wait_for("the space is free again", lambda: used(c) < size // 2, timeout=60)

    def test_copies_count_for_quotas_and_their_bytes_live_in_the_trash(self):
        with Cluster(chunkservers=1, replicas=1, mount=True) as c:
            size = 4 * CHUNK
            bytes_ = pattern(6, size)
            (c.mnt / "source").write_bytes(bytes_)
            d = c.mnt / "d"
            d.mkdir()
            c.cairn("quota", "set", d, "--bytes", 10 * CHUNK)
            copy(c.mnt / "source", d / "a")
            copy(c.mnt / "source", d / "b")
            # The copies' chunks are theirs already: writing to them needs nothing.
            write_at(d / "b", CHUNK - 5, b"over two chunks")
            b = bytes_[:CHUNK - 5] + b"over two chunks" + bytes_[CHUNK + 10:]
            with self.assertRaises(OSError) as raised:
                copy(c.mnt / "source", d / "c")
            self.assertEqual(raised.exception.errno, errno.EDQUOT)
            refused = c.cairn("clone", c.mnt / "source", d / "e", check=False)
            self.assertEqual(refused.returncode, 1)
            self.assertIn(b"quota", refused.stderr)
            os.sync()
            wait_for("the quota is as it should be",
                     lambda: json.loads(c.cairn("quota", "get", d, "--json"))["bytes"] == 8 * CHUNK)
            os.unlink(d / "a")
            copy(c.mnt / "source", d / "c")
            os.unlink(c.mnt / "source")
            c.kill("meta")
            c.start("meta")
            c.wait_health("ok")
            refused = c.cairn("undelete", d / "a", check=False)
            self.assertEqual(refused.returncode, 1)
            self.assertIn(b"may have", refused.stderr)
            c.cairn("undelete", d / "a", "--to", c.mnt / "back")
            c.cairn("trash", "empty", "/", "--yes")
            os.unlink(d / "c")
            c.cairn("trash", "empty", "/", "--yes")
            c.umount(c.mnt)
            c.mount(c.mnt)
            self.check(c.mnt / "back", bytes_)
            self.check(d / "b", b)
            for path in (c.mnt / "back", d / "b"):
                os.unlink(path)
            wait_for("what is in the trash is stored", lambda: used(c) > size, timeout=60)
            c.cairn("trash", "empty", "/", "--yes")
            wait_for("the space is free again", lambda: used(c) < size // 4, timeout=60)


if __name__ == "__main__":
    unittest.main()
