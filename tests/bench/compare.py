#!/usr/bin/env python3
"""The same work on a Cairn mount, on MooseFS, on passthrough mounts of the disk and on the bare disk, round by round in
one run.

    sudo tests/bench/run [--rounds 3] [--peers cairn,moosefs,bindfs,passthrough,local]
                         [--only seq,random,small,tree] [--json FILE]

Three storage servers and one client on this machine, two copies, one disk for all; each peer runs alone, the rounds are
interleaved, and the medians and the median of the ratios of each round are printed: the machine's speed drifts, a ratio
within a round holds. Cold means: client unmounted and mounted, page cache dropped. MooseFS does not sync its
chunkservers' writes on fsync by default; Cairn does.
"""
import argparse
import contextlib
import json
import os
import pathlib
import shutil
import signal
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "fault"))
from cluster import BIN, Cluster  # noqa: E402

GIB = 1 << 30


def sh(*args, **kw):
    return subprocess.run([str(a) for a in args], check=True, capture_output=True, text=True, **kw).stdout


class CairnPeer:
    name = "cairn"

    def __init__(self, folder):
        self.cluster = Cluster(chunkservers=3, replicas=2, mount=True, folder=folder)
        self.mnt = self.cluster.mnt

    def start(self):
        self.cluster.__enter__()

    def remount(self):
        self.cluster.umount(self.mnt)
        self.cluster.mount(self.mnt)

    def stop(self):
        self.cluster.close()


class MoosePeer:
    name = "moosefs"
    NETNS = "cairn-bench"
    ADDRESS = "10.99.0.1"  # its chunkserver refuses 127.0.0.1

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.mnt = self.folder / "mnt"
        self.mnt.mkdir()

    def inside(self, *args):
        return sh("nsenter", f"--net=/run/netns/{self.NETNS}", *args)

    def start(self):
        subprocess.run(["ip", "netns", "del", self.NETNS], stderr=subprocess.DEVNULL)
        sh("ip", "netns", "add", self.NETNS)
        sh("ip", "-n", self.NETNS, "link", "set", "lo", "up")
        sh("ip", "-n", self.NETNS, "addr", "add", f"{self.ADDRESS}/32", "dev", "lo")
        master = self.folder / "master"
        master.mkdir()
        for place in ("/var/lib/mfs", "/usr/share/mfs"):
            empty = pathlib.Path(place) / "metadata.mfs.empty"
            if empty.exists():
                shutil.copy(empty, master / "metadata.mfs")
                break
        else:
            (master / "metadata.mfs").write_bytes(b"MFSM NEW")
        exports = self.folder / "exports.cfg"
        exports.write_text("* / rw,alldirs,admin,maproot=0:0\n")
        (self.folder / "topology.cfg").write_text("")
        common = f"WORKING_USER = root\nWORKING_GROUP = root\n"
        self.configs = [("mfsmaster", self.folder / "master.cfg")]
        self.configs[0][1].write_text(
            common + f"DATA_PATH = {master}\nEXPORTS_FILENAME = {exports}\n"
            f"TOPOLOGY_FILENAME = {self.folder}/topology.cfg\n"
            f"MATOML_LISTEN_HOST = {self.ADDRESS}\nMATOCS_LISTEN_HOST = {self.ADDRESS}\nMATOCL_LISTEN_HOST = {self.ADDRESS}\n")
        for n in (1, 2, 3):
            data, disk = self.folder / f"cs{n}", self.folder / f"disk{n}"
            data.mkdir(), disk.mkdir()
            hdd = self.folder / f"hdd{n}.cfg"
            hdd.write_text(f"{disk}\n")
            config = self.folder / f"cs{n}.cfg"
            config.write_text(common + f"DATA_PATH = {data}\nHDD_CONF_FILENAME = {hdd}\nMASTER_HOST = {self.ADDRESS}\n"
                              f"BIND_HOST = {self.ADDRESS}\nCSSERV_LISTEN_HOST = {self.ADDRESS}\nCSSERV_LISTEN_PORT = {9430 + n}\n")
            self.configs.append(("mfschunkserver", config))
        for program, config in self.configs:
            self.inside(f"/usr/sbin/{program}", "-c", config, "start")
        self.mount()
        deadline = time.monotonic() + 60
        while "3" not in self.inside("mfscli", "-H", self.ADDRESS, "-SIN") if shutil.which("mfscli") else False:
            if time.monotonic() > deadline:
                raise SystemExit("MooseFS's chunkservers do not connect")
            time.sleep(0.5)
        self.inside("mfssetgoal", "2", self.mnt)
        probe = self.mnt / "probe"
        while True:  # a new master lets writes wait until it has seen its chunkservers
            try:
                probe.write_bytes(b"x")
                probe.unlink()
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)
        time.sleep(5)  # all three connected; it prints this nowhere that a script can wait for without mfscli

    def mount(self):
        self.inside("mfsmount", "-H", self.ADDRESS, self.mnt)
        if not os.path.ismount(self.mnt):
            raise SystemExit("mfsmount returned, but nothing is mounted")

    def remount(self):
        sh("umount", self.mnt)
        self.mount()

    def stop(self):
        subprocess.run(["umount", "-l", self.mnt], stderr=subprocess.DEVNULL)
        for program, config in reversed(self.configs):
            with contextlib.suppress(subprocess.CalledProcessError):
                self.inside(f"/usr/sbin/{program}", "-c", config, "stop")
        subprocess.run(["ip", "netns", "del", self.NETNS])
        shutil.rmtree(self.folder, ignore_errors=True)


