"""A cluster whose servers and mounts are in network namespaces of their own, so that links between them can be cut.

    with NetworkCluster(mounts=2) as c:
        c.cut(0)        # the first mount's host hears nobody any more
        c.heal(0)

The servers share one namespace; each mount has another, joined to it by a pair of virtual Ethernet devices. Needs root.
"""
import os
import pathlib
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "fault"))
from cluster import BIN, Cluster, alive, wait_for  # noqa: E402

SERVER = "10.213.0.1"


def sh(*words):
    subprocess.run([str(w) for w in words], check=True, capture_output=True)


class NetworkCluster(Cluster):
    def __init__(self, mounts=2, options="", settings=None, **more):
        super().__init__(**more)
        self.count = mounts
        self.options = options
        self.settings = settings or {}
        self.spaces = []
        self.own = f"cairn{os.getpid()}"

    def __enter__(self):
        try:
            self.space("s")
            self.up()
            self.move_servers()
            for n in range(self.count):
                self.add_host(n)
                self.mount_on(n)
        except BaseException:
            self.show_logs()
            self.close()
            raise
        return self

    def space(self, name):
        space = f"{self.own}{name}"
        sh("ip", "netns", "add", space)
        self.spaces.append(space)
        sh("ip", "-n", space, "link", "set", "lo", "up")
        return space

    # Not `ip netns exec`: that makes a mount namespace too, where nobody else sees what is mounted.
    def within(self, space):
        return ["nsenter", f"--net=/run/netns/{self.own}{space}"]

    def cairn(self, *args, space="s", input=None, timeout=120, check=True, binary=False):
        env = dict(os.environ)
        env.pop("CAIRN_META", None)
        if self.address:
            env["CAIRN_META"] = self.address
        result = subprocess.run([*self.within(space), BIN / "cairn", *map(str, args)], input=input,
                                capture_output=True, timeout=timeout, env=env)
        if check and result.returncode != 0:
            raise AssertionError(f"cairn {' '.join(map(str, args))}: exit {result.returncode}\n"
                                 f"{result.stderr.decode(errors='replace')}")
        return result if not check else result.stdout if binary else result.stdout.decode()

    def start(self, part, *options):
        import cluster
        folder = self.data / part
        with open(folder / "log", "ab") as log:
            child = subprocess.Popen([*self.within("s"), BIN / cluster.PROGRAM[part.split("-")[0]], "--config",
                                      folder / "config.toml", *options], stdin=subprocess.DEVNULL, stdout=log,
                                     stderr=log, start_new_session=True)
        (folder / "pid").write_text(f"{child.pid}\n")
        return child

    def move_servers(self):
        """From 127.0.0.1, where `cairn up` starts them, to an address that the hosts of the mounts reach."""
        sh("ip", "-n", f"{self.own}s", "addr", "add", f"{SERVER}/32", "dev", "lo")
        for part in self.parts():
            os.kill(self.pid(part), 15)
        for part in self.parts():
            wait_for(f"{part} stopped", lambda: not alive(self.pid(part)))
            config = self.data / part / "config.toml"
            text = config.read_text().replace("127.0.0.1", SERVER)
            if part == "meta":
                text += "".join(f"{key} = {value}\n" for key, value in self.settings.items())
            config.write_text(text)
        self.address = self.address.replace("127.0.0.1", SERVER)
        for part in self.parts():
            self.start(part)
        self.wait_health("ok")

    def add_host(self, n):
        space = self.space(f"c{n}")
        sh("ip", "link", "add", f"v{n}", "netns", f"{self.own}s", "type", "veth", "peer", "name", "eth0", "netns", space)
        sh("ip", "-n", f"{self.own}s", "addr", "add", f"10.213.{n + 1}.1/24", "dev", f"v{n}")
        sh("ip", "-n", f"{self.own}s", "link", "set", f"v{n}", "up")
        sh("ip", "-n", space, "addr", "add", f"10.213.{n + 1}.2/24", "dev", "eth0")
        sh("ip", "-n", space, "link", "set", "eth0", "up")
        sh("ip", "-n", space, "route", "add", "default", "via", f"10.213.{n + 1}.1")

    def where(self, n):
        return self.folder / f"m{n}"

    def mount_on(self, n):
        where = self.where(n)
        where.mkdir(exist_ok=True)
        options = ["-o", self.options] if self.options else []
        self.cairn("mount", where, "--log", self.folder / f"m{n}.log", *options, space=f"c{n}")
        self.mounts.append(where)

    # Taking the device down would tell both ends at once (no route): packets are dropped silently instead.
    def cut(self, n):
        for space, device in ((f"{self.own}s", f"v{n}"), (f"{self.own}c{n}", "eth0")):
            sh("ip", "netns", "exec", space, "tc", "qdisc", "replace", "dev", device, "root", "tbf", "rate", "8bit", "burst", "10", "limit", "10")

    def heal(self, n):
        for space, device in ((f"{self.own}s", f"v{n}"), (f"{self.own}c{n}", "eth0")):
            sh("ip", "netns", "exec", space, "tc", "qdisc", "del", "dev", device, "root")

    def close(self):
        super().close()
        for space in self.spaces:
            subprocess.run(["ip", "netns", "del", space], stderr=subprocess.DEVNULL)
