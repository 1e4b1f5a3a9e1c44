"""A real cluster in a temporary folder, for tests that break it.

    with Cluster(chunkservers=3, replicas=2, mount=True) as c:
        c.put("id", b"bytes"); c.kill("chunkserver-2"); c.wipe("chunkserver-2"); c.wait_health("ok")

Everything runs as an operator would run it: through the `cairn` program, the config files that `cairn up` writes, and
signals. Leaving the block unmounts, stops everything and removes the folder, also after a failure; then the ends of the
logs are printed if the test failed.
"""
import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

REPO = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("CAIRN_BIN", REPO / "build/release/bin"))
PROGRAM = {"meta": "cairn-meta", "chunkserver": "cairn-chunkserver"}


class CommandFailed(Exception):
    pass


def wait_for(what, condition, timeout=60, every=0.05):
    """Returns the first true value of condition(); fails naming `what` after `timeout` seconds."""
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not so after {timeout} s")
        time.sleep(every)


def need_fuse():
    """FUSE tests really mount. A machine without /dev/fuse fails them, unless the person asked to leave them out."""
    import unittest
    if os.path.exists("/dev/fuse"):
        return
    if os.environ.get("CAIRN_TEST_SKIP_FUSE") == "1":
        raise unittest.SkipTest("no /dev/fuse, and CAIRN_TEST_SKIP_FUSE=1")
    raise AssertionError("no /dev/fuse on this machine (CAIRN_TEST_SKIP_FUSE=1 leaves these tests out)")


