"""Readers and writers that run while a test breaks the cluster, and remember what was acknowledged."""
import hashlib
import os
import threading


def pattern(seed, size):
    """Bytes that differ in every block and can be made again from (seed, size)."""
    block = hashlib.sha256(str(seed).encode()).digest()
    out = bytearray()
    n = 0
    while len(out) < size:
        out += hashlib.sha256(block + n.to_bytes(8, "big")).digest() * 32
        n += 1
    return bytes(out[:size])


def fill_tree(root, files, seed=0):
    """Writes `files` small files in a few directories; returns {relative path: bytes}."""
    made = {}
    for n in range(files):
        path = f"d{n % 7}/f{n}"
        os.makedirs(os.path.join(root, f"d{n % 7}"), exist_ok=True)
        data = pattern(f"{seed}/{n}", (n * 977) % 20000)
        with open(os.path.join(root, path), "wb") as f:
            f.write(data)
        made[path] = data
    return made


def check_tree(root, expected):
    for path, data in expected.items():
        with open(os.path.join(root, path), "rb") as f:
            got = f.read()
        if got != data:
            at = next((i for i, (a, b) in enumerate(zip(got, data)) if a != b), min(len(got), len(data)))
            raise AssertionError(f"{path}: differs at byte {at} (length {len(got)}, expected {len(data)})")


class Background(threading.Thread):
    """Calls step(n) for n = 0, 1, ... until stop(); keeps what each returned and the first error."""

    def __init__(self, step):
        super().__init__(daemon=True)
        self._step = step
        self._stop_asked = threading.Event()
        self.done = []
        self.error = None
        self.start()

    def run(self):
        n = 0
        try:
            while not self._stop_asked.is_set():
                self.done.append(self._step(n))
                n += 1
        except BaseException as e:  # kept for the test, which raises it
            self.error = e

    def stop(self, tolerate_error=False):
        self._stop_asked.set()
        self.join(timeout=150)
        if self.is_alive():
            raise AssertionError("a reader or writer hangs")
        if self.error and not tolerate_error:
            raise self.error
        return self.done


def write_durably(path, data):
    """write + fsync; when it returns the data must survive anything."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view):]
        os.fsync(fd)
    finally:
        os.close(fd)
