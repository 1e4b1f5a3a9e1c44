#include "client/write_back.h"

#include "client/fan_out.h"
#include "store/base/log.h"

namespace cairn::client {
namespace {

constexpr auto kAge = std::chrono::seconds(1);  // dirty bytes are flushed then
constexpr auto kTick = std::chrono::milliseconds(100);
constexpr std::uint64_t kChunksMax = std::uint64_t{1} << 32;  // a chunk's index has 32 bits

}  // namespace

WriteBack::WriteBack(FileContext& context, Reporter& reporter)
    : context_(context),
      reporter_(reporter),
      slots_(context.runtime, std::max(1u, context.options.parallel_chunks)) {}

void WriteBack::spawn(rpc::Task<> task) {
  context_.tasks.spawn(context_.runtime.make_strand(), std::move(task));
}

std::optional<Error> WriteBack::take_error(FileHandle& handle) {
  FileData& file = *handle.inode->file;
  if (handle.seen_losses != file.losses) {
    return Error(Code::kSessionEnded,
                 "the session under which inode " + to_string(handle.inode->id) +
                     " was written ended: data not yet stored is lost; open the file again");
  }
  if (handle.seen_errors != file.errors) {
    handle.seen_errors = file.errors;
    if (file.write_error) return file.write_error;
  }
  return std::nullopt;
}

void WriteBack::queue(const InodeRef& inode) {
  if (std::exchange(inode->file->queued, true)) return;
  std::lock_guard lock(mutex_);
  dirty_.push_back({inode, context_.runtime.clock().now()});
}

std::optional<Result<std::uint32_t>> WriteBack::try_write(FileHandle& handle, std::uint64_t offset,
                                                          Bytes data, Budget::Hold* reserved) {
  Inode& inode = *handle.inode;
  std::uint64_t passed_from = 0, passed_to = 0;
  {
    std::lock_guard lock(inode.mutex);
    FileData& file = *inode.file;
    if (auto error = take_error(handle)) return fail(std::move(*error));
    if (inode.recalling || file.blocked != 0 || !inode.have_layout || !inode.layout.trim.empty() ||
        !context_.inodes.usable(inode, Lease::kExclusive)) {
      return std::nullopt;
    }
    if (data.empty()) return std::uint32_t{0};
    const std::uint32_t chunk_size = inode.layout.chunk_size();
    if (handle.append()) offset = inode.size();
    const std::uint64_t end = offset + data.size();
    if (end < offset || end / chunk_size >= kChunksMax) {
      return fail(Code::kRange, "a file has at most " + std::to_string(kChunksMax) + " chunks of " +
                                    std::to_string(chunk_size) + " bytes");
    }
    const bool appends = end >= inode.size();
    if (inode.layout.layers.size() != 1 || inode.layout.layers.front().frozen) {
      return fail(Code::kUnimplemented, "inode " + to_string(inode.id) +
                                            " shares its data with another one: this program "
                                            "can't write to it; use a newer client");
    }
    const std::uint64_t need = file.dirty.memory_needed(data.size(), appends);
    Budget::Hold taken;
    if (reserved == nullptr || reserved->units() < need) {
      if (!context_.dirty_memory.try_take(need)) return std::nullopt;
      taken = Budget::Hold(&context_.dirty_memory, need);
      reserved = &taken;
    }
    file.dirty.set_chunk_size(chunk_size);
    reserved->hand_over(file.dirty.write(offset, data, appends));
    Attr& attr = inode.attr.attr;
    if (end > attr.size) {
      attr.size = end;
      file.report_size = true;
    }
    attr.mtime_ns = attr.ctime_ns = context_.runtime.clock().wall_ns();
    file.report_times = true;
    if (!file.ahead.empty()) file.ahead.drop(offset, end);
    queue(handle.inode);
    passed_from = offset / chunk_size;
    passed_to = end / chunk_size;  // these chunks were written to their end
  }
  for (std::uint64_t index = passed_from; index < passed_to; ++index)
    spawn(flush_chunk_quietly(handle.inode, index));
  return static_cast<std::uint32_t>(data.size());
}

rpc::Task<Result<Budget::Hold>> WriteBack::make_room(std::uint64_t bytes, Deadline deadline) {
  const std::uint64_t need = DirtyData::memory_needed(bytes, true);
  drop_retained(need);
  if (context_.dirty_memory.try_take(need)) co_return Budget::Hold(&context_.dirty_memory, need);
  std::deque<Aged> all;
  {
    std::lock_guard lock(mutex_);
    all.swap(dirty_);
  }
  for (Aged& aged : all) {
    {
      std::lock_guard lock(aged.inode->mutex);
      aged.inode->file->queued = false;
    }
    spawn(flush_quietly(std::move(aged.inode)));
  }
  auto room = co_await context_.dirty_memory.take(need, deadline);
  if (!room) co_return fail(room.error().with("waiting for memory of unsaved data"));
  co_return room;
}

rpc::Task<Result<>> WriteBack::flush(InodeRef inode, Durable durable, Deadline deadline) {
  std::vector<rpc::Task<Result<>>> tasks;
  {
    std::lock_guard lock(inode->mutex);
    if (!inode->file) co_return Result<>{};
    for (std::uint64_t index : inode->file->dirty.active_chunks()) {
      tasks.push_back(flush_chunk(inode, index, durable, deadline));
    }
  }
  auto flushed = co_await run_all(context_.runtime, std::move(tasks), context_.options.parallel_chunks);
  auto settled = co_await settle(inode, deadline);
  if (!flushed) co_return flushed;
  co_return settled;
}

rpc::Task<Result<>> WriteBack::settle(InodeRef inode, Deadline deadline) {
  // Only what is on its way now: chunks frozen later are somebody else's.
  std::vector<std::uint64_t> waiting;
  std::uint64_t errors = 0;
  {
    std::lock_guard lock(inode->mutex);
    if (!inode->file) co_return Result<>{};
    waiting = inode->file->dirty.flushing_chunks();
    errors = inode->file->errors;
  }
  for (std::uint64_t index : waiting) {
    for (;;) {
      std::shared_ptr<rpc::Event> settled;
      {
        std::lock_guard lock(inode->mutex);
        if (!inode->file->dirty.is_flushing(index)) break;
        settled = inode->file->settled.next(context_.runtime);
      }
      CO_TRYV(co_await settled->wait(deadline));
    }
  }
  std::lock_guard lock(inode->mutex);
  if (inode->file->errors != errors && inode->file->write_error) co_return fail(*inode->file->write_error);
  co_return Result<>{};
}

rpc::Task<Result<>> WriteBack::flush_chunk(InodeRef inode, std::uint64_t index, Durable durable,
                                           Deadline deadline) {
  auto slot = co_await slots_.take(1, deadline);
  if (!slot) co_return fail(slot.error().with("waiting for other transfers"));
  for (;;) {
    std::shared_ptr<rpc::Event> settled;
    bool beyond = false;
    {
      std::lock_guard lock(inode->mutex);
      FileData& file = *inode->file;
      if (!file.dirty.has_active(index)) co_return Result<>{};
      if (file.dirty.is_flushing(index)) {
        settled = file.settled.next(context_.runtime);
      } else {
        beyond = inode->have_layout && index >= inode->layout.bound;
      }
    }
    if (settled) {
      CO_TRYV(co_await settled->wait(deadline));
      continue;
    }
    if (beyond) {
      auto extended = co_await extend_bound(inode, index, deadline);
      if (!extended) {
        std::lock_guard lock(inode->mutex);
        FileData& file = *inode->file;
        if (file.dirty.has_active(index) && !file.dirty.is_flushing(index)) {
          file.dirty.start_flush(index);
          context_.dirty_memory.give(file.dirty.end_flush(index));
        }
        file.write_error.emplace(extended.error());
        ++file.errors;
        file.settled.notify();
        co_return extended;
      }
      continue;
    }
    auto stored = co_await store(inode, index, durable, deadline);
    co_return stored;
  }
}

rpc::Task<Result<>> WriteBack::store(InodeRef inode, std::uint64_t index, Durable durable,
                                     Deadline deadline) {
  std::shared_ptr<const ChunkBytes> bytes;
  ChunkWrite write;
  bool fresh = false;
  std::uint64_t base = 0, size = 0;
  bool ahead = false;
  {
    std::lock_guard lock(inode->mutex);
    FileData& file = *inode->file;
    if (!file.dirty.has_active(index) || file.dirty.is_flushing(index)) co_return Result<>{};
    if (inode->lease != Lease::kExclusive || !inode->have_layout || inode->session != context_.session.id()) {
      lose(*inode);
      co_return fail(Code::kSessionEnded,
                     "the lease on inode " + to_string(inode->id) + " ended with unsaved data");
    }
    bytes = file.dirty.start_flush(index);
    const Layer& layer = inode->layout.layers.front();
    write.target = {{layer.data, static_cast<std::uint32_t>(index), 0},
                    layer.pool,
                    inode->session,
                    inode->id,
                    inode->generation};
    fresh = file.holes.contains(index);
    base = index * inode->layout.chunk_size();
    size = inode->size();
    ahead = index + 2 * context_.options.parallel_chunks >= inode->layout.bound &&
            inode->layout.bound < (index + 1) * 2 && index > 0 && !file.extending;
  }
  if (ahead) spawn(extend_ahead(inode, index));
  Result<> outcome;
  std::vector<Version> versions;  // newest of each epoch
  bool first = true;
  for (auto& run : bytes->runs()) {
    ChunkWrite one = write;
    one.kind = fresh && first ? schema::WriteRequest::Kind::FRESH : schema::WriteRequest::Kind::WRITE;
    one.offset = run.offset;
    one.length = run.size;
    one.payload = std::move(run.payload);
    one.ends_chunk = fresh || base + run.offset + run.size >= size;
    one.durable = durable;
    first = false;
    auto written = co_await context_.chunks.write(std::move(one), deadline);
    if (!written) {
      outcome = fail(std::move(written.error()));
      break;
    }
    if (!versions.empty() && versions.back().epoch == written->version.epoch) {
      versions.back() = written->version;
    } else {
      versions.push_back(written->version);
    }
  }
  {
    std::lock_guard lock(inode->mutex);
    FileData& file = *inode->file;
    const std::uint64_t memory = file.dirty.end_flush(index);
    file.ahead.drop(base, base + (inode->have_layout ? inode->layout.chunk_size() : kDefaultChunkSize));
    if (outcome) {
      file.holes.remove(index, index + 1);
      file.written.add(index, index + 1);
      file.report_size = true;
      if (durable == Durable::kYes) {
        auto it = file.unsynced.find(index);
        // A durable write covers what the same epoch acknowledged before it.
        if (it != file.unsynced.end()) {
          std::vector<Unsynced> older;
          for (auto& entry : it->second) {
            if (entry.version.epoch == versions.back().epoch) {
              std::vector<Unsynced> covered{std::move(entry)};
              forget_retained(covered);
            } else {
              older.push_back(std::move(entry));
            }
          }
          it->second = std::move(older);
          if (it->second.empty()) file.unsynced.erase(it);
        }
        context_.dirty_memory.give(memory);
      } else {
        retain(inode, index, versions, bytes);
      }
    } else {
      context_.dirty_memory.give(memory);
      file.write_error.emplace(outcome.error());
      ++file.errors;
      if (outcome.error().code() == Code::kSessionEnded) ++file.losses;
    }
    file.settled.notify();
  }
  if (!outcome) {
    log_warn("flush_failed", "inode={} chunk={} error={}", to_string(inode->id),
             to_string(write.target.chunk), log_quote(outcome.error().to_string()));
    co_return outcome;
  }
  reporter_.add(inode);
  co_return outcome;
}

// --- the bound ---

rpc::Task<Result<>> WriteBack::extend_bound(InodeRef inode, std::uint64_t index, Deadline deadline) {
  for (;;) {
    std::shared_ptr<rpc::Event> settled;
    std::uint64_t generation = 0, wanted = 0;
    SessionId session;
    {
      std::lock_guard lock(inode->mutex);
      FileData& file = *inode->file;
      if (!inode->have_layout || index < inode->layout.bound) co_return Result<>{};
      if (file.extending) {
        settled = file.settled.next(context_.runtime);
      } else {
        file.extending = true;
        generation = inode->generation;
        session = inode->session;
        wanted = std::max(index + 1, std::min(inode->layout.bound * 2, inode->layout.bound + 1024));
      }
    }
    if (settled) {
      CO_TRYV(co_await settled->wait(deadline));
      continue;
    }
    std::function<void(schema::ExtendBoundRequest::Builder)> fill =
        [=, id = inode->id](schema::ExtendBoundRequest::Builder body) {
          body.setInode(id.value());
          body.setGeneration(generation);
          body.setBound(wanted);
        };
    auto reply = co_await context_.session.mutate<rpc::method::ExtendBound>(std::move(fill), deadline,
                                                                            nullptr, session);
    std::lock_guard lock(inode->mutex);
    FileData& file = *inode->file;
    file.extending = false;
    file.settled.notify();
    if (!reply) co_return fail(std::move(reply.error()));
    const std::uint64_t bound = (*reply)->getBound();
    if (bound <= index)
      co_return fail(Code::kProtocol,
                     "ExtendBound: asked for " + std::to_string(wanted) + ", got " + std::to_string(bound));
    inode->layout.bound = std::max(inode->layout.bound, bound);
    co_return Result<>{};
  }
}

rpc::Task<> WriteBack::extend_ahead(InodeRef inode, std::uint64_t index) {
  const std::uint64_t wanted = std::min(kChunksMax - 1, index + 2 * context_.options.parallel_chunks);
  auto extended = co_await extend_bound(inode, wanted, context_.deadline());
  // Who really needs the bound asks again and reports the failure.
  if (!extended)
    log_debug("extend_bound", "inode={} error={}", to_string(inode->id),
              log_quote(extended.error().to_string()));
}

// --- durability ---

rpc::Task<Result<bool>> WriteBack::sync_chunks(InodeRef inode, Deadline deadline) {
  std::vector<ChunkVersion> asked;
  {
    std::lock_guard lock(inode->mutex);
    if (!inode->file || inode->file->unsynced.empty()) co_return true;
    if (!inode->have_layout)
      co_return fail(Code::kSessionEnded, "the lease on inode " + to_string(inode->id) + " is gone");
    const Layer& layer = inode->layout.layers.front();
    for (const auto& [index, entries] : inode->file->unsynced) {
      Epoch epoch;
      for (auto it = entries.rbegin(); it != entries.rend(); ++it) {  // the newest of each epoch
        if (it->version.epoch == epoch) continue;
        epoch = it->version.epoch;
        asked.push_back({{layer.data, static_cast<std::uint32_t>(index), 0}, layer.pool, it->version});
      }
    }
  }
  CO_TRY(auto codes, co_await context_.chunks.sync(asked, deadline));
  bool kept = true;
  std::optional<Error> error;
  {
    std::lock_guard lock(inode->mutex);
    FileData& file = *inode->file;
    for (std::size_t i = 0; i < asked.size(); ++i) {
      const std::uint64_t index = asked[i].chunk.index;
      auto it = file.unsynced.find(index);
      if (it == file.unsynced.end()) continue;
      if (codes[i] == Code::kOk) {
        std::vector<Unsynced> synced, rest;
        for (auto& entry : it->second) {
          const bool covered =
              entry.version.epoch == asked[i].version.epoch && entry.version <= asked[i].version;
          (covered ? synced : rest).push_back(std::move(entry));
        }
        forget_retained(synced);
        it->second = std::move(rest);
        if (it->second.empty()) file.unsynced.erase(it);
      } else if (codes[i] == Code::kLostUnsynced) {
        // Write it all again: later writes of the same chunk lie over the lost ones.
        std::vector<Unsynced> lost = std::move(it->second);
        file.unsynced.erase(it);
        bool all = true;
        for (const auto& entry : lost) all = all && entry.bytes != nullptr;
        for (auto entry = lost.rbegin(); all && entry != lost.rend(); ++entry) {
          const std::uint64_t taken = file.dirty.restore(index, *entry->bytes);
          context_.dirty_memory.force(taken);
        }
        forget_retained(lost);
        kept = false;
        if (!all) {
          error.emplace(
              Code::kLostUnsynced,
              "chunk " + to_string(asked[i].chunk) + " of inode " + to_string(inode->id) +
                  ": the servers lost bytes before they were synced, and they are no longer in memory");
        }
      } else if (!error) {
        error.emplace(codes[i], "chunk " + to_string(asked[i].chunk) +
                                    " can't be synced: " + std::string(code_name(codes[i])));
      }
    }
  }
  if (error) co_return fail(std::move(*error));
  co_return kept;
}

rpc::Task<Result<>> WriteBack::make_durable(InodeRef inode, bool data_only, Deadline deadline) {
  for (int attempt = 0;; ++attempt) {
    CO_TRYV(co_await flush(inode, Durable::kYes, deadline));
    CO_TRY(const bool kept, co_await sync_chunks(inode, deadline));
    if (kept) break;
    if (attempt == 3)
      co_return fail(Code::kLostUnsynced,
                     "the servers lost unsynced bytes of inode " + to_string(inode->id) + " again and again");
  }
  bool report = false, made = false;
  {
    std::lock_guard lock(inode->mutex);
    FileData& file = *inode->file;
    report = file.report_size || file.trim_done || !file.written.empty() || file.reporting ||
             (!data_only && (file.report_times || file.report_atime));
    made = file.meta_dirty;
  }
  if (!report && !made) co_return Result<>{};
  CO_TRYV(co_await reporter_.report(inode, Durable::kYes, deadline));
  std::lock_guard lock(inode->mutex);
  inode->file->meta_dirty = false;
  co_return Result<>{};
}

rpc::Task<Result<>> WriteBack::flush_all(Durable durable, Deadline deadline) {
  std::vector<rpc::Task<Result<>>> tasks;
  for (InodeRef& inode : context_.inodes.all()) {
    {
      std::lock_guard lock(inode->mutex);
      if (!inode->file || (inode->file->clean() && inode->file->unsynced.empty() && !inode->file->meta_dirty))
        continue;
    }
    if (durable == Durable::kYes) {
      tasks.push_back(make_durable(inode, false, deadline));
    } else {
      tasks.push_back(flush(inode, durable, deadline));
    }
  }
  auto done = co_await run_all(context_.runtime, std::move(tasks), 64);
  co_return done;
}

// --- background ---

rpc::Task<> WriteBack::flush_chunk_quietly(InodeRef inode, std::uint64_t index) {
  auto flushed = co_await flush_chunk(inode, index, Durable::kNo, context_.deadline());
  (void)flushed;  // the error waits for a handle of the file
}

rpc::Task<> WriteBack::flush_quietly(InodeRef inode) {
  auto flushed = co_await flush(inode, Durable::kNo, context_.deadline());
  (void)flushed;  // as above
  std::lock_guard lock(inode->mutex);
  if (inode->file->dirty.has_active()) queue(inode);
  reporter_.add(inode);
}

void WriteBack::released(const InodeRef& inode) {
  std::lock_guard lock(mutex_);
  idle_.push_back({inode, context_.runtime.clock().now()});
}

rpc::Task<> WriteBack::run() {
  for (;;) {
    auto slept = co_await rpc::sleep_for(context_.runtime, kTick);
    if (!slept) co_return;
    const TimePoint now = context_.runtime.clock().now();
    std::vector<InodeRef> old, idle;
    {
      std::lock_guard lock(mutex_);
      while (!dirty_.empty() && dirty_.front().since + kAge <= now) {
        old.push_back(std::move(dirty_.front().inode));
        dirty_.pop_front();
      }
      while (!idle_.empty() && idle_.front().since + kIdleClose <= now) {
        idle.push_back(std::move(idle_.front().inode));
        idle_.pop_front();
      }
    }
    for (InodeRef& inode : old) {
      bool due = false;
      {
        std::lock_guard lock(inode->mutex);
        inode->file->queued = false;
        due = inode->file->dirty.has_active();
      }
      if (due) {
        spawn(flush_quietly(std::move(inode)));
      } else {
        reporter_.add(std::move(inode));
      }
    }
    for (InodeRef& inode : idle) reporter_.add(std::move(inode));
    context_.inodes.evict();
  }
}

// --- bytes that will not be stored, bytes kept to be stored again ---

void WriteBack::discard(Inode& inode) {
  if (!inode.file) return;
  FileData& file = *inode.file;
  context_.dirty_memory.give(file.dirty.clear());
  file.written.clear();
  file.report_size = file.report_times = file.report_atime = file.trim_done = false;
  for (auto& [index, entries] : file.unsynced) forget_retained(entries);
  file.unsynced.clear();
}

void WriteBack::lose(Inode& inode) {
  if (!inode.file) return;
  FileData& file = *inode.file;
  if (!file.clean() || !file.unsynced.empty() || file.reporting) ++file.losses;
  discard(inode);
  file.server_opens = 0;
  file.settled.notify();
}

void WriteBack::retain(const InodeRef& inode, std::uint64_t index, const std::vector<Version>& versions,
                       std::shared_ptr<const ChunkBytes> bytes) {
  const std::uint64_t memory = bytes->memory();
  const bool room = retained_bytes_.load() + memory <= context_.dirty_memory.capacity() / 4;
  if (room) {
    retained_bytes_ += memory;
    std::lock_guard lock(mutex_);
    retained_.push_back({inode, index, bytes});
  } else {
    context_.dirty_memory.give(memory);
  }
  auto& entries = inode->file->unsynced[index];
  for (const Version& version : versions) entries.push_back({version, room ? bytes : nullptr, false});
  entries.back().counted = room;
}

void WriteBack::forget_from(Inode& inode, std::uint64_t index) {
  auto& unsynced = inode.file->unsynced;
  for (auto it = unsynced.lower_bound(index); it != unsynced.end(); it = unsynced.erase(it))
    forget_retained(it->second);
}

void WriteBack::forget_retained(std::vector<Unsynced>& of_chunk) {
  for (auto& entry : of_chunk) {
    if (std::exchange(entry.counted, false)) {
      retained_bytes_ -= entry.bytes->memory();
      context_.dirty_memory.give(entry.bytes->memory());
    }
    entry.bytes.reset();
  }
}

void WriteBack::drop_retained(std::uint64_t wanted) {
  std::uint64_t dropped = 0;
  while (dropped < wanted) {
    Retained oldest;
    {
      std::lock_guard lock(mutex_);
      if (retained_.empty()) return;
      oldest = std::move(retained_.front());
      retained_.pop_front();
    }
    auto inode = oldest.inode.lock();
    auto bytes = oldest.bytes.lock();
    if (!inode || !bytes) continue;
    std::lock_guard lock(inode->mutex);
    auto it = inode->file->unsynced.find(oldest.index);
    if (it == inode->file->unsynced.end()) continue;
    for (auto& entry : it->second) {
      if (entry.bytes != bytes) continue;
      if (std::exchange(entry.counted, false)) {
        retained_bytes_ -= bytes->memory();
        context_.dirty_memory.give(bytes->memory());
        dropped += bytes->memory();
      }
      entry.bytes.reset();
    }
  }
}

}  // namespace cairn::client
