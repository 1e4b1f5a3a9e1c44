// Test support: an engine on a CrashDisk beside a plain model of what it must hold.
//
// The model keeps, for each chunk, every state since the last completed sync, oldest first. After a power cut
// a chunk must be in one of them; after the death of the process alone, in the newest (or in the one whose
// call was cut short).
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "store/disk/crash_disk.h"
#include "store/disk/engine.h"

namespace cairn::disk {

class EngineRig {
 public:
  explicit EngineRig(std::uint64_t seed);

  // False: the disk crashed on the way (or, with allow_failure, the call failed otherwise and changed
  // nothing).
  bool write(std::uint32_t chunk, std::uint32_t offset, std::uint32_t size, bool durable = false);
  bool put(std::uint32_t chunk, std::uint32_t size, bool durable = false);
  bool truncate(std::uint32_t chunk, std::uint32_t length);
  bool punch(std::uint32_t chunk, std::uint32_t offset, std::uint32_t length);
  bool make_absent(std::uint32_t chunk);
  bool reversion(std::uint32_t chunk);
  bool purge(std::uint32_t chunk);
  bool sync();
  bool maintain();
  bool reopen();  // a clean close and open
  bool open();
  // Ends the engine, loses bytes, opens again (crashing in recovery too, `again` times) and compares with the
  // model.
  void crash(CrashDisk::Loss loss, int again = 0);
  void stop(CrashDisk::Loss loss);  // the engine ends, bytes are lost, nothing is opened
  void compare(CrashDisk::Loss loss);
  void check();

  std::uint32_t length(std::uint32_t chunk) const;
  bool present(std::uint32_t chunk) const;
  CrashDisk& disk() { return disk_; }
  Engine& engine() { return static_cast<Engine&>(*engine_); }
  SeededRng& rng() { return rng_; }
  void allow_failure(Code code) { allowed_ = code; }

 private:
  struct Snapshot {
    bool exists = false;
    bool absent = false;
    Version version;
    std::string data;
    bool operator==(const Snapshot&) const = default;
  };
  struct History {
    std::vector<Snapshot> states{{}};  // since the last sync; the last one is the present
    bool in_doubt = false;             // the last one's call did not return
  };
  template <class Call>
  bool attempt(std::uint32_t chunk, Snapshot after, Call call);
  Snapshot now(std::uint32_t chunk) const;
  Snapshot next_of(std::uint32_t chunk);
  WriteOptions options_for(const Snapshot& snapshot, bool durable) const;
  std::string random_bytes(std::size_t size);
  void synced();
  void trace(std::optional<std::uint32_t> chunk, std::string what);
  std::string story(std::uint32_t chunk) const;
  static ChunkId id(std::uint32_t chunk) { return {DataId(5000), chunk, 0}; }
  Result<Snapshot> actual(std::uint32_t chunk);

  SeededRng rng_;
  CrashDisk disk_;
  EngineOptions options_;
  std::unique_ptr<ChunkEngine> engine_;
  std::map<std::uint32_t, History> model_;
  std::uint64_t counter_ = 0;
  std::vector<std::pair<std::optional<std::uint32_t>, std::string>> trace_;
  Code allowed_ = Code::kOk;
};

}  // namespace cairn::disk