class LocalPeer:
    """The bare disk."""
    name = "local"

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.mnt = self.folder / "mnt"

    def start(self):
        self.mnt.mkdir()

    def remount(self):
        pass

    def stop(self):
        shutil.rmtree(self.folder, ignore_errors=True)


class MirrorPeer:
    """A FUSE mount that hands every request to the bare disk: what FUSE alone costs. See start() of each."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.disk, self.mnt = self.folder / "disk", self.folder / "mnt"

    def start(self):
        self.disk.mkdir(), self.mnt.mkdir()
        self.mount()

    def remount(self):
        sh("umount", self.mnt)
        self.mount()

    def stop(self):
        subprocess.run(["umount", "-l", self.mnt], stderr=subprocess.DEVNULL)
        shutil.rmtree(self.folder, ignore_errors=True)


class BindfsPeer(MirrorPeer):
    name = "bindfs"

    def mount(self):
        sh("bindfs", self.disk, self.mnt)


class PassthroughPeer(MirrorPeer):
    """libfuse's own example of the low-level interface, from Debian's libfuse3-dev."""
    name = "passthrough"
    SOURCE = pathlib.Path("/usr/share/doc/libfuse3-dev/examples/passthrough_ll.c")

    def mount(self):
        program = self.folder / "passthrough_ll"
        if not program.exists():
            flags = sh("pkg-config", "--cflags", "--libs", "fuse3").split()
            sh("gcc", "-O2", "-w", self.SOURCE, "-o", program, *flags)
        sh(program, "-o", f"source={self.disk}", "-o", "cache=auto", self.mnt)


def cold(peer):
    os.sync()
    peer.remount()
    with open("/proc/sys/vm/drop_caches", "w") as f:
        f.write("3")
    if peer.name != "local" and not os.path.ismount(peer.mnt):
        raise SystemExit(f"{peer.mnt} is not mounted: this would measure the directory beneath it")


def fio(path, *args):
    out = sh("fio", "--name=x", f"--filename={path}", "--ioengine=psync", "--size=1G", "--output-format=json", *args)
    job = json.loads(out)["jobs"][0]
    side = job["write"] if job["write"]["io_bytes"] else job["read"]
    return side["bw_bytes"] / 1e6


def small(what, path, count=5000):
    return float(sh(BIN / "small_files", what, path, count))


def iops(path, *args):
    out = sh("fio", "--name=x", f"--filename={path}", "--ioengine=psync", "--size=1G", "--bs=4k", "--runtime=5",
             "--output-format=json", "--group_reporting", *args)
    job = json.loads(out)["jobs"][0]
    return job["write"]["iops"] or job["read"]["iops"]


def timed(*args):
    start = time.monotonic()
    sh(*args)
    return time.monotonic() - start


def measure_seq(peer, work):
    path = peer.mnt / "seq"
    yield "seq_write_1M_endfsync MB/s", fio(path, "--rw=write", "--bs=1M", "--end_fsync=1")
    cold(peer)
    yield "seq_read_1M_cold MB/s", fio(path, "--rw=read", "--bs=1M", "--invalidate=0")
    yield "seq_read_1M_warm MB/s", fio(path, "--rw=read", "--bs=1M", "--invalidate=0")
    path.unlink()


def measure_random(peer, work):
    path = peer.mnt / "random"
    fio(path, "--rw=write", "--bs=1M", "--end_fsync=1")
    for jobs in (1, 8):
        cold(peer)
        yield f"rand_read_4k_{jobs}job_cold IOPS", iops(path, "--rw=randread", f"--numjobs={jobs}", "--invalidate=0")
    yield "rand_write_4k_endfsync IOPS", iops(path, "--rw=randwrite", "--io_size=32M", "--end_fsync=1", "--runtime=60")
    for jobs in (1, 8):
        yield f"rand_write_4k_fsync1_{jobs}job IOPS", iops(path, "--rw=randwrite", "--fsync=1", f"--numjobs={jobs}")
    path.unlink()


def measure_small(peer, work):
    path = peer.mnt / "small"
    yield "create_4k_1proc files/s", small("create", path)
    yield "stat_warm ops/s", small("stat", path)
    yield "read_4k_warm files/s", small("read", path)
    cold(peer)
    yield "stat_cold ops/s", small("stat", path)
    cold(peer)
    yield "readdir_stat_cold entries/s", small("readdir_stat", path)
    yield "read_4k_cold files/s", small("read", path)
    yield "rename ops/s", small("rename", path, 2000)
    for n in range(2000):
        os.rename(path / f"f{n}.renamed", path / f"f{n}")
    yield "unlink ops/s", small("unlink", path)
    path.rmdir()
    path = peer.mnt / "small_fsync"
    yield "create_4k_fsync_1proc files/s", small("create_fsync", path, 300)
    shutil.rmtree(path)
    path = peer.mnt / "folders"
    yield "mkdir ops/s", small("mkdir", path, 2000)
    yield "rmdir ops/s", small("rmdir", path, 2000)
    path.rmdir()
    start = time.monotonic()
    writers = [subprocess.Popen([BIN / "small_files", "create", peer.mnt / f"small{n}", "2000"],
                                stdout=subprocess.DEVNULL) for n in range(4)]
    if any(writer.wait() for writer in writers):
        raise SystemExit(f"{peer.name}: creating by four processes failed")
    yield "create_4k_4proc files/s", 8000 / (time.monotonic() - start)
    yield "rm_rf_4proc_tree files/s", 8000 / timed("rm", "-rf", *(peer.mnt / f"small{n}" for n in range(4)))


def measure_tree(peer, work):
    path = peer.mnt / "untar"
    path.mkdir()
    yield "untar_3000 1/s", 1 / timed("tar", "-C", path, "-xf", work / "tree.tar")
    different = subprocess.run(["diff", "-rq", "-x", ".git", work / "tree", path / "tree"], capture_output=True, text=True).stdout
    if different:
        raise SystemExit(f"{peer.name}: the untarred tree differs:\n{different[:500]}")
    yield "ls_lR_warm 1/s", 1 / timed("ls", "-lR", path)
    yield "grep_r_warm 1/s", 1 / timed("grep", "-rc", "--binary-files=text", "a", path)
    cold(peer)
    yield "grep_r_cold 1/s", 1 / timed("grep", "-rc", "--binary-files=text", "a", path)
    yield "git_clone_3000 1/s", 1 / timed("git", "clone", "-q", "--no-hardlinks", work / "tree", peer.mnt / "clone")
    yield "git_status 1/s", 1 / timed("git", "-C", peer.mnt / "clone", "status", "--short")
    yield "rm_rf_3000 1/s", 1 / timed("rm", "-rf", path, peer.mnt / "clone")


MEASURES = {"seq": measure_seq, "random": measure_random, "small": measure_small, "tree": measure_tree}
PEERS = {peer.name: peer for peer in (CairnPeer, MoosePeer, BindfsPeer, PassthroughPeer, LocalPeer)}


def make_tree(work):
    """3,000 files of about 30 MB, as a source tree has them, also as a git repository; the same on every machine."""
    import random
    rng = random.Random(1)
    tree = work / "tree"
    for n in range(3000):
        folder = tree / f"d{n % 60}" / f"e{n % 7}"
        folder.mkdir(parents=True, exist_ok=True)
        size = int(min(200_000, rng.paretovariate(1.2) * 2000))
        (folder / f"file{n}.c").write_bytes(rng.randbytes(64) * (size // 64 + 1))
    with tarfile.open(work / "tree.tar", "w") as tar:
        tar.add(tree, "tree")
    git = ("git", "-C", tree, "-c", "user.name=bench", "-c", "user.email=bench@localhost")
    sh(*git, "init", "-q")
    sh(*git, "add", ".")
    sh(*git, "commit", "-qm", "tree")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", default="cairn,moosefs")
    parser.add_argument("--only", default=",".join(MEASURES))
    parser.add_argument("--json", help="also write every figure here")
    args = parser.parse_args()
    # The peers are stopped also on SIGTERM.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    work = pathlib.Path(tempfile.mkdtemp(prefix="cairn-bench-"))
    figures = {}  # measure -> peer -> [value a round]
    peers = []
    try:
        make_tree(work)
        for name in args.peers.split(","):
            (work / name).mkdir()
            peer = PEERS[name](work / name)
            peers.append(peer)
            peer.start()
        for round_number in range(args.rounds):
            for key in args.only.split(","):
                for peer in peers:
                    for measure, value in MEASURES[key](peer, work):
                        figures.setdefault(measure, {}).setdefault(peer.name, []).append(value)
                        print(f"round {round_number + 1}  {measure:<32} {peer.name:<8} {value:12.1f}", flush=True)
                    os.sync()
    finally:
        for peer in peers:
            with contextlib.suppress(Exception):
                peer.stop()
        shutil.rmtree(work, ignore_errors=True)
    first, *others = [peer.name for peer in peers]
    print(f"\n{'median of ' + str(args.rounds) + ' rounds':<34}" + "".join(f"{p.name:>12}" for p in peers)
          + "".join(f"{first + '/' + other:>16}" for other in others))
    for measure, by_peer in figures.items():
        row = f"{measure:<34}" + "".join(f"{statistics.median(by_peer[p.name]):12.1f}" for p in peers)
        for other in others:
            row += f"{statistics.median(a / b for a, b in zip(by_peer[first], by_peer[other])):15.2f}x"
        print(row)
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
