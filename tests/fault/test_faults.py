"""Fault tests with real processes: kill -9, wiped disks, flipped bits, full disks. Run: tests/fault/run [TEST...]"""
import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import unittest

from cluster import BIN, Cluster, alive, wait_for
from workload import Background, check_tree, fill_tree, pattern, write_durably

MIB = 1 << 20


class LostServer(unittest.TestCase):
    def test_killed_and_wiped_server_is_copied_again_unseen(self):
        """R=2, three servers: one killed with its disk wiped while a reader and a writer run. Neither sees an error."""
        with Cluster(mount=True) as c:
            tree = fill_tree(c.mnt, 300)
            big = pattern("big", 48 * MIB)
            write_durably(c.mnt / "big", big)
            c.put("object", big)
            objects = {f"o{n}": pattern(n, 100_000 + n) for n in range(5)}
            for id, data in objects.items():
                c.put(id, data)

            def read(n):
                path = list(tree)[n % len(tree)]
                fd = os.open(c.mnt / path, os.O_RDONLY)
                try:
                    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
                    self.assertEqual(os.read(fd, 30000), tree[path])
                finally:
                    os.close(fd)

            def write(n):
                write_durably(c.mnt / f"w{n}", pattern(f"w{n}", 50_000))
                return n

            reader, writer = Background(read), Background(write)
            wait_for("reader and writer run", lambda: len(reader.done) > 20 and len(writer.done) > 5)
            before = len(writer.done)
            c.kill("chunkserver-2")
            c.wipe("chunkserver-2")
            wait_for("groups are degraded", lambda: c.status()["health"] != "ok", timeout=15)
            c.wait_health("ok")
            wait_for("the writer went on", lambda: writer.error or len(writer.done) > before + 5)
            reader.stop()
            written = writer.stop()
            status = c.status()
            self.assertEqual(status["groups"]["whole"], status["groups"]["total"])
            check_tree(c.mnt, tree)
            self.assertEqual((c.mnt / "big").read_bytes(), big)
            self.assertEqual(c.get("object"), big)
            for id, data in objects.items():
                self.assertEqual(c.get(id), data)
            for n in written:
                self.assertEqual((c.mnt / f"w{n}").read_bytes(), pattern(f"w{n}", 50_000))
            # The wiped one comes back empty, as a new disk, and the next loss is survived too.
            c.start("chunkserver-2")
            c.wait_health("ok")
            wait_for("three servers up", lambda: sum(s["state"] == "up" for s in c.status()["servers"]) == 3)
            c.kill("chunkserver-1")
            c.wipe("chunkserver-1")
            c.wait_health("ok")
            check_tree(c.mnt, tree)
            self.assertEqual(c.get("object"), big)

    def test_restarted_server_catches_up(self):
        """A server that was only restarted keeps its bytes; what changed meanwhile is copied."""
        with Cluster(mount=True) as c:
            tree = fill_tree(c.mnt, 100)
            os.sync()
            c.kill("chunkserver-1")
            tree.update({f"new{n}": pattern(n, 30_000) for n in range(20)})
            for path, data in list(tree.items())[-20:]:
                write_durably(c.mnt / path, data)
            c.start("chunkserver-1")
            c.wait_health("ok")
            c.kill("chunkserver-3")
            c.wait_health("ok")
            check_tree(c.mnt, tree)

    def test_what_a_returning_server_has_too_many_of_is_given_back(self):
        """Repaired without it, it returns with its old copies: in the end every chunk is there twice, not three times."""
        with Cluster() as c:
            objects = {f"o{n}": pattern(n, 200_000) for n in range(60)}
            for id, data in objects.items():
                c.put(id, data)

            def chunks():
                return sum(disk["chunks"] for s in c.servers() for disk in s["targets"])
            wait_for("two copies of each chunk", lambda: chunks() == 2 * len(objects), timeout=20)
            c.kill("chunkserver-1")
            wait_for("groups are degraded", lambda: c.status()["health"] != "ok", timeout=15)
            c.wait_health("ok")
            new = {f"n{n}": pattern(f"n{n}", 100_000) for n in range(10)}
            for id, data in new.items():
                c.put(id, data)
            objects.update(new)
            c.start("chunkserver-1")
            wait_for("three servers up", lambda: sum(s["state"] == "up" for s in c.status()["servers"]) == 3)
            wait_for("two copies of each chunk, on three servers",
                     lambda: chunks() == 2 * len(objects) and
                     all(disk["chunks"] > 0 for s in c.servers() for disk in s["targets"]), timeout=120)
            self.assertIn("left_over_dropped", "".join(c.log(part) for part in c.parts()))
            c.wait_health("ok")
            self.assertEqual(c.status()["unknown_chunks"], 0)
            # The copies that are left are the right ones: each server alone can be missed.
            for part in ("chunkserver-2", "chunkserver-3"):
                c.kill(part)
                c.wait_health("ok")
                for id, data in objects.items():
                    self.assertEqual(c.get(id), data)
                c.start(part)
                c.wait_health("ok")

    def test_paused_server_does_not_stop_the_others(self):
        """SIGSTOP proves nothing dead: the lease decides, then the others go on; after SIGCONT it may not serve old state."""
        with Cluster(mount=True) as c:
            write_durably(c.mnt / "a", pattern(1, 300_000))
            c.signal("chunkserver-2", signal.SIGSTOP)
            try:
                for n in range(30):
                    write_durably(c.mnt / f"p{n}", pattern(n, 40_000))
            finally:
                c.signal("chunkserver-2", signal.SIGCONT)
            c.wait_health("ok")
            for n in range(30):
                self.assertEqual((c.mnt / f"p{n}").read_bytes(), pattern(n, 40_000))


