// SyncLedger: which acknowledged bytes are not known to be synced, and the bytes themselves while there is
// room.
//
// Why: a buffered write that the chain acknowledged may be lost when all its servers lose power. fsync asks
// for the newest version, and for those of earlier epochs that it is not known to stand on; what was lost is
// written again from here. A sweep asks in the
// background for what is some seconds old (the servers sync by themselves meanwhile), so that the ledger
// stays small. Members marked [inode]: under that inode's mutex. Otherwise thread-safe. Owner: WriteBack.
#pragma once

#include <deque>

#include "client/file_context.h"

namespace cairn::client {

// Writes of a chunk of which each stands on the one before: the last one holds them all.
struct Acknowledged {
  Version base;  // under the first of them
  Version version;
};

// Whether a write stands on an earlier version: nothing is lost within an epoch, and after one only if the
// servers say on what they applied it.
inline bool stands_on(const ChunkWritten& written, const Version& earlier) {
  return written.base == earlier || written.version.epoch == earlier.epoch;
}

class SyncLedger {
 public:
  explicit SyncLedger(FileContext& context) : context_(context) {}

  // [inode] The chain acknowledged `bytes` of a chunk under `versions`, in order. Their memory is kept with
  // them, or given up. `synced`: they are on disk, and noted only if older bytes of the chunk may be lost
  // below them.
  void acknowledged(const InodeRef& inode, const ChunkTarget& target,
                    const std::vector<Acknowledged>& versions, std::shared_ptr<const ChunkBytes> bytes,
                    Durable synced);
  // [inode] What to ask the servers about.
  std::vector<ChunkVersion> ask(const Inode& inode) const;
  enum class Outcome {
    kSynced,
    kWriteAgain,  // the servers lost bytes; they are dirty again
    kAskAgain,    // meanwhile a later write was found to stand on what was asked about
  };
  // [inode] The answers. kLostUnsynced: bytes are lost for good. Others: it can't be told (now).
  Result<Outcome> answered(Inode& inode, std::span<const ChunkVersion> asked, std::span<const Code> codes);
  // Before answered(): chunks that are said to be lost may have been removed with their file, which matters
  // to nobody. Asks the metadata server whether the file still exists, and forgets it if it does not.
  rpc::Task<Result<>> forget_removed(InodeRef inode, std::vector<Code> codes, Deadline deadline);
  // [inode] Nothing of chunks from `index` on is to be synced (they are gone).
  void forget_from(Inode& inode, std::uint64_t index);
  // Gives up bytes, oldest first, until so much memory is free. Not under an inode's mutex.
  void make_room(std::uint64_t wanted);

  // Asks about what is older than some seconds. Returns files whose bytes are dirty again.
  rpc::Task<std::vector<InodeRef>> sweep(Deadline deadline);

 private:
  void release(std::vector<Unsynced>& entries);

  struct Kept {
    std::weak_ptr<Inode> inode;
    std::uint64_t index = 0;
    std::weak_ptr<const ChunkBytes> bytes;
  };
  struct Due {
    std::weak_ptr<Inode> inode;
    TimePoint since;
  };
  FileContext& context_;
  std::mutex mutex_;
  std::deque<Kept> kept_;  // guarded by mutex_: oldest first
  std::deque<Due> due_;    // guarded by mutex_: oldest first
  std::atomic<std::uint64_t> kept_bytes_{0};
};

}  // namespace cairn::client
