// Sync, checkpoint of logged overwrites, and the background work.
#include <fmt/format.h>

#include "store/base/checksum.h"
#include "store/base/log.h"
#include "store/disk/engine.h"

namespace cairn::disk {
namespace {

constexpr std::uint64_t kReclaimBytesMin =
    8 << 20;  // removed inline bytes worth a compaction when space is short

}  // namespace

Result<> Engine::fail_for_good(Error error) {
  if (!failed_.exchange(true))
    log_error("target_failed", "target={} dir={} error={}", to_string(superblock_.target), log_quote(dir_),
              log_quote(error.to_string()));
  return fail(Code::kIo,
              fmt::format("target {} ({}): {}", to_string(superblock_.target), dir_, error.message()));
}

Result<> Engine::sync() {
  // Everything that returned before is in a generation up to this one.
  const std::uint64_t wanted = gate_->last_committed();
  bool led = false;
  {
    std::unique_lock lock(sync_mutex_);
    while (true) {
      TRYV(check_writable());
      if (synced_generation_.load(std::memory_order_acquire) >= wanted) break;
      if (syncing_) {
        sync_done_.wait(lock);
        continue;
      }
      syncing_ = led = true;
      lock.unlock();
      Result<> done = run_sync();
      lock.lock();
      syncing_ = false;
      sync_done_.notify_all();
      if (!done) return done;
    }
  }
  if (led) {
    if (background_thread_.joinable())
      kick_background();
    else
      after_sync();
  }
  return {};
}

// One at a time. Extents first, then the mark that says so: a record of this generation whose mark is durable
// has its bytes on disk.
Result<> Engine::run_sync() {
  std::uint64_t closed = gate_->advance();
  unsynced_bytes_ = 0;
  unsynced_chunks_ = 0;
  auto extents = extents_->sync(ExtentStore::Cover::kUnsynced);
  if (!extents) return fail_for_good(extents.error());
  rocksdb::WriteBatch batch;
  std::string mark;
  ByteWriter(mark).u64(closed);
  batch.Put(named_key(Table::kState, kSyncedName), mark);
  // Without space for the mark nothing is lost: the extents of this generation are synced, and the next mark
  // covers it.
  TRYV(write_index(batch));
  auto synced = index_->sync();
  if (!synced) return fail_for_good(synced.error());
  synced_generation_.store(closed, std::memory_order_release);
  return {};
}

// Frees what the last sync made free. Any thread, any number of times.
void Engine::after_sync() {
  std::uint64_t synced = synced_generation_.load(std::memory_order_acquire);
  std::vector<ChunkKey> ready;
  {
    std::lock_guard lock(lists_mutex_);
    std::erase_if(to_tidy_, [&](const auto& entry) {
      if (entry.first > synced) return false;
      ready.push_back(entry.second);
      return true;
    });
  }
  for (const ChunkKey& key : ready) {
    Stripe& stripe = stripe_of(key);
    std::unique_lock lock(stripe.mutex);
    auto found = stripe.chunks.find(key);
    if (found == stripe.chunks.end()) continue;
    auto done = tidy(*found->second);
    if (!done) log_warn("chunk_tidy_failed", "error={}", log_quote(done.error().to_string()));
    evict(stripe);
  }
  extents_->settle(synced);
}

// Writes synced logged overwrites in place, syncs them there, and only then removes their rows.
Result<> Engine::checkpoint() {
  std::lock_guard one_at_a_time(checkpoint_mutex_);
  TRYV(check_writable());
  std::uint64_t synced = synced_generation_.load(std::memory_order_acquire);
  std::vector<ChunkKey> keys;
  {
    std::lock_guard lock(lists_mutex_);
    keys.assign(redo_chunks_.begin(), redo_chunks_.end());
  }
  for (const ChunkKey& key : keys) {
    Stripe& stripe = stripe_of(key);
    std::unique_lock lock(stripe.mutex);
    auto found = stripe.chunks.find(key);
    if (found == stripe.chunks.end()) continue;
    const Extent& extent = found->second->now.content.extent;
    for (Redo& redo : found->second->redo) {
      if (redo.generation > synced || redo.applied) continue;
      auto written =
          redo.zeros
              ? extents_->zero(extent, redo.offset, redo.length, ExtentStore::Cover::kLogged)
              : extents_->write(extent, redo.offset, as_bytes(redo.bytes), ExtentStore::Cover::kLogged);
      if (!written) return fail_for_good(written.error());
      redo.applied = true;
    }
  }
  auto flushed = extents_->sync(ExtentStore::Cover::kLogged);
  if (!flushed) return fail_for_good(flushed.error());
  for (const ChunkKey& key : keys) TRYV(drop_applied(key));
  return {};
}

Result<> Engine::drop_applied(const ChunkKey& key) {
  Stripe& stripe = stripe_of(key);
  std::unique_lock lock(stripe.mutex);
  auto found = stripe.chunks.find(key);
  if (found != stripe.chunks.end()) {
    Chunk& chunk = *found->second;
    rocksdb::WriteBatch batch;
    for (const Redo& redo : chunk.redo)
      if (redo.applied)
        batch.Delete(
            slice(IndexKey(Table::kRedo, key).content(chunk.now.content.id).sequence(redo.sequence).view()));
    if (batch.Count() > 0) {
      TRYV(write_index(batch));
      std::erase_if(chunk.redo, [](const Redo& redo) { return redo.applied; });
      std::uint64_t left = 0;
      for (const Redo& redo : chunk.redo) left += redo.bytes.size() + sizeof(Redo);
      redo_bytes_ -= chunk.redo_bytes - left;
      chunk.redo_bytes = left;
    }
    if (!chunk.redo.empty()) return {};
  }
  std::lock_guard list_lock(lists_mutex_);
  redo_chunks_.erase(key);
  return {};
}

// Says outside the index how far it was synced, so that it cannot lose that unseen: after a power cut its log
// may end early, and the index itself does not tell a torn end from damage in the middle.
void Engine::note_synced() {
  std::lock_guard one_at_a_time(checkpoint_mutex_);
  const std::uint64_t synced = synced_generation_.load(std::memory_order_acquire);
  if (synced == noted_generation_) return;
  std::string text;
  ByteWriter out(text);
  out.u64(synced);
  out.u64(checksum64(as_bytes(text)));
  auto noted = note_->pwrite(note_slot_ * kNoteSlotBytes, as_bytes(text));
  if (noted) noted = note_->sync();
  if (!noted) {  // what was noted before still holds
    log_warn("sync_not_noted", "dir={} error={}", log_quote(dir_), log_quote(noted.error().to_string()));
    return;
  }
  noted_generation_ = synced;
  note_slot_ = 1 - note_slot_;
}

Result<> Engine::maintain() {
  TRYV(sync());
  after_sync();
  note_synced();
  return checkpoint();
}

// Bounds what is pending. Failures show at the next call: the write that got here is done.
void Engine::relieve() {
  bool threaded = background_thread_.joinable();
  std::uint64_t redo = redo_bytes_.load(std::memory_order_relaxed);
  if (unsynced_bytes_.load(std::memory_order_relaxed) > kUnsyncedBytesMax ||
      unsynced_chunks_.load(std::memory_order_relaxed) > kUnsyncedChunksMax || redo > kRedoBytesHard ||
      (!threaded && redo > kRedoBytesSoft)) {
    if (!sync() || redo <= kRedoBytesSoft) return;
    auto done = checkpoint();
    if (!done) log_warn("checkpoint_failed", "error={}", log_quote(done.error().to_string()));
  } else if (redo > kRedoBytesSoft) {
    kick_background();
  }
}

void Engine::kick_background() {
  {
    std::lock_guard lock(background_mutex_);
    kicked_ = true;
  }
  background_wake_.notify_one();
}

void Engine::background() {
  std::unique_lock lock(background_mutex_);
  while (!stopping_) {
    bool due =
        !background_wake_.wait_for(lock, options_.background_interval, [&] { return stopping_ || kicked_; });
    kicked_ = false;
    if (stopping_) break;
    lock.unlock();
    if (!failed_) {
      bool log_full = redo_bytes_.load() > kRedoBytesSoft;
      Result<> done;
      if (due || log_full) done = sync();
      after_sync();
      if (done && (log_full || (due && redo_bytes_.load() > 0))) done = checkpoint();
      if (due) {
        note_synced();
        reclaim_index_space();
      }
    }
    lock.lock();
  }
}

// Removed inline chunks leave their bytes in RocksDB's files until a compaction: hurry it when space is
// refused.
void Engine::reclaim_index_space() {
  if (!space_->take_refused() || removed_inline_bytes_.load() < kReclaimBytesMin) return;
  removed_inline_bytes_ = 0;
  auto done = index_->compact(named_key(Table::kInline, ""), table_end(Table::kInline));
  if (!done) log_warn("index_compact_failed", "error={}", log_quote(done.error().to_string()));
}

}  // namespace cairn::disk
