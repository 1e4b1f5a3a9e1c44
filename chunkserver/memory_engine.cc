#include "chunkserver/memory_engine.h"

#include <algorithm>
#include <cstring>

namespace cairn::chunkserver {

using disk::ChunkInfo;
using disk::ChunkState;
using disk::WriteOptions;

MemoryDisk::MemoryDisk(ClusterId cluster, ServerId server, TargetId target, std::uint64_t capacity_bytes)
    : capacity_(capacity_bytes) {
  superblock_.cluster = cluster;
  superblock_.server = server;
  superblock_.target = target;
  superblock_.era = Era(1);
}

void MemoryDisk::store(const Key& key, std::optional<Stored> next) {
  auto at = chunks_.find(key);
  History& history = unsynced_[key];
  if (history.empty())
    history.push_back(at == chunks_.end() ? std::nullopt : std::optional<Stored>(at->second));
  history.push_back(next);
  if (next)
    chunks_.insert_or_assign(key, std::move(*next));
  else if (at != chunks_.end())
    chunks_.erase(at);
}

void MemoryDisk::power_cut(Rng& rng) {
  std::lock_guard lock(mutex_);
  for (auto& [key, history] : unsynced_) {
    auto& kept = history[rng.below(history.size())];
    if (kept)
      chunks_.insert_or_assign(key, *kept);
    else
      chunks_.erase(key);
  }
  unsynced_.clear();
}

bool MemoryDisk::damage(PoolId pool, ChunkId chunk, std::uint32_t at) {
  std::lock_guard lock(mutex_);
  auto found = chunks_.find(key(pool, chunk));
  if (found == chunks_.end() || at >= found->second.bytes.size()) return false;
  found->second.bytes[at] ^= 0x40;
  return true;
}

void MemoryDisk::plant(PoolId pool, ChunkId chunk, Version version, std::string content) {
  std::lock_guard lock(mutex_);
  Stored stored;
  stored.info.chunk = chunk;
  stored.info.pool = pool;
  stored.info.version = version;
  stored.info.length = static_cast<std::uint32_t>(content.size());
  stored.sums = block_checksums(as_bytes(content));
  stored.info.digest = chunk_digest(stored.info.length, stored.sums);
  stored.bytes = std::move(content);
  chunks_.insert_or_assign(key(pool, chunk), std::move(stored));
}

std::optional<std::string> MemoryDisk::content(PoolId pool, ChunkId chunk) const {
  std::lock_guard lock(mutex_);
  auto at = chunks_.find(key(pool, chunk));
  if (at == chunks_.end() || at->second.info.state == ChunkState::kAbsent) return std::nullopt;
  return at->second.bytes;
}

std::optional<ChunkInfo> MemoryDisk::info(PoolId pool, ChunkId chunk) const {
  std::lock_guard lock(mutex_);
  auto at = chunks_.find(key(pool, chunk));
  if (at == chunks_.end()) return std::nullopt;
  return at->second.info;
}

std::size_t MemoryDisk::chunks() const {
  std::lock_guard lock(mutex_);
  return chunks_.size();
}

std::uint64_t MemoryDisk::used() const {
  std::uint64_t sum = 0;
  for (const auto& [key, stored] : chunks_) sum += stored.bytes.size();
  return sum;
}

class MemoryEngine final : public disk::ChunkEngine {
 public:
  explicit MemoryEngine(std::shared_ptr<MemoryDisk> disk) : disk_(std::move(disk)) {
    std::lock_guard lock(disk_->mutex_);
    ++disk_->superblock_.boot_count;
    superblock_ = disk_->superblock_;
  }

  const disk::Superblock& superblock() const override { return superblock_; }

  Result<ChunkInfo> stat(PoolId pool, ChunkId chunk) override {
    std::lock_guard lock(disk_->mutex_);
    TRY(Stored * stored, find(pool, chunk));
    return stored->info;
  }

