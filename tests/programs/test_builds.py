"""Compilers on a mount: Cairn's own base library with parallel make, and a compiler cache."""
import os
import re
import shutil

from programs import REPO, OnMount, run


class Builds(OnMount):
    def test_parallel_make_and_ccache(self):
        """Sources, objects and ccache's directory are all on the mount; a second build comes from the cache."""
        source = self.dir / "source"
        source.mkdir()
        for name in ("CMakeLists.txt", "chunkserver", "client", "fuse", "meta", "store", "tests", "tools"):
            (shutil.copytree if (REPO / name).is_dir() else shutil.copy2)(REPO / name, source / name)
        env = dict(os.environ, CCACHE_DIR=str(self.dir / "ccache"), CCACHE_TEMPDIR=str(self.dir / "ccache/tmp"))

        def build():
            shutil.rmtree(source / "build", ignore_errors=True)
            run("cmake", "-S", source, "-B", source / "build", "-G", "Unix Makefiles", "-DCMAKE_BUILD_TYPE=Debug", env=env)
            return run("make", "-C", source / "build", "-j4", "store_base_test", env=env, timeout=600)

        self.assertIn("Building", build())
        run(source / "build/bin/store_base_test", "--gtest_brief=1", cwd=self.dir)
        self.assertNotIn("Building", run("make", "-C", source / "build", "store_base_test", env=env))  # times of files
        run("ccache", "--zero-stats", env=env)
        build()
        stats = dict(line.split("\t") for line in run("ccache", "--print-stats", env=env).splitlines())
        hits = int(stats["direct_cache_hit"]) + int(stats["preprocessed_cache_hit"])
        self.assertGreater(hits, 5, stats)
        self.assertEqual(int(stats["cache_miss"]), 0, stats)
        self.assertIsNone(re.search(r"[1-9]", stats["internal_error"] + stats["bad_output_file"]), stats)
        run(source / "build/bin/store_base_test", "--gtest_brief=1", cwd=self.dir)
