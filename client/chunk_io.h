// Chunk I/O: reads, writes and syncs single chunks, hiding failed servers while enough members are left.
//
// Reads go to any in-sync member (spread by chunk; members that just failed come last), are verified here
// against the block checksums, and fall over to the next member. Writes go to the head and are repeated under
// one sequence, across epochs, until the deadline: they take place once. The caller has at most one write
// outstanding for a chunk. Thread-safe; keeps no data. Memory in flight is the caller's to bound.
#pragma once

#include <atomic>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "client/routing.h"

namespace cairn::client {

struct ChunkTarget {
  ChunkId chunk;
  PoolId pool;
  SessionId session;             // a write is sent in this session only
  InodeId owner;                 // none: an object's chunk
  std::uint64_t generation = 0;  // of the exclusive lease under which it is written
};

// Whether the caller knows that the chunk was written: then "absent" is damage, else it is a hole.
enum class Presence { kMust, kMay };
enum class Durable { kNo, kYes };

struct ChunkWrite {
  ChunkTarget target;
  schema::WriteRequest::Kind kind = schema::WriteRequest::Kind::WRITE;
  std::uint32_t offset = 0;
  std::uint32_t length = 0;  // truncate: the new length; punch: bytes
  rpc::Payload payload;
  bool ends_chunk = false;  // nothing is stored beyond the payload's end
  Durable durable = Durable::kNo;
};
struct ChunkWritten {
  Version version;
  Digest digest;
  std::uint32_t length = 0;
  Version base;  // what it was applied over; not valid: nothing, or the server does not know any more
};
struct ChunkVersion {
  ChunkId chunk;
  PoolId pool;
  Version version;
};

class ChunkIo {
 public:
  ChunkIo(rpc::Runtime& runtime, Session& session, Routing& routing);

  // Bytes [offset, offset+length) cut at the chunk's length. kNotFound: absent (kMay only). kCorrupt: no
  // member has good bytes; names the chunk and is logged. kUnavailable: no in-sync member answered until the
  // deadline.
  rpc::Task<Result<rpc::Buffer>> read(ChunkTarget target, std::uint32_t offset, std::uint32_t length,
                                      Presence presence, Deadline deadline);
  // Acknowledged by the whole chain; durable: synced there. kNoSpace, kSessionEnded, kMaybeApplied
  // (deadline), kDegraded.
  rpc::Task<Result<ChunkWritten>> write(ChunkWrite write, Deadline deadline);
  // Ends when each chunk is known to be synced at its version on every in-sync member (min_replicas at least)
  // of one epoch, or lost (kLostUnsynced), or at the deadline. One code an item. Give each chunk with the
  // newest version acknowledged in each epoch, unless a later one is known to stand on it: after a loss, a
  // later version says nothing about the earlier ones.
  rpc::Task<Result<std::vector<Code>>> sync(std::vector<ChunkVersion> chunks, Deadline deadline);

 private:
  rpc::Task<Result<rpc::Buffer>> read_from(std::shared_ptr<const RoutingTable> table,
                                           const RoutedGroup& group, RoutedMember member, ChunkTarget target,
                                           std::uint32_t offset, std::uint32_t length, Deadline deadline);
  std::vector<RoutedMember> read_order(const RoutedGroup& group, ChunkId chunk) const;
  void failed(ServerId server);
  rpc::Task<bool> reclaim(std::uint64_t bytes, Deadline deadline);

  rpc::Runtime& runtime_;
  Session& session_;
  Routing& routing_;
  std::atomic<TimePoint> reclaimed_at_{TimePoint{INT64_MIN / 2}};  // space was freed for a write
  mutable std::mutex mutex_;
  std::unordered_map<ServerId, TimePoint> avoid_until_;  // guarded by mutex_
};

// One checksum a block of the payload, which starts at a block boundary.
std::vector<BlockChecksum> payload_checksums(const rpc::Payload& payload);

}  // namespace cairn::client
