// How a prepared change becomes a chunk's new state: one index batch. README.md explains states and
// fallbacks.
#include <fmt/format.h>

#include <algorithm>

#include "store/base/log.h"
#include "store/disk/engine.h"

namespace cairn::disk {
namespace {

std::uint32_t row_count(const State& state) {
  if (state.blocks() <= kSumsInRecord) return 0;
  return (state.blocks() + kSumsPerRow - 1) / kSumsPerRow;
}

IndexKey sum_row_key(const ChunkKey& chunk, std::uint32_t content, std::uint32_t row) {
  return IndexKey(Table::kChecksums, chunk).content(content).row(static_cast<std::uint16_t>(row));
}

IndexKey redo_key(const ChunkKey& chunk, std::uint32_t content, std::uint64_t sequence) {
  return IndexKey(Table::kRedo, chunk).content(content).sequence(sequence);
}

bool holds_content(const std::vector<State>& states, std::uint32_t content) {
  return std::any_of(states.begin(), states.end(),
                     [&](const State& state) { return state.content.id == content; });
}

// Later bytes past the new end go straight to the extent: a replay must not overwrite them.
void cut_redo(Redo& redo, std::uint32_t length) {
  redo.length = length - redo.offset;
  if (!redo.zeros) redo.bytes.resize(redo.length);
}

bool same_extent(const State& a, const State& b) {
  return a.content.place == Place::kExtent && b.content.place == Place::kExtent &&
         a.content.id == b.content.id;
}

}  // namespace

Result<> Engine::write_index(rocksdb::WriteBatch& batch) {
  auto written = index_->write(batch);
  if (written) return written;
  return fail_for_good(written.error());
}

void Engine::abandon(Change& change) {
  if (change.fresh) extents_->release(*change.fresh);
  if (change.grown_from) extents_->shrink(change.next.content.extent, change.grown_from->size_class);
}

// The states that a power cut may have to go back to if the next one turns out torn: newest first, ending
// with one that needs no check.
std::vector<State> Engine::fallbacks_of(const Chunk& chunk, const State& next) const {
  std::vector<State> states;
  if (!chunk.exists) return states;
  bool settled = is_settled(chunk.now);
  // A state of the same generation is no use to fall back to, being as unsynced as `next`. But if the content
  // changes and an older state shares the present content, its rows (checksums, redo) are as the present
  // state left them: the way back to the older one leads through it.
  bool on_the_way =
      next.content.id != chunk.now.content.id && holds_content(chunk.before, chunk.now.content.id);
  if (settled || chunk.now.generation != next.generation || on_the_way) {
    states.push_back(chunk.now);
    states.back().sums = sums_to_keep(chunk.now, chunk.sums);
  }
  for (const State& state : chunk.before) {
    if (settled) break;
    states.push_back(state);
    settled = is_settled(state);
  }
  return states;
}

// Decides whether `next` is good as soon as its record is there, and if not, what it falls back to.
void Engine::settle_next(const Chunk& chunk, const Change& change, State& next,
                         std::vector<State>& before) const {
  before.clear();
  next.settled = true;
  if (next.content.place != Place::kExtent) return;
  std::vector<State> states = fallbacks_of(chunk, next);
  if (!change.direct) {
    // Only metadata and logged bytes changed. What lies below the newest settled length of this extent is
    // safe.
    std::uint32_t safe = 0;
    if (chunk.exists && is_settled(chunk.now)) {
      safe = next.length;
    } else {
      for (const State& state : states) {
        if (!is_settled(state) || !same_extent(state, next)) continue;
        safe = state.length;
        break;
      }
    }
    if (next.length <= safe) return;
  }
  next.settled = false;
  for (State& state : states) {
    // A state with bytes that were cut off since cannot come back; those under it can.
    if (same_extent(state, next) && state.length > next.length) continue;
    before.push_back(std::move(state));
  }
}

void Engine::put_sum_rows(rocksdb::WriteBatch& batch, const Chunk& old, const Chunk& staged,
                          const Change& change) {
  std::uint32_t old_rows = same_extent(old.now, staged.now) && old.exists ? row_count(old.now) : 0;
  std::uint32_t rows = row_count(staged.now);
  std::uint32_t content = staged.now.content.id;
  std::uint32_t first = old_rows == 0 ? 0 : change.first_changed_block / kSumsPerRow;
  std::uint32_t end = old_rows == 0 ? rows : (change.end_changed_block + kSumsPerRow - 1) / kSumsPerRow;
  if (old.sums.size() != staged.sums.size()) {
    first = std::min<std::uint32_t>(
        first, static_cast<std::uint32_t>(std::min(old.sums.size(), staged.sums.size()) - 1) / kSumsPerRow);
    end = rows;
  }
  for (std::uint32_t row = first; row < std::min(end, rows); ++row) {
    std::uint32_t from = row * kSumsPerRow;
    std::uint32_t count = std::min<std::uint32_t>(kSumsPerRow, staged.now.blocks() - from);
    batch.Put(slice(sum_row_key(staged.key, content, row).view()),
              slice(encode_sums(std::span(staged.sums).subspan(from, count))));
  }
  for (std::uint32_t row = rows; row < old_rows; ++row)
    batch.Delete(slice(sum_row_key(staged.key, content, row).view()));
}

// After a fall back: the rows of the chosen content as `staged` needs them.
void Engine::rewrite_sum_rows(rocksdb::WriteBatch& batch, const Chunk& old, const Chunk& staged) {
  std::uint32_t content = staged.now.content.id;
  std::uint32_t old_rows = 0;
  if (old.now.content.id == content) old_rows = row_count(old.now);
  for (const State& state : old.before)
    if (state.content.id == content) old_rows = std::max(old_rows, row_count(state));
  std::uint32_t rows = row_count(staged.now);
  for (std::uint32_t row = 0; row < rows; ++row) {
    std::uint32_t from = row * kSumsPerRow;
    std::uint32_t count = std::min<std::uint32_t>(kSumsPerRow, staged.now.blocks() - from);
    batch.Put(slice(sum_row_key(staged.key, content, row).view()),
              slice(encode_sums(std::span(staged.sums).subspan(from, count))));
  }
  for (std::uint32_t row = rows; row < old_rows; ++row)
    batch.Delete(slice(sum_row_key(staged.key, content, row).view()));
}

void Engine::delete_content(rocksdb::WriteBatch& batch, const ChunkKey& key, const State& state) {
  if (state.content.place == Place::kInline)
    batch.Delete(slice(IndexKey(Table::kInline, key).content(state.content.id).view()));
  for (std::uint32_t row = 0; row < row_count(state); ++row)
    batch.Delete(slice(sum_row_key(key, state.content.id, row).view()));
}

// Removes the rows of contents that `staged` (null: nothing) refers to no more, and tells their extents.
void Engine::drop_contents(rocksdb::WriteBatch& batch, const Chunk& old, const Chunk* staged,
                           std::vector<Extent>& freed) {
  if (!old.exists) return;
  std::vector<const State*> states = {&old.now};
  for (const State& state : old.before) states.push_back(&state);
  std::vector<std::uint32_t> done;
  for (const State* state : states) {
    std::uint32_t content = state->content.id;
    if (staged != nullptr && (staged->now.content.id == content || holds_content(staged->before, content)))
      continue;
    if (std::find(done.begin(), done.end(), content) != done.end()) continue;  // its newest state came first
    done.push_back(content);
    delete_content(batch, old.key, *state);
    if (state->content.place == Place::kExtent) freed.push_back(state->content.extent);
    if (content == old.now.content.id)
      for (const Redo& redo : old.redo) batch.Delete(slice(redo_key(old.key, content, redo.sequence).view()));
    for (const auto& [of, sequence] : old.old_redo)
      if (of == content) batch.Delete(slice(redo_key(old.key, content, sequence).view()));
  }
}

// Writes the rows of pending overwrites: the old ones as far as they change, then the new ones. apply_redo()
// then does the same in memory, once the batch is in the index.
void Engine::stage_redo(rocksdb::WriteBatch& batch, const Chunk& old, Chunk& staged, Change& change) {
  std::uint32_t content = staged.now.content.id;
  for (const auto& entry : old.old_redo)
    if (holds_content(staged.before, entry.first)) staged.old_redo.push_back(entry);
  if (old.exists && old.now.content.id == content) {
    for (const Redo& redo : old.redo) {
      IndexKey key = redo_key(staged.key, content, redo.sequence);
      if (superseded(redo, staged, change)) {
        batch.Delete(slice(key.view()));
      } else if (redo.end() > staged.now.length) {
        Redo cut = redo;
        cut_redo(cut, staged.now.length);
        batch.Put(slice(key.view()), slice(encode_redo(cut)));
      }
    }
  } else if (old.exists && holds_content(staged.before, old.now.content.id)) {
    for (const Redo& redo : old.redo) staged.old_redo.emplace_back(old.now.content.id, redo.sequence);
  }
  for (Redo& redo : change.redo) {
    redo.sequence = redo_sequence_.fetch_add(1) + 1;
    redo.generation = staged.now.generation;
    staged.now.redo_sequence = redo.sequence;
    batch.Put(slice(redo_key(staged.key, content, redo.sequence).view()), slice(encode_redo(redo)));
  }
}

// Cut off, or written over by a newer one with nothing to fall back to in between.
bool Engine::superseded(const Redo& redo, const Chunk& staged, const Change& change) {
  if (redo.offset >= staged.now.length) return true;
  if (!staged.before.empty() || !staged.now.settled) return false;
  return std::any_of(change.redo.begin(), change.redo.end(),
                     [&](const Redo& by) { return by.offset <= redo.offset && by.end() >= redo.end(); });
}

void Engine::apply_redo(Chunk& old, Chunk& staged, Change& change) {
  if (old.exists && old.now.content.id == staged.now.content.id) {
    std::vector<Redo> kept = std::move(old.redo);
    std::erase_if(kept, [&](const Redo& redo) { return superseded(redo, staged, change); });
    for (Redo& redo : kept)
      if (redo.end() > staged.now.length) cut_redo(redo, staged.now.length);
    staged.redo = std::move(kept);
  }
  for (Redo& redo : change.redo) staged.redo.push_back(std::move(redo));
  for (const Redo& redo : staged.redo) staged.redo_bytes += redo.bytes.size() + sizeof(Redo);
}

Result<> Engine::commit(Chunk& chunk, Change& change) {
  GenerationGate::Pass pass(*gate_);
  Chunk staged;
  staged.key = chunk.key;
  staged.exists = true;
  staged.owner_hint = change.owner_hint;
  staged.now = change.next;
  staged.now.generation = pass.generation();
  staged.now.digest = chunk_digest(staged.now.length, change.sums);
  staged.sums = std::move(change.sums);
  settle_next(chunk, change, staged.now, staged.before);
  CHECK(staged.before.size() <= kFallbacksMax, "a chunk has few unsynced states");
  if (chunk.exists && same_extent(chunk.now, staged.now)) {
    std::uint32_t hold = effective_hold(chunk);
    if (staged.now.length < hold) {
      staged.hold = hold;
      staged.hold_generation = pass.generation();
    }
  }

  rocksdb::WriteBatch batch;
  std::vector<Extent> freed;
  drop_contents(batch, chunk, &staged, freed);
  put_sum_rows(batch, chunk, staged, change);
  if (change.inline_bytes)
    batch.Put(slice(IndexKey(Table::kInline, chunk.key).content(staged.now.content.id).view()),
              slice(*change.inline_bytes));
  stage_redo(batch, chunk, staged, change);
  batch.Put(slice(IndexKey(Table::kRecord, chunk.key).view()), slice(encode_record(staged)));
  auto written = write_index(batch);
  if (!written) {
    abandon(change);
    return written;
  }
  pass.committed();

  std::uint64_t old_redo_bytes = chunk.redo_bytes;
  apply_redo(chunk, staged, change);
  redo_bytes_ += staged.redo_bytes - old_redo_bytes;
  if (!change.cut.empty()) extents_->drop_room(staged.now.content.extent);
  for (const Extent& extent : freed) extents_->free_after(extent, pass.generation());
  for (const Extent& extent : change.cut) extents_->free_after(extent, pass.generation());
  account(chunk, &staged, change.written_bytes);
  {
    std::lock_guard lock(lists_mutex_);
    if (!staged.before.empty()) to_tidy_.emplace_back(pass.generation(), chunk.key);
    if (!staged.redo.empty()) redo_chunks_.insert(chunk.key);
  }
  chunk = std::move(staged);
  return {};
}

// Keeps the counters; `staged` null: the chunk is gone.
void Engine::account(const Chunk& old, const Chunk* staged, std::uint64_t written_bytes) {
  auto inline_bytes = [](const Chunk& chunk) -> std::uint64_t {
    return chunk.exists && chunk.now.content.place == Place::kInline ? chunk.now.length : 0;
  };
  std::uint64_t inline_now = staged != nullptr ? inline_bytes(*staged) : 0;
  if (inline_bytes(old) > inline_now) removed_inline_bytes_ += inline_bytes(old) - inline_now;
  chunks_ += (staged != nullptr && staged->present() ? 1 : 0) - (old.present() ? 1 : 0);
  if (written_bytes > 0) {
    unsynced_bytes_ += written_bytes;
    unsynced_chunks_ += 1;
  }
}

Result<> Engine::purge(PoolId pool, ChunkId id) {
  TRYV(check_writable());
  ChunkKey key(pool, id);
  Stripe& stripe = stripe_of(key);
  {
    std::unique_lock lock(stripe.mutex);
    TRY(Chunk * chunk, load_for_write(stripe, key));
    if (!chunk->exists) return {};
    GenerationGate::Pass pass(*gate_);
    rocksdb::WriteBatch batch;
    std::vector<Extent> freed;
    drop_contents(batch, *chunk, nullptr, freed);
    batch.Delete(slice(IndexKey(Table::kRecord, key).view()));
    TRYV(write_index(batch));
    pass.committed();
    for (const Extent& extent : freed) extents_->free_after(extent, pass.generation());
    redo_bytes_ -= chunk->redo_bytes;
    account(*chunk, nullptr, 0);
    stripe.chunks.erase(key);
  }
  relieve();
  return {};
}

// Once the chunk's state is synced, drops what it could fall back to. The stripe is locked exclusively.
Result<> Engine::tidy(Chunk& chunk) {
  if (!chunk.exists || chunk.before.empty() || !is_settled(chunk.now)) return {};
  bool other_content =
      !chunk.old_redo.empty() ||
      std::any_of(chunk.before.begin(), chunk.before.end(), [&](const State& state) {
        return state.content.id != chunk.now.content.id && state.content.place != Place::kNone;
      });
  if (!other_content) {  // the stale fallbacks in the record are ignored from now on: no write for them
    chunk.before.clear();
    return {};
  }
  Chunk staged = chunk;
  staged.before.clear();
  staged.old_redo.clear();
  rocksdb::WriteBatch batch;
  std::vector<Extent> freed;
  drop_contents(batch, chunk, &staged, freed);
  batch.Put(slice(IndexKey(Table::kRecord, chunk.key).view()), slice(encode_record(staged)));
  TRYV(write_index(batch));
  // Nothing waits for this to be synced: `now` is synced, so no power cut brings the old contents back: their
  // space is free at once.
  for (const Extent& extent : freed) extents_->free_after(extent, chunk.now.generation);
  chunk = std::move(staged);
  return {};
}

}  // namespace cairn::disk
