// copy_file_range(2).
#include <fcntl.h>

#include "client/access_time.h"
#include "client/file_system_impl.h"
#include "client/share_chunks.h"

namespace cairn::client {
namespace {

constexpr std::uint64_t kCopyMost = (std::uint64_t{1} << 31) - 4096;  // of one call, as Linux has it
constexpr std::uint64_t kBytesMost = 16 << 20;  // copied as bytes in one call: the caller may be interrupted
constexpr std::uint64_t kPiece = 1 << 20;

struct End {  // one side of a copy, as it is now
  std::uint64_t size = 0;
  std::uint32_t chunk_size = 0;
};

// What is done by one call: chunks shared or bytes copied.
struct Step {
  std::uint64_t bytes = 0;
  bool share = false;
};

Step next_step(const End& from, std::uint64_t from_offset, const End& to, std::uint64_t to_offset,
               std::uint64_t length) {
  const std::uint64_t chunk = from.chunk_size;
  const Step as_bytes{std::min(length, kBytesMost), false};
  if (to.chunk_size != chunk || from_offset % chunk != to_offset % chunk) return as_bytes;
  const std::uint64_t head = (chunk - from_offset % chunk) % chunk;
  if (head >= length) return as_bytes;
  const std::uint64_t rest = length - head;
  const std::uint64_t whole = rest / chunk * chunk;
  // The last chunk of the file, if nothing of the target lies behind its end.
  const bool tail = whole < rest && from_offset + length == from.size && to_offset + length >= to.size;
  // Less than a chunk is copied in no more time than it takes to make it durable and share it.
  if (whole == 0) return as_bytes;
  if (head > 0) return {head, false};
  return {tail ? rest : whole, true};
}

}  // namespace

FileSystem::Task<std::uint64_t> FileSystemImpl::copy_range(Handle from, std::uint64_t from_offset, Handle to,
                                                           std::uint64_t to_offset, std::uint64_t length) {
  const Deadline deadline = context_.deadline();
  if (from->lost_lock || to->lost_lock)
    co_return fail(Code::kSessionEnded, "a file lock taken through this descriptor ended with the session");
  length = std::min(length, kCopyMost);
  if (from_offset + length < from_offset || to_offset + length < to_offset)
    co_return fail(Code::kRange, "the range ends past what a file can have");
  if (from->inode == to->inode && from_offset < to_offset + length && to_offset < from_offset + length)
    co_return fail(Code::kInvalidArgument, "the ranges of the file overlap");
  End source, target;
  for (bool known = false; !known;) {
    CO_TRYV(co_await leases_.ensure(from->inode, Lease::kShared, deadline));
    std::lock_guard lock(from->inode->mutex);
    const Inode& inode = *from->inode;
    known = inode.have_layout && inodes_.usable(inode);
    if (known) source = {inode.size(), inode.layout.chunk_size()};
  }
  if (from_offset >= source.size || length == 0) co_return std::uint64_t{0};
  length = std::min(length, source.size - from_offset);
  for (bool known = false; !known;) {
    CO_TRYV(co_await leases_.ensure(to->inode, Lease::kExclusive, deadline));
    std::lock_guard lock(to->inode->mutex);
    const Inode& inode = *to->inode;
    known = inode.have_layout && inodes_.usable(inode, Lease::kExclusive);
    if (known) target = {inode.size(), inode.layout.chunk_size()};
  }
  Step step = next_step(source, from_offset, target, to_offset, length);
  if (step.share) {
    const std::uint64_t chunk = source.chunk_size;
    const ChunkShare what{from_offset / chunk, to_offset / chunk, chunks_of(step.bytes, source.chunk_size),
                          step.bytes};
    auto shared = co_await share_chunks(context_, leases_, write_back_, reporter_, from->inode, to->inode,
                                        what, deadline);
    if (shared) {
      std::lock_guard lock(from->inode->mutex);
      if ((from->flags & O_NOATIME) == 0) note_access(context_, *from->inode);
      co_return step.bytes;
    }
    const Code code = shared.error().code();
    if (code != Code::kRange && code != Code::kInvalidArgument && code != Code::kUnimplemented)
      co_return fail(std::move(shared.error()));
    step.bytes = std::min(step.bytes, kBytesMost);
  }
  auto copied = co_await copy_bytes(std::move(from), from_offset, std::move(to), to_offset, step.bytes);
  co_return copied;
}

FileSystem::Task<std::uint64_t> FileSystemImpl::copy_bytes(Handle from, std::uint64_t from_offset, Handle to,
                                                           std::uint64_t to_offset, std::uint64_t length) {
  std::uint64_t done = 0;
  while (done < length) {
    const auto n = static_cast<std::uint32_t>(std::min(kPiece, length - done));
    auto read = co_await this->read(from, from_offset + done, n);
    if (!read && done > 0) break;
    if (!read) co_return fail(std::move(read.error()));
    std::uint64_t got = 0;
    for (const rpc::Buffer& piece : read->pieces) {
      auto wrote = co_await write(to, to_offset + done + got, piece);
      if (!wrote && done + got > 0) co_return done + got;
      if (!wrote) co_return fail(std::move(wrote.error()));
      got += piece.size();
    }
    done += got;
    if (got < n) break;  // the file was cut meanwhile
  }
  co_return done;
}

}  // namespace cairn::client
