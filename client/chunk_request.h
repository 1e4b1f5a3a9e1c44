// What the requests of chunk_read.cc, chunk_write.cc and chunk_sync.cc share: the context and how long to
// wait between tries.
#pragma once

#include <algorithm>

#include "client/chunk_io.h"

namespace cairn::client {

inline void set_context(schema::ChunkContext::Builder to, const ChunkTarget& target, Epoch epoch,
                        TargetId member, std::uint64_t sequence) {
  auto chunk = to.initChunk();
  chunk.setData(target.chunk.data.value());
  chunk.setIndex(target.chunk.index);
  chunk.setShard(target.chunk.shard);
  to.setPool(target.pool.value());
  to.setEpoch(epoch.value());
  to.setSession(target.session.value());
  to.setSequence(sequence);
  to.setLeaseGeneration(target.generation);
  to.setOwnerHint(target.owner.value());
  to.setTarget(member.value());
}

// Grows from 2 ms to 250 ms: an epoch change takes a few milliseconds when all goes well.
class RetryWait {
 public:
  Duration next() {
    const Duration now = wait_;
    wait_ = std::min<Duration>(wait_ * 2, std::chrono::milliseconds(250));
    return now;
  }

 private:
  Duration wait_ = std::chrono::milliseconds(2);
};

inline Deadline at_most(const Clock& clock, Deadline deadline, Duration one) {
  return std::min(deadline, Deadline::after(clock, one));
}

}  // namespace cairn::client
