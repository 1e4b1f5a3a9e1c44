"""PostgreSQL with its data directory on a mount, killed together with what it stands on."""
import contextlib
import os
import pathlib
import signal
import subprocess
import threading

from programs import OnMount, run, wait_for

PROGRAMS = max(pathlib.Path("/usr/lib/postgresql").glob("*/bin"), default=None)


class Postgres(OnMount):
    def setUp(self):
        super().setUp()
        self.assertIsNotNone(PROGRAMS, "no PostgreSQL under /usr/lib/postgresql")
        run("chown", "postgres:", self.dir)
        self.data = self.dir / "data"
        self.server = None
        self.addCleanup(self.kill)
        # Its socket lies on the mount too.
        self.env = dict(os.environ, PGHOST=str(self.dir), PGUSER="postgres", PGDATABASE="postgres", LC_ALL="C.UTF-8")

    def program(self, name, *words, **options):
        return run("runuser", "-u", "postgres", "--", PROGRAMS / name, *words, env=self.env, cwd="/", **options)

    def start(self):
        log = open(self.cluster.folder / "postgres.log", "ab")
        with log:
            self.server = subprocess.Popen(
                ["runuser", "-u", "postgres", "--", PROGRAMS / "postgres", "-D", self.data, "-k", self.dir, "-c",
                 "listen_addresses=", "-c", "max_wal_size=64MB", "-c", "checkpoint_timeout=30s"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/", env=self.env)
        wait_for("PostgreSQL serves", lambda: self.server.poll() is not None or
                 self.program("pg_isready", check=False).returncode == 0, timeout=120)
        self.assertIsNone(self.server.poll(), "PostgreSQL has ended: postgres.log")

    def kill(self):
        """kill -9 of all its processes at once: each of them is in a session of its own."""
        if self.server is None:
            return
        while victims := [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if self.belongs(pid)]:
            for pid in victims:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self.server.wait()
        self.server = None

    def belongs(self, pid):
        """A living process of this server: its first one or a child of that, or of a first one that is gone."""
        with contextlib.suppress(OSError):
            process = pathlib.Path("/proc") / str(pid)
            state = (process / "stat").read_text().rsplit(")", 1)[1].split()[0]
            environment = (process / "environ").read_bytes().split(b"\0")
            return state != "Z" and os.readlink(process / "exe").endswith("/bin/postgres") and \
                b"PGHOST=" + os.fsencode(self.dir) in environment
        return False

    def query(self, text):
        return self.program("psql", "-qAtX", "-c", text).strip()

    def check(self, acknowledged):
        """Every commit that returned is there, the accounts balance, indexes and pages are sound."""
        there = {int(n) for n in self.query("select n from acknowledged").split()}
        self.assertEqual([n for n in acknowledged if n not in there], [])
        sums = self.query("select (select sum(abalance) from pgbench_accounts), "
                          "(select sum(tbalance) from pgbench_tellers), (select sum(bbalance) from pgbench_branches), "
                          "(select sum(delta) from pgbench_history)")
        self.assertEqual(len(set(sums.split("|"))), 1, sums)
        self.program("pg_amcheck", "--all", "--install-missing", "--heapallindexed", "--parent-check")

    def test_crashes(self):
        self.program("initdb", "-D", self.data, "--data-checksums", "--auth=trust")
        self.start()
        self.program("pgbench", "-i", "-s", "2", "-q")
        self.query("create table acknowledged (n integer primary key)")
        acknowledged = []
        for crash in ("postgres", "mount", "servers"):
            load = subprocess.Popen(["runuser", "-u", "postgres", "--", PROGRAMS / "pgbench", "-n", "-c", "4", "-j", "2",
                                     "-T", "600"],
                                    stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                    env=self.env, cwd="/")
            # Behind the last one there, which may have been committed and not been acknowledged.
            writer = Inserts(self, int(self.query("select coalesce(max(n), -1) + 1 from acknowledged")))
            wait_for("commits", lambda: len(writer.returned) >= 150, timeout=120)
            if crash == "servers":
                self.cluster.kill_everything()
                for part in self.cluster.parts():
                    self.cluster.start(part)
                before = len(writer.returned)
                wait_for("PostgreSQL goes on by itself", lambda: len(writer.returned) >= before + 50, timeout=120)
            if crash == "mount":
                self.kill_mount_process()
            self.kill()
            load.wait(timeout=60)
            acknowledged += writer.end()
            self.start()
            self.check(acknowledged)
        run("runuser", "-u", "postgres", "--", PROGRAMS / "pg_ctl", "-D", self.data, "-m", "fast", "stop", cwd="/")
        self.server.wait(timeout=60)
        self.server = None
        self.program("pg_checksums", "--check", "-D", self.data)


class Inserts:
    """One psql that inserts numbers from `first` on, each in a transaction, and says when its commit has returned."""

    def __init__(self, test, first):
        self.returned = []
        self.process = subprocess.Popen(
            ["runuser", "-u", "postgres", "--", PROGRAMS / "psql", "-qAtX"], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=test.env, cwd="/")
        self.next = first
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        with contextlib.suppress(BrokenPipeError):
            while True:
                self.process.stdin.write(f"insert into acknowledged values ({self.next}) returning n;\n")
                self.process.stdin.flush()
                line = self.process.stdout.readline().strip()
                if line != str(self.next):
                    return
                self.returned.append(self.next)
                self.next += 1

    def end(self):
        self.thread.join(timeout=60)
        self.process.kill()
        self.process.wait()
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.stdout.close()
        return self.returned
