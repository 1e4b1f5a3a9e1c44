"""git on a mount."""
import os
import shutil

from programs import REPO, OnMount, run


class Git(OnMount):
    def test_everyday_work(self):
        """A repository of the project's sources: commit, branch, merge, clone in all three ways, gc, fsck, status."""
        home = self.cluster.folder / "home"
        home.mkdir()
        env = dict(os.environ, HOME=str(home), GIT_CONFIG_NOSYSTEM="1", GIT_AUTHOR_NAME="a",
                   GIT_AUTHOR_EMAIL="a@example.org", GIT_COMMITTER_NAME="a", GIT_COMMITTER_EMAIL="a@example.org")

        def git(where, *words):
            return run("git", "-C", where, "-c", "core.fsync=all", *words, env=env)

        def sound(where):
            git(where, "fsck", "--full", "--strict")
            self.assertEqual(git(where, "status", "--porcelain"), "")

        tree = self.dir / "tree"
        tree.mkdir()
        git(tree, "init", "-q", "-b", "main")
        parts = ["store", "meta", "client", "fuse", "chunkserver", "docs"]
        for part in parts:
            shutil.copytree(REPO / part, tree / part)
            git(tree, "add", "-A")
            git(tree, "commit", "-q", "-m", part)
        sound(tree)
        git(tree, "switch", "-q", "-c", "side", "HEAD~2")
        (tree / "client/client.h").write_text("side\n")
        git(tree, "commit", "-q", "-a", "-m", "side")
        git(tree, "switch", "-q", "main")
        (tree / "docs/new.md").write_text("main\n")
        git(tree, "add", "-A")
        git(tree, "commit", "-q", "-m", "new")
        git(tree, "merge", "-q", "-m", "merged", "side")
        self.assertEqual((tree / "client/client.h").read_text(), "side\n")
        sound(tree)
        git(tree, "gc", "-q", "--aggressive", "--prune=now")
        sound(tree)

        for name, words in {"linked": ["--local"], "copied": ["--no-hardlinks"], "sent": ["--no-local"]}.items():
            clone = self.dir / name
            git(self.dir, "clone", "-q", *words, tree, clone)
            sound(clone)
            (clone / "docs/clone.md").write_text(name)
            git(clone, "add", "-A")
            git(clone, "commit", "-q", "-m", name)
            git(clone, "push", "-q", "origin", f"HEAD:refs/heads/{name}")
            git(clone, "repack", "-q", "-a", "-d")
            sound(clone)
        self.assertEqual(len(git(tree, "branch", "--list").split("\n")), 5 + 1)  # and the end of the last line
        git(tree, "worktree", "add", "-q", self.dir / "beside", "sent")
        sound(self.dir / "beside")
        git(tree, "rm", "-q", "-r", "meta")
        git(tree, "stash", "-q")
        sound(tree)
        git(tree, "gc", "-q", "--prune=now")
        run("diff", "-r", REPO / "meta", tree / "meta")
        self.cluster.umount(self.cluster.mnt)
        self.cluster.mount(self.cluster.mnt)
        for name in ("tree", "linked", "copied", "sent", "beside"):
            sound(self.dir / name)
