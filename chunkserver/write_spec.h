// A mutation of one chunk, as plain structs: what WriteRequest says, and what came of it.
#pragma once

#include <cstdint>
#include <vector>

#include "store/base/checksum.h"
#include "store/base/ids.h"

namespace cairn::chunkserver {

enum class WriteKind : std::uint8_t { kWrite, kFresh, kPut, kTruncate, kPunch, kRemove, kReversion };
constexpr bool carries_bytes(WriteKind kind) {
  return kind <= WriteKind::kPut;
}
// What was stored before does not matter for the result.
constexpr bool replaces_all(WriteKind kind) {
  return kind == WriteKind::kFresh || kind == WriteKind::kPut || kind == WriteKind::kRemove;
}

struct WriteSpec {
  ChunkId chunk;
  PoolId pool;
  Epoch epoch;  // of the request; a pending write is sent again under later ones
  RequestId request;
  InodeId owner;
  LeaseGeneration lease;  // under which it is written; 0: none (objects)
  WriteKind kind = WriteKind::kWrite;
  std::uint32_t offset = 0;
  std::uint32_t length = 0;  // truncate, punch
  std::vector<BlockChecksum> checksums;
  bool durable = false;
  Version version;  // given by the head
  Version base;     // what it is applied over; not valid: nothing was stored
};

struct WriteOutcome {
  Version version;
  Digest digest;
  std::uint32_t length = 0;
  std::uint64_t available = UINT64_MAX;  // bytes left on the fullest target from here to the end of the chain
  Version base;                          // what it was applied over, where that is known
};

}  // namespace cairn::chunkserver
