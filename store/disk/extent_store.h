// The extent files of a target and which parts of them are free. Bulk bytes are written here once and never
// moved.
//
// Files are "extents/00000000", "extents/00000001", ... of equal size, sparse. A freed extent goes through
// two steps: free_after(extent, generation) keeps it untouched while a power cut could still bring its owner
// back; settle(synced) then gives its blocks back to the file system and makes it allocatable. Thread-safe.
// Reads and writes take no lock besides finding the file.
#pragma once

#include <array>
#include <atomic>
#include <deque>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <vector>

#include "store/disk/allocator.h"
#include "store/disk/disk.h"

namespace cairn::disk {

class ExtentStore {
 public:
  static Result<std::unique_ptr<ExtentStore>> open(Disk& disk, const std::string& dir,
                                                   std::uint64_t file_bytes);

  // Declares what is in use; once, before allocate(). kCorrupt: overlapping extents.
  Result<> rebuild(std::vector<Extent> used);
  // Punches all that is free: after a crash, blocks of extents that no record refers to.
  void punch_free_space();

  // kNoSpace only if a new file cannot be made: admission is the caller's (SpaceGauge).
  Result<Extent> allocate(int size_class, int room_class);
  bool grow(Extent& extent, int size_class);
  void shrink(Extent& extent, int size_class);
  void drop_room(const Extent& extent);
  void release(const Extent& extent);  // never was in a record: at once
  void free_after(const Extent& extent, std::uint64_t generation);
  void settle(std::uint64_t synced_generation);
  bool has_freed() const { return freed_count_.load(std::memory_order_relaxed) != 0; }
  std::uint64_t used_bytes() const;

  // How a write is made safe. kUnsynced: by sync(kUnsynced), which is part of every engine sync. kLogged: a
  // synced redo row repeats it after a crash, so that only a checkpoint has to sync it, and synced small
  // overwrites never wait.
  enum class Cover { kUnsynced, kLogged };

  // Offsets are inside the extent. A read past what the file holds is kCorrupt, and so is one that the disk
  // fails: both mean that these bytes are lost here.
  Result<> read(const Extent& extent, std::uint64_t offset, MutableBytes to);
  Result<> write(const Extent& extent, std::uint64_t offset, Bytes from, Cover cover);
  Result<> zero(const Extent& extent, std::uint64_t offset, std::uint64_t length, Cover cover);
  // All write() and zero() of this cover that returned before are durable on return.
  Result<> sync(Cover cover);

  bool has_file_of(const Extent& extent) const;  // false: no such file; then no other call may name it
  bool is_free(const Extent& extent) const;

 private:
  struct ExtentFile {
    std::unique_ptr<File> file;
    std::array<std::atomic<bool>, 2> dirty{};  // by Cover
  };
  struct Freed {
    Extent extent;
    std::uint64_t generation;
  };
  ExtentStore(Disk& disk, std::string dir, std::uint64_t file_bytes)
      : disk_(disk), dir_(std::move(dir)), file_bytes_(file_bytes), allocator_(file_bytes) {}
  Result<> open_file(std::uint32_t number);
  ExtentFile& file_of(const Extent& extent);
  std::uint64_t offset_in_file(const Extent& extent) const;
  Disk& disk_;
  const std::string dir_;
  const std::uint64_t file_bytes_;
  mutable std::mutex mutex_;  // guards allocator_, freed_
  Allocator allocator_;
  std::deque<Freed> freed_;
  std::atomic<std::size_t> freed_count_{0};
  mutable std::shared_mutex files_mutex_;  // guards the vector; its elements never move
  std::vector<std::unique_ptr<ExtentFile>> files_;
};

}  // namespace cairn::disk
