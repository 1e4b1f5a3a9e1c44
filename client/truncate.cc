#include "client/truncate.h"

#include "client/fan_out.h"

namespace cairn::client {
namespace {

// Unsaved bytes past the new end of a file. They are kept until the server has cut the file: if it does not,
// they are dirty again. Meanwhile no size is reported that covers them.
class CutBytes {
 public:
  CutBytes(FileContext& context, WriteBack& write_back, InodeRef inode)
      : context_(context), write_back_(write_back), inode_(std::move(inode)) {}
  // Under the inode's mutex, no new bytes come in.
  void take(std::uint64_t size) {
    DirtyData& dirty = inode_->file->dirty;
    chunks_ = dirty.copy_above(size);
    session_ = inode_->session;
    if (!chunks_.empty()) inode_->file->report_max = size;
    context_.dirty_memory.give(dirty.cut(size));
  }
  // Under the inode's mutex: the file was cut.
  void drop() {
    chunks_.clear();
    inode_->file->report_max = UINT64_MAX;
  }
  ~CutBytes() {
    if (chunks_.empty()) return;
    std::lock_guard lock(inode_->mutex);
    FileData& file = *inode_->file;
    file.report_max = UINT64_MAX;
    for (const auto& [index, bytes] : chunks_) context_.dirty_memory.force(file.dirty.restore(index, bytes));
    if (inode_->session != session_ || inode_->lease != Lease::kExclusive) {
      write_back_.lose(*inode_);
    } else {
      file.report_size = true;
      write_back_.queue(inode_);
    }
  }
  CutBytes(const CutBytes&) = delete;

 private:
  FileContext& context_;
  WriteBack& write_back_;
  InodeRef inode_;
  SessionId session_;
  std::map<std::uint64_t, ChunkBytes> chunks_;
};

}  // namespace

rpc::Task<Result<>> sync_journal(FileContext& context, Deadline deadline) {
  std::function<void(schema::SyncMetaRequest::Builder, std::uint64_t)> fill =
      [](schema::SyncMetaRequest::Builder body, std::uint64_t session) { body.setSession(session); };
  auto reply = co_await context.session.query<rpc::method::SyncMeta>(std::move(fill), deadline);
  if (!reply) co_return fail(std::move(reply.error()));
  co_return Result<>{};
}

rpc::Task<Result<>> cut_chunk(FileContext& context, ChunkWrite write, Deadline deadline) {
  auto written = co_await context.chunks.write(std::move(write), deadline);
  if (!written && written.error().code() != Code::kNotFound) co_return fail(std::move(written.error()));
  co_return Result<>{};
}

rpc::Task<Result<>> finish_trim(FileContext& context, InodeRef inode, RangeSet known_holes,
                                Deadline deadline) {
  std::vector<rpc::Task<Result<>>> tasks;
  Range trim;
  {
    std::lock_guard lock(inode->mutex);
    if (!inode->have_layout || inode->layout.trim.empty()) co_return Result<>{};
    trim = inode->layout.trim;
    const std::uint32_t chunk_size = inode->layout.chunk_size();
    ChunkWrite write;
    write.target = write_target(*inode, 0);
    std::uint64_t index = trim.from / chunk_size;
    const auto within = static_cast<std::uint32_t>(trim.from % chunk_size);
    if (within != 0) {
      if (!known_holes.contains(index)) {
        write.target.chunk.index = static_cast<std::uint32_t>(index);
        write.kind = schema::WriteRequest::Kind::TRUNCATE;
        write.length = within;
        write.durable = Durable::kYes;  // the chunk may be frozen next, and what is frozen is never cut again
        tasks.push_back(cut_chunk(context, write, deadline));
      }
      ++index;
    }
    write.kind = schema::WriteRequest::Kind::REMOVE;
    write.length = 0;
    write.durable = Durable::kNo;
    for (const std::uint64_t end = chunks_of(trim.to, chunk_size); index < end; ++index) {
      if (known_holes.contains(index)) continue;
      write.target.chunk.index = static_cast<std::uint32_t>(index);
      tasks.push_back(cut_chunk(context, write, deadline));
    }
  }
  if (!tasks.empty()) CO_TRYV(co_await sync_journal(context, deadline));
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
  for (;;) {
    CO_TRYV(co_await leases.ensure(inode, Lease::kExclusive, deadline));
    // In each round anew: a recall waits for it, and we for the recall.
    auto turn = co_await inode->file->changing.take(1, deadline);
    if (!turn) co_return fail(turn.error().with("waiting for another change of the file"));
    Blocked blocked(inode);
    CutBytes cut(context, write_back, inode);
    std::uint64_t generation = 0;
    SessionId session;
    RangeSet holes;
    bool shrinks = false;
    std::optional<std::uint64_t> boundary;  // a chunk that others share, in which the file will end
    {
      std::lock_guard lock(inode->mutex);
      if (!context.inodes.usable(*inode, Lease::kExclusive) || inode->recalling || !inode->have_layout)
        continue;
      if (shrink == Shrink::kNo && inode->size() >= size) co_return inode->attr;
      generation = inode->generation;
      session = inode->session;
      shrinks = size < inode->size();
      const std::uint32_t chunk_size = inode->layout.chunk_size();
      if (shrinks && size % chunk_size != 0 && inode->layout.frozen_layer_of(size / chunk_size) != nullptr)
        boundary = size / chunk_size;
      cut.take(size);
    }
    // The server must know how far the file reaches before it says what is to be trimmed.
    auto flushed = co_await write_back.flush(inode, Durable::kNo, deadline);
    if (!flushed) co_return fail(flushed.error());
    if (boundary) {
      // All of it: the file may stay as long as it is.
      auto copied = co_await write_back.copy_up(inode, *boundary, deadline);
      if (!copied) co_return fail(copied.error().with("cutting inode " + to_string(inode->id)));
    }
    {
      std::lock_guard lock(inode->mutex);
      inode->file->report_size = true;
      // Nothing is there that is ours to cut.
      holes = inode->file->holes;
      for (const Layer& layer : inode->layout.layers) {
        for (const Range& shared : layer.chunks.list()) holes.add(shared.from, shared.to);
      }
    }
    CO_TRYV(co_await reporter.report(inode, Durable::kNo, deadline));
    std::function<void(schema::SetAttrRequest::Builder)> fill =
        [=, id = inode->id](schema::SetAttrRequest::Builder body) {
          body.setInode(id.value());
          body.setValid(change.valid);
          encode(change.attr, body.initAttr());
          body.setGeneration(generation);
          body.setShrinks(shrinks);
        };
    auto reply =
        co_await context.session.mutate<rpc::method::SetAttr>(std::move(fill), deadline, nullptr, session);
    if (!reply) {
      if (reply.error().code() == Code::kLeaseLost) continue;
      co_return fail(std::move(reply.error()));
    }
    CO_TRY(auto answer, decoded("SetAttr", [&] {
             return std::pair(decode((*reply)->getAttr()), decode((*reply)->getLayout()));
           }));
    {
      std::lock_guard lock(inode->mutex);
      cut.drop();
      if (inode->session != session || inode->lease != Lease::kExclusive) co_return answer.first;
      Leases::adopt(*inode, *inode->file, answer.first, answer.second);
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
