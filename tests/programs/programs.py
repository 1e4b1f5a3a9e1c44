"""What the tests of other people's programs share: a cluster with a mount for each class, a directory for each test."""
import os
import pathlib
import signal
import subprocess
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "fault"))
from cluster import REPO, Cluster, wait_for  # noqa: E402,F401


def run(*command, timeout=300, check=True, **options):
    """Its output, standard error included; a failure shows all of it."""
    command = [str(word) for word in command]
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True,
                            errors="replace", timeout=timeout, **options)
    if check and result.returncode != 0:
        raise AssertionError(f"{' '.join(command)}: exit {result.returncode}\n{result.stdout[-8000:]}")
    return result.stdout if check else result


class OnMount(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster(mount=True)
        cls.addClassCleanup(cls.cluster.close)
        cls.cluster.__enter__()

    def setUp(self):
        self.dir = self.cluster.mnt / self.id().rsplit(".", 1)[1]
        self.dir.mkdir()
        self.addCleanup(self.show_logs_if_failed)

    def show_logs_if_failed(self):
        errors = self._outcome.result.failures + self._outcome.result.errors
        if any(test is self for test, _ in errors):
            self.cluster.show_logs()

    def mount_process(self):
        """The process that serves the mount: the child of the one that watches it."""
        wanted = [b"mount", os.fsencode(self.cluster.mnt)]
        found = {}
        for process in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                words = (process / "cmdline").read_bytes().split(b"\0")
                parent = int((process / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
            if words[0].endswith(b"cairn") and words[1:3] == wanted:
                found[int(process.name)] = parent
        return next((pid for pid, parent in found.items() if parent in found), None)

    def kill_mount_process(self):
        """kill -9, as a crash of the client machine would; returns when its watcher has mounted again."""
        before = self.mount_process()
        self.assertIsNotNone(before)
        os.kill(before, signal.SIGKILL)
        wait_for("mounted again", lambda: self.mount_process() not in (None, before) and usable(self.cluster.mnt))


def usable(mount):
    try:
        return os.path.ismount(mount) and bool(os.listdir(mount) or True)
    except OSError:
        return False
