// RocksDB over Disk: every byte of WAL, SST and MANIFEST goes through the injectable disk, so that the crash
// tests cut the index as they cut the extents, and production runs exactly the path that was tested.
// RocksDB's own LOCK file is a no-op here: the target's lock (held by the engine) already keeps others out.
#pragma once

#include <rocksdb/env.h>
#include <rocksdb/file_system.h>

#include <memory>

#include "store/disk/ballast.h"
#include "store/disk/disk.h"

namespace cairn::disk {

// An Env with the default threads and clock, and `disk` for files. A write that meets a full disk gives the
// ballast away and is tried again. The metadata server's store uses it too. `disk` and `ballast` must outlive
// it.
std::unique_ptr<rocksdb::Env> make_rocks_env(Disk& disk, Ballast& ballast);

// RocksDB's warnings and errors go to our log; its chatter goes nowhere (no LOG files).
std::shared_ptr<rocksdb::Logger> make_rocks_logger();

// Keeps the code across RocksDB: kNoSpace, kNotFound, kCorrupt, else kIo.
rocksdb::IOStatus to_io_status(const Error& error);
Error from_rocks(const rocksdb::Status& status, std::string_view what);

}  // namespace cairn::disk
