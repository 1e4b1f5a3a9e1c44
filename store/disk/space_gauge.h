// How much more this target may take: capacity minus reserve minus what it uses, and never more than what the
// file system has left (others share it). The reserve is what deletes, repair marks, logs and compaction run
// on, so that a full target can always be emptied. Thread-safe. Cheap: the file system and RocksDB are asked
// again only after some bytes were admitted since.
#pragma once

#include <cstdint>
#include <mutex>
#include <string>

#include "store/disk/disk.h"
#include "store/disk/extent_store.h"
#include "store/disk/index.h"

namespace cairn::disk {

class SpaceGauge {
 public:
  // `capacity_bytes` 0: the size of the file system that `dir` is on.
  static Result<std::unique_ptr<SpaceGauge>> open(Disk& disk, std::string dir, std::uint64_t capacity_bytes,
                                                  std::uint64_t reserve_bytes, ExtentStore& extents,
                                                  Index& index);
  // kNoSpace if taking `bytes` more would eat into the reserve.
  Result<> admit(std::uint64_t bytes);
  // A refusal happened since the last call: space should be won back.
  bool take_refused();

  std::uint64_t capacity_bytes() const { return capacity_; }
  std::uint64_t used_bytes();
  std::uint64_t available_bytes();

 private:
  SpaceGauge(Disk& disk, std::string dir, std::uint64_t capacity, std::uint64_t reserve, ExtentStore& extents,
             Index& index)
      : disk_(disk),
        dir_(std::move(dir)),
        capacity_(capacity),
        reserve_(reserve),
        extents_(extents),
        index_(index) {}
  Result<> refresh_locked();
  std::uint64_t available_locked() const;

  Disk& disk_;
  const std::string dir_;
  const std::uint64_t capacity_;
  const std::uint64_t reserve_;
  ExtentStore& extents_;
  Index& index_;

  std::mutex mutex_;  // guards the rest
  std::uint64_t file_system_available_ = 0;
  std::uint64_t index_bytes_ = 0;
  std::uint64_t admitted_since_ = 0;  // since the last refresh
  bool refused_ = false;
};

}  // namespace cairn::disk
