"""Trees of files that come from elsewhere and go on: tar, rsync, dpkg, Python environments."""
import os
import pathlib
import shutil
import subprocess

from programs import OnMount, run

# Some two thousand files of this system: set-user-id programs, hard and symbolic links, configuration.
SYSTEM = ["usr/bin", "usr/share/perl", "etc"]
SIZE_MAX = 100_000


class Trees(OnMount):
    def remount(self):
        """What is seen afterwards comes from the servers."""
        self.cluster.umount(self.cluster.mnt)
        self.cluster.mount(self.cluster.mnt)

    def local(self, name):
        """A directory on this machine's own file system, which has access control lists and attributes."""
        made = self.cluster.folder / name
        made.mkdir()
        return made

    def system_tree(self, where):
        for part in SYSTEM:
            run("rsync", "-aHAX", "-R", f"--max-size={SIZE_MAX}", f"/./{part}", where)
        odd = where / "odd"
        odd.mkdir(mode=0o1777)
        (odd / "long name \n with \t bytes \xff").write_bytes(b"x")
        (odd / "sparse").touch()
        os.truncate(odd / "sparse", 1 << 30)
        os.mkfifo(odd / "fifo")
        os.mknod(odd / "null", 0o20666, os.makedev(1, 3))
        (odd / "capable").write_bytes(b"x" * 5000)
        run("setcap", "cap_net_raw+ep", odd / "capable")
        run("setfacl", "-m", "u:daemon:rw,g:bin:r", odd / "capable")
        run("setfacl", "-d", "-m", "u:daemon:rwx", odd)
        run("setfattr", "-n", "user.origin", "-v", "here", odd / "sparse")
        os.symlink("../usr", odd / "link")
        os.utime(odd / "fifo", ns=(1, 1_234_567_890_123_456_789))
        return where

    def differences(self, one, other):
        """As rsync sees them, bytes included."""
        return run("rsync", "-aHAX", "--checksum", "--dry-run", "--delete", "--itemize-changes", f"{one}/", f"{other}/")

    def test_rsync(self):
        """A system tree is copied with all that it has; a second run finds nothing to do, and so does one back."""
        source = self.system_tree(self.local("system"))
        copy = self.dir / "copy"
        run("rsync", "-aHAX", f"{source}/", copy)
        self.assertEqual(run("rsync", "-aHAX", "--itemize-changes", "--delete", f"{source}/", copy), "")
        self.remount()
        self.assertEqual(self.differences(source, copy), "")
        self.assertEqual(self.differences(copy, source), "")
        # What changed is found, on both sides.
        (source / "etc/hostname").write_text("elsewhere\n")
        (copy / "odd/sparse").unlink()
        self.assertEqual(len(run("rsync", "-aHAX", "--itemize-changes", f"{source}/", copy).splitlines()), 3)
        self.assertEqual(self.differences(source, copy), "")

    def test_tar(self):
        source = self.system_tree(self.local("tar-system"))
        flags = ["--acls", "--xattrs", "--xattrs-include=*", "--numeric-owner"]
        archive = self.dir / "system.tar"
        run("tar", "-C", source, *flags, "--sparse", "-cf", archive, ".")
        tree = self.dir / "tree"
        tree.mkdir()
        run("tar", "-C", tree, *flags, "-xpf", archive)
        run("tar", "-C", tree, *flags, "--compare", "-f", archive)
        self.remount()
        run("tar", "-C", tree, *flags, "--compare", "-f", archive)
        self.assertEqual(self.differences(source, tree), "")
        # From the mount to the mount, through a pipe.
        again = self.dir / "again"
        again.mkdir()
        run("sh", "-ec", 'tar -C "$1" $3 -cf - . | tar -C "$2" $3 -xpf -', "sh", tree, again, " ".join(flags[:2]))
        run("diff", "-r", "--no-dereference", tree / "etc", again / "etc")
        run("rm", "-r", tree, again)
        self.assertEqual(os.listdir(self.dir), ["system.tar"])

    def test_python_environment(self):
        """Made from the wheels that Debian's python3-venv brings; a package is installed into it and run."""
        run("/usr/bin/python3", "-m", "venv", self.dir / "env")
        package = self.dir / "package"
        package.mkdir()
        (package / "setup.py").write_text(
            "from setuptools import setup\n"
            "setup(name='cairn-sample', version='1', py_modules=['sample'],\n"
            "      entry_points={'console_scripts': ['sample=sample:main']})\n")
        (package / "sample.py").write_text("def main():\n    print('from the mount')\n")
        run(self.dir / "env/bin/python", "-m", "pip", "install", "--no-index", "--no-build-isolation",
            "--disable-pip-version-check", package)
        self.remount()
        self.assertEqual(run(self.dir / "env/bin/sample"), "from the mount\n")
        run(self.dir / "env/bin/python", "-m", "compileall", "-q", "-f", self.dir / "env/lib")
        run(self.dir / "env/bin/python", "-m", "pip", "--disable-pip-version-check", "check")

    def test_dpkg_in_a_chroot(self):
        """A root of the programs that dpkg needs, and packages made from what is installed here (nothing is fetched):
        installed, verified, reinstalled, removed by the dpkg inside."""
        root = self.dir / "root"
        installed = ["base-passwd", "base-files", "libc6", "dash", "bash", "coreutils", "dpkg", "tar", "sed", "grep",
                     "perl-base"]
        for folder in ("dev", "proc", "tmp", "var/lib/dpkg/info", "var/lib/dpkg/updates"):
            (root / folder).mkdir(parents=True)
        for link in ("bin", "sbin", "lib", "lib64"):
            os.symlink(f"usr/{link}", root / link)
        os.mknod(root / "dev/null", 0o20666, os.makedev(1, 3))
        (root / "var/lib/dpkg/status").touch()
        files = {"/usr/bin/diff", "/usr/sbin/ldconfig", "/usr/sbin/start-stop-daemon", "/usr/bin/find", "/usr/bin/rm"}
        for package in installed:
            files.update(line for line in run("dpkg", "-L", package).splitlines()
                         if os.path.isfile(line) and not line.startswith(("/usr/share/doc", "/usr/share/man")))
        for file in sorted(files):
            for path in {file, *libraries(file)}:
                there = root / pathlib.Path(os.path.realpath(os.path.dirname(path)), os.path.basename(path)).relative_to("/")
                there.parent.mkdir(parents=True, exist_ok=True)
                if not os.path.lexists(there):
                    shutil.copy2(path, there)

        debs = root / "debs"
        debs.mkdir()
        packages = [repack(name, self.local(f"deb-{name}"), debs) for name in ("bash", "sed", "grep", "perl-base")]

        def dpkg(*words):
            return run("chroot", root, "dpkg", "--force-depends", *words,
                       env=dict(os.environ, DEBIAN_FRONTEND="noninteractive", LC_ALL="C",
                                PATH="/usr/sbin:/usr/bin:/sbin:/bin"))

        dpkg("--install", *[f"/debs/{package}" for package in packages])
        self.assertEqual(dpkg("--verify"), "")
        dpkg("--install", f"/debs/{packages[0]}")
        dpkg("--remove", "--force-remove-essential", "grep")
        self.assertFalse((root / "bin/grep").exists())
        dpkg("--install", f"/debs/{packages[2]}")
        self.remount()
        self.assertEqual(dpkg("--verify"), "")
        self.assertEqual(dpkg("--audit"), "")
        self.assertIn("GNU bash", run("chroot", root, "/bin/bash", "--version"))


