"""Directory quotas and the trash, on real clusters: enforced and kept over kill -9 of the metadata server, and with disks
that fill."""
import errno
import json
import os
import shutil
import threading
import unittest

from cluster import Cluster, CommandFailed, wait_for
from test_faults import MIB, drop_caches, pattern, write_durably

KIB = 1024


def quota(c, path):
    return json.loads(c.cairn("quota", "get", path, "--json"))


def trash(c, path="/"):
    return json.loads(c.cairn("trash", "list", path, "--json"))


def restart_meta(c):
    c.kill("meta")
    c.start("meta")
    wait_for("it serves", lambda: c.cairn("admin", "status", check=False).returncode == 0)


def write_until_refused(path, step=128 * KIB):
    """Bytes that write() took, and the error that ended it."""
    taken = 0
    with open(path, "wb", buffering=0) as f:
        while True:
            try:
                taken += f.write(pattern(taken, step))
            except OSError as e:
                os.fsync(f.fileno())  # what was taken is stored
                return taken, e.errno


class Quotas(unittest.TestCase):
    def test_bytes_are_refused_at_write_on_every_host(self):
        with Cluster(chunkservers=2, mount=True) as c:
            other = c.folder / "other"
            c.mount(other)
            (c.mnt / "d").mkdir()
            c.cairn("quota", "set", c.mnt / "d", "--bytes", "24M")
            results = {}

            def fill(where, name):
                results[name] = write_until_refused(where / "d" / name)
            writers = [threading.Thread(target=fill, args=(where, name))
                       for where, name in ((c.mnt, "a"), (c.mnt, "b"), (other, "c"))]
            for writer in writers:
                writer.start()
            for writer in writers:
                writer.join()
            self.assertEqual({e for _, e in results.values()}, {errno.EDQUOT})
            total = sum(taken for taken, _ in results.values())
            self.assertLessEqual(total, 24 * MIB)
            self.assertGreater(total, 12 * MIB)
            drop_caches()
            for name, (taken, _) in results.items():
                self.assertEqual((c.mnt / "d" / name).stat().st_size, taken)
            space = os.statvfs(c.mnt / "d")
            self.assertEqual(space.f_blocks * space.f_frsize, 24 * MIB)
            self.assertGreater(os.statvfs(c.mnt).f_blocks * 4096, 24 * MIB)

            restart_meta(c)
            with self.assertRaises(OSError) as raised:
                write_durably(c.mnt / "d" / "more", bytes(24 * MIB))
            self.assertEqual(raised.exception.errno, errno.EDQUOT)
            # Over the limit, room can be made, and used.
            c.cairn("quota", "set", "/d", "--bytes", "1M")
            os.truncate(c.mnt / "d" / "a", 100 * KIB)
            for name in ("b", "c", "more"):
                (other / "d" / name).unlink()
            write_durably(c.mnt / "d" / "again", pattern("again", 500 * KIB))
            self.assertEqual((other / "d" / "again").read_bytes(), pattern("again", 500 * KIB))
            c.cairn("quota", "remove", other / "d")
            write_durably(c.mnt / "d" / "again", pattern("again", 3 * MIB))
            self.assertEqual(json.loads(c.cairn("quota", "list", "--json")), [])

    def test_what_fits_exactly_is_taken(self):
        with Cluster(chunkservers=2, mount=True) as c:
            (c.mnt / "d").mkdir()
            c.cairn("quota", "set", "/d", "--bytes", 16 * MIB, "--inodes", 16)
            for n in range(16):  # one after the other, as cp does
                (c.mnt / "d" / str(n)).write_bytes(pattern(n, MIB))
            with self.assertRaises(OSError) as raised:
                (c.mnt / "d" / "more").touch()
            self.assertEqual(raised.exception.errno, errno.EDQUOT)
            os.sync()
            wait_for("all of it accounted", lambda: quota(c, "/d")["bytes"] == 16 * MIB)
            self.assertEqual(quota(c, "/d")["inodes"], 16)
            (c.mnt / "e").mkdir()
            with self.assertRaises(OSError) as raised:
                os.rename(c.mnt / "e", c.mnt / "d" / "e")
            self.assertEqual(raised.exception.errno, errno.EDQUOT)
            os.rename(c.mnt / "d" / "0", c.mnt / "e" / "0")
            self.assertEqual((c.mnt / "e" / "0").read_bytes(), pattern(0, MIB))
            with self.assertRaises(CommandFailed):
                c.cairn("quota", "set", "/missing", "--bytes", "1G")


