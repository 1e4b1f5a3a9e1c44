#include "store/base/ids.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <array>
#include <charconv>

#include "store/base/bytes.h"

namespace cairn {
namespace {
constexpr std::uint64_t kPlacementSeed = 0x436169726e312e30ULL;  // "Cairn1.0"
}

std::uint64_t placement_hash(const ChunkId& chunk) {
  std::array<unsigned char, 8 + 4 + 2> key;
  store_be64(key.data(), chunk.data.value());
  store_be32(key.data() + 8, chunk.index);
  store_be16(key.data() + 12, chunk.shard);
  return XXH3_64bits_withSeed(key.data(), key.size(), kPlacementSeed);
}

std::uint32_t slot_of(std::uint64_t hash, std::uint32_t slots) {
  CHECK(slots != 0 && (slots & (slots - 1)) == 0, "number of slots must be a power of two");
  if (slots == 1) return 0;
  return static_cast<std::uint32_t>(hash >> (64 - __builtin_ctz(slots)));
}

std::string hex64(std::uint64_t value) {
  return fmt::format("{:016x}", value);
}

Result<std::uint64_t> parse_hex64(std::string_view text) {
  std::uint64_t value = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, 16);
  if (text.empty() || error != std::errc() || end != text.data() + text.size())
    return fail(Code::kInvalidArgument, fmt::format("'{}' is not a hexadecimal id", text));
  return value;
}

std::string to_string(const ChunkId& chunk) {
  return fmt::format("{:016x}.{}.{}", chunk.data.value(), chunk.index, chunk.shard);
}
std::string to_string(const GroupId& group) {
  return fmt::format("{}/{}", group.pool.value(), group.slot);
}
std::string to_string(const Version& version) {
  return fmt::format("{:x}:{}", version.epoch.value(), version.counter);
}
std::string to_string(const JournalPosition& position) {
  return fmt::format("{}.{}.{}", position.era.value(), position.term, position.index);
}

}  // namespace cairn