class SeveralDisks(unittest.TestCase):
    def test_disks_of_one_server_share_its_groups_and_one_of_them_can_be_lost(self):
        """A second disk is added to a server, takes a share of the chunks, and is lost: the server's other disk serves on."""
        with Cluster(mount=True) as c:
            tree = fill_tree(c.mnt, 100)
            os.sync()
            second = c.data / "chunkserver-1" / "data2"
            config = c.data / "chunkserver-1" / "config.toml"
            with_two = config.read_text().replace("data_dirs = [", f'data_dirs = ["{second}", ')
            self.assertIn(str(second), with_two)

            def restart_with(make_disk):
                os.kill(c.pid("chunkserver-1"), signal.SIGTERM)
                wait_for("chunkserver-1 has stopped", lambda: not alive(c.pid("chunkserver-1")))
                make_disk()
                c.start("chunkserver-1")
                c.wait_health("ok")

            def first_server():
                return next(s for s in c.servers() if len(s["targets"]) > 1)

            def add():
                second.mkdir()
                config.write_text(with_two)
            restart_with(add)
            wait_for("two disks of one server", lambda: any(len(s["targets"]) == 2 for s in c.servers()))
            wait_for("both hold chunks", lambda: all(d["chunks"] > 0 for d in first_server()["targets"]), timeout=60)
            for group in json.loads(c.cairn("admin", "groups", "--json"))["groups"]:
                servers = [m["server"] for m in group["members"] if m["in_sync"]]
                self.assertEqual(len(servers), len(set(servers)), f"two copies on one server: {group}")

            def lose():
                shutil.rmtree(second)
                second.mkdir()
            restart_with(lose)
            drop_caches()
            check_tree(c.mnt, tree)
            c.kill("chunkserver-3")
            c.wipe("chunkserver-3")
            c.wait_health("ok")
            drop_caches()
            check_tree(c.mnt, tree)