  Result<disk::ReadResult> read(PoolId pool, ChunkId chunk, std::uint32_t offset,
                                std::uint32_t length) override {
    std::lock_guard lock(disk_->mutex_);
    TRYV(check_disk());
    TRY(Stored * stored, find(pool, chunk));
    if (stored->info.state == ChunkState::kAbsent) return fail(Code::kNotFound, "absent");
    disk::ReadResult out;
    out.info = stored->info;
    const std::uint64_t size = stored->bytes.size();
    const std::uint64_t from = std::min<std::uint64_t>(offset / kBlockSize * kBlockSize, size);
    std::uint64_t to = std::min<std::uint64_t>(std::uint64_t{offset} + length, size);
    if (offset >= size || length == 0) to = from;
    to = std::min<std::uint64_t>((to + kBlockSize - 1) / kBlockSize * kBlockSize, size);
    out.aligned_offset = static_cast<std::uint32_t>(from);
    if (to <= from) return out;
    out.data = stored->bytes.substr(from, to - from);
    const std::size_t first = from / kBlockSize;
    out.checksums.assign(stored->sums.begin() + static_cast<std::ptrdiff_t>(first),
                         stored->sums.begin() + static_cast<std::ptrdiff_t>(first + blocks_in(to - from)));
    const int bad = first_bad_block(as_bytes(out.data), out.checksums);
    if (bad < 0) return out;
    disk_->corrupt_.push_back(
        {stored->info, static_cast<std::uint32_t>(first) + static_cast<std::uint32_t>(bad), "flipped"});
    return fail(Code::kCorrupt, "chunk " + to_string(chunk) + " does not match its checksum");
  }

  Result<std::vector<BlockChecksum>> checksums(PoolId pool, ChunkId chunk) override {
    std::lock_guard lock(disk_->mutex_);
    TRY(Stored * stored, find(pool, chunk));
    return stored->sums;
  }

  Result<ChunkInfo> write(ChunkId chunk, std::uint32_t offset, Bytes data,
                          std::span<const BlockChecksum> checksums, const WriteOptions& options) override {
    if (!checksums.empty() && first_bad_block(data, checksums) >= 0)
      return fail(Code::kCorrupt, "bad bytes given");
    return change(chunk, options, [&](Stored& stored) -> Result<> {
      if (stored.info.object) return fail(Code::kInvalidArgument, "object");
      const std::size_t end = offset + data.size();
      if (!checksums.empty() &&
          (offset % kBlockSize != 0 || (end % kBlockSize != 0 && end < stored.bytes.size())))
        return fail(Code::kInvalidArgument, "not whole blocks");
      if (stored.bytes.size() < end) stored.bytes.resize(end, '\0');
      std::memcpy(stored.bytes.data() + offset, data.data(), data.size());
      return {};
    });
  }

  Result<ChunkInfo> put(ChunkId chunk, Bytes data, std::span<const BlockChecksum> checksums, PutMode mode,
                        const WriteOptions& options) override {
    if (data.size() > 0 && first_bad_block(data, checksums) >= 0)
      return fail(Code::kCorrupt, "bad bytes given");
    const Digest digest = chunk_digest(static_cast<std::uint32_t>(data.size()), block_checksums(data));
    if (mode == PutMode::kObjectOnce) {
      std::lock_guard lock(disk_->mutex_);
      auto found = find(options.pool, chunk);
      if (found && (*found)->info.state == ChunkState::kPresent && (*found)->info.object) {
        if ((*found)->info.digest == digest) return (*found)->info;
        return fail(Code::kExists, "other bytes");
      }
    }
    return change(chunk, options, [&](Stored& stored) -> Result<> {
      stored.bytes = as_text(data);
      stored.info.object = options.object || mode == PutMode::kObjectOnce;
      return {};
    });
  }