def libraries(file):
    """What the dynamic linker loads for a program or library."""
    with open(file, "rb") as f:
        if f.read(4) != b"\x7fELF":
            return []
    said = subprocess.run(["ldd", file], capture_output=True, text=True).stdout
    return [word for word in said.split() if word.startswith("/")]


def repack(name, build, debs):
    """A .deb made of an installed package's files and scripts; its file name."""
    control = build / "DEBIAN"
    control.mkdir()
    fields = run("dpkg-query", "--showformat=Package: ${Package}\\nVersion: ${Version}\\nArchitecture: ${Architecture}\\n"
                 "Essential: ${Essential}\\nMaintainer: ${Maintainer}\\nDescription: ${Description}\\n", "--show", name)
    (control / "control").write_text("".join(f"{line}\n" for line in fields.splitlines() if not line.endswith(": ")))
    for path in run("dpkg", "-L", name).splitlines():
        inside = build / path.lstrip("/")
        if not os.path.lexists(path) or path == "/.":
            continue
        if os.path.isdir(path):  # /bin of a package is one, though here it is a link to /usr/bin
            inside.mkdir(parents=True, exist_ok=True)
        else:
            inside.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, inside, follow_symlinks=False)
    file = f"{name}.deb"
    run("dpkg-deb", "--build", "--root-owner-group", "-Zgzip", "-z1", build, debs / file)
    return file
