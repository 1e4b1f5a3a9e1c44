"""Runs posix_test on the mount of a cluster made for it; see tests/posix/run."""
import pathlib
import subprocess
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "fault"))
from cluster import BIN, Cluster  # noqa: E402

try:
    with Cluster(mount=True) as cluster:
        print(f"-- on {cluster.mnt}", flush=True)
        code = subprocess.run([BIN / "posix_test", cluster.mnt, *sys.argv[1:]]).returncode
        if code != 0:
            cluster.show_logs()
        sys.exit(code)
except unittest.SkipTest as skipped:
    print(f"skipped: {skipped}")