  Result<ChunkInfo> truncate(ChunkId chunk, std::uint32_t length, const WriteOptions& options) override {
    return change(chunk, options, [&](Stored& stored) -> Result<> {
      stored.bytes.resize(length, '\0');
      return {};
    });
  }
  Result<ChunkInfo> punch(ChunkId chunk, std::uint32_t offset, std::uint32_t length,
                          const WriteOptions& options) override {
    return change(chunk, options, [&](Stored& stored) -> Result<> {
      const std::size_t end = std::min<std::size_t>(std::size_t{offset} + length, stored.bytes.size());
      if (offset < end) std::memset(stored.bytes.data() + offset, 0, end - offset);
      return {};
    });
  }
  Result<ChunkInfo> make_absent(ChunkId chunk, const WriteOptions& options) override {
    return change(chunk, options, [&](Stored& stored) -> Result<> {
      stored.bytes.clear();
      stored.info.state = ChunkState::kAbsent;
      stored.info.object = false;
      return {};
    });
  }
  Result<ChunkInfo> reversion(ChunkId chunk, const WriteOptions& options) override {
    ChunkState state;
    {
      std::lock_guard lock(disk_->mutex_);
      TRY(Stored * stored, find(options.pool, chunk));
      state = stored->info.state;
    }
    return change(chunk, options, [&](Stored& stored) -> Result<> {
      stored.info.state = state;
      return {};
    });
  }
  Result<> mend(PoolId pool, ChunkId chunk, std::uint32_t first_block, Bytes data) override {
    std::lock_guard lock(disk_->mutex_);
    TRYV(check_disk());
    TRY(Stored * stored, find(pool, chunk));
    const std::size_t from = std::size_t{first_block} * kBlockSize;
    if (data.empty() || from + data.size() > stored->bytes.size() ||
        first_bad_block(data, std::span(stored->sums).subspan(first_block, blocks_in(data.size()))) >= 0)
      return fail(Code::kStale, "other blocks");
    std::memcpy(stored->bytes.data() + from, data.data(), data.size());
    return {};
  }
  Result<> purge(PoolId pool, ChunkId chunk) override {
    std::lock_guard lock(disk_->mutex_);
    TRYV(check_disk());
    if (disk_->purges_refused_) return fail(Code::kOverloaded, "refused, as the test asked");
    disk_->chunks_.erase(MemoryDisk::key(pool, chunk));
    disk_->unsynced_.erase(MemoryDisk::key(pool, chunk));
    return {};
  }

  Result<> sync() override {
    std::lock_guard lock(disk_->mutex_);
    TRYV(check_disk());
    disk_->unsynced_.clear();
    return {};
  }
  Result<bool> synced(PoolId pool, ChunkId chunk, Version version) override {
    std::lock_guard lock(disk_->mutex_);
    auto found = find(pool, chunk);
    return found && (*found)->info.version >= version &&
           !disk_->unsynced_.contains(MemoryDisk::key(pool, chunk));
  }

  Result<> for_each(GroupId group, std::uint32_t slots, std::optional<ChunkId> after,
                    const std::function<bool(const ChunkInfo&)>& visit) override {
    std::vector<ChunkInfo> infos;
    {
      std::lock_guard lock(disk_->mutex_);
      TRYV(check_disk());
      for (const auto& [key, stored] : disk_->chunks_) {
        if (key.pool != group.pool || slot_of(key.order.hash, slots) != group.slot) continue;
        if (after && key.order <= HashOrder(*after)) continue;
        infos.push_back(stored.info);
      }
    }
    for (const ChunkInfo& info : infos)
      if (!visit(info)) break;
    return {};
  }
  Result<> for_each(const std::function<bool(const ChunkInfo&)>& visit) override {
    std::vector<ChunkInfo> infos;
    {
      std::lock_guard lock(disk_->mutex_);
      for (const auto& [key, stored] : disk_->chunks_) infos.push_back(stored.info);
    }
    for (const ChunkInfo& info : infos)
      if (!visit(info)) break;
    return {};
  }
  disk::Usage usage() override {
    std::lock_guard lock(disk_->mutex_);
    disk::Usage usage;
    usage.capacity_bytes = disk_->capacity_;
    usage.used_bytes = disk_->used();
    usage.available_bytes = usage.capacity_bytes - std::min(usage.capacity_bytes, usage.used_bytes);
    usage.chunks = disk_->chunks_.size();
    return usage;
  }
  std::vector<disk::CorruptChunk> take_corrupt() override {
    std::lock_guard lock(disk_->mutex_);
    return std::exchange(disk_->corrupt_, {});
  }
  Result<> set_value(std::string_view key, std::string_view value) override {
    std::lock_guard lock(disk_->mutex_);
    TRYV(check_disk());
    disk_->values_[std::string(key)] = value;
    return {};
  }
  Result<std::optional<std::string>> get_value(std::string_view key) override {
    std::lock_guard lock(disk_->mutex_);
    auto at = disk_->values_.find(key);
    return at == disk_->values_.end() ? std::nullopt : std::optional<std::string>(at->second);
  }
  Result<std::vector<std::pair<std::string, std::string>>> values(std::string_view prefix) override {
    std::lock_guard lock(disk_->mutex_);
    std::vector<std::pair<std::string, std::string>> out;
    for (const auto& [key, value] : disk_->values_)
      if (key.starts_with(prefix)) out.emplace_back(key, value);
    return out;
  }

