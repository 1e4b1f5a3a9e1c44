#include "client/write_back.h"

#include "client/allocate.h"
#include "client/fan_out.h"
#include "client/shared_chunk.h"
#include "store/base/log.h"

namespace cairn::client {
namespace {

// Dirty bytes are flushed then: as often as Linux writes back for local file systems. Sooner, storing small
// files would take the machine from whoever makes them, and files that live for seconds only would be stored.
constexpr auto kAge = std::chrono::seconds(5);
constexpr auto kSweepEvery = std::chrono::seconds(2);
constexpr auto kTick = std::chrono::milliseconds(100);

// Nothing can be stored any more under the lease or session that the bytes were written under.
bool is_final(const Error& error) {
  return error.code() == Code::kSessionEnded || error.code() == Code::kLeaseLost;
}

}  // namespace

WriteBack::WriteBack(FileContext& context, Reporter& reporter)
    : context_(context),
      reporter_(reporter),
      ledger_(context),
      slots_(context.runtime, std::max(1u, context.options.parallel_chunks)),
      recall_slots_(context.runtime, std::max(1u, context.options.parallel_chunks / 4)) {}

void WriteBack::spawn(rpc::Task<> task) {
  context_.tasks.spawn(context_.runtime.make_strand(), std::move(task));
}

std::optional<Error> WriteBack::take_error(FileHandle& handle) {
  FileData& file = *handle.inode->file;
  if (handle.seen_losses != file.losses) {
    file.errors_told = file.errors;
    return Error(Code::kSessionEnded,
                 "the session under which inode " + to_string(handle.inode->id) +
                     " was written ended: data not yet stored is lost; open the file again");
  }
  if (handle.seen_errors != file.errors) {
    handle.seen_errors = file.errors_told = file.errors;
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
    // What went wrong before this open is told by fsync and close, as with any file system.
    if (handle.seen_losses != file.losses || file.errors > std::max(handle.seen_errors, handle.old_errors))
      if (auto error = take_error(handle)) return fail(std::move(*error));
    if (inode.recalling || file.blocked != 0 || !inode.have_layout || !inode.layout.trim.empty() ||
        !context_.inodes.usable(inode, Lease::kExclusive)) {
      return std::nullopt;
    }
    if (data.empty()) return std::uint32_t{0};
    const std::uint32_t chunk_size = inode.layout.chunk_size();
    if (handle.append()) offset = inode.size();
    if (handle.keeps_size) {
      if (offset >= inode.size()) return static_cast<std::uint32_t>(data.size());
      data = data.first(std::min<std::uint64_t>(data.size(), inode.size() - offset));
    }
    const std::uint64_t end = offset + data.size();
    if (end < offset || too_long(end, chunk_size)) {
      return fail(Code::kRange, "a file has at most " + std::to_string(kChunksMax) + " chunks of " +
                                    std::to_string(chunk_size) + " bytes");
    }
    if (not_allowed(inode, offset, data.size())) return std::nullopt;
    const bool appends = end >= inode.size();
    if (inode.layout.layers.front().frozen) {
      return fail(Code::kUnimplemented,
                  "inode " + to_string(inode.id) + " has no layer of its own: use a newer client");
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
  ledger_.make_room(need);
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
  const Deadline patience =
      out_of_space() ? std::min(deadline, Deadline::after(context_.runtime.clock(), kAge)) : deadline;
  auto room = co_await context_.dirty_memory.take(need, patience);
  if (!room && out_of_space())
    co_return fail(Code::kNoSpace, "the servers are full, and so is the memory for unsaved data");
  if (!room) co_return fail(room.error().with("waiting for memory of unsaved data"));
  co_return room;
}

rpc::Task<Result<>> WriteBack::flush(InodeRef inode, Durable durable, Deadline deadline, For what) {
  std::vector<rpc::Task<Result<>>> tasks;
  {
    std::lock_guard lock(inode->mutex);
    if (!inode->file) co_return Result<>{};
    for (std::uint64_t index : inode->file->dirty.active_chunks()) {
      tasks.push_back(flush_chunk(inode, index, durable, deadline, what));
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
  std::uint64_t errors = 0, failures = 0;
  {
    std::lock_guard lock(inode->mutex);
    if (!inode->file) co_return Result<>{};
    waiting = inode->file->dirty.flushing_chunks();
    errors = inode->file->errors;
    failures = inode->file->failures;
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
  if (inode->file->failures != failures) co_return fail(*inode->file->failure);
  co_return Result<>{};
}

rpc::Task<Result<>> WriteBack::flush_chunk(InodeRef inode, std::uint64_t index, Durable durable,
                                           Deadline deadline, For what) {
  auto slot = co_await (what == For::kRecall ? recall_slots_ : slots_).take(1, deadline);
  if (!slot) co_return fail(slot.error().with("waiting for other transfers"));
  for (;;) {
    std::shared_ptr<rpc::Event> settled;
    bool beyond = false;
    {
      std::lock_guard lock(inode->mutex);
      FileData& file = *inode->file;
      if (!file.dirty.has_active(index)) co_return Result<>{};
      if (file.dirty.is_flushing(index) || file.truncating) {
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
        if (!is_final(extended.error())) {
          kept(inode, extended.error());
        } else if (file.dirty.has_active(index) && !file.dirty.is_flushing(index)) {
          file.dirty.start_flush(index);
          context_.dirty_memory.give(file.dirty.end_flush(index));
          given_up(*inode, extended.error());
        }
        file.settled.notify();
        co_return extended;
      }
      continue;
    }
    auto stored = co_await store(inode, index, durable, deadline);
    if (!stored) co_return fail(std::move(stored.error()));
    if (*stored) co_return Result<>{};
  }
}

rpc::Task<Result<bool>> WriteBack::store(InodeRef inode, std::uint64_t index, Durable durable,
                                         Deadline deadline) {
  std::shared_ptr<const ChunkBytes> bytes;
  ChunkWrite write;
  std::optional<ChunkTarget> shared;  // where the chunk's bytes lie that others have too
  bool fresh = false;
  std::uint64_t base = 0, size = 0;
  std::uint32_t length = 0;
  bool ahead = false;
  {
    std::lock_guard lock(inode->mutex);
    FileData& file = *inode->file;
    if (!file.dirty.has_active(index) || file.dirty.is_flushing(index)) co_return true;
    if (file.truncating) co_return false;
    if (inode->lease != Lease::kExclusive || !inode->have_layout || inode->session != context_.session.id()) {
      lose(*inode);
      co_return fail(Code::kSessionEnded,
                     "the lease on inode " + to_string(inode->id) + " ended with unsaved data");
    }
    bytes = file.dirty.start_flush(index);
    write.target = write_target(*inode, index);
    if (inode->layout.frozen_layer_of(index) != nullptr) shared = read_target(*inode, index);
    fresh = shared || file.holes.contains(index);
    base = index * inode->layout.chunk_size();
    size = inode->size();
    length = static_cast<std::uint32_t>(std::min<std::uint64_t>(size - base, inode->layout.chunk_size()));
    ahead = index + 2 * context_.options.parallel_chunks >= inode->layout.bound &&
            inode->layout.bound < (index + 1) * 2 && index > 0 && !file.extending;
  }
  if (ahead) spawn(extend_ahead(inode, index));
  Result<> outcome;
  std::vector<Acknowledged> versions;
  bool first = true;
  auto runs = bytes->runs();
  if (shared) {
    auto merged = co_await with_shared_bytes(context_, *shared, bytes, length, deadline);
    if (merged) {
      // Synced at once: the report lets go of the shared bytes, which were synced, and should the servers
      // lose these, only what was written here could be written again, while this client lives.
      durable = Durable::kYes;
      runs = std::move(*merged);
    } else {
      outcome = fail(std::move(merged.error()));
      runs.clear();
    }
  }
  for (auto& run : runs) {
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
    if (!versions.empty() && stands_on(*written, versions.back().version)) {
      versions.back().version = written->version;
    } else {
      versions.push_back({written->base, written->version});
    }
  }
  {
    std::lock_guard lock(inode->mutex);
    FileData& file = *inode->file;
    file.ahead.drop(base, base + (inode->have_layout ? inode->layout.chunk_size() : kDefaultChunkSize));
    if (file.gone) {
      // Removed meanwhile: its chunks go too, and whether they were stored matters to nobody.
      context_.dirty_memory.give(file.dirty.end_flush(index));
      outcome = {};
    } else if (outcome) {
      file.dirty.end_flush(index);  // its memory goes with the ledger's entry
      file.holes.remove(index, index + 1);
      file.punched.remove(index, index + 1);
      file.written.add(index, index + 1);
      take_from_frozen(*inode, index);
      file.report_size = true;
      ledger_.acknowledged(inode, write.target, versions, bytes, durable);
    } else {
      context_.dirty_memory.give(file.dirty.end_flush(index));
      // Under a later lease others may have written in between: the bytes must not come after theirs.
      const bool held = inode->lease == Lease::kExclusive && inode->session == write.target.session &&
                        inode->generation == write.target.generation && inode->have_layout &&
                        inode->layout.layers.front().data == write.target.chunk.data;
      if (held && !is_final(outcome.error())) {
        context_.dirty_memory.force(file.dirty.restore(index, *bytes));
        kept(inode, outcome.error());
      } else {
        given_up(*inode, outcome.error());
      }
    }
    file.settled.notify();
  }
  if (!outcome) {
    log_warn("flush_failed", "inode={} chunk={} error={}", to_string(inode->id),
             to_string(write.target.chunk), log_quote(outcome.error().to_string()));
    co_return fail(std::move(outcome.error()));
  }
  reporter_.add(inode);
  co_return true;
}

// Under the inode's mutex: dirty bytes could not be stored and stay dirty, to be tried again. The file's size
// is never reported past them.
void WriteBack::kept(const InodeRef& inode, const Error& error) {
  FileData& file = *inode->file;
  file.failure.emplace(error);
  ++file.failures;
  if (error.code() == Code::kNoSpace) full_until_ = context_.runtime.clock().now() + kAge;
  queue(inode);
}

// Under the inode's mutex: bytes were dropped that nobody can store any more.
void WriteBack::given_up(Inode& inode, const Error& error) {
  FileData& file = *inode.file;
  file.write_error.emplace(error);
  ++file.errors;
  if (error.code() == Code::kSessionEnded) ++file.losses;
}

bool WriteBack::out_of_space() const {
  return context_.runtime.clock().now() < full_until_.load(std::memory_order_relaxed);
}

// --- the bound, and what quotas allow ---

namespace {

// Under the inode's mutex.
void take_allowance(Inode& inode, schema::ExtendBoundReply::Reader reply) {
  inode.layout.limited = reply.getLimited();
  inode.layout.bytes_max = reply.getBytesMax();
}

}  // namespace

std::optional<std::uint64_t> WriteBack::not_allowed(const Inode& inode, std::uint64_t offset,
                                                    std::uint64_t length) {
  if (!inode.have_layout || !inode.layout.limited) return std::nullopt;
  // A file never has more bytes than its size.
  if (std::max(inode.size(), offset + length) <= inode.layout.bytes_max) return std::nullopt;
  const std::uint64_t bytes = allocated_with(inode, offset, length);
  if (bytes <= inode.layout.bytes_max) return std::nullopt;
  return bytes;
}

rpc::Task<Result<>> WriteBack::ask_allowance(InodeRef inode, std::uint64_t bytes, Deadline deadline) {
  for (;;) {
    std::shared_ptr<rpc::Event> settled;
    std::uint64_t generation = 0;
    SessionId session;
    {
      std::lock_guard lock(inode->mutex);
      FileData& file = *inode->file;
      if (!inode->have_layout || inode->lease != Lease::kExclusive) co_return Result<>{};  // asked for first
      if (!inode->layout.limited || bytes <= inode->layout.bytes_max) co_return Result<>{};
      // A report on its way may give some of it back: neither may overtake the other.
      if (file.extending || file.reporting) {
        settled = file.settled.next(context_.runtime);
      } else {
        file.extending = true;
        generation = inode->generation;
        session = inode->session;
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
          body.setBytes(bytes);
        };
    auto reply = co_await context_.session.mutate<rpc::method::ExtendBound>(std::move(fill), deadline,
                                                                            nullptr, session);
    std::lock_guard lock(inode->mutex);
    FileData& file = *inode->file;
    file.extending = false;
    file.settled.notify();
    if (!reply) {
      if (reply.error().code() == Code::kLeaseLost && inode->lease != Lease::kExclusive) co_return Result<>{};
      co_return fail(std::move(reply.error()));
    }
    take_allowance(*inode, **reply);
    if (!inode->layout.limited || bytes <= inode->layout.bytes_max) co_return Result<>{};
    co_return fail(Code::kProtocol, "ExtendBound: asked for " + std::to_string(bytes) + " bytes, got " +
                                        std::to_string(inode->layout.bytes_max));
  }
}

rpc::Task<Result<>> WriteBack::make_allowed(InodeRef inode, std::uint64_t bytes, Deadline deadline) {
  auto asked = co_await ask_allowance(inode, bytes, deadline);
  if (asked || asked.error().code() != Code::kQuotaExceeded) co_return asked;
  // What other files here were allowed ahead may be what is missing.
  const bool returned = co_await return_room(deadline);
  if (!returned) co_return asked;
  co_return co_await ask_allowance(inode, bytes, deadline);
}

rpc::Task<bool> WriteBack::return_room(Deadline deadline) {
  std::vector<rpc::Task<Result<>>> tasks;
  for (InodeRef& inode : context_.inodes.all()) {
    std::lock_guard lock(inode->mutex);
    if (!inode->file || !inode->have_layout || !inode->layout.limited || inode->lease != Lease::kExclusive)
      continue;
    if (inode->layout.bytes_max <= allocated_with(*inode, 0, 0)) continue;
    inode->file->return_room = true;
    tasks.push_back(reporter_.report(inode, Durable::kNo, deadline));
  }
  if (tasks.empty()) co_return false;
  auto done = co_await run_all(context_.runtime, std::move(tasks), 1024);
  co_return done.has_value();
}

rpc::Task<Result<>> WriteBack::extend_bound(InodeRef inode, std::uint64_t index, Deadline deadline,
                                            bool ahead) {
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
          body.setNeeded(ahead ? 0 : index + 1);
        };
    auto reply = co_await context_.session.mutate<rpc::method::ExtendBound>(std::move(fill), deadline,
                                                                            nullptr, session);
    std::lock_guard lock(inode->mutex);
    FileData& file = *inode->file;
    file.extending = false;
    file.settled.notify();
    if (!reply) co_return fail(std::move(reply.error()));
    take_allowance(*inode, **reply);
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
  auto extended = co_await extend_bound(inode, wanted, context_.deadline(), true);
  // Who really needs the bound asks again and reports the failure.
  if (!extended)
    log_debug("extend_bound", "inode={} error={}", to_string(inode->id),
              log_quote(extended.error().to_string()));
}

// --- shared chunks ---

rpc::Task<Result<>> WriteBack::copy_up(InodeRef inode, std::uint64_t index, Deadline deadline) {
  CO_TRYV(co_await extend_bound(inode, index, deadline));
  ChunkTarget shared;
  ChunkWrite write;
  std::uint32_t length = 0;
  {
    std::lock_guard lock(inode->mutex);
    if (!inode->have_layout || inode->layout.frozen_layer_of(index) == nullptr) co_return Result<>{};
    const std::uint64_t chunk_size = inode->layout.chunk_size();
    const std::uint64_t base = index * chunk_size;
    if (base >= inode->size()) co_return Result<>{};
    length = static_cast<std::uint32_t>(std::min(chunk_size, inode->size() - base));
    shared = read_target(*inode, index);
    write.target = write_target(*inode, index);
  }
  auto bytes = co_await read_shared(context_, shared, length, deadline);
  if (!bytes) co_return fail(std::move(bytes.error()));
  write.kind = schema::WriteRequest::Kind::FRESH;
  write.length = length;
  write.payload.pieces.push_back(std::move(*bytes));
  write.ends_chunk = true;
  write.durable = Durable::kYes;
  auto written = co_await context_.chunks.write(std::move(write), deadline);
  if (!written) co_return fail(std::move(written.error()));
  std::lock_guard lock(inode->mutex);
  if (inode->lease != Lease::kExclusive || !inode->have_layout) co_return Result<>{};
  take_from_frozen(*inode, index);
  inode->file->written.add(index, index + 1);
  inode->file->report_size = true;
  co_return Result<>{};
}

// --- durability ---

rpc::Task<Result<SyncLedger::Outcome>> WriteBack::sync_chunks(InodeRef inode, Deadline deadline) {
  std::vector<ChunkVersion> asked;
  {
    std::lock_guard lock(inode->mutex);
    asked = ledger_.ask(*inode);
  }
  if (asked.empty()) co_return SyncLedger::Outcome::kSynced;
  CO_TRY(auto codes, co_await context_.chunks.sync(asked, deadline));
  CO_TRYV(co_await ledger_.forget_removed(inode, codes, deadline));
  std::lock_guard lock(inode->mutex);
  co_return ledger_.answered(*inode, asked, codes);
}

rpc::Task<Result<>> WriteBack::make_durable(InodeRef inode, bool data_only, Deadline deadline) {
  for (int attempt = 0;; ++attempt) {
    CO_TRYV(co_await flush(inode, Durable::kYes, deadline));
    CO_TRY(const auto outcome, co_await sync_chunks(inode, deadline));
    if (outcome == SyncLedger::Outcome::kSynced) break;
    if (attempt == 3)
      co_return fail(Code::kLostUnsynced,
                     "the servers lost unsynced bytes of inode " + to_string(inode->id) + " again and again");
  }
  bool report = false, made = false;
  {
    std::lock_guard lock(inode->mutex);
    FileData& file = *inode->file;
    report = file.report_size || file.trim_done || !file.written.empty() || file.reporting ||
             (!data_only && (file.report_times || file.report_atime || file.report_mode));
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

rpc::Task<> WriteBack::sweep() {
  if (sweeping_.exchange(true)) co_return;
  auto again = co_await ledger_.sweep(context_.deadline());
  sweeping_ = false;
  for (InodeRef& inode : again) spawn(flush_quietly(std::move(inode)));
}

rpc::Task<> WriteBack::run() {
  TimePoint next_sweep = context_.runtime.clock().now() + kSweepEvery;
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
    if (now >= next_sweep) {
      next_sweep = now + kSweepEvery;
      spawn(sweep());
    }
    context_.inodes.evict();
  }
}

// --- bytes that will not be stored ---

void WriteBack::discard(Inode& inode) {
  if (!inode.file) return;
  FileData& file = *inode.file;
  context_.dirty_memory.give(file.dirty.clear());
  file.written.clear();
  file.report_size = file.report_times = file.report_atime = file.report_mode = file.trim_done = false;
  ledger_.forget_from(inode, 0);
}

void WriteBack::give_up_unsynced(Inode& inode) {
  FileData& file = *inode.file;
  if (file.unsynced.empty()) return;
  file.write_error.emplace(Code::kLostUnsynced,
                           "inode " + to_string(inode.id) +
                               ": its lease was taken back before its last bytes were known to be synced");
  ++file.errors;
  ledger_.forget_from(inode, 0);
}

void WriteBack::lose(Inode& inode) {
  if (!inode.file) return;
  FileData& file = *inode.file;
  if (!file.clean() || !file.unsynced.empty() || file.reporting) {
    ++file.losses;
    if (file.handles == 0) {  // nobody to be told now: the next who opens it is
      file.write_error.emplace(Code::kSessionEnded, "inode " + to_string(inode.id) +
                                                        ": data written before the session ended is lost");
      ++file.errors;
    }
    log_warn("unsaved_data_lost", "inode={}", to_string(inode.id));
  }
  discard(inode);
  file.server_opens = 0;
  file.settled.notify();
}

}  // namespace cairn::client
