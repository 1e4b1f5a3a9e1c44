#include "client/truncate.h"

#include "client/fan_out.h"

namespace cairn::client {
namespace {

rpc::Task<Result<>> cut_chunk(FileContext& context, ChunkWrite write, Deadline deadline) {
  auto written = co_await context.chunks.write(std::move(write), deadline);
  if (!written && written.error().code() != Code::kNotFound) co_return fail(std::move(written.error()));
  co_return Result<>{};
}

// Under the inode's mutex: where the bytes that the servers have end.
std::uint64_t stored_end(const Inode& inode) {
  const std::uint32_t chunk_size = inode.have_layout ? inode.layout.chunk_size() : kDefaultChunkSize;
  std::uint64_t end = inode.file->reported_size;
  for (const Range& range : inode.file->written.list()) end = std::max(end, range.to * chunk_size);
  return end;
}

// While bytes are dropped that were never stored, no size is reported that covers them.
class ReportsUpTo {
 public:
  explicit ReportsUpTo(InodeRef inode) : inode_(std::move(inode)) {}
  ~ReportsUpTo() {
    std::lock_guard lock(inode_->mutex);
    inode_->file->report_max = UINT64_MAX;
  }
  ReportsUpTo(const ReportsUpTo&) = delete;

 private:
  InodeRef inode_;
};

// A truncation failed after it had dropped bytes that were not stored: the file ends before them.
void ends_at(Inode& inode, std::uint64_t stored) {
  std::lock_guard lock(inode.mutex);
  if (inode.lease == Lease::kExclusive) inode.attr.attr.size = std::min(inode.size(), stored);
}

}  // namespace

rpc::Task<Result<>> finish_trim(FileContext& context, InodeRef inode, RangeSet known_holes,
                                Deadline deadline) {
  std::vector<rpc::Task<Result<>>> tasks;
  Range trim;
  {
    std::lock_guard lock(inode->mutex);
    if (!inode->have_layout || inode->layout.trim.empty()) co_return Result<>{};
    trim = inode->layout.trim;
    const std::uint32_t chunk_size = inode->layout.chunk_size();
    const Layer& layer = inode->layout.layers.front();
    ChunkWrite write;
    write.target = {{layer.data, 0, 0}, layer.pool, inode->session, inode->id, inode->generation};
    std::uint64_t index = trim.from / chunk_size;
    const auto within = static_cast<std::uint32_t>(trim.from % chunk_size);
    if (within != 0) {
      if (!known_holes.contains(index)) {
        write.target.chunk.index = static_cast<std::uint32_t>(index);
        write.kind = schema::WriteRequest::Kind::TRUNCATE;
        write.length = within;
        tasks.push_back(cut_chunk(context, write, deadline));
      }
      ++index;
    }
    write.kind = schema::WriteRequest::Kind::REMOVE;
    write.length = 0;
    for (const std::uint64_t end = chunks_of(trim.to, chunk_size); index < end; ++index) {
      if (known_holes.contains(index)) continue;
      write.target.chunk.index = static_cast<std::uint32_t>(index);
      tasks.push_back(cut_chunk(context, write, deadline));
    }
  }
  auto cut = co_await run_all(context.runtime, std::move(tasks), context.options.parallel_chunks);
  if (!cut) co_return fail(cut.error().with("trimming inode " + to_string(inode->id)));
  std::lock_guard lock(inode->mutex);
  if (inode->have_layout && inode->layout.trim == trim) {
    inode->layout.trim = {};
    inode->file->trim_done = true;
    inode->file->settled.notify();
  }
  co_return Result<>{};
}

rpc::Task<Result<AttrRecord>> set_size(FileContext& context, Leases& leases, WriteBack& write_back,
                                       Reporter& reporter, InodeRef inode, SetAttr change, Shrink shrink,
                                       Deadline deadline) {
  const std::uint64_t size = change.attr.size;
  InUse in_use(context, write_back, inode);
  auto turn = co_await inode->file->changing.take(1, deadline);
  if (!turn) co_return fail(turn.error().with("waiting for another change of the file"));
  for (;;) {
    CO_TRYV(co_await leases.ensure(inode, Lease::kExclusive, deadline));
    Blocked blocked(inode);
    ReportsUpTo reports(inode);
    std::uint64_t generation = 0;
    SessionId session;
    RangeSet holes;
    std::uint64_t stored = 0;
    {
      std::lock_guard lock(inode->mutex);
      if (!context.inodes.usable(*inode, Lease::kExclusive) || inode->recalling || !inode->have_layout)
        continue;
      if (shrink == Shrink::kNo && inode->size() >= size) co_return inode->attr;
      generation = inode->generation;
      session = inode->session;
      if (size < inode->size()) inode->file->report_max = stored_end(*inode);
      context.dirty_memory.give(inode->file->dirty.cut(size));
    }
    // The server must know how far the file reaches before it says what is to be trimmed.
    auto flushed = co_await write_back.flush(inode, Durable::kNo, deadline);
    if (!flushed) co_return fail(flushed.error());
    {
      // Bytes cut off above were never stored: the size that is reported ends where the stored ones do, also
      // if that is before the new end.
      std::lock_guard lock(inode->mutex);
      FileData& file = *inode->file;
      stored = stored_end(*inode);
      if (size < inode->size()) file.report_max = stored;
      file.report_size = true;
      holes = file.holes;
    }
    auto reported = co_await reporter.report(inode, Durable::kNo, deadline);
    if (!reported) {
      ends_at(*inode, stored);
      co_return fail(std::move(reported.error()));
    }
    std::function<void(schema::SetAttrRequest::Builder)> fill =
        [=, id = inode->id](schema::SetAttrRequest::Builder body) {
          body.setInode(id.value());
          body.setValid(change.valid);
          encode(change.attr, body.initAttr());
          body.setGeneration(generation);
        };
    auto reply =
        co_await context.session.mutate<rpc::method::SetAttr>(std::move(fill), deadline, nullptr, session);
    if (!reply) {
      if (reply.error().code() == Code::kLeaseLost) continue;
      ends_at(*inode, stored);
      co_return fail(std::move(reply.error()));
    }
    CO_TRY(auto answer, decoded("SetAttr", [&] {
             return std::pair(decode((*reply)->getAttr()), decode((*reply)->getLayout()));
           }));
    {
      std::lock_guard lock(inode->mutex);
      if (inode->session != session || inode->lease != Lease::kExclusive) co_return answer.first;
      Leases::adopt(*inode, *inode->file, answer.first, answer.second);
      inode->file->report_max = UINT64_MAX;
      inode->file->meta_dirty = true;
      if (inode->have_layout)
        write_back.ledger().forget_from(*inode,
                                        chunks_of(answer.first.attr.size, inode->layout.chunk_size()));
    }
    auto trimmed = co_await finish_trim(context, inode, std::move(holes), deadline);
    if (!trimmed) co_return fail(trimmed.error());
    reporter.add(inode);
    co_return answer.first;
  }
}

}  // namespace cairn::client
