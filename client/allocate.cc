#include "client/allocate.h"

#include "client/fan_out.h"
#include "client/truncate.h"

namespace cairn::client {
namespace {

rpc::Task<Result<>> empty_chunk(FileContext& context, ChunkWrite write, Deadline deadline) {
  auto written = co_await context.chunks.write(std::move(write), deadline);
  if (!written && written.error().code() != Code::kNotFound) co_return fail(std::move(written.error()));
  co_return Result<>{};
}

bool is_hole(const FileData& file, std::uint64_t index) {
  return file.holes.contains(index) && !file.dirty.has_active(index) && !file.dirty.is_flushing(index);
}

}  // namespace

rpc::Task<Result<>> grow_to(FileContext& context, Leases& leases, WriteBack& write_back, Reporter& reporter,
                            InodeRef inode, std::uint64_t size, Deadline deadline) {
  SetAttr change;
  change.valid = kSetSize;
  change.attr.size = size;
  CO_TRYV(co_await set_size(context, leases, write_back, reporter, inode, change, Shrink::kNo, deadline));
  co_return Result<>{};
}

rpc::Task<Result<>> empty_chunks(FileContext& context, Leases& leases, WriteBack& write_back,
                                 Reporter& reporter, InodeRef inode, Range chunks, Deadline deadline) {
  InUse in_use(context, write_back, inode);
  auto turn = co_await inode->file->changing.take(1, deadline);
  if (!turn) co_return fail(turn.error().with("waiting for another change of the file"));
  for (;;) {
    CO_TRYV(co_await leases.ensure(inode, Lease::kExclusive, deadline));
    Blocked blocked(inode);
    // Nothing written before may be stored, or be written again after a loss, when its chunk is empty.
    CO_TRYV(co_await write_back.make_durable(inode, true, deadline));
    std::vector<rpc::Task<Result<>>> tasks;
    std::vector<std::uint64_t> emptied;
    {
      std::lock_guard lock(inode->mutex);
      FileData& file = *inode->file;
      if (!context.inodes.usable(*inode, Lease::kExclusive) || inode->recalling || !inode->have_layout ||
          !file.dirty.empty() || !file.unsynced.empty())
        continue;
      const Layer& layer = inode->layout.layers.front();
      ChunkWrite write;
      write.target = {{layer.data, 0, 0}, layer.pool, inode->session, inode->id, inode->generation};
      write.kind = schema::WriteRequest::Kind::TRUNCATE;
      write.durable = Durable::kYes;
      const std::uint64_t end = std::min(chunks.to, chunks_of(inode->size(), inode->layout.chunk_size()));
      for (std::uint64_t index = chunks.from; index < end; ++index) {
        if (file.holes.contains(index)) {
          index = file.holes.end_of(index) - 1;
          continue;
        }
        write.target.chunk.index = static_cast<std::uint32_t>(index);
        emptied.push_back(index);
        tasks.push_back(empty_chunk(context, write, deadline));
      }
    }
    auto done = co_await run_all(context.runtime, std::move(tasks), context.options.parallel_chunks);
    if (!done) co_return fail(done.error().with("punching inode " + to_string(inode->id)));
    {
      std::lock_guard lock(inode->mutex);
      FileData& file = *inode->file;
      file.ahead.clear();
      if (!context.inodes.usable(*inode, Lease::kExclusive)) co_return Result<>{};  // only not told as holes
      for (std::uint64_t index : emptied) {
        file.holes.add(index, index + 1);
        file.punched.add(index, index + 1);
        file.written.remove(index, index + 1);
      }
      inode->attr.attr.mtime_ns = inode->attr.attr.ctime_ns = context.runtime.clock().wall_ns();
      file.report_size = file.report_times = true;
    }
    reporter.add(inode);
    co_return Result<>{};
  }
}

std::uint64_t unallocated_bytes(const Inode& inode, std::uint64_t from, std::uint64_t to) {
  const std::uint64_t chunk_size = inode.layout.chunk_size();
  const std::uint64_t chunks = chunks_of(inode.size(), inode.layout.chunk_size());
  std::uint64_t bytes = 0;
  for (std::uint64_t at = from; at < to;) {
    const std::uint64_t index = at / chunk_size;
    if (index >= chunks) return bytes + (to - at);
    const std::uint64_t next = std::min(to, (index + 1) * chunk_size);
    if (is_hole(*inode.file, index)) bytes += next - at;
    at = next;
  }
  return bytes;
}

std::optional<std::uint64_t> seek_data(const Inode& inode, std::uint64_t offset) {
  const FileData& file = *inode.file;
  const std::uint64_t chunk_size = inode.layout.chunk_size();
  const std::uint64_t chunks = chunks_of(inode.size(), inode.layout.chunk_size());
  if (offset >= inode.size()) return std::nullopt;
  for (std::uint64_t index = offset / chunk_size; index < chunks;) {
    if (!is_hole(file, index)) return std::max(offset, index * chunk_size);
    index = file.dirty.empty() ? file.holes.end_of(index) : index + 1;
  }
  return std::nullopt;
}

std::optional<std::uint64_t> seek_hole(const Inode& inode, std::uint64_t offset) {
  const std::uint64_t chunk_size = inode.layout.chunk_size();
  const std::uint64_t chunks = chunks_of(inode.size(), inode.layout.chunk_size());
  if (offset >= inode.size()) return std::nullopt;
  for (std::uint64_t index = offset / chunk_size; index < chunks; ++index) {
    if (is_hole(*inode.file, index)) return std::max(offset, index * chunk_size);
  }
  return inode.size();
}

}  // namespace cairn::client
