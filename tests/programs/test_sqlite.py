"""SQLite's promises on a mount: what a commit returned for is there, and the file is sound, whatever was killed."""
import contextlib
import hashlib
import pathlib
import sqlite3
import subprocess
import sys
import threading

from programs import OnMount, run, wait_for

WRITER = pathlib.Path(__file__).with_name("sqlite_writer.py")
# With DELETE, FULL does not sync the removal of the journal, which is the commit: only EXTRA promises durability.
MODES = {"delete": "extra", "truncate": "full", "wal": "full"}


class Writer:
    def __init__(self, path, mode):
        self.process = subprocess.Popen([sys.executable, WRITER, path, mode, MODES[mode]], stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, text=True)
        self.committed = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.process.stdout:
            self.committed.append(int(line))

    def wait_for_commits(self, count):
        target = len(self.committed) + count

        def there():
            if self.process.poll() is not None:
                raise AssertionError(f"the writer ended: {self.process.stderr.read()}")
            return len(self.committed) >= target
        wait_for(f"{count} commits", there, timeout=120, every=0.01)

    def kill(self):
        self.process.kill()
        return self.ended()

    def ended(self):
        """The transactions that it committed, when it has ended."""
        self.process.wait(timeout=120)
        self._reader.join()
        self.process.stdout.close()
        self.process.stderr.close()
        return self.committed


class Sqlite(OnMount):
    def setUp(self):
        super().setUp()
        self.writers = []
        self.addCleanup(self.end_writers)

    def end_writers(self):
        for writer in self.writers:
            with contextlib.suppress(ValueError):
                writer.kill()

    def start(self, mode):
        self.writers.append(Writer(self.dir / mode, mode))
        return self.writers[-1]

    def check(self, mode, committed):
        path = self.dir / mode
        self.assertEqual(run("sqlite3", "-cmd", ".timeout 60000", path, "pragma integrity_check").strip(), "ok")
        with contextlib.closing(sqlite3.connect(path, timeout=60)) as db:
            there = {}
            for n, part, data in db.execute("select n, part, bytes from entries"):
                self.assertEqual(data, hashlib.sha256(b"%d/%d" % (n, part)).digest() * 9)
                there.setdefault(n, []).append(part)
        last = max(there)
        self.assertEqual(sorted(there), list(range(last + 1)))
        self.assertGreaterEqual(last, max(committed))
        for n, parts in there.items():
            whole = [0, 1, 2, 3, 4, 5, 6, 7]
            self.assertIn(sorted(parts), [whole, whole[:4]] if n % 3 == 0 and n < last - 50 else [whole], n)

    def test_writer_is_killed(self):
        for mode in MODES:
            for _ in range(6):
                writer = self.start(mode)
                writer.wait_for_commits(15)
                self.check(mode, writer.kill())

    def test_readers_beside_a_writer(self):
        """With a write-ahead log the processes share its index through a shared mapping."""
        writer = self.start("wal")
        writer.wait_for_commits(5)
        for _ in range(5):
            before = writer.committed[-1]
            self.check("wal", [before])
            writer.wait_for_commits(3)
        self.check("wal", writer.kill())

    def test_mount_process_is_killed(self):
        for mode in MODES:
            writer = self.start(mode)
            writer.wait_for_commits(20)
            self.kill_mount_process()
            self.check(mode, writer.kill())

    def test_all_servers_are_killed(self):
        """The writer waits, and goes on by itself."""
        writers = {mode: self.start(mode) for mode in MODES}
        for writer in writers.values():
            writer.wait_for_commits(10)
        for _ in range(2):
            self.cluster.kill_everything()
            for part in self.cluster.parts():
                self.cluster.start(part)
            for writer in writers.values():
                writer.wait_for_commits(5)
        for mode, writer in writers.items():
            self.check(mode, writer.kill())

    def test_everything_is_killed(self):
        """Writers, mount and servers: what a power cut of all machines leaves of what was synced."""
        writers = {mode: self.start(mode) for mode in MODES}
        for writer in writers.values():
            writer.wait_for_commits(10)
        self.cluster.kill_everything()
        for part in self.cluster.parts():
            self.cluster.start(part)
        self.kill_mount_process()
        for mode, writer in writers.items():
            self.check(mode, writer.kill())
