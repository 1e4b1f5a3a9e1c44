#include <fmt/format.h>

#include <algorithm>

#include "store/disk/engine.h"

namespace cairn::disk {
namespace {

constexpr std::uint64_t kCopyPiece = 1 << 20;

BlockChecksum zero_block_sum() {
  static const BlockChecksum sum = checksum64(as_bytes(std::string(kBlockSize, '\0')));
  return sum;
}

Result<> check_given(Bytes data, std::span<const BlockChecksum> given, const ChunkId& id) {
  if (given.empty()) return {};
  if (given.size() != blocks_in(data.size()))
    return fail(Code::kInvalidArgument, fmt::format("chunk {}: {} checksums for {} blocks", to_string(id),
                                                    given.size(), blocks_in(data.size())));
  int bad = first_bad_block(data, given);
  if (bad < 0) return {};
  return fail(Code::kCorrupt,
              fmt::format("chunk {}: block {} of the data does not match its checksum", to_string(id), bad));
}

Result<> check_range(const ChunkId& id, std::uint64_t end) {
  if (end <= kChunkBytesMax) return {};
  return fail(Code::kRange, fmt::format("chunk {}: {} bytes exceed the most a chunk holds ({})",
                                        to_string(id), end, kChunkBytesMax));
}

Result<> check_not_object(const Chunk& chunk) {
  if (!chunk.present() || !chunk.now.object) return {};
  return fail(Code::kInvalidArgument,
              fmt::format("chunk {} belongs to an object: objects are never overwritten",
                          to_string(chunk.key.chunk())));
}

}  // namespace

bool Engine::pinned(const Chunk& chunk) const {
  if (!chunk.exists) return false;
  std::uint64_t synced = synced_generation_.load(std::memory_order_acquire);
  return !chunk.redo.empty() || !chunk.old_redo.empty() || !chunk.before.empty() || !is_settled(chunk.now) ||
         chunk.hold_generation > synced;
}

void Engine::evict(Stripe& stripe) {
  std::erase_if(stripe.chunks, [&](const auto& entry) {
    return stripe.chunks.size() >= kCachedPerStripe && !pinned(*entry.second);
  });
}

// The stripe is locked exclusively. The chunk stays in its cache until evicted by a later call.
Result<Chunk*> Engine::load_for_write(Stripe& stripe, const ChunkKey& key) {
  auto found = stripe.chunks.find(key);
  if (found != stripe.chunks.end()) {
    Chunk& chunk = *found->second;
    // Fallbacks in the same extent need no clean-up of their own: forget them once they are not needed.
    if (!chunk.before.empty() && is_settled(chunk.now) && chunk.old_redo.empty() &&
        std::all_of(chunk.before.begin(), chunk.before.end(),
                    [&](const State& state) { return state.content.id == chunk.now.content.id; }))
      chunk.before.clear();
    return &chunk;
  }
  auto chunk = std::make_unique<Chunk>();
  chunk->key = key;
  TRYV(load_record(*chunk));
  TRYV(load_sums(*chunk, 0, chunk->now.blocks()));
  if (stripe.chunks.size() >= kCachedPerStripe) evict(stripe);
  return stripe.chunks.emplace(key, std::move(chunk)).first->second.get();
}

Result<bool> Engine::already_done(const Chunk& chunk, const WriteOptions& options) {
  if (!options.version.valid())
    return fail(Code::kInvalidArgument,
                fmt::format("chunk {}: a write needs a version", to_string(chunk.key.chunk())));
  if (!chunk.exists || options.version > chunk.now.version) return false;
  if (options.version == chunk.now.version && options.request == chunk.now.request) return true;
  return fail(Code::kStale,
              fmt::format("chunk {}: version {} is not above the stored {}", to_string(chunk.key.chunk()),
                          to_string(options.version), to_string(chunk.now.version)));
}

Result<> Engine::check_writable() const {
  if (!failed_.load(std::memory_order_acquire)) return {};
  return fail(Code::kIo, fmt::format("target {} ({}) failed before and takes no writes: replace the disk",
                                     to_string(superblock_.target), dir_));
}

Result<> Engine::check_storable() {
  if (ballast_->held() || ballast_->take()) return {};
  return fail(Code::kNoSpace, fmt::format("the file system of {} is full: only removals are taken", dir_));
}

Engine::Change Engine::change_of(const Chunk& chunk, const WriteOptions& options) {
  Change change;
  if (chunk.exists) change.next = chunk.now;
  change.next.presence = ChunkState::kPresent;
  change.next.version = options.version;
  change.next.request = options.request;
  change.sums = chunk.sums;
  change.owner_hint = options.owner_hint.valid() ? options.owner_hint : chunk.owner_hint;
  return change;
}

template <class Prepare>
Result<ChunkInfo> Engine::change_chunk(ChunkId id, const WriteOptions& options, Kind kind, Prepare prepare) {
  TRYV(check_writable());
  if (kind == Kind::kStores) TRYV(check_storable());
  ChunkKey key(options.pool, id);
  Stripe& stripe = stripe_of(key);
  auto attempt = [&]() -> Result<ChunkInfo> {
    std::unique_lock lock(stripe.mutex);
    TRY(Chunk * chunk, load_for_write(stripe, key));
    Change change = change_of(*chunk, options);
    TRY(bool go_on, prepare(*chunk, change));
    if (!go_on) return info_of(*chunk);
    TRYV(commit(*chunk, change));
    return info_of(*chunk);
  };
  Result<ChunkInfo> changed = attempt();
  if (!changed && changed.error().code() == Code::kNoSpace && extents_->has_freed()) {
    // What was removed becomes free with a sync.
    TRYV(sync());
    after_sync();
    changed = attempt();
  }
  if (!changed) return changed;
  relieve();
  if (options.durable) TRYV(sync());
  return changed;
}

Result<ChunkInfo> Engine::write(ChunkId id, std::uint32_t offset, Bytes data,
                                std::span<const BlockChecksum> checksums, const WriteOptions& options) {
  TRYV(check_range(id, std::uint64_t{offset} + data.size()));
  TRYV(check_given(data, checksums, id));
  std::uint32_t end = offset + static_cast<std::uint32_t>(data.size());
  return change_chunk(id, options, Kind::kStores, [&](Chunk& chunk, Change& change) -> Result<bool> {
    TRY(bool done, already_done(chunk, options));
    if (done) return false;
    TRYV(check_not_object(chunk));
    if (!checksums.empty() && (offset % kBlockSize != 0 || (end % kBlockSize != 0 && end < chunk.length())))
      return fail(Code::kInvalidArgument,
                  fmt::format("chunk {}: checksums given for [{}, {}), which is not whole blocks",
                              to_string(id), offset, end));
    std::uint32_t at = data.empty() ? std::min(offset, chunk.length()) : offset;
    TRYV(fill(chunk, change, std::min(at, chunk.length()), at, data, checksums));
    return true;
  });
}

Result<ChunkInfo> Engine::truncate(ChunkId id, std::uint32_t length, const WriteOptions& options) {
  TRYV(check_range(id, length));
  return change_chunk(id, options, Kind::kStores, [&](Chunk& chunk, Change& change) -> Result<bool> {
    TRY(bool done, already_done(chunk, options));
    if (done) return false;
    TRYV(check_not_object(chunk));
    if (length >= chunk.length())
      TRYV(fill(chunk, change, chunk.length(), length, {}, {}));
    else
      TRYV(cut(chunk, change, length));
    return true;
  });
}

Result<ChunkInfo> Engine::punch(ChunkId id, std::uint32_t offset, std::uint32_t length,
                                const WriteOptions& options) {
  return change_chunk(id, options, Kind::kStores, [&](Chunk& chunk, Change& change) -> Result<bool> {
    TRY(bool done, already_done(chunk, options));
    if (done) return false;
    TRYV(check_not_object(chunk));
    std::uint32_t begin = std::min(offset, chunk.length());
    std::uint64_t end = std::min<std::uint64_t>(std::uint64_t{offset} + length, chunk.length());
    TRYV(fill(chunk, change, begin, std::max(begin, static_cast<std::uint32_t>(end)), {}, {}));
    return true;
  });
}

Result<ChunkInfo> Engine::make_absent(ChunkId id, const WriteOptions& options) {
  return change_chunk(id, options, Kind::kRemoves, [&](Chunk& chunk, Change& change) -> Result<bool> {
    TRY(bool done, already_done(chunk, options));
    if (done) return false;
    empty_out(change);
    change.next.presence = ChunkState::kAbsent;
    change.next.object = false;
    return true;
  });
}

Result<ChunkInfo> Engine::reversion(ChunkId id, const WriteOptions& options) {
  return change_chunk(id, options, Kind::kStores, [&](Chunk& chunk, Change& change) -> Result<bool> {
    if (!chunk.exists) return fail(Code::kNotFound, fmt::format("no chunk {}", to_string(id)));
    TRY(bool done, already_done(chunk, options));
    if (done) return false;
    change.next.presence = chunk.now.presence;
    return true;
  });
}

Result<ChunkInfo> Engine::put(ChunkId id, Bytes data, std::span<const BlockChecksum> checksums, PutMode mode,
                              const WriteOptions& options) {
  TRYV(check_range(id, data.size()));
  TRYV(check_given(data, checksums, id));
  std::vector<BlockChecksum> sums = checksums.empty()
                                        ? block_checksums(data)
                                        : std::vector<BlockChecksum>(checksums.begin(), checksums.end());
  Digest digest = chunk_digest(static_cast<std::uint32_t>(data.size()), sums);
  return change_chunk(id, options, Kind::kStores, [&](Chunk& chunk, Change& change) -> Result<bool> {
    if (mode == PutMode::kObjectOnce && chunk.present()) {
      if (chunk.now.object && chunk.now.digest == digest) return false;
      return fail(Code::kExists, fmt::format("chunk {} is there with digest {}, not {}", to_string(id),
                                             to_string(chunk.now.digest), to_string(digest)));
    }
    TRY(bool done, already_done(chunk, options));
    if (done) return false;
    change.next.object = mode == PutMode::kObjectOnce || options.object;
    TRYV(replace_all(change, data, sums));
    return true;
  });
}

// Writes in place: no state changes, so there is nothing to fall back from. Where a logged overwrite of the
// block is still pending, the bytes under it are brought up to date with it, which its redo does anyway.
Result<> Engine::mend(PoolId pool, ChunkId id, std::uint32_t first_block, Bytes data) {
  TRYV(check_writable());
  ChunkKey key(pool, id);
  Stripe& stripe = stripe_of(key);
  {
    std::unique_lock lock(stripe.mutex);
    TRY(const Chunk* chunk, load_for_write(stripe, key));
    const std::uint64_t begin = std::uint64_t{first_block} * kBlockSize;
    const std::uint64_t end = begin + data.size();
    const bool whole_blocks = end == chunk->length() || (end < chunk->length() && end % kBlockSize == 0);
    if (data.empty() || !whole_blocks ||
        first_bad_block(data, std::span(chunk->sums).subspan(first_block, blocks_in(data.size()))) >= 0)
      return fail(Code::kStale, fmt::format("chunk {}: the blocks from {} on are others than those offered",
                                            to_string(id), first_block));
    GenerationGate::Pass pass(*gate_);
    const auto offset = static_cast<std::uint32_t>(begin);
    if (chunk->now.content.place == Place::kInline)
      TRYV(mend_inline(*chunk, offset, data));
    else
      TRYV(extents_->write(chunk->now.content.extent, offset, data, ExtentStore::Cover::kUnsynced));
    pass.committed();
  }
  return sync();
}

Result<> Engine::mend_inline(const Chunk& chunk, std::uint32_t offset, Bytes data) {
  IndexKey key = IndexKey(Table::kInline, chunk.key).content(chunk.now.content.id);
  rocksdb::PinnableSlice value;
  TRY(bool found, index_->get(key.view(), value));
  std::string bytes = found ? value.ToString() : std::string();
  bytes.resize(chunk.now.length, '\0');  // a row of another length is damaged: what is not mended stays bad
  std::memcpy(bytes.data() + offset, data.data(), data.size());
  rocksdb::WriteBatch batch;
  batch.Put(slice(key.view()), slice(bytes));
  return write_index(batch);
}

Result<> Engine::set_value(std::string_view key, std::string_view value) {
  TRYV(check_writable());
  {
    GenerationGate::Pass pass(*gate_);
    rocksdb::WriteBatch batch;
    batch.Put(named_key(Table::kValue, key), slice(value));
    TRYV(write_index(batch));
    pass.committed();
  }
  return sync();
}

// --- what the operations change ---

void Engine::empty_out(Change& change) {
  change.next.length = 0;
  change.next.content = {change.next.content.id + 1, Place::kNone, {}};
  change.sums.clear();
  change.first_changed_block = change.end_changed_block = 0;
}

Result<> Engine::replace_all(Change& change, Bytes data, std::vector<BlockChecksum> sums) {
  empty_out(change);
  change.next.length = static_cast<std::uint32_t>(data.size());
  change.sums = std::move(sums);
  change.end_changed_block = change.next.blocks();
  if (data.empty()) return {};
  if (data.size() <= options_.inline_bytes_max) {
    change.next.content.place = Place::kInline;
    change.inline_bytes = as_text(data);
    return space_->admit(data.size());
  }
  TRYV(take_fresh(change, 0));
  return write_direct(change, 0, data);
}

// A new extent for all of change.next, with room to grow up to `room_class`.
Result<> Engine::take_fresh(Change& change, int room_class) {
  int size_class = class_for(change.next.length);
  TRYV(space_->admit(class_bytes(size_class)));
  TRY(Extent extent, extents_->allocate(size_class, room_class));
  change.fresh = extent;
  ++change.next.content.id;
  change.next.content.place = Place::kExtent;
  change.next.content.extent = extent;
  return {};
}

Result<> Engine::write_direct(Change& change, std::uint32_t offset, Bytes data) {
  change.direct = true;
  change.written_bytes += data.size();
  auto written = extents_->write(change.next.content.extent, offset, data, ExtentStore::Cover::kUnsynced);
  if (!written) abandon(change);
  return written;
}

Result<> Engine::fill(Chunk& chunk, Change& change, std::uint32_t begin, std::uint32_t data_begin, Bytes data,
                      std::span<const BlockChecksum> given) {
  std::uint32_t end = data_begin + static_cast<std::uint32_t>(data.size());
  change.next.length = std::max(chunk.length(), end);
  if (begin == end) return {};
  if (change.next.content.place != Place::kExtent && change.next.length <= options_.inline_bytes_max)
    return fill_inline(chunk, change, begin, data_begin, data, given);
  TRYV(fill_sums(chunk, change, begin, data_begin, data, given));
  if (change.next.content.place != Place::kExtent) return fill_fresh(chunk, change, begin, data_begin, data);

  // What a power cut could bring back must not be touched in place before it is logged.
  std::uint32_t hold = effective_hold(chunk);
  std::uint32_t overlap = data_begin < hold ? std::min(end, hold) - data_begin : 0;
  if (overlap > kRedoMax) return fill_fresh(chunk, change, begin, data_begin, data);
  if (change.next.length > change.next.content.extent.bytes()) {
    Extent before = change.next.content.extent;
    int size_class = class_for(change.next.length);
    TRYV(space_->admit(class_bytes(size_class) - before.bytes()));
    if (!extents_->grow(change.next.content.extent, size_class))
      return fill_fresh(chunk, change, begin, data_begin, data);
    change.grown_from = before;
  }
  auto filled = fill_in_place(chunk, change, begin, data_begin, data, overlap);
  if (!filled) abandon(change);
  return filled;
}

Result<> Engine::fill_inline(Chunk& chunk, Change& change, std::uint32_t begin, std::uint32_t data_begin,
                             Bytes data, std::span<const BlockChecksum> given) {
  TRYV(space_->admit(change.next.length));
  std::uint32_t old_length = chunk.length();
  std::uint32_t end = data_begin + static_cast<std::uint32_t>(data.size());
  if (change.next.content.place == Place::kNone)
    change.next.content = {change.next.content.id + 1, Place::kInline, {}};
  change.first_changed_block = 0;
  change.end_changed_block = change.next.blocks();
  if (begin == 0 && data_begin == 0 && end >= old_length) {
    change.inline_bytes = as_text(data);
    if (given.empty())
      change.sums = block_checksums(data);
    else
      change.sums.assign(given.begin(), given.end());
    return {};
  }
  std::string& bytes = change.inline_buffer;
  bytes.resize(change.next.length);
  if (old_length > 0) TRYV(read_blocks(chunk, 0, writable(bytes).first(old_length)));
  std::memset(bytes.data() + begin, 0, data_begin - begin);
  if (!data.empty()) std::memcpy(bytes.data() + data_begin, data.data(), data.size());
  change.inline_bytes = bytes;
  change.sums = block_checksums(as_bytes(bytes));
  return {};
}

// Checksums of the blocks that get zeros in [begin, data_begin) and then `data`.
Result<> Engine::fill_sums(const Chunk& chunk, Change& change, std::uint32_t begin, std::uint32_t data_begin,
                           Bytes data, std::span<const BlockChecksum> given) {
  std::uint32_t old_length = chunk.length();
  std::uint32_t length = change.next.length;
  std::uint32_t end = data_begin + static_cast<std::uint32_t>(data.size());
  change.first_changed_block = begin / kBlockSize;
  change.end_changed_block = blocks_in(end);
  change.sums.resize(blocks_in(length));
  std::string buffer;
  for (std::uint32_t block = change.first_changed_block; block < change.end_changed_block; ++block) {
    std::uint32_t from = block * kBlockSize;
    std::uint32_t to = std::min(from + kBlockSize, length);
    if (from >= data_begin && to <= end) {
      change.sums[block] = given.empty() ? checksum64(data.subspan(from - data_begin, to - from))
                                         : given[(from - data_begin) / kBlockSize];
      continue;
    }
    if (from >= begin && to <= data_begin && to - from == kBlockSize) {
      change.sums[block] = zero_block_sum();
      continue;
    }
    buffer.assign(to - from, '\0');
    MutableBytes bytes = writable(buffer);
    if (from < old_length && !(from >= begin && to <= end))
      TRYV(read_blocks(chunk, block, bytes.first(std::min(to, old_length) - from)));
    std::uint32_t zero_from = std::max(begin, from);
    std::uint32_t zero_to = std::min(data_begin, to);
    if (zero_from < zero_to) std::memset(buffer.data() + (zero_from - from), 0, zero_to - zero_from);
    std::uint32_t data_from = std::max(data_begin, from);
    std::uint32_t data_to = std::min(end, to);
    if (data_from < data_to)
      std::memcpy(buffer.data() + (data_from - from), data.data() + (data_from - data_begin),
                  data_to - data_from);
    change.sums[block] = checksum64(as_bytes(buffer));
  }
  return {};
}

// Parts below `hold` are logged, to be written in place later; what lies past it goes straight to the extent.
Result<> Engine::fill_in_place(const Chunk& chunk, Change& change, std::uint32_t begin,
                               std::uint32_t data_begin, Bytes data, std::uint32_t overlap) {
  if (begin < data_begin) add_redo(chunk, change, begin, data_begin - begin, {});
  if (overlap > 0 && data.size() > overlap) {
    // A writer of whole blocks sends the last partial block again; mostly with the same bytes.
    TRY(bool repeated, repeats_old(chunk, data_begin, data.first(overlap)));
    if (repeated) {
      data = data.subspan(overlap);
      data_begin += overlap;
      overlap = 0;
    }
  }
  if (overlap > 0) add_redo(chunk, change, data_begin, overlap, data.first(overlap));
  data = data.subspan(overlap);
  if (data.empty()) return {};
  change.direct = true;
  change.written_bytes += data.size();
  return extents_->write(change.next.content.extent, data_begin + overlap, data,
                         ExtentStore::Cover::kUnsynced);
}

void Engine::add_redo(const Chunk& chunk, Change& change, std::uint32_t offset, std::uint32_t length,
                      Bytes bytes) {
  Redo redo;
  redo.offset = offset;
  redo.length = length;
  redo.zeros = bytes.empty();
  redo.bytes = as_text(bytes);
  std::uint32_t end_block =
      std::min<std::uint32_t>(blocks_in(offset + length), static_cast<std::uint32_t>(chunk.sums.size()));
  for (std::uint32_t block = redo.first_block(); block < end_block; ++block)
    redo.old_sums.push_back(chunk.sums[block]);
  change.redo.push_back(std::move(redo));
}

// Whether the chunk already has exactly `data` at `offset`. Only asked of a short range at its end.
Result<bool> Engine::repeats_old(const Chunk& chunk, std::uint32_t offset, Bytes data) {
  if (data.size() > kBlockSize || offset + data.size() != chunk.length()) return false;
  std::string old(data.size(), '\0');
  TRYV(read_raw(chunk, offset, writable(old)));
  return std::memcmp(old.data(), data.data(), data.size()) == 0;
}

// Copy-on-write: a fresh extent with the old bytes that stay, then zeros and data.
Result<> Engine::fill_fresh(Chunk& chunk, Change& change, std::uint32_t begin, std::uint32_t data_begin,
                            Bytes data) {
  std::uint32_t end = data_begin + static_cast<std::uint32_t>(data.size());
  TRYV(take_fresh(change, kRoomClass));
  change.direct = true;
  auto build = [&]() -> Result<> {
    const Extent& extent = change.next.content.extent;
    TRYV(copy_old(chunk, extent, 0, std::min(begin, chunk.length())));
    if (begin < data_begin)
      TRYV(extents_->zero(extent, begin, data_begin - begin, ExtentStore::Cover::kUnsynced));
    if (!data.empty()) TRYV(extents_->write(extent, data_begin, data, ExtentStore::Cover::kUnsynced));
    if (end < chunk.length()) TRYV(copy_old(chunk, extent, end, chunk.length()));
    return {};
  };
  change.written_bytes += change.next.length;
  auto built = build();
  if (!built) abandon(change);
  return built;
}

// The copied blocks keep their checksums, so a damaged one stays recognisable; none is verified here.
Result<> Engine::copy_old(const Chunk& chunk, const Extent& to, std::uint32_t from, std::uint32_t until) {
  std::string buffer;
  while (from < until) {
    buffer.resize(std::min<std::uint64_t>(kCopyPiece, until - from));
    TRYV(read_raw(chunk, from, writable(buffer)));
    TRYV(extents_->write(to, from, as_bytes(buffer), ExtentStore::Cover::kUnsynced));
    from += static_cast<std::uint32_t>(buffer.size());
  }
  return {};
}

// Shortens the chunk; `length` is below its present one.
Result<> Engine::cut(Chunk& chunk, Change& change, std::uint32_t length) {
  if (length == 0) {
    empty_out(change);
    return {};
  }
  change.next.length = length;
  std::uint32_t last = blocks_in(length) - 1;
  std::uint32_t part = length - last * kBlockSize;
  change.sums.resize(last + 1);
  change.first_changed_block = last;
  change.end_changed_block = last + 1;
  std::string block(std::min(kBlockSize, chunk.length() - last * kBlockSize), '\0');
  if (part < block.size()) {
    TRYV(read_blocks(chunk, last, writable(block)));
    change.sums[last] = checksum64(as_bytes(block).first(part));
  }
  if (change.next.content.place == Place::kInline) {
    change.inline_buffer.resize(length);
    TRYV(read_raw(chunk, 0, writable(change.inline_buffer)));
    change.inline_bytes = change.inline_buffer;
    return {};
  }
  Extent& extent = change.next.content.extent;
  int size_class = class_for(length);
  for (int c = size_class; c < extent.size_class; ++c)
    change.cut.push_back({extent.unit + (std::uint64_t{1} << c), static_cast<std::uint8_t>(c)});
  extent.size_class = static_cast<std::uint8_t>(size_class);
  return {};
}

std::uint32_t Engine::effective_hold(const Chunk& chunk) const {
  std::uint32_t length = chunk.length();
  return chunk.hold_generation > synced_generation_.load(std::memory_order_acquire)
             ? std::max(chunk.hold, length)
             : length;
}

}  // namespace cairn::disk