class Cluster:
    def __init__(self, chunkservers=3, replicas=2, mount=False, capacity=None, reserve=None, folder=None):
        self.folder = pathlib.Path(folder or tempfile.mkdtemp(prefix="cairn-test-"))
        self.folder.chmod(0o755)  # other users take part
        self.data = self.folder / "cluster"
        self.mnt = self.folder / "mnt" if mount else None
        self.args = ["--chunkservers", str(chunkservers), "--replicas", str(replicas)]
        if capacity:
            self.args += ["--capacity", str(capacity)]
        if reserve:
            self.args += ["--reserve", str(reserve)]
        self.mounts = []
        self.address = None

    def __enter__(self):
        if self.mnt:
            need_fuse()
            self.mnt.mkdir()
        try:
            self.up()
        except BaseException:
            self.show_logs()
            self.close()
            raise
        return self

    def __exit__(self, kind, error, trace):
        if kind not in (None, SystemExit):
            self.show_logs()
        self.close()

    # --- commands ---
    def cairn(self, *args, input=None, timeout=120, check=True, binary=False):
        env = dict(os.environ, CAIRN_META=self.address or "")
        if not self.address:
            env.pop("CAIRN_META", None)
        result = subprocess.run([BIN / "cairn", *map(str, args)], input=input, capture_output=True, timeout=timeout,
                                env=env)
        if check and result.returncode != 0:
            raise CommandFailed(f"cairn {' '.join(map(str, args))}: exit {result.returncode}\n"
                                f"{result.stderr.decode(errors='replace')}")
        if not check:
            return result
        return result.stdout if binary else result.stdout.decode()

    def up(self):
        args = ["up", "--data", self.data, "--json", *self.args]
        # Ports near the default are taken by whoever runs beside us: any free one will do.
        if not self.data.exists():
            args += ["--port", str(free_port())]
        self.address = None
        said = json.loads(self.cairn(*args))
        self.address = said["meta"]
        if self.mnt and not os.path.ismount(self.mnt):
            self.mount(self.mnt)

    def mount(self, where):
        where = pathlib.Path(where)
        where.mkdir(exist_ok=True)
        self.cairn("mount", where, "--log", self.folder / f"{where.name}.log")
        if not os.path.ismount(where):
            raise AssertionError(f"{where} is not mounted, though 'cairn mount' returned 0")
        self.mounts.append(where)

    def signal_mount(self, where, number):
        """To the processes that serve the mount."""
        found = False
        for process in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                words = (process / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if len(words) > 2 and words[0].endswith(b"cairn") and words[1:3] == [b"mount", os.fsencode(where)]:
                os.kill(int(process.name), number)
                found = True
        if not found:
            raise AssertionError(f"no process serves {where}")

    def umount(self, where):
        self.cairn("umount", where)
        self.mounts.remove(pathlib.Path(where))

    def put(self, id, data):
        return self.cairn("put", "-", "--id", id, input=data)

    def get(self, id):
        return self.cairn("get", id, "-", binary=True)

    def status(self):
        return json.loads(self.cairn("admin", "status", "--json"))

    def servers(self):
        return json.loads(self.cairn("admin", "servers", "--json"))["servers"]

    def wait_health(self, wanted="ok", timeout=120):
        self.cairn("--timeout", timeout, "admin", "status", "--wait", wanted, "--json", timeout=timeout + 30)

    # --- parts ---
    def parts(self):
        return ["meta"] + sorted((p.name for p in self.data.glob("chunkserver-*")), key=lambda n: int(n.split("-")[1]))

    def pid(self, part):
        return int((self.data / part / "pid").read_text())

    def signal(self, part, number):
        os.kill(self.pid(part), number)

    def kill(self, *parts):
        """kill -9, all of them before waiting for any."""
        pids = [self.pid(part) for part in parts]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        for pid in pids:
            wait_for(f"process {pid} gone", lambda: not alive(pid))

    def kill_everything(self):
        """kill -9 of every server process at once, as a power cut of all machines would."""
        self.kill(*self.parts())

    def start(self, part, *options):
        program = PROGRAM[part.split("-")[0]]
        folder = self.data / part
        with open(folder / "log", "ab") as log:
            child = subprocess.Popen([BIN / program, "--config", folder / "config.toml", *options],
                                     stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        (folder / "pid").write_text(f"{child.pid}\n")
        return child

    def wipe(self, part):
        shutil.rmtree(self.data / part / "data")
        (self.data / part / "data").mkdir()

    def log(self, part):
        return (self.data / part / "log").read_text(errors="replace")

    def rss_bytes(self, part):
        for line in open(f"/proc/{self.pid(part)}/status"):
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise AssertionError(f"no VmRSS for {part}")

    # --- ending ---
    def show_logs(self):
        for log in sorted(self.data.glob("*/log")) + sorted(self.folder.glob("*.log")):
            lines = log.read_text(errors="replace").splitlines()[-25:]
            print(f"--- {log.relative_to(self.folder)}", *lines, sep="\n", file=sys.stderr)

    def close(self):
        for where in self.mounts + ([self.mnt] if self.mnt else []):
            if os.path.ismount(where) or is_stale(where):
                subprocess.run(["umount", "-l", where], stderr=subprocess.DEVNULL)
        for part in self.parts() if self.data.exists() else []:
            with contextlib.suppress(FileNotFoundError, ProcessLookupError, ValueError):
                os.kill(self.pid(part), signal.SIGCONT)
                os.kill(self.pid(part), signal.SIGKILL)
        # Mount daemons end by themselves when unmounted; those cut off from their servers are killed.
        if self.mnt or self.mounts:
            subprocess.run(["pkill", "-9", "-f", f"mount {self.folder}"], stderr=subprocess.DEVNULL)
        reap()
        shutil.rmtree(self.folder, ignore_errors=True)


def free_port():
    """The first of sixteen free ports (those of the servers follow the metadata server's). Below the range from which the
    kernel takes ports for connections, where a stopped server would not get its port back; stretches do not overlap, so
    that two clusters that start at once only meet if their process ids are 750 apart."""
    import socket
    for n in range(750):
        base = 20000 + (os.getpid() + n) % 750 * 16
        try:
            for port in range(base, base + 16):
                with socket.socket() as s:
                    s.bind(("127.0.0.1", port))
            return base
        except OSError:
            continue
    raise AssertionError("no stretch of sixteen free ports on 127.0.0.1")


def alive(pid):
    reap()
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def reap():
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def is_stale(path):
    try:
        os.stat(path)
    except OSError as e:
        return e.errno == 107  # ENOTCONN: the mount's process is gone
    return False
