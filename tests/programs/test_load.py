"""Programs that were made to break file systems, for some seconds each, verifying what they read."""
import json

from programs import OnMount, run

# Those that work with files and names and check what they did.
STRESSORS = """access chdir chmod chown copy-file dentry dir dirdeep dirmany dup fallocate fcntl fiemap filename flock fstat
getdent handle hdd inotify io iomix lease link locka lockf lockofd mknod open readahead rename revio seek sendfile splice
symlink sync-file touch utime xattr""".split()
AT_ONCE = 8


class Load(OnMount):
    def test_dbench(self):
        self.assertIn("Throughput", run("dbench", "-D", self.dir, "-t", "8", "-s", "3"))
        self.assertIn("Throughput", run("dbench", "-D", self.dir, "-t", "5", "-F", "6"))

    def test_fio_verify(self):
        """Each block carries its own checksum and offset; written by several jobs at once, then read back."""
        common = ["--directory", self.dir, "--randrepeat=1", "--verify=crc32c", "--verify_fatal=1", "--do_verify=1",
                  "--verify_state_save=0", "--group_reporting", "--output-format=json", "--size=24m", "--numjobs=3"]
        engines = {"psync": ["--rw=randrw", "--bsrange=512-128k", "--bs_unaligned", "--fsync=64"],
                   "mmap": ["--rw=randwrite", "--bs=4k"],
                   "libaio": ["--rw=randwrite", "--bs=16k", "--direct=1", "--iodepth=16"],
                   "io_uring": ["--rw=randwrite", "--bs=8k", "--iodepth=8"],
                   "sync": ["--rw=write", "--bsrange=1k-1m", "--bs_unaligned", "--end_fsync=1", "--fallocate=keep"]}
        for engine, options in engines.items():
            said = run("fio", f"--name={engine}", f"--ioengine={engine}", *common, *options)
            job = json.loads(said[said.index("{"):])["jobs"][0]
            self.assertEqual(job["error"], 0, engine)
            self.assertGreater(job["read"]["total_ios"], 100, engine)

    def test_stress_ng(self):
        """Some stressors at once, on their own files, then the next ones."""
        for first in range(0, len(STRESSORS), AT_ONCE):
            names = STRESSORS[first:first + AT_ONCE]
            where = self.dir / names[0]
            where.mkdir()
            said = run("stress-ng", "--temp-path", where, "--verify", "--timeout", "3", "--hdd-bytes", "8m", "--iomix-bytes",
                       "8m", "--fallocate-bytes", "8m", "--revio-bytes", "8m", "--readahead-bytes", "8m",
                       *[word for name in names for word in (f"--{name}", "1")])
            self.assertIn("successful run completed", said)
            self.assertNotIn("fail:", said)
            self.assertEqual(list(where.iterdir()), [])

    def test_bonnie(self):
        """Without its writes of single bytes (-f), hundreds of millions of them."""
        run("bonnie++", "-d", self.dir, "-f", "-s", "96", "-r", "48", "-n", "1:8192:0:4", "-u", "root", "-q")