class MetadataServer(unittest.TestCase):
    def test_killed_during_writes_loses_nothing_acknowledged(self):
        with Cluster(mount=True) as c:
            def write(n):
                write_durably(c.mnt / f"f{n}", pattern(n, 20_000))
                return n
            writer = Background(write)
            for _ in range(3):
                reached = len(writer.done) + 20
                wait_for("writes go on", lambda: writer.error or len(writer.done) >= reached)
                c.kill("meta")
                c.start("meta")
            reached = len(writer.done) + 20
            wait_for("writes go on", lambda: writer.error or len(writer.done) >= reached)
            for n in writer.stop():
                self.assertEqual((c.mnt / f"f{n}").read_bytes(), pattern(n, 20_000), f"f{n}")
            names = set(os.listdir(c.mnt))
            self.assertTrue(all(f"f{n}" in names for n in writer.done))

    def test_outage_longer_than_the_deadline_loses_nothing_that_was_closed(self):
        with Cluster() as c:
            where = c.folder / "impatient"
            where.mkdir()
            c.cairn("--timeout", 3, "mount", where, "--log", c.folder / "impatient.log")
            c.mounts.append(where)
            for n in range(20):
                (where / f"f{n}").write_bytes(pattern(n, 50_000))
            c.kill("meta")
            wait_for("an attempt to store has failed",
                     lambda: "flush_failed" in (c.folder / "impatient.log").read_text(), timeout=40)
            c.start("meta")

            def stored():
                try:
                    for n in range(20):
                        fd = os.open(where / f"f{n}", os.O_RDWR)
                        try:
                            os.fsync(fd)
                        finally:
                            os.close(fd)
                    return True
                except TimeoutError:
                    return False
            wait_for("everything is stored", stored, timeout=60)
            c.umount(where)
            c.mount(where)
            for n in range(20):
                self.assertEqual((where / f"f{n}").read_bytes(), pattern(n, 50_000))

    def test_all_servers_killed_at_once(self):
        """kill -9 of every server during fsynced writes and sealed puts: what was acknowledged is there and equal."""
        with Cluster(mount=True) as c:
            def write(n):
                write_durably(c.mnt / f"f{n}", pattern(n, 5_000 * (n % 40)))
                return n

            def put(n):
                c.put(f"o{n}", pattern(f"o{n}", 70_000))
                return n
            writer, putter = Background(write), Background(put)
            wait_for("both run", lambda: len(writer.done) > 30 and len(putter.done) > 5)
            c.kill_everything()
            written, put_ids = list(writer.done), list(putter.done)
            c.up()
            c.wait_health("ok")
            writer.stop(tolerate_error=True)
            putter.stop(tolerate_error=True)
            for n in written:
                self.assertEqual((c.mnt / f"f{n}").read_bytes(), pattern(n, 5_000 * (n % 40)), f"f{n}")
            for n in put_ids:
                self.assertEqual(c.get(f"o{n}"), pattern(f"o{n}", 70_000), f"o{n}")


