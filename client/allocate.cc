#include "client/allocate.h"

#include <set>

#include "client/fan_out.h"
#include "client/truncate.h"

namespace cairn::client {
namespace {

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

rpc::Task<Result<Range>> empty_chunks(FileContext& context, Leases& leases, WriteBack& write_back,
                                      Reporter& reporter, InodeRef inode, Range bytes, Deadline deadline) {
  InUse in_use(context, write_back, inode);
  for (;;) {
    CO_TRYV(co_await leases.ensure(inode, Lease::kExclusive, deadline));
    // In each round anew: a recall waits for it, and we for the recall.
    auto turn = co_await inode->file->changing.take(1, deadline);
    if (!turn) co_return fail(turn.error().with("waiting for another change of the file"));
    Blocked blocked(inode);
    std::vector<rpc::Task<Result<>>> tasks;
    std::vector<std::uint64_t> emptied;
    bool shared =
        false;  // some of them: the servers have nothing to empty, it is enough that the file has a hole
    Range whole, whole_bytes;
    std::uint64_t generation = 0;
    bool unsettled = false;
    {
      std::lock_guard lock(inode->mutex);
      FileData& file = *inode->file;
      if (!context.inodes.usable(*inode, Lease::kExclusive) || inode->recalling || !inode->have_layout)
        continue;
      const std::uint32_t chunk_size = inode->layout.chunk_size();
      const bool to_end = bytes.to >= inode->size();
      whole = {chunks_of(bytes.from, chunk_size),
               to_end ? chunks_of(inode->size(), chunk_size) : bytes.to / chunk_size};
      if (whole.empty()) co_return Range{};
      whole_bytes = {whole.from * chunk_size, whole.to * chunk_size};
      unsettled = !file.dirty.empty() || !file.unsynced.empty();
      generation = inode->generation;
      ChunkWrite write;
      write.target = write_target(*inode, 0);
      write.kind = schema::WriteRequest::Kind::TRUNCATE;
      write.durable = Durable::kYes;
      for (std::uint64_t index = whole.from; !unsettled && index < whole.to; ++index) {
        if (file.holes.contains(index)) {
          index = std::min(file.holes.end_of(index), whole.to) - 1;
          continue;
        }
        emptied.push_back(index);
        if (inode->layout.frozen_layer_of(index) != nullptr) {
          shared = true;
          continue;
        }
        write.target.chunk.index = static_cast<std::uint32_t>(index);
        tasks.push_back(cut_chunk(context, write, deadline));
      }
    }
    if (unsettled) {
      // Nothing written before may be stored, or be written again after a loss, when its chunk is empty.
      CO_TRYV(co_await write_back.make_durable(inode, true, deadline));
      continue;
    }
    auto done = co_await run_all(context.runtime, std::move(tasks), context.options.parallel_chunks);
    if (!done) co_return fail(done.error().with("punching inode " + to_string(inode->id)));
    {
      std::lock_guard lock(inode->mutex);
      FileData& file = *inode->file;
      file.ahead.clear();
      if (!context.inodes.usable(*inode, Lease::kExclusive) || inode->generation != generation) {
        if (shared) continue;
        co_return whole_bytes;  // they are only not told as holes
      }
      for (std::uint64_t index : emptied) {
        take_from_frozen(*inode, index);
        file.holes.add(index, index + 1);
        file.punched.add(index, index + 1);
        file.written.remove(index, index + 1);
      }
      inode->attr.attr.mtime_ns = inode->attr.attr.ctime_ns = context.runtime.clock().wall_ns();
      file.report_size = file.report_times = true;
    }
    reporter.add(inode);
    co_return whole_bytes;
  }
}

std::uint64_t allocated_with(const Inode& inode, std::uint64_t offset, std::uint64_t length) {
  const FileData& file = *inode.file;
  const std::uint32_t chunk_size = inode.layout.chunk_size();
  const std::uint64_t size = length == 0 ? inode.size() : std::max(inode.size(), offset + length);
  const std::uint64_t chunks = chunks_of(size, chunk_size);
  // Chunks that are still holes, and will not be.
  std::set<std::uint64_t> filled;
  const auto fill = [&](std::uint64_t index) {
    if (index < chunks && file.holes.contains(index)) filled.insert(index);
  };
  for (const std::uint64_t index : file.dirty.active_chunks()) fill(index);
  for (const std::uint64_t index : file.dirty.flushing_chunks()) fill(index);
  if (length > 0) {
    for (std::uint64_t at = offset / chunk_size; at <= (offset + length - 1) / chunk_size; ++at) fill(at);
  }
  const std::uint64_t holes = file.holes.count_below(chunks) - filled.size();
  return std::min(size, (chunks - holes) * chunk_size);
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