 private:
  using Stored = MemoryDisk::Stored;

  Result<> check_disk() const {
    if (disk_->failing_) return fail(Code::kIo, "the disk fails, as the test asked");
    return {};
  }
  Result<Stored*> find(PoolId pool, const ChunkId& chunk) {
    auto at = disk_->chunks_.find(MemoryDisk::key(pool, chunk));
    if (at == disk_->chunks_.end()) return fail(Code::kNotFound, "no chunk " + to_string(chunk));
    return &at->second;
  }

  template <class Edit>
  Result<ChunkInfo> change(const ChunkId& chunk, const WriteOptions& options, Edit edit) {
    std::lock_guard lock(disk_->mutex_);
    TRYV(check_disk());
    if (disk_->refused_ != Code::kOk) return fail(disk_->refused_, "refused, as the test asked");
    Stored next;
    if (auto found = find(options.pool, chunk)) {
      const ChunkInfo& info = (*found)->info;
      if (info.version == options.version && info.last_request == options.request) return info;
      if (info.version >= options.version) return fail(Code::kStale, "stored " + to_string(info.version));
      next = **found;
      if (info.state == ChunkState::kAbsent) next.bytes.clear();
    }
    const std::uint64_t before = next.bytes.size();
    const std::string old_bytes = next.bytes;
    const std::vector<BlockChecksum> old_sums = next.sums;
    next.info.chunk = chunk;
    next.info.pool = options.pool;
    next.info.state = ChunkState::kPresent;
    TRYV(edit(next));
    if (next.bytes.size() > before && disk_->used() + next.bytes.size() - before > disk_->capacity_)
      return fail(Code::kNoSpace, "the disk is full");
    next.info.version = options.version;
    next.info.last_request = options.request;
    if (options.owner_hint.valid()) next.info.owner_hint = options.owner_hint;
    next.info.length = static_cast<std::uint32_t>(next.bytes.size());
    next.sums = block_checksums(as_bytes(next.bytes));
    for (std::size_t i = 0; i < std::min(next.sums.size(), old_sums.size()); ++i) {
      // What was not written over keeps its checksum, or a damaged block would become a good one.
      const auto block = [&](const std::string& bytes) {
        return std::string_view(bytes).substr(i * kBlockSize, kBlockSize);
      };
      if (block(old_bytes) == block(next.bytes)) next.sums[i] = old_sums[i];
    }
    next.info.digest = chunk_digest(next.info.length, next.sums);
    const ChunkInfo info = next.info;
    disk_->store(MemoryDisk::key(options.pool, chunk), std::move(next));
    if (options.durable) disk_->unsynced_.erase(MemoryDisk::key(options.pool, chunk));
    return info;
  }

  std::shared_ptr<MemoryDisk> disk_;
  disk::Superblock superblock_;
};

std::unique_ptr<disk::ChunkEngine> open_memory_engine(std::shared_ptr<MemoryDisk> disk) {
  return std::make_unique<MemoryEngine>(std::move(disk));
}

}  // namespace cairn::chunkserver