class MetadataWentBack(unittest.TestCase):
    """What the chunkservers were told is synced is missing: nothing may be served, now or later."""

    def write_and_tell(self, c, names):
        for name in names:
            c.put(name, name.encode() * 10)
        c.put("told", b"x")
        c.cairn("rm", "told")  # done with a heartbeat's answer, which tells the journal's position too
        wait_for("every chunkserver heard of it", lambda: c.status()["servers_with_purges_to_do"] == 0)

    def refused(self, c, code, word, *options):
        before = len(c.log("meta"))
        self.assertEqual(c.start("meta", *options).wait(timeout=60), code)
        self.assertIn(word, c.log("meta")[before:])

    def test_old_copy_is_refused_for_good_and_the_newer_one_goes_on(self):
        with Cluster() as c:
            data, old, newer = (c.data / "meta" / name for name in ("data", "old", "newer"))
            c.put("first", b"1")
            c.kill("meta")
            shutil.copytree(data, old)
            c.start("meta")
            c.wait_health("ok")
            self.write_and_tell(c, [f"o{n}" for n in range(40)])
            c.kill("meta")
            data.rename(newer)
            old.rename(data)
            self.refused(c, 3, "went back in time")
            self.refused(c, 1, "went back in time")  # at once, whatever the chunkservers say
            shutil.rmtree(data)
            newer.rename(data)
            c.start("meta")
            c.wait_health("ok")
            for n in range(40):
                self.assertEqual(c.get(f"o{n}"), f"o{n}".encode() * 10)

    def test_damaged_journal_is_refused_and_what_is_left_of_it_too(self):
        with Cluster() as c:
            self.write_and_tell(c, [f"o{n}" for n in range(40)])
            c.kill("meta")
            journal = max((c.data / "meta/data/store").glob("*.log"), key=lambda p: p.stat().st_size)
            with open(journal, "r+b") as f:
                f.seek(journal.stat().st_size // 2)
                f.write(b"damage" * 10)
            self.refused(c, 1, "--salvage")
            self.refused(c, 1, "--salvage")
            self.refused(c, 3, "went back in time", "--salvage")
            self.refused(c, 1, "went back in time")


class Drain(unittest.TestCase):
    def test_health_is_ok_only_when_the_server_is_empty(self):
        with Cluster(chunkservers=4) as c:
            for n in range(20):
                c.put(f"o{n}", pattern(n, 50_000))
            c.wait_health("ok")
            server = next(s for s in c.servers() if any(t["groups"] for t in s["targets"]))
            c.cairn("admin", "drain", server["id"])
            c.wait_health("ok")
            left = next(s for s in c.servers() if s["id"] == server["id"])
            self.assertEqual([t["groups"] for t in left["targets"]], [0])
            for n in range(20):
                self.assertEqual(c.get(f"o{n}"), pattern(n, 50_000))


class Corruption(unittest.TestCase):
    def flip(self, folder, needle):
        """Flips one bit in the middle of every place in the folder's extent files where `needle` stands."""
        flipped = 0
        for path in pathlib.Path(folder).rglob("*"):
            if not path.is_file() or path.stat().st_size < len(needle):
                continue
            data = path.read_bytes()
            at = data.find(needle)
            with open(path, "r+b") as f:
                while at >= 0:
                    f.seek(at + len(needle) // 2)
                    f.write(bytes([data[at + len(needle) // 2] ^ 0x10]))
                    flipped += 1
                    at = data.find(needle, at + 1)
        return flipped

    def test_flipped_bits_are_served_from_another_copy_and_repaired(self):
        """Twenty chunks are bad on one of two servers: whichever a read asks, it gets the right bytes."""
        with Cluster(chunkservers=2, mount=True) as c:
            files = {f"f{n}": pattern(n, 300_000) for n in range(20)}
            needles = {name: data[100 * 1024:100 * 1024 + 64] for name, data in files.items()}
            for name, data in files.items():
                write_durably(c.mnt / name, data)
                self.assertGreater(self.flip(c.data / "chunkserver-1", needles[name]), 0)
            drop_caches()
            for name, data in files.items():
                self.assertEqual((c.mnt / name).read_bytes(), data)
            wait_for("a repair is counted", lambda: c.status()["corrupt"]["repaired"] >= 1)
            self.assertTrue(any(self.flip(c.data / "chunkserver-1", needle) for needle in needles.values()),
                            "no bad copy was written again")

    def test_no_good_copy_left_gives_eio_and_names_the_range(self):
        with Cluster(chunkservers=2, mount=True) as c:
            data = pattern("flip", 3 * MIB)
            write_durably(c.mnt / "f", data)
            needle = data[2 * MIB:2 * MIB + 64]
            for part in ("chunkserver-1", "chunkserver-2"):
                self.assertGreater(self.flip(c.data / part, needle), 0)
            drop_caches()
            with self.assertRaises(OSError) as raised:
                (c.mnt / "f").read_bytes()
            self.assertEqual(raised.exception.errno, 5)
            logs = c.log("chunkserver-1") + c.log("chunkserver-2")
            self.assertIn("chunk_corrupt", logs)
            self.assertIn("chunk_lost", logs)
            self.assertIn(f"bytes={2 * MIB}-", logs)
            with open(c.mnt / "f", "rb") as f:   # the rest of the file is still readable
                self.assertEqual(f.read(MIB), data[:MIB])
            # Reading it again and again is no new damage, and sets nobody to work.
            for _ in range(3):
                with self.assertRaises(OSError), open(c.mnt / "f", "rb") as f:
                    f.seek(2 * MIB)
                    f.read(1)
            wait_for("each copy counts one bad block", lambda: c.status()["corrupt"]["found"] == 2)
            self.assertEqual(c.status()["corrupt"], {"found": 2, "repaired": 0})

    def test_copies_with_different_bad_blocks_mend_each_other(self):
        with Cluster(chunkservers=2, mount=True) as c:
            data = pattern("both", 3 * MIB)
            write_durably(c.mnt / "f", data)
            places = {"chunkserver-1": [100_000, 2 * MIB + 5], "chunkserver-2": [MIB, 2 * MIB + 200_000]}
            needles = {part: [data[at:at + 64] for at in ats] for part, ats in places.items()}
            for part, all in needles.items():
                for needle in all:
                    self.assertGreater(self.flip(c.data / part, needle), 0)
            def whole():  # which copy is read is the client's choice: read until both were
                drop_caches()
                self.assertEqual((c.mnt / "f").read_bytes(), data)
                return c.status()["corrupt"]["repaired"] >= 2
            wait_for("a copy is repaired", whole)
            status = c.status()["corrupt"]
            self.assertEqual(status["found"], status["repaired"])
            self.assertLessEqual(status["found"], 4)
            for part, all in needles.items():
                if "chunk_repaired" in c.log(part):
                    for needle in all:
                        self.assertGreater(self.flip(c.data / part, needle), 0, "no good bytes were written back")


class FullDisk(unittest.TestCase):
    def test_full_gives_enospc_loses_nothing_and_recovers(self):
        with Cluster(chunkservers=2, mount=True, capacity=400 * MIB, reserve=64 * MIB) as c:
            kept = pattern("kept", 5 * MIB)
            write_durably(c.mnt / "kept", kept)
            filled = []
            with self.assertRaises(OSError) as raised:
                for n in range(1000):
                    write_durably(c.mnt / f"fill{n}", pattern(n, 8 * MIB))
                    filled.append(n)
            self.assertEqual(raised.exception.errno, 28)
            self.assertGreater(len(filled), 10)
            drop_caches()
            self.assertEqual((c.mnt / "kept").read_bytes(), kept)
            for n in filled[:3]:
                self.assertEqual((c.mnt / f"fill{n}").read_bytes(), pattern(n, 8 * MIB))
            for path in c.mnt.glob("fill*"):
                path.unlink()

            def writable():
                try:
                    write_durably(c.mnt / "again", pattern("again", 20 * MIB))
                    return True
                except OSError as e:
                    self.assertEqual(e.errno, 28)
                    return False
            wait_for("space comes back after deletions", writable, timeout=60, every=0.5)
            self.assertEqual((c.mnt / "again").read_bytes(), pattern("again", 20 * MIB))
            self.assertEqual((c.mnt / "kept").read_bytes(), kept)


    def test_files_closed_without_fsync_are_never_zeros(self):
        """Bytes that did not fit are kept by the client: told to writers, stored once there is room."""
        with Cluster(chunkservers=2, mount=True, capacity=400 * MIB, reserve=64 * MIB) as c:
            closed = []
            with self.assertRaises(OSError) as raised:
                for n in range(3000):
                    (c.mnt / f"f{n}").write_bytes(pattern(n, MIB))
                    closed.append(n)
            self.assertEqual(raised.exception.errno, 28)
            (c.mnt / f"f{len(closed)}").unlink()
            kept = closed[len(closed) * 2 // 3:]
            for n in closed[:len(closed) * 2 // 3]:
                (c.mnt / f"f{n}").unlink()

            def all_stored():
                try:
                    for n in kept:
                        with open(c.mnt / f"f{n}", "r+b", buffering=0) as f:
                            os.fsync(f.fileno())
                    return True
                except OSError as e:
                    self.assertEqual(e.errno, 28)
                    return False
            wait_for("everything fits and is stored", all_stored, timeout=90, every=0.5)
            c.umount(c.mnt)
            c.mount(c.mnt)
            for n in kept:
                self.assertEqual((c.mnt / f"f{n}").read_bytes(), pattern(n, MIB), f"f{n}")


class FullMetadataDisk(unittest.TestCase):
    def test_changes_are_refused_reads_go_on_and_nothing_is_lost(self):
        """The metadata server's own file system fills up: ENOSPC, no crash; with room again it goes on."""
        with Cluster(mount=True) as c, contextlib.ExitStack() as mounted:
            write_durably(c.mnt / "kept", pattern("kept", 300_000))
            # Its data moves to a small file system.
            c.signal("meta", signal.SIGTERM)
            wait_for("the metadata server stopped", lambda: not alive(c.pid("meta")))
            data = c.data / "meta/data"
            data.rename(c.data / "meta/old")
            data.mkdir()
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=120m", "cairn-test", data], check=True)
            mounted.callback(lambda: subprocess.run(["umount", "-l", data], check=True))
            subprocess.run(["cp", "-a", f"{c.data}/meta/old/.", data], check=True)
            process = c.start("meta")
            write_durably(c.mnt / "before", pattern("before", 20_000))
            # Somebody else fills it.
            filler = data / "somebody-elses"
            with self.assertRaises(OSError), open(filler, "wb", buffering=0) as f:
                while True:
                    f.write(b"x" * 65536)
            made = []

            def refused():
                try:
                    for _ in range(200):
                        write_durably(c.mnt / f"f{len(made)}", b"small")
                        made.append(len(made))
                    return False
                except OSError as e:
                    self.assertEqual(e.errno, 28)
                    return True
            wait_for("changes are refused", refused, timeout=60)
            self.assertIsNone(process.poll())
            self.assertIn("file_system_full", c.log("meta"))
            drop_caches()
            self.assertEqual((c.mnt / "kept").read_bytes(), pattern("kept", 300_000))
            self.assertEqual((c.mnt / "before").read_bytes(), pattern("before", 20_000))
            self.assertEqual(c.status()["health"], "ok")
            (c.mnt / "before").unlink()   # removals still work
            filler.unlink()

            def writable():
                try:
                    write_durably(c.mnt / "after", pattern("after", 20_000))
                    return True
                except OSError as e:
                    self.assertEqual(e.errno, 28)
                    return False
            wait_for("changes are taken again", writable, timeout=30)
            # Killed and started again: all of it is there.
            c.kill("meta")
            c.start("meta")
            drop_caches()
            self.assertFalse((c.mnt / "before").exists())
            self.assertEqual((c.mnt / "after").read_bytes(), pattern("after", 20_000))
            for n in made:
                self.assertEqual((c.mnt / f"f{n}").read_bytes(), b"small")


class Mount(unittest.TestCase):
    def test_two_mounts_see_each_other(self):
        with Cluster(mount=True) as c:
            other = c.folder / "mnt2"
            c.mount(other)
            for n in range(20):
                (c.mnt / "f").write_bytes(pattern(n, 10_000 + n))
                self.assertEqual((other / "f").read_bytes(), pattern(n, 10_000 + n))
                (other / "f").write_bytes(pattern(-n, 5_000 + n))
                self.assertEqual((c.mnt / "f").stat().st_size, 5_000 + n)
                self.assertEqual((c.mnt / "f").read_bytes(), pattern(-n, 5_000 + n))
                os.rename(c.mnt / "f", c.mnt / "g")
                self.assertFalse((other / "f").exists())
                os.rename(other / "g", other / "f")
                self.assertTrue((c.mnt / "f").exists())

    def test_killed_mount_leaves_what_was_synced(self):
        with Cluster(mount=True) as c:
            write_durably(c.mnt / "synced", pattern(1, 200_000))
            (c.mnt / "unsynced").write_bytes(pattern(2, 200_000))
            subprocess.run(["pkill", "-9", "-f", f"mount {c.mnt}"], check=True)
            other = c.folder / "mnt2"
            c.mount(other)
            self.assertEqual((other / "synced").read_bytes(), pattern(1, 200_000))
            (other / "unsynced").write_bytes(b"successor")   # granted once the dead one is fenced
            self.assertEqual((other / "unsynced").read_bytes(), b"successor")


class Identity(unittest.TestCase):
    def test_second_instance_on_the_same_data_is_refused(self):
        with Cluster() as c:
            for part, program in (("meta", "cairn-meta"), ("chunkserver-1", "cairn-chunkserver")):
                result = subprocess.run([BIN / program, "--config", c.data / part / "config.toml"],
                                        capture_output=True, timeout=30)
                self.assertEqual(result.returncode, 1, result)
                self.assertIn(str(c.pid(part)), (result.stderr + result.stdout).decode() + c.log(part))
            self.assertEqual(c.status()["health"], "ok")

    def test_servers_of_two_clusters_never_mix(self):
        with Cluster() as a, Cluster() as b:
            a.put("x", b"of a")
            b.kill("chunkserver-1")
            config = b.data / "chunkserver-1/config.toml"
            config.write_text(config.read_text().replace(b.address, a.address))
            stranger = b.start("chunkserver-1")
            self.assertNotEqual(stranger.wait(timeout=30), 0)
            self.assertIn("wrong_cluster", b.log("chunkserver-1"))
            self.assertEqual(len(a.status()["servers"]), 3)

    def test_disk_without_its_index_is_refused_not_started_empty(self):
        with Cluster() as c:
            objects = {f"o{n}": pattern(n, 100_000) for n in range(20)}
            for id, data in objects.items():
                c.put(id, data)
            c.kill("chunkserver-1")
            shutil.rmtree(c.data / "chunkserver-1/data/index")
            self.assertNotEqual(c.start("chunkserver-1").wait(timeout=30), 0)
            self.assertIn("the index is gone", c.log("chunkserver-1"))
            # What the message says: an empty directory makes it a new disk, which gets its copies again.
            c.wipe("chunkserver-1")
            c.start("chunkserver-1")
            wait_for("three servers up", lambda: sum(s["state"] == "up" for s in c.status()["servers"]) == 3)
            c.wait_health("ok")
            for id, data in objects.items():
                self.assertEqual(c.get(id), data)

    def test_lost_metadata_is_refused_not_started_empty(self):
        with Cluster() as c:
            c.put("x", b"precious")
            c.kill("meta")
            c.wipe("meta")
            config = c.data / "meta/config.toml"
            config.write_text(config.read_text().replace("init = true", "init = false"))
            self.assertNotEqual(c.start("meta").wait(timeout=30), 0)
            self.assertIn(str(c.data / "meta/data"), c.log("meta"))


def drop_caches():
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w") as f:
        f.write("3")


if __name__ == "__main__":
    unittest.main(verbosity=2)