class Trash(unittest.TestCase):
    def test_deleted_files_come_back_after_a_crash_of_the_metadata_server(self):
        with Cluster(chunkservers=2, mount=True) as c:
            path = c.mnt / "file"
            write_durably(path, pattern("first", 5 * MIB))
            os.chmod(path, 0o640)
            os.setxattr(path, "user.note", b"kept")
            was = path.stat()
            path.unlink()
            write_durably(path, pattern("second", 9000))
            write_durably(c.mnt / "new", pattern("third", 9000))
            os.rename(c.mnt / "new", path)  # replaces the second
            restart_meta(c)
            self.assertEqual(sorted(os.listdir(c.mnt)), ["file"])
            self.assertEqual([e["size"] for e in trash(c)], [5 * MIB, 9000])
            refused = c.cairn("undelete", path, check=False)
            self.assertEqual(refused.returncode, 1)
            self.assertIn(b"--to", refused.stderr)
            c.cairn("undelete", path, "--to", c.mnt / "second")
            self.assertEqual((c.mnt / "second").read_bytes(), pattern("second", 9000))
            path.unlink()
            first = json.loads(c.cairn("undelete", "--list", "--json", path))[0]
            c.cairn("undelete", path, "--id", first["id"])
            drop_caches()
            self.assertEqual(path.read_bytes(), pattern("first", 5 * MIB))
            now = path.stat()
            self.assertEqual((now.st_ino, now.st_mode, now.st_uid, now.st_mtime_ns),
                             (was.st_ino, was.st_mode, was.st_uid, was.st_mtime_ns))
            self.assertEqual(os.getxattr(path, "user.note"), b"kept")
            self.assertEqual(c.cairn("undelete", "/never", check=False).returncode, 1)
            self.assertEqual(c.cairn("undelete", check=False).returncode, 2)

    def test_what_was_not_yet_saved_comes_back_too(self):
        with Cluster(chunkservers=2, mount=True) as c:
            path = c.mnt / "file"
            path.write_bytes(pattern("unsaved", 300_000))
            path.unlink()
            c.cairn("undelete", "/file")
            self.assertEqual(path.read_bytes(), pattern("unsaved", 300_000))
            # One that is still open.
            with open(path, "r+b", buffering=0) as f:
                path.unlink()
                f.write(b"written on")
                self.assertEqual(os.fstat(f.fileno()).st_nlink, 0)
                c.cairn("undelete", "/file")
                self.assertEqual(os.fstat(f.fileno()).st_nlink, 1)
                f.write(b", and on")
            drop_caches()
            self.assertEqual(path.read_bytes()[:18], b"written on, and on")

    def test_a_tree_comes_back_with_its_directories(self):
        with Cluster(chunkservers=2, mount=True) as c:
            top = c.mnt / "top"
            (top / "a" / "b").mkdir(parents=True)
            (top / "a").chmod(0o750)
            names = ["x", "a/y", "a/b/z"]
            for name in names:
                (top / name).write_bytes(pattern(name, 20_000))
            os.rename(c.mnt / "top", c.mnt / "moved")
            shutil.rmtree(c.mnt / "moved")
            (c.mnt / "moved").mkdir()
            (c.mnt / "moved" / "x").write_bytes(b"in the way")
            restart_meta(c)
            said = c.cairn("undelete", "-r", c.mnt / "moved", "--json", check=False)
            self.assertEqual(said.returncode, 1, "one name was taken")
            self.assertEqual(sorted(json.loads(said.stdout)["restored"]), ["/moved/a/b/z", "/moved/a/y"])
            self.assertEqual((c.mnt / "moved" / "a").stat().st_mode & 0o777, 0o750)
            for name in names[1:]:
                self.assertEqual((c.mnt / "moved" / name).read_bytes(), pattern(name, 20_000))
            c.cairn("undelete", "-r", "/moved", "--to", "/elsewhere")
            self.assertEqual((c.mnt / "elsewhere" / "x").read_bytes(), pattern("x", 20_000))

    def test_what_expired_and_what_is_emptied_is_gone_from_the_disks(self):
        with Cluster(chunkservers=2, mount=True) as c:
            def used():
                return sum(t["used_bytes"] for s in c.servers() for t in s["targets"])
            for name in ("brief", "never", "emptied"):
                (c.mnt / name).mkdir()
                write_durably(c.mnt / name / "file", pattern(name, 8 * MIB))
            c.cairn("trash", "retention", c.mnt / "brief", "1s")
            c.cairn("trash", "retention", "/never", "0")
            wait_for("bytes are reported", lambda: used() >= 48 * MIB)
            for name in ("brief", "never", "emptied"):
                (c.mnt / name / "file").unlink()
            restart_meta(c)
            wait_for("the brief one expires", lambda: [e["path"] for e in trash(c)] == ["/emptied/file"])
            wait_for("and its space is free", lambda: used() < 24 * MIB)
            self.assertEqual(c.status()["trash"], {"files": 1, "bytes": 8 * MIB})
            self.assertEqual(c.cairn("trash", "empty", "/emptied", input=b"n\n", check=False).returncode, 1)
            c.cairn("trash", "empty", "/emptied", "--yes")
            self.assertEqual(trash(c), [])
            wait_for("all space is free", lambda: used() < 8 * MIB)

    def test_nobody_is_refused_because_of_the_trash(self):
        """Four times what the disks hold is written and deleted, and a file that stays is not harmed."""
        with Cluster(chunkservers=2, mount=True, capacity=400 * MIB, reserve=64 * MIB) as c:
            write_durably(c.mnt / "stays", pattern("stays", 20 * MIB))
            for n in range(160):
                path = c.mnt / "file"
                if n % 2:
                    path.write_bytes(pattern(n, 10 * MIB))  # saved in the background
                else:
                    write_durably(path, pattern(n, 10 * MIB))
                path.unlink()
            self.assertGreater(len(trash(c, "/file")), 0, "what there is room for is kept")
            write_durably(c.mnt / "last", pattern("last", 200 * MIB))
            drop_caches()
            self.assertEqual((c.mnt / "last").read_bytes(), pattern("last", 200 * MIB))
            self.assertEqual((c.mnt / "stays").read_bytes(), pattern("stays", 20 * MIB))


if __name__ == "__main__":
    unittest.main()
