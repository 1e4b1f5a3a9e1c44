#include <fmt/format.h>

#include <algorithm>

#include "store/disk/engine.h"

namespace cairn::disk {
namespace {

constexpr std::size_t kCorruptMax = 1024;

std::unexpected<Error> no_chunk(const ChunkKey& key) {
  return fail(Code::kNotFound, fmt::format("no chunk {}", to_string(key.chunk())));
}

}  // namespace

Result<> Engine::load_record(Chunk& chunk) {
  rocksdb::PinnableSlice value;
  TRY(bool found, index_->get(IndexKey(Table::kRecord, chunk.key).view(), value));
  if (!found) {
    chunk.exists = false;
    return {};
  }
  auto decoded = decode_record(view(value), chunk);
  if (!decoded) return fail(decoded.error().with("chunk " + to_string(chunk.key.chunk())));
  // Loaded chunks are not in the stripe's cache, hence have nothing pending (see pinned()).
  if (is_settled(chunk.now)) chunk.before.clear();
  return {};
}

Result<> Engine::load_sums(Chunk& chunk, std::uint32_t first_block, std::uint32_t end_block) {
  if (!chunk.exists || chunk.now.blocks() <= kSumsInRecord) return {};
  chunk.sums.resize(chunk.now.blocks());
  for (std::uint32_t row = first_block / kSumsPerRow; row * kSumsPerRow < end_block; ++row) {
    IndexKey key = IndexKey(Table::kChecksums, chunk.key)
                       .content(chunk.now.content.id)
                       .row(static_cast<std::uint16_t>(row));
    rocksdb::PinnableSlice value;
    TRY(bool found, index_->get(key.view(), value));
    std::uint32_t first = row * kSumsPerRow;
    std::span<BlockChecksum> sums(chunk.sums.data() + first,
                                  std::min(kSumsPerRow, chunk.now.blocks() - first));
    if (!found || !decode_sums(view(value), sums))
      return corrupt(chunk, first, "its checksums are missing from the index");
  }
  return {};
}

// The chunk as cached, or loaded into `local`. The stripe is locked (shared will do). Never null.
Result<Chunk*> Engine::find_for_read(Stripe& stripe, const ChunkKey& key, Chunk& local) {
  auto found = stripe.chunks.find(key);
  if (found != stripe.chunks.end()) return found->second.get();
  local.key = key;
  TRYV(load_record(local));
  return &local;
}

std::unexpected<Error> Engine::corrupt(const Chunk& chunk, std::uint32_t block, std::string detail) {
  Error error(Code::kCorrupt,
              fmt::format("chunk {} block {} on target {} ({}): {}", to_string(chunk.key.chunk()), block,
                          to_string(superblock_.target), dir_, detail));
  std::lock_guard lock(lists_mutex_);
  auto same = [&](const CorruptChunk& other) {
    return other.info.chunk == chunk.key.chunk() && other.block == block;
  };
  if (corrupt_.size() < kCorruptMax && std::none_of(corrupt_.begin(), corrupt_.end(), same))
    corrupt_.push_back({info_of(chunk), block, std::move(detail)});
  return fail(std::move(error));
}

// Bytes as they are now (pending overwrites included), unverified. The range lies within the chunk's length.
Result<> Engine::read_raw(const Chunk& chunk, std::uint32_t offset, MutableBytes to) {
  if (to.empty()) return {};
  std::uint32_t block = offset / kBlockSize;
  if (chunk.now.content.place == Place::kInline) {
    rocksdb::PinnableSlice value;
    IndexKey key = IndexKey(Table::kInline, chunk.key).content(chunk.now.content.id);
    TRY(bool found, index_->get(key.view(), value));
    if (!found || value.size() != chunk.now.length)
      return corrupt(chunk, block, "its bytes are missing from the index");
    std::memcpy(to.data(), value.data() + offset, to.size());
    return {};
  }
  CHECK(chunk.now.content.place == Place::kExtent, "a chunk with bytes has a place");
  auto got = extents_->read(chunk.now.content.extent, offset, to);
  if (!got) return corrupt(chunk, block, got.error().message());
  overlay_redo(chunk.redo, offset, to);
  return {};
}

// Whole blocks from `first_block` on (the last one may end at the chunk's length); chunk.sums has theirs.
Result<> Engine::read_blocks(const Chunk& chunk, std::uint32_t first_block, MutableBytes to) {
  TRYV(read_raw(chunk, first_block * kBlockSize, to));
  std::uint32_t count = blocks_in(to.size());
  int bad = first_bad_block(to, std::span(chunk.sums).subspan(first_block, count));
  if (bad < 0) return {};
  return corrupt(chunk, first_block + static_cast<std::uint32_t>(bad),
                 "its bytes do not match their checksum");
}

Result<ChunkInfo> Engine::stat(PoolId pool, ChunkId id) {
  ChunkKey key(pool, id);
  Stripe& stripe = stripe_of(key);
  std::shared_lock lock(stripe.mutex);
  Chunk local;
  TRY(Chunk * chunk, find_for_read(stripe, key, local));
  if (!chunk->exists) return no_chunk(key);
  return info_of(*chunk);
}

Result<ReadResult> Engine::read(PoolId pool, ChunkId id, std::uint32_t offset, std::uint32_t length) {
  ChunkKey key(pool, id);
  Stripe& stripe = stripe_of(key);
  std::shared_lock lock(stripe.mutex);
  Chunk local;
  TRY(Chunk * chunk, find_for_read(stripe, key, local));
  if (!chunk->exists) return no_chunk(key);
  if (!chunk->present()) return fail(Code::kNotFound, "absent");
  ReadResult result;
  result.info = info_of(*chunk);
  std::uint32_t first_block = offset / kBlockSize;
  result.aligned_offset = first_block * kBlockSize;
  if (offset >= chunk->now.length || length == 0) return result;
  std::uint64_t end = std::min<std::uint64_t>(chunk->now.length, std::uint64_t{offset} + length);
  std::uint32_t end_block = blocks_in(end);
  end = std::min<std::uint64_t>(chunk->now.length, std::uint64_t{end_block} * kBlockSize);
  if (chunk == &local) TRYV(load_sums(*chunk, first_block, end_block));
  // Not zeroed first: these bytes are about to be overwritten. (libstdc++ 12 hands the capacity to the
  // operation.)
  std::size_t size = end - result.aligned_offset;
  result.data.resize_and_overwrite(size, [size](char*, std::size_t) { return size; });
  TRYV(read_blocks(*chunk, first_block, writable(result.data)));
  result.checksums.assign(chunk->sums.begin() + first_block, chunk->sums.begin() + end_block);
  return result;
}

Result<std::vector<BlockChecksum>> Engine::checksums(PoolId pool, ChunkId id) {
  ChunkKey key(pool, id);
  Stripe& stripe = stripe_of(key);
  std::shared_lock lock(stripe.mutex);
  Chunk local;
  TRY(Chunk * chunk, find_for_read(stripe, key, local));
  if (!chunk->exists) return no_chunk(key);
  if (chunk == &local) TRYV(load_sums(*chunk, 0, chunk->now.blocks()));
  return chunk->sums;
}

Result<bool> Engine::synced(PoolId pool, ChunkId id, Version version) {
  ChunkKey key(pool, id);
  Stripe& stripe = stripe_of(key);
  std::shared_lock lock(stripe.mutex);
  Chunk local;
  TRY(Chunk * chunk, find_for_read(stripe, key, local));
  if (!chunk->exists) return false;
  std::uint64_t done = synced_generation_.load(std::memory_order_acquire);
  if (chunk->now.generation <= done) return chunk->now.version >= version;
  for (const State& state : chunk->before)
    if (state.generation <= done) return state.version >= version;
  return false;
}

Result<> Engine::visit_range(std::string_view begin, std::string_view end,
                             const std::function<bool(const ChunkInfo&)>& visit) {
  rocksdb::Slice upper = slice(end);
  auto rows = index_->iterate(&upper, false);
  for (rows->Seek(slice(begin)); rows->Valid(); rows->Next()) {
    Chunk chunk;
    if (!parse_chunk_key(view(rows->key()), chunk.key)) return fail(Code::kCorrupt, "index: malformed key");
    auto decoded = decode_record(view(rows->value()), chunk);
    if (!decoded) return fail(decoded.error().with("chunk " + to_string(chunk.key.chunk())));
    if (!visit(info_of(chunk))) return {};
  }
  return Index::check(*rows);
}

Result<> Engine::for_each(GroupId group, std::uint32_t slots, std::optional<ChunkId> after,
                          const std::function<bool(const ChunkInfo&)>& visit) {
  if (slots == 0 || (slots & (slots - 1)) != 0 || group.slot >= slots)
    return fail(Code::kInvalidArgument, fmt::format("group {} of {} slots", to_string(group), slots));
  int shift = 64 - __builtin_ctz(slots);
  auto hash_of = [&](std::uint32_t slot) { return shift == 64 ? 0 : std::uint64_t{slot} << shift; };
  std::string begin(IndexKey(Table::kRecord, ChunkKey(group.pool, hash_of(group.slot), {})).view());
  std::string end;
  if (group.slot + 1 < slots)
    end = IndexKey(Table::kRecord, ChunkKey(group.pool, hash_of(group.slot + 1), {})).view();
  else if (group.pool.value() != UINT16_MAX)
    end =
        IndexKey(Table::kRecord, ChunkKey(PoolId(static_cast<std::uint16_t>(group.pool.value() + 1)), 0, {}))
            .view();
  else
    end = table_end(Table::kRecord);
  if (after) {
    begin = IndexKey(Table::kRecord, ChunkKey(group.pool, *after)).view();
    begin.push_back('\0');  // the next possible key
  }
  return visit_range(begin, end, visit);
}

Result<> Engine::for_each(const std::function<bool(const ChunkInfo&)>& visit) {
  return visit_range(named_key(Table::kRecord, ""), table_end(Table::kRecord), visit);
}

Usage Engine::usage() {
  Usage usage;
  usage.capacity_bytes = space_->capacity_bytes();
  usage.available_bytes = space_->available_bytes();
  usage.used_bytes = space_->used_bytes();
  usage.chunks = static_cast<std::uint64_t>(std::max<std::int64_t>(0, chunks_.load()));
  return usage;
}

std::vector<CorruptChunk> Engine::take_corrupt() {
  std::lock_guard lock(lists_mutex_);
  return std::exchange(corrupt_, {});
}

Result<std::optional<std::string>> Engine::get_value(std::string_view key) {
  rocksdb::PinnableSlice value;
  TRY(bool found, index_->get(named_key(Table::kValue, key), value));
  if (!found) return std::nullopt;
  return value.ToString();
}

Result<std::vector<std::pair<std::string, std::string>>> Engine::values(std::string_view prefix) {
  std::vector<std::pair<std::string, std::string>> result;
  std::string begin = named_key(Table::kValue, prefix);
  std::string end = table_end(Table::kValue);
  rocksdb::Slice upper = slice(end);
  auto rows = index_->iterate(&upper, true);
  for (rows->Seek(slice(begin)); rows->Valid() && rows->key().starts_with(slice(begin)); rows->Next())
    result.emplace_back(rows->key().ToString().substr(1), rows->value().ToString());
  TRYV(Index::check(*rows));
  return result;
}

}  // namespace cairn::disk
