"""sqlite_writer.py DATABASE JOURNAL_MODE SYNCHRONOUS: adds transactions, each of several rows, until it is killed, and
prints a transaction's number when its commit has returned."""
import hashlib
import sqlite3
import sys

path, journal, synchronous = sys.argv[1:]
db = sqlite3.connect(path, isolation_level=None, timeout=60)
db.execute(f"pragma journal_mode={journal}")
db.execute(f"pragma synchronous={synchronous}")
db.execute("create table if not exists entries (n integer, part integer, bytes blob, primary key (n, part))")
db.execute("create index if not exists by_bytes on entries (bytes)")
n = db.execute("select coalesce(max(n), -1) from entries").fetchone()[0]
while True:
    n += 1
    db.execute("begin immediate")
    for part in range(8):
        db.execute("insert into entries values (?, ?, ?)", (n, part, hashlib.sha256(b"%d/%d" % (n, part)).digest() * 9))
    # Pages in the middle change too, not only the last ones.
    db.execute("delete from entries where n < ? and n % 3 = 0 and part > 3", (n - 50,))
    db.execute("commit")
    print(n, flush=True)
