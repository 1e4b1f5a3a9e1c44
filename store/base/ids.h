// Typed ids: each kind of number is its own type, explicit to make and to unwrap.
//
// Ids that the metadata server hands out carry the *era* in their top 16 bits, so that metadata that went
// back in time (restore, salvage, forced start) never hands out an id a second time. Zero is "none".
#pragma once

#include <compare>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "store/base/result.h"

namespace cairn {

template <class Tag, class Rep = std::uint64_t>
class Id {
 public:
  constexpr Id() = default;
  constexpr explicit Id(Rep value) : value_(value) {}
  constexpr Rep value() const { return value_; }
  constexpr bool valid() const { return value_ != 0; }
  constexpr auto operator<=>(const Id&) const = default;

 private:
  Rep value_ = 0;
};

using Era = Id<struct EraTag, std::uint16_t>;
using InodeId = Id<struct InodeTag>;
using DataId = Id<struct DataTag>;  // a body of bytes, never reused; a file's layout or an object names it
using SessionId = Id<struct SessionTag>;      // one client's connection to the cluster, across reconnects
using Epoch = Id<struct EpochTag>;            // configuration number of one group
using LeaseGeneration = Id<struct LeaseTag>;  // fencing token: grows with each exclusive grant of an inode
using ServerId = Id<struct ServerTag>;        // one chunkserver, for ever
using TargetId =
    Id<struct TargetTag>;  // one disk of one chunkserver; random, made when the disk is formatted
using PoolId = Id<struct PoolTag, std::uint16_t>;
using ClusterId = Id<struct ClusterTag>;  // random; every server, disk and connection checks it

constexpr InodeId kRootInode{1};
constexpr int kEraShift = 48;
constexpr std::uint64_t with_era(Era era, std::uint64_t low) {
  return (std::uint64_t{era.value()} << kEraShift) | low;
}

// Placement group: chunks placed together on the same members. Growth splits slot s into 2s and 2s+1.
struct GroupId {
  PoolId pool;
  std::uint32_t slot = 0;
  constexpr auto operator<=>(const GroupId&) const = default;
};

// One fixed-size piece of a data id. `shard` is 0 for replicated pools (erasure coding: the shard number).
struct ChunkId {
  DataId data;
  std::uint32_t index = 0;
  std::uint16_t shard = 0;
  constexpr auto operator<=>(const ChunkId&) const = default;
};

// Version of one chunk's content, ordered, never reused: each membership change starts a new epoch.
struct Version {
  Epoch epoch;
  std::uint64_t counter = 0;
  constexpr auto operator<=>(const Version&) const = default;
  constexpr bool valid() const { return epoch.valid(); }
};

// Who wrote last: answers a retried write without doing it twice.
struct RequestId {
  SessionId session;
  std::uint64_t sequence = 0;
  constexpr auto operator<=>(const RequestId&) const = default;
};

// Position in the metadata journal; totally ordered.
struct JournalPosition {
  Era era;
  std::uint64_t term = 0;
  std::uint64_t index = 0;
  constexpr auto operator<=>(const JournalPosition&) const = default;
};

// The 64-bit placement hash of a chunk, XXH3-64 with a fixed seed over (data, index, shard) big-endian.
// Test vectors stand in docs/formats.md; changing it would lose every chunk.
std::uint64_t placement_hash(const ChunkId& chunk);

// Slot of a hash among `slots` (a power of two, 1 to 2^31): its high bits.
std::uint32_t slot_of(std::uint64_t hash, std::uint32_t slots);

// Ids always print the same way: 16 hex digits; chunk "DATA.INDEX.SHARD"; group "POOL/SLOT"; version
// "EPOCH:COUNTER".
std::string hex64(std::uint64_t value);
Result<std::uint64_t> parse_hex64(std::string_view text);
template <class Tag, class Rep>
std::string to_string(Id<Tag, Rep> id) {
  return hex64(id.value());
}
std::string to_string(const ChunkId& chunk);
std::string to_string(const GroupId& group);
std::string to_string(const Version& version);
std::string to_string(const JournalPosition& position);

}  // namespace cairn

template <class Tag, class Rep>
struct std::hash<cairn::Id<Tag, Rep>> {
  std::size_t operator()(cairn::Id<Tag, Rep> id) const noexcept {
    std::uint64_t x = id.value();
    x ^= x >> 33;
    x *= 0xff51afd7ed558ccdULL;
    x ^= x >> 33;
    return static_cast<std::size_t>(x);
  }
};
template <>
struct std::hash<cairn::GroupId> {
  std::size_t operator()(const cairn::GroupId& g) const noexcept {
    return std::hash<cairn::SessionId>{}(cairn::SessionId((std::uint64_t{g.pool.value()} << 32) | g.slot));
  }
};
template <>
struct std::hash<cairn::ChunkId> {
  std::size_t operator()(const cairn::ChunkId& c) const noexcept {
    return std::hash<cairn::DataId>{}(
        cairn::DataId(c.data.value() * 0x9e3779b97f4a7c15ULL + c.index * 0x10001ULL + c.shard));
  }
};
