#include "client/reader.h"

#include <fcntl.h>

#include <cstring>

#include "client/access_time.h"

namespace cairn::client {
namespace {

constexpr std::uint64_t kWindowMin = 1 << 20;
constexpr std::uint64_t kWindowMax = 16 << 20;
constexpr std::uint64_t kBehind =
    2 << 20;  // kept behind the reader: requests of one stream overtake each other

std::uint64_t piece_size_of(std::uint32_t chunk_size) {
  return chunk_size % kPieceSize == 0 ? kPieceSize : chunk_size;
}

void add_zeros(rpc::Payload& payload, std::uint64_t count) {
  static const rpc::Buffer zeros = [] {
    auto buffer = rpc::Buffer::allocate(1 << 20);
    std::memset(buffer.writable().data(), 0, buffer.size());
    return buffer;
  }();
  while (count > 0) {
    const std::uint64_t n = std::min<std::uint64_t>(count, zeros.size());
    payload.pieces.push_back(zeros.slice(0, n));
    count -= n;
  }
}

}  // namespace

std::shared_ptr<Fetch> Reader::start_fetch(const InodeRef& inode, std::uint64_t from, std::uint64_t to,
                                           Budget::Hold memory) {
  const std::uint32_t chunk_size = inode->layout.chunk_size();
  const ChunkTarget target = read_target(*inode, from / chunk_size);
  auto started = std::make_shared<Fetch>(context_.runtime, from, to - from, std::move(memory));
  auto task = fetch(context_.chunks, inode, started, target, static_cast<std::uint32_t>(from % chunk_size),
                    context_.deadline());
  if (!context_.tasks.spawn(context_.runtime.make_strand(), std::move(task))) {
    started->result.emplace(fail(Code::kCancelled, "the client is closed"));
    started->done.set();
  }
  return started;
}

rpc::Task<> Reader::fetch(ChunkIo& chunks, InodeRef inode, std::shared_ptr<Fetch> fetch, ChunkTarget target,
                          std::uint32_t offset, Deadline deadline) {
  auto bytes = co_await chunks.read(target, offset, static_cast<std::uint32_t>(fetch->length),
                                    Presence::kMust, deadline);
  const bool failed = !bytes;
  {
    std::lock_guard lock(fetch->mutex);
    fetch->result.emplace(std::move(bytes));
  }
  fetch->done.set();
  if (failed) {
    std::lock_guard lock(inode->mutex);
    if (inode->file) inode->file->ahead.drop(fetch);
  }
}

Reader::Plan Reader::plan(const Handle& handle, std::uint64_t offset, std::uint32_t length, Start start) {
  const InodeRef& inode = handle->inode;
  FileData& file = *inode->file;
  Plan plan;
  plan.lease_serial = inode->lease_serial;
  plan.layout_changes = inode->layout_changes;
  const std::uint64_t end = std::min(inode->size(), offset + length);
  if (offset >= end) return plan;
  const std::uint32_t chunk_size = inode->layout.chunk_size();
  const std::uint64_t piece_size = piece_size_of(chunk_size);
  file.dirty.set_chunk_size(chunk_size);
  if (start == Start::kYes) read_ahead(handle, offset, end);
  for (auto& part : file.dirty.parts(offset, end)) {
    if (!part.gap()) {
      plan.slots.push_back({part.from, part.to, false, std::move(part.bytes), nullptr});
      continue;
    }
    for (std::uint64_t at = part.from; at < part.to;) {
      Slot slot;
      slot.from = at;
      if (file.holes.contains(at / chunk_size)) {
        slot.to = std::min(part.to, (at / chunk_size + 1) * chunk_size);
        slot.hole = true;
      } else {
        slot.to = std::min(part.to, (at / piece_size + 1) * piece_size);
        slot.fetch = file.ahead.find(at, piece_size);
        if (!slot.fetch && start == Start::kYes) slot.fetch = start_fetch(inode, slot.from, slot.to, {});
      }
      at = slot.to;
      plan.slots.push_back(std::move(slot));
    }
  }
  return plan;
}

void Reader::read_ahead(const Handle& handle, std::uint64_t offset, std::uint64_t end) {
  const InodeRef& inode = handle->inode;
  FileData& file = *inode->file;
  const std::uint64_t expected = handle->next_offset;
  const bool sequential = offset == expected || (handle->window != 0 && offset + kBehind >= expected &&
                                                 offset <= expected + kBehind);
  handle->next_offset = sequential ? std::max(end, expected) : end;
  if (!sequential) {
    handle->window = 0;
    return;
  }
  const std::uint64_t most =
      std::clamp<std::uint64_t>(context_.ahead_memory.capacity() / 4, kWindowMin, kWindowMax);
  handle->window = handle->window == 0 ? kWindowMin : std::min(handle->window * 2, most);
  if (offset > kBehind) file.ahead.drop_before(offset - kBehind);
  const std::uint32_t chunk_size = inode->layout.chunk_size();
  const std::uint64_t piece_size = piece_size_of(chunk_size);
  const std::uint64_t until = std::min(inode->size(), handle->next_offset + handle->window);
  for (std::uint64_t at = offset / piece_size * piece_size; at < until; at += piece_size) {
    if (file.holes.contains(at / chunk_size) || file.dirty.has_active(at / chunk_size) ||
        file.dirty.is_flushing(at / chunk_size) || file.ahead.find(at, piece_size)) {
      continue;
    }
    if (!context_.ahead_memory.try_take(piece_size)) return;
    file.ahead.insert(
        start_fetch(inode, at, at + piece_size, Budget::Hold(&context_.ahead_memory, piece_size)));
  }
}

std::optional<Result<rpc::Payload>> Reader::assemble(Plan& plan) {
  rpc::Payload payload;
  for (Slot& slot : plan.slots) {
    const std::uint64_t length = slot.to - slot.from;
    if (slot.hole) {
      add_zeros(payload, length);
    } else if (!slot.fetch) {
      if (slot.bytes.size() != length) return std::nullopt;
      payload.pieces.push_back(std::move(slot.bytes));
    } else {
      std::lock_guard lock(slot.fetch->mutex);
      if (!slot.fetch->result) return std::nullopt;
      if (!*slot.fetch->result) return fail(slot.fetch->result->error());
      const rpc::Buffer& got = **slot.fetch->result;
      const std::uint64_t skip = slot.from - slot.fetch->from;
      const std::uint64_t have = got.size() > skip ? std::min<std::uint64_t>(length, got.size() - skip) : 0;
      if (have > 0) payload.pieces.push_back(got.slice(skip, have));
      add_zeros(payload, length - have);
    }
  }
  return payload;
}

void Reader::note_read(FileHandle& handle) const {
  handle.was_read = true;
  if ((handle.flags & O_NOATIME) == 0) note_access(context_, *handle.inode);
}

std::optional<Result<rpc::Payload>> Reader::try_read(const Handle& handle, std::uint64_t offset,
                                                     std::uint32_t length) {
  Inode& inode = *handle->inode;
  std::lock_guard lock(inode.mutex);
  if (!inode.have_layout || !context_.inodes.usable(inode) || handle->seen_losses != inode.file->losses)
    return std::nullopt;
  Plan planned = plan(handle, offset, length, Start::kNo);
  auto payload = assemble(planned);
  if (!payload || !*payload) return std::nullopt;
  if (!planned.slots.empty()) read_ahead(handle, offset, planned.slots.back().to);
  note_read(*handle);
  return payload;
}

rpc::Task<Result<rpc::Payload>> Reader::read(Handle handle, std::uint64_t offset, std::uint32_t length) {
  const InodeRef inode = handle->inode;
  const Deadline deadline = context_.deadline();
  for (;;) {
    CO_TRYV(co_await leases_.ensure(inode, Lease::kShared, deadline));
    Plan planned;
    {
      std::lock_guard lock(inode->mutex);
      if (handle->seen_losses != inode->file->losses) {
        co_return fail(Code::kSessionEnded,
                       "inode " + to_string(inode->id) +
                           ": the session of this handle ended with unsaved data; open the file again");
      }
      if (!inode->have_layout || !context_.inodes.usable(*inode)) continue;
      planned = plan(handle, offset, length, Start::kYes);
    }
    for (const Slot& slot : planned.slots) {
      if (!slot.fetch) continue;
      auto fetch = slot.fetch;
      CO_TRYV(co_await fetch->done.wait(deadline));
    }
    auto payload = assemble(planned);
    if (!payload) co_return fail(Code::kInternal, "a read was put together before its parts were there");
    if (*payload) {
      std::lock_guard lock(inode->mutex);
      note_read(*handle);
      co_return std::move(*payload);
    }
    {
      // Another client may have replaced the file's data after our lease had gone, or a write of ours a chunk
      // that the file shared: then what failed is out of date.
      std::lock_guard lock(inode->mutex);
      const bool same = inode->lease_serial == planned.lease_serial &&
                        inode->layout_changes == planned.layout_changes && context_.inodes.usable(*inode);
      if (same || deadline.passed(context_.runtime.clock()) || payload->error().code() == Code::kCancelled) {
        co_return fail(payload->error().with("reading inode " + to_string(inode->id)));
      }
    }
  }
}

}  // namespace cairn::client
