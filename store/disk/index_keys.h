// The one list of keys in a target's RocksDB. One column family: a crash then keeps a prefix of the batches.
//
//   'c' chunk                        index record                    chunk_state.h
//   'd' chunk content:be32           bytes of an inline chunk
//   'k' chunk content:be32 row:be16  64 block checksums, little-endian u64 (one row a MiB)
//   'r' chunk content:be32 seq:be64  redo: bytes to write over an extent   chunk_state.h
//   's' name                         the engine's own state ("synced": u64 generation)
//   'v' name                         small named values of the target's owner
//
//   chunk = pool:be16 placement_hash:be64 data:be64 index:be32 shard:be16   (24 bytes)
//
// A placement group is a pool and the high bits of the hash, hence one key range of 'c' for any number of
// slots. `content` tells apart successive contents of one chunk (it grows when the bytes move to another
// place).
#pragma once

#include <array>
#include <compare>
#include <cstring>
#include <string>
#include <string_view>

#include "store/base/bytes.h"
#include "store/base/ids.h"

namespace cairn::disk {

enum class Table : char {
  kRecord = 'c',
  kInline = 'd',
  kChecksums = 'k',
  kRedo = 'r',
  kState = 's',
  kValue = 'v',
};

constexpr std::string_view kSyncedName = "synced";
constexpr std::size_t kChunkKeyBytes = 2 + 8 + 8 + 4 + 2;

struct ChunkKey {
  std::array<char, kChunkKeyBytes> bytes{};
  ChunkKey() = default;
  ChunkKey(PoolId pool, const ChunkId& chunk) : ChunkKey(pool, placement_hash(chunk), chunk) {}
  ChunkKey(PoolId pool, std::uint64_t hash, const ChunkId& chunk) {
    store_be16(bytes.data(), pool.value());
    store_be64(bytes.data() + 2, hash);
    store_be64(bytes.data() + 10, chunk.data.value());
    store_be32(bytes.data() + 18, chunk.index);
    store_be16(bytes.data() + 22, chunk.shard);
  }
  std::string_view view() const { return {bytes.data(), bytes.size()}; }
  PoolId pool() const { return PoolId(ByteReader(view()).be16()); }
  std::uint64_t hash() const { return ByteReader(view().substr(2)).be64(); }
  ChunkId chunk() const {
    ByteReader in(view().substr(10));
    ChunkId id;
    id.data = DataId(in.be64());
    id.index = in.be32();
    id.shard = in.be16();
    return id;
  }
  auto operator<=>(const ChunkKey&) const = default;
};

struct ChunkKeyHash {
  std::size_t operator()(const ChunkKey& key) const { return key.hash(); }
};

// A key of up to 40 bytes, built without allocation.
class IndexKey {
 public:
  IndexKey(Table table, const ChunkKey& chunk) {
    bytes_[0] = static_cast<char>(table);
    std::memcpy(bytes_.data() + 1, chunk.bytes.data(), kChunkKeyBytes);
    size_ = 1 + kChunkKeyBytes;
  }
  IndexKey& content(std::uint32_t id) {
    store_be32(bytes_.data() + size_, id);
    size_ += 4;
    return *this;
  }
  IndexKey& row(std::uint16_t number) {
    store_be16(bytes_.data() + size_, number);
    size_ += 2;
    return *this;
  }
  IndexKey& sequence(std::uint64_t number) {
    store_be64(bytes_.data() + size_, number);
    size_ += 8;
    return *this;
  }
  std::string_view view() const { return {bytes_.data(), size_}; }

 private:
  std::array<char, 40> bytes_;
  std::size_t size_ = 0;
};

inline std::string named_key(Table table, std::string_view name) {
  std::string key(1, static_cast<char>(table));
  key += name;
  return key;
}
// The first key after all keys of `table`.
inline std::string table_end(Table table) {
  return std::string(1, static_cast<char>(static_cast<char>(table) + 1));
}

// The chunk key inside a key of a chunk table; false if it is too short.
inline bool parse_chunk_key(std::string_view key, ChunkKey& to) {
  if (key.size() < 1 + kChunkKeyBytes) return false;
  std::memcpy(to.bytes.data(), key.data() + 1, kChunkKeyBytes);
  return true;
}

}  // namespace cairn::disk
