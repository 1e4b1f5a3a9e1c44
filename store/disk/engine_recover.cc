// What happens to the index and the extents at open. README.md has the argument; in short:
//   1. read the redo rows and all records; most chunks are settled and need nothing;
//   2. for the others choose the newest state whose bytes are all there, and make those bytes durable in
//   place;
//   3. one synced batch puts the choices into the index. A crash before it repeats the same choices.
#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "store/base/log.h"
#include "store/disk/engine.h"

namespace cairn::disk {
namespace {

constexpr std::uint32_t kVerifyPiece = 64 * kBlockSize;

struct RedoRow {
  std::uint32_t content = 0;
  Redo redo;
};

}  // namespace

struct Engine::Recovery {
  std::map<ChunkKey, std::vector<RedoRow>> redo;  // in (content, sequence) order
  std::vector<Chunk> unsettled;                   // chunks to look at
  std::vector<Extent> used;
  rocksdb::WriteBatch batch;
  std::uint64_t generation = 0;  // the highest seen
  std::uint64_t fell_back = 0;
};

Result<> Engine::recover() {
  Recovery recovery;
  rocksdb::PinnableSlice mark;
  TRY(bool found, index_->get(named_key(Table::kState, kSyncedName), mark));
  if (found) {
    ByteReader in(view(mark));
    synced_generation_ = in.u64();
    if (!in.done()) return fail(Code::kCorrupt, "index: malformed sync mark");
  }
  if (synced_generation_ < noted_generation_)
    return damaged(
        fmt::format("the index ends at sync {}, but sync {} was on the disk: what came between is "
                    "lost",
                    synced_generation_.load(), noted_generation_));
  recovery.generation = synced_generation_;
  TRYV(read_redo_rows(recovery));
  TRYV(scan_records(recovery));
  for (Chunk& chunk : recovery.unsettled) TRYV(recover_chunk(chunk, recovery));
  // Only when the chosen states cannot be lost any more may logged bytes go over what an older state would
  // need.
  TRYV(extents_->sync(ExtentStore::Cover::kUnsynced));
  for (const Chunk& chunk : recovery.unsettled) TRYV(redo_in_place(chunk));
  for (const auto& [key, rows] : recovery.redo)  // of chunks that are gone: cannot be, but must not pile up
    for (const RedoRow& row : rows)
      recovery.batch.Delete(
          slice(IndexKey(Table::kRedo, key).content(row.content).sequence(row.redo.sequence).view()));
  TRYV(extents_->rebuild(std::move(recovery.used)));
  return finish_recovery(recovery);
}

Result<> Engine::read_redo_rows(Recovery& recovery) {
  std::string end = table_end(Table::kRedo);
  rocksdb::Slice upper = slice(end);
  auto rows = index_->iterate(&upper, false);
  for (rows->Seek(slice(named_key(Table::kRedo, ""))); rows->Valid(); rows->Next()) {
    ChunkKey key;
    if (rows->key().size() != 1 + kChunkKeyBytes + 12 || !parse_chunk_key(view(rows->key()), key))
      return fail(Code::kCorrupt, "index: malformed redo key");
    ByteReader in(view(rows->key()).substr(1 + kChunkKeyBytes));
    RedoRow row;
    row.content = in.be32();
    std::uint64_t sequence = in.be64();
    TRY(row.redo, decode_redo(view(rows->value())));
    row.redo.sequence = sequence;
    redo_sequence_ = std::max(redo_sequence_.load(), sequence);
    recovery.redo[key].push_back(std::move(row));
  }
  return Index::check(*rows);
}

Result<> Engine::scan_records(Recovery& recovery) {
  std::string end = table_end(Table::kRecord);
  rocksdb::Slice upper = slice(end);
  auto rows = index_->iterate(&upper, false);
  for (rows->Seek(slice(named_key(Table::kRecord, ""))); rows->Valid(); rows->Next()) {
    Chunk chunk;
    if (rows->key().size() != 1 + kChunkKeyBytes || !parse_chunk_key(view(rows->key()), chunk.key))
      return fail(Code::kCorrupt, "index: malformed chunk key");
    auto decoded = decode_record(view(rows->value()), chunk);
    if (!decoded) return fail(decoded.error().with("chunk " + to_string(chunk.key.chunk())));
    if (!extents_known(chunk))
      return fail(Code::kCorrupt, fmt::format("chunk {} has an extent past the files of {}",
                                              to_string(chunk.key.chunk()), dir_));
    recovery.generation = std::max(recovery.generation, chunk.now.generation);
    redo_sequence_ = std::max(redo_sequence_.load(), chunk.now.redo_sequence);
    if (!is_settled(chunk.now) || !chunk.before.empty() || recovery.redo.contains(chunk.key)) {
      recovery.unsettled.push_back(std::move(chunk));
      continue;
    }
    if (chunk.now.content.place == Place::kExtent) recovery.used.push_back(chunk.now.content.extent);
    if (chunk.present()) ++chunks_;
  }
  return Index::check(*rows);
}

bool Engine::extents_known(const Chunk& chunk) const {
  auto known = [&](const State& state) {
    return state.content.place != Place::kExtent || extents_->has_file_of(state.content.extent);
  };
  return known(chunk.now) && std::all_of(chunk.before.begin(), chunk.before.end(), known);
}

// Chooses the state of one chunk, completes its bytes in the extent, and puts what the index must say into
// the batch.
Result<> Engine::recover_chunk(Chunk& chunk, Recovery& recovery) {
  std::vector<RedoRow> rows;
  if (auto found = recovery.redo.extract(chunk.key)) rows = std::move(found.mapped());
  const Chunk recorded = chunk;
  auto take_redo = [&] {
    chunk.redo.clear();
    for (const RedoRow& row : rows)
      if (row.content == chunk.now.content.id && row.redo.sequence <= chunk.now.redo_sequence)
        chunk.redo.push_back(row.redo);
  };
  if (is_settled(chunk.now)) chunk.before.clear();
  TRYV(load_sums(chunk, 0, chunk.now.blocks()));
  take_redo();
  while (!is_settled(chunk.now)) {
    TRY(bool good, verify_and_rewrite(chunk));
    if (good) break;
    ++recovery.fell_back;
    if (chunk.before.empty()) {
      chunk.exists = false;
      break;
    }
    TRYV(fall_back(chunk));
    take_redo();
  }

  for (const RedoRow& row : rows)
    recovery.batch.Delete(
        slice(IndexKey(Table::kRedo, chunk.key).content(row.content).sequence(row.redo.sequence).view()));
  std::vector<Extent> freed;  // free already: the allocator is built from what is used
  IndexKey record(Table::kRecord, chunk.key);
  if (!chunk.exists) {
    drop_contents(recovery.batch, recorded, nullptr, freed);
    recovery.batch.Delete(slice(record.view()));
    return {};
  }
  chunk.before.clear();
  chunk.now.settled = true;
  drop_contents(recovery.batch, recorded, &chunk, freed);
  rewrite_sum_rows(recovery.batch, recorded, chunk);
  recovery.batch.Put(slice(record.view()), slice(encode_record(chunk)));
  if (chunk.now.content.place == Place::kExtent) recovery.used.push_back(chunk.now.content.extent);
  if (chunk.present()) ++chunks_;
  return {};
}

// Whether all bytes of `now` that were never synced are there. Writes them again: if a sync failed earlier in
// this boot, the kernel may believe that they are on disk when they are not.
Result<bool> Engine::verify_and_rewrite(Chunk& chunk) {
  std::uint32_t safe = 0;
  for (const State& state : chunk.before) {
    if (!is_settled(state) || state.content.id != chunk.now.content.id) continue;
    safe = state.length;
    break;
  }
  const Extent& extent = chunk.now.content.extent;
  std::string bytes;
  for (std::uint32_t at = safe / kBlockSize * kBlockSize; at < chunk.now.length; at += kVerifyPiece) {
    bytes.resize(std::min(kVerifyPiece, chunk.now.length - at));
    auto got = extents_->read(extent, at, writable(bytes));
    if (!got) return false;
    overlay_redo(chunk.redo, at, writable(bytes));
    std::span<const BlockChecksum> sums(chunk.sums);
    if (first_bad_block(as_bytes(bytes), sums.subspan(at / kBlockSize, blocks_in(bytes.size()))) >= 0)
      return false;
  }
  // Exactly as they are, without the logged overwrites, and nothing below `safe`: an older state may need
  // that yet.
  for (std::uint32_t at = safe; at < chunk.now.length; at += kVerifyPiece) {
    bytes.resize(std::min(kVerifyPiece, chunk.now.length - at));
    TRYV(extents_->read(extent, at, writable(bytes)));
    TRYV(extents_->write(extent, at, as_bytes(bytes), ExtentStore::Cover::kUnsynced));
  }
  return true;
}

// Makes the newest fallback the present state.
Result<> Engine::fall_back(Chunk& chunk) {
  State to = std::move(chunk.before.front());
  chunk.before.erase(chunk.before.begin());
  bool same_content = to.content.place == Place::kExtent && to.content.id == chunk.now.content.id;
  std::vector<Redo> undone;
  if (same_content)
    for (Redo& redo : chunk.redo)
      if (redo.sequence > to.redo_sequence) undone.push_back(std::move(redo));
  chunk.now = std::move(to);
  std::vector<BlockChecksum> kept = std::move(chunk.now.sums);
  chunk.now.sums.clear();
  std::uint32_t blocks = chunk.now.blocks();
  if (blocks <= kSumsInRecord) {
    chunk.sums = std::move(kept);
    return {};
  }
  if (!same_content) {
    TRYV(load_sums(chunk, 0, blocks));
  } else {
    // The rows hold the newer state's checksums: undo what logged overwrites changed, newest first.
    chunk.sums.resize(blocks);
    for (auto redo = undone.rbegin(); redo != undone.rend(); ++redo)
      for (std::size_t i = 0; i < redo->old_sums.size() && redo->first_block() + i < blocks; ++i)
        chunk.sums[redo->first_block() + i] = redo->old_sums[i];
  }
  chunk.sums.back() = kept.back();
  return {};
}

Result<> Engine::redo_in_place(const Chunk& chunk) {
  if (!chunk.exists) return {};
  const Extent& extent = chunk.now.content.extent;
  for (const Redo& redo : chunk.redo) {
    TRYV(redo.zeros
             ? extents_->zero(extent, redo.offset, redo.length, ExtentStore::Cover::kLogged)
             : extents_->write(extent, redo.offset, as_bytes(redo.bytes), ExtentStore::Cover::kLogged));
  }
  return {};
}

Result<> Engine::finish_recovery(Recovery& recovery) {
  bool changed = recovery.batch.Count() > 0;
  if (changed) {
    TRYV(extents_->sync(ExtentStore::Cover::kLogged));
    log_info("target_recovered", "dir={} chunks={} fell_back={}", log_quote(dir_), recovery.unsettled.size(),
             recovery.fell_back);
  }
  if (changed || recovery.generation > synced_generation_) {
    std::string mark;
    ByteWriter(mark).u64(recovery.generation);
    recovery.batch.Put(named_key(Table::kState, kSyncedName), mark);
    TRYV(index_->write(recovery.batch));
    TRYV(index_->sync());
    synced_generation_ = recovery.generation;
  }
  gate_ = std::make_unique<GenerationGate>(recovery.generation + 1);
  return {};
}

}  // namespace cairn::disk
