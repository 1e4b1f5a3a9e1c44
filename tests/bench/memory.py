#!/usr/bin/env python3
"""Resident memory of every server and of the mount with many files stored, walked through, and over a churn of creating,
reading and removing.

    sudo tests/bench/memory.py [--files 100000] [--size BYTES] [--walks 2] [--minutes 10] [--limit-mib 300] [--json FILE]

Prints RssAnon + RssFile (VmRSS) of each process in MiB: while filling and walking (every name listed, every inode looked
at) whenever another tenth of the files was seen, then once a minute of churn. Ends with exit code 1 if one was above
the limit, or if the last third of the churn needed a twentieth more than the third before it: caches fill at first, what
still grows then does so without end. Needs the release build.
"""
import argparse
import json
import os
import pathlib
import random
import shutil
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "fault"))
from cluster import Cluster  # noqa: E402

FILES_PER_DIR = 500
BLOCK = os.urandom(1 << 20)


def write(path, rng, size=None):
    """Sizes as in source trees: mostly a few KiB, some larger."""
    if size is None:
        size = int(min(rng.paretovariate(1.1) * 1500, 1 << 20))
    start = rng.randrange(len(BLOCK) - size + 1)
    path.write_bytes(BLOCK[start:start + size])


def fill(root, files, rng, size, every, progress):
    for n in range(files):
        if n % every == 0:
            progress(f"{n} files made")
        folder = root / f"d{n // FILES_PER_DIR}"
        if n % FILES_PER_DIR == 0:
            folder.mkdir()
        write(folder / f"f{n}", rng, size)


def walk(root, every, progress):
    """As find and du do: every directory listed, every entry's attributes asked for."""
    seen = 0
    for folder in os.scandir(root):
        for entry in os.scandir(folder.path):
            entry.stat(follow_symlinks=False)
            seen += 1
            if seen % every == 0:
                progress(f"{seen} seen")
    return seen


def mount_process(where):
    """The process that serves the mount is the child of the one that watches it."""
    found = {}
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
            parent = int((process / "stat").read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
        if words[0].endswith(b"cairn") and words[1:3] == [b"mount", os.fsencode(where)]:
            found[int(process.name)] = parent
    return next(pid for pid, parent in found.items() if parent in found)


def rss_of(pid):
    for line in open(f"/proc/{pid}/status"):
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise SystemExit(f"no VmRSS of process {pid}")


def churn(root, until, rng):
    """One round: a directory of new files is written, read back, half replaced, and removed."""
    n = 0
    while time.monotonic() < until:
        folder = root / f"churn{n % 7}"
        folder.mkdir()
        paths = [folder / f"f{i}" for i in range(300)]
        for path in paths:
            write(path, rng)
        for path in paths:
            path.read_bytes()
        for path in paths[::2]:
            fresh = path.with_suffix(".new")
            write(fresh, rng)
            fresh.rename(path)
        shutil.rmtree(folder)
        n += 1
    return n


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--files", type=int, default=100_000)
    args.add_argument("--size", type=int, help="bytes of each file; without it as in source trees")
    args.add_argument("--walks", type=int, default=0)
    args.add_argument("--minutes", type=float, default=10)
    args.add_argument("--limit-mib", type=int, default=300)
    args.add_argument("--json", type=pathlib.Path)
    args = args.parse_args()
    rng = random.Random(1)
    samples = []
    with tempfile.TemporaryDirectory(prefix="cairn-memory-", ignore_cleanup_errors=True) as folder:
        with Cluster(chunkservers=3, replicas=2, mount=True, folder=folder) as cluster:
            servers = [part for part in cluster.parts() if part != "mount"]
            fuse = mount_process(cluster.mnt)

            def sample(when):
                row = {part: cluster.rss_bytes(part) / (1 << 20) for part in servers}
                row["mount"] = rss_of(fuse)
                samples.append({"when": when, **row})
                print(f"{when:>14}  " + "  ".join(f"{part} {mib:6.1f}" for part, mib in row.items()), flush=True)

            sample("empty")
            every = max(1, args.files // 10)
            fill(cluster.mnt, args.files, rng, args.size, every, sample)
            os.sync()
            sample(f"{args.files} files")
            for n in range(args.walks):
                began = time.monotonic()
                walk(cluster.mnt, every, sample)
                sample(f"walk {n + 1}: {time.monotonic() - began:.0f} s")
            for minute in range(1, round(args.minutes) + 1):
                rounds = churn(cluster.mnt, time.monotonic() + 60, rng)
                sample(f"{minute} min churn")
                if rounds == 0:
                    raise SystemExit("the churn made no progress")
    if args.json:
        args.json.write_text(json.dumps(samples, indent=1))
    parts = [*servers, "mount"]
    bad = [f"{part}: {row[part]:.0f} MiB at {row['when']}" for row in samples for part in parts
           if row[part] > args.limit_mib]
    rows = [row for row in samples if row["when"].endswith("churn")]
    if len(rows) >= 6:
        third = len(rows) // 3
        for part in parts:
            middle = sum(row[part] for row in rows[-2 * third:-third]) / third
            last = sum(row[part] for row in rows[-third:]) / third
            print(f"{part}: second third {middle:.1f} MiB, last third {last:.1f} MiB")
            if last > middle * 1.05:
                bad.append(f"{part} grew from {middle:.0f} to {last:.0f} MiB")
    if bad:
        raise SystemExit("\n".join(bad))
    print("within the limits")


if __name__ == "__main__":
    main()
