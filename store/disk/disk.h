// The file operations that a target needs, as an interface: production uses PosixDisk; tests use CrashDisk
// (crash_disk.h), which stops at any write or sync and loses what was not synced. RocksDB runs over it too
// (rocks_fs.h).
//
// Thread-safe: any thread may call anything. Paths are absolute or relative to the process; '/' separates.
// Errors: kNotFound, kNoSpace, kLocked, kUnimplemented (punch only), everything else kIo; each names path and
// operation.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "store/base/bytes.h"
#include "store/base/result.h"

namespace cairn::disk {

// An open file. Offsets are absolute (no cursor), so one File serves many threads. Closed when destroyed.
class File {
 public:
  virtual ~File() = default;
  // Fills `to`; returns how much, less than asked only at the end of the file.
  virtual Result<std::size_t> pread(std::uint64_t offset, MutableBytes to) = 0;
  // Writes all of it or fails; after a failure any part may have been written.
  virtual Result<> pwrite(std::uint64_t offset, Bytes from) = 0;
  // The pieces one after another, as one write.
  virtual Result<> pwritev(std::uint64_t offset, std::span<const Bytes> pieces) = 0;
  // fdatasync: on return bytes and size survive a power cut. After a failure the state of unsynced bytes is
  // unknown for good: a later success means nothing for them.
  virtual Result<> sync() = 0;
  virtual Result<> truncate(std::uint64_t size) = 0;
  // Reserves blocks (fallocate, size unchanged), so that writes there cannot fail for lack of space.
  virtual Result<> allocate(std::uint64_t offset, std::uint64_t length) = 0;
  // Makes the range read as zeros and gives its blocks back. kUnimplemented where the file system cannot.
  virtual Result<> punch(std::uint64_t offset, std::uint64_t length) = 0;
  virtual Result<std::uint64_t> size() = 0;
};

struct FileStat {
  std::uint64_t size = 0;
  std::uint64_t modified_s = 0;  // wall time
  bool directory = false;
};

struct Space {
  std::uint64_t total_bytes = 0;
  std::uint64_t available_bytes = 0;  // to an unprivileged process
};

// Held until destroyed. The kernel drops it when the process ends, however it ends.
class DiskLock {
 public:
  virtual ~DiskLock() = default;
};

class Disk {
 public:
  enum class Open {
    kRead,    // must exist
    kUpdate,  // read and write; created if missing
    kEmpty,   // read and write; created or emptied
    kBulk,    // as kUpdate; large writes of aligned memory to aligned places may bypass the page cache
  };
  virtual ~Disk() = default;
  virtual Result<std::unique_ptr<File>> open(const std::string& path, Open mode) = 0;
  virtual Result<FileStat> stat(const std::string& path) = 0;
  virtual Result<std::vector<std::string>> list(
      const std::string& dir) = 0;                         // names, sorted, without . and ..
  virtual Result<> make_dir(const std::string& path) = 0;  // succeeds if it is there
  virtual Result<> remove_dir(const std::string& path) = 0;
  virtual Result<> rename(const std::string& from, const std::string& to) = 0;  // replaces `to` atomically
  virtual Result<> unlink(const std::string& path) = 0;
  // On return the names in `dir` (created, renamed, removed) survive a power cut.
  virtual Result<> sync_dir(const std::string& dir) = 0;
  virtual Result<Space> space(const std::string& path) = 0;
  // Takes the lock file (created if missing) and writes this process's pid into it. kLocked names the
  // holder's pid.
  virtual Result<std::unique_ptr<DiskLock>> lock(const std::string& path) = 0;
  // RocksDB pauses after a failed background job. A simulated disk need not.
  virtual void pause(std::chrono::microseconds duration) = 0;
  // Changes with each boot of the machine: unsynced bytes of another boot may be gone.
  virtual Result<std::string> machine_boot_id() = 0;
};

// The real one. Stateless.
class PosixDisk final : public Disk {
 public:
  Result<std::unique_ptr<File>> open(const std::string& path, Open mode) override;
  Result<FileStat> stat(const std::string& path) override;
  Result<std::vector<std::string>> list(const std::string& dir) override;
  Result<> make_dir(const std::string& path) override;
  Result<> remove_dir(const std::string& path) override;
  Result<> rename(const std::string& from, const std::string& to) override;
  Result<> unlink(const std::string& path) override;
  Result<> sync_dir(const std::string& dir) override;
  Result<Space> space(const std::string& path) override;
  Result<std::unique_ptr<DiskLock>> lock(const std::string& path) override;
  void pause(std::chrono::microseconds duration) override;
  Result<std::string> machine_boot_id() override;
};

}  // namespace cairn::disk
