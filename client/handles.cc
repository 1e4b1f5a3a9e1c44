// Open files.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>

#include "client/access_time.h"
#include "client/allocate.h"
#include "client/file_system_impl.h"
#include "client/truncate.h"

namespace cairn::client {

namespace {

constexpr std::uint64_t kZeroPiece = 1 << 20;

// The bytes were dropped, and the server removes the inode. Whoever still asks to open it looked the name up
// before; the kernel looks it up again.
std::unexpected<Error> removed_error(InodeId id) {
  return fail(Code::kNotFound, "inode " + to_string(id) + " was removed");
}

// Whoever reads or writes on would do so believing in a lock that others may have got meanwhile.
std::unexpected<Error> lost_lock_error(const FileHandle& handle) {
  return fail(Code::kSessionEnded, "a file lock on inode " + to_string(handle.inode->id) +
                                       ", taken through this descriptor, ended with the session");
}

}  // namespace

Handle FileSystemImpl::make_handle(const InodeRef& inode, int flags) {
  FileData& file = file_of(context_, *inode);
  auto handle = std::make_shared<FileHandle>(inode, flags, release_);
  handle->seen_errors = file.errors_told;
  handle->old_errors = file.errors;
  handle->seen_losses = file.losses;
  ++file.handles;
  if (handle->writable()) ++file.writers;
  return handle;
}

std::optional<Result<Opened>> FileSystemImpl::try_open(InodeId id, int flags) {
  if (flags & O_TRUNC) return std::nullopt;
  InodeRef inode = inodes_.find(id);
  if (!inode) return std::nullopt;
  std::lock_guard lock(inode->mutex);
  if (inode->unreachable()) return removed_error(id);
  const Lease lease = (flags & O_ACCMODE) == O_RDONLY ? Lease::kShared : Lease::kExclusive;
  if (!inode->file || inode->file->server_opens == 0 || !inode->have_layout || !inode->have_attr ||
      inode->recalling || !inodes_.usable(*inode, lease)) {
    return std::nullopt;
  }
  Opened opened;
  opened.handle = make_handle(inode, flags);
  opened.entry = entry_of(*inode, Counted::kNo);
  opened.keep_cache = true;
  return opened;
}

FileSystem::Task<Opened> FileSystemImpl::open(InodeId id, int flags) {
  if (auto known = try_open(id, flags)) co_return std::move(*known);
  InodeRef inode = inodes_.get(id);
  const Deadline deadline = context_.deadline();
  const Lease lease = (flags & O_ACCMODE) == O_RDONLY ? Lease::kShared : Lease::kExclusive;
  std::uint64_t serial = 0;
  bool held_before = false;
  {
    std::lock_guard lock(inode->mutex);
    if (inode->unreachable()) co_return removed_error(id);
    serial = inode->lease_serial;
    held_before = inodes_.usable(*inode) && !inode->recalling && (flags & O_TRUNC) == 0;
  }
  InUse in_use(context_, write_back_, inode);
  Result<> ready;
  if (flags & O_TRUNC) {
    ready = co_await leases_.open_truncated(inode, deadline);
  }
  if (ready) ready = co_await leases_.ensure(inode, lease, deadline);
  std::lock_guard lock(inode->mutex);
  if (!ready) co_return fail(std::move(ready.error()));
  Opened opened;
  opened.handle = make_handle(inode, flags);
  opened.entry = entry_of(*inode, Counted::kNo);
  // The kernel's pages are right if the lease under which they were read was never lost.
  opened.keep_cache = held_before && inode->lease_serial == serial;
  co_return opened;
}

FileSystem::Task<Opened> FileSystemImpl::create(InodeId parent, std::string name, std::uint32_t mode,
                                                int flags, Owner owner) {
  Make what{parent, std::move(name), (mode & 07777) | S_IFREG, 0, owner, {}, (flags & O_EXCL) != 0, true};
  CO_TRY(auto made, co_await make(std::move(what)));
  const InodeRef inode = made.inode;
  const bool truncate = !made.created && (flags & O_TRUNC) != 0;
  bool ready = false;
  {
    std::lock_guard lock(inode->mutex);
    ready = made.open && inode->have_layout && !truncate;
  }
  InUse in_use(context_, write_back_, inode);
  Result<> opened_there;
  const Deadline deadline = context_.deadline();
  if (truncate) opened_there = co_await leases_.open_truncated(inode, deadline);
  // The grant got lost on its way, or there was none: an ordinary open.
  if (opened_there && !ready) opened_there = co_await leases_.ensure(inode, Lease::kExclusive, deadline);
  std::lock_guard lock(inode->mutex);
  if (!opened_there) co_return fail(std::move(opened_there.error()));
  Opened opened;
  opened.handle = make_handle(inode, flags);
  opened.entry = entry_of(*inode, Counted::kNo);
  opened.keep_cache = false;
  co_return opened;
}

// --- data ---

std::optional<Result<rpc::Payload>> FileSystemImpl::try_read(const Handle& handle, std::uint64_t offset,
                                                             std::uint32_t length) {
  if (handle->lost_lock) return lost_lock_error(*handle);
  return reader_.try_read(handle, offset, length);
}

FileSystem::Task<rpc::Payload> FileSystemImpl::read(Handle handle, std::uint64_t offset,
                                                    std::uint32_t length) {
  auto payload = co_await reader_.read(handle, offset, length);
  if (handle->lost_lock) co_return lost_lock_error(*handle);  // perhaps on the way
  co_return payload;
}

std::optional<Result<std::uint32_t>> FileSystemImpl::try_write(const Handle& handle, std::uint64_t offset,
                                                               Bytes data) {
  if (write_back_.out_of_space()) return std::nullopt;
  if (handle->lost_lock) return lost_lock_error(*handle);
  return write_back_.try_write(*handle, offset, data);
}

FileSystem::Task<std::uint32_t> FileSystemImpl::write(Handle handle, std::uint64_t offset, rpc::Buffer data) {
  const Deadline deadline = context_.deadline();
  const InodeRef inode = handle->inode;
  // The servers were full lately: what is dirty here is stored before more is taken, or the writer hears of
  // it.
  if (write_back_.out_of_space()) CO_TRYV(co_await write_back_.flush(inode, Durable::kNo, deadline));
  Budget::Hold room;
  for (;;) {
    if (handle->lost_lock) co_return lost_lock_error(*handle);
    if (auto done = write_back_.try_write(*handle, offset, data.bytes(), &room)) co_return std::move(*done);
    bool lease = false;
    std::shared_ptr<rpc::Event> settled;
    std::optional<std::uint64_t> wanted;
    {
      std::lock_guard lock(inode->mutex);
      FileData& file = *inode->file;
      wanted = WriteBack::not_allowed(*inode, handle->append() ? inode->size() : offset, data.size());
      lease = !inode->have_layout || !inode->layout.trim.empty() ||
              !inodes_.usable(*inode, Lease::kExclusive) || file.server_opens == 0;
      if (inode->recalling || file.blocked != 0) settled = file.settled.next(runtime_);
    }
    if (settled) {
      auto over = co_await settled->wait(deadline);
      if (!over) co_return fail(over.error().with("write waits for a recall or a truncation"));
    } else if (lease) {
      CO_TRYV(co_await leases_.ensure(inode, Lease::kExclusive, deadline));
    } else if (wanted) {
      CO_TRYV(co_await write_back_.make_allowed(inode, *wanted, deadline));
    } else {
      CO_TRY(room, co_await write_back_.make_room(data.size(), deadline));
    }
  }
}

std::optional<Result<>> FileSystemImpl::try_flush(const Handle& handle) {
  if (session_.near_full() || write_back_.out_of_space()) return std::nullopt;
  std::lock_guard lock(handle->inode->mutex);
  if (auto error = WriteBack::take_error(*handle)) return fail(std::move(*error));
  return Result<>{};
}

FileSystem::Task<void> FileSystemImpl::flush(Handle handle) {
  const InodeRef inode = handle->inode;
  // Nearly full: close() waits, so that it can tell that the bytes did not fit.
  if ((session_.near_full() || write_back_.out_of_space()) && handle->writable())
    CO_TRYV(co_await write_back_.flush(inode, Durable::kNo, context_.deadline()));
  std::lock_guard lock(inode->mutex);
  if (auto error = WriteBack::take_error(*handle)) co_return fail(std::move(*error));
  co_return Result<>{};
}

FileSystem::Task<void> FileSystemImpl::fsync(Handle handle, bool data_only) {
  const InodeRef inode = handle->inode;
  {
    std::lock_guard lock(inode->mutex);
    if (auto error = WriteBack::take_error(*handle)) co_return fail(std::move(*error));
  }
  auto done = co_await write_back_.make_durable(inode, data_only, context_.deadline());
  std::lock_guard lock(inode->mutex);
  auto error = WriteBack::take_error(*handle);
  if (!done) co_return done;
  if (error) co_return fail(std::move(*error));
  co_return Result<>{};
}

// --- holes ---

FileSystem::Task<void> FileSystemImpl::allocate(Handle handle, int mode, std::uint64_t offset,
                                                std::uint64_t length) {
  const Deadline deadline = context_.deadline();
  const InodeRef inode = handle->inode;
  if (handle->lost_lock) co_return lost_lock_error(*handle);
  const bool zeros = (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) != 0;
  const bool keep_size = (mode & FALLOC_FL_KEEP_SIZE) != 0;
  const std::uint64_t end = offset + length;
  std::uint64_t size = 0, missing = 0;
  for (bool known = false; !known;) {
    CO_TRYV(co_await leases_.ensure(inode, Lease::kExclusive, deadline));
    std::lock_guard lock(inode->mutex);
    known = inode->have_layout && inodes_.usable(*inode, Lease::kExclusive);
    if (!known) continue;
    if (end < offset || too_long(end, inode->layout.chunk_size()))
      co_return fail(Code::kRange, "the range ends past what a file can have");
    size = inode->size();
    if (!zeros) missing = unallocated_bytes(*inode, offset, end);
  }
  if (missing > 0) {
    CO_TRY(const StatFs space, co_await statfs(inode->id));
    bool limited = false;
    {
      std::lock_guard lock(inode->mutex);
      limited = inode->have_layout && inode->layout.limited;
    }
    if (space.available_bytes < missing)
      co_return fail(limited ? Code::kQuotaExceeded : Code::kNoSpace,
                     std::to_string(missing) + " bytes are wanted, and " +
                         std::to_string(space.available_bytes) + " are free");
  }
  if (zeros && offset < size) CO_TRYV(co_await zero(inode, offset, std::min(end, size), deadline));
  if (!keep_size && end > size)
    CO_TRYV(co_await grow_to(context_, leases_, write_back_, reporter_, inode, end, deadline));
  co_return Result<>{};
}

rpc::Task<Result<>> FileSystemImpl::zero(InodeRef inode, std::uint64_t from, std::uint64_t to,
                                         Deadline deadline) {
  CO_TRY(const Range emptied,
         co_await empty_chunks(context_, leases_, write_back_, reporter_, inode, {from, to}, deadline));
  std::vector<Range> parts = {{from, to}};  // of chunks that keep other bytes
  if (!emptied.empty()) parts = {{from, emptied.from}, {emptied.to, to}};
  Handle handle;
  {
    std::lock_guard lock(inode->mutex);
    // A hole is zeros already.
    const bool known = inode->have_layout && inodes_.usable(*inode, Lease::kExclusive);
    for (Range& part : parts) {
      if (known && !part.empty() && unallocated_bytes(*inode, part.from, part.to) == part.to - part.from)
        part = {};
    }
    handle = make_handle(inode, O_WRONLY);
    handle->keeps_size = true;
  }
  for (const Range& part : parts) {
    for (std::uint64_t at = part.from; at < part.to;) {
      const std::uint64_t size = std::min<std::uint64_t>(part.to - at, kZeroPiece);
      rpc::Buffer bytes = rpc::Buffer::allocate(size);
      std::memset(bytes.writable().data(), 0, size);
      CO_TRYV(co_await write(handle, at, std::move(bytes)));
      at += size;
    }
  }
  release_now(handle);
  co_return Result<>{};
}

FileSystem::Task<std::optional<std::uint64_t>> FileSystemImpl::seek(Handle handle, std::uint64_t offset,
                                                                    int whence) {
  const InodeRef inode = handle->inode;
  for (;;) {
    CO_TRYV(co_await leases_.ensure(inode, Lease::kShared, context_.deadline()));
    std::lock_guard lock(inode->mutex);
    if (!inode->have_layout || !inodes_.usable(*inode)) continue;
    co_return whence == SEEK_DATA ? seek_data(*inode, offset) : seek_hole(*inode, offset);
  }
}

FileSystem::Task<void> FileSystemImpl::fsyncdir(InodeId) {
  return sync_journal(context_, context_.deadline());
}

void FileSystemImpl::release_now(Handle handle) {
  released(*handle);
}

void FileSystemImpl::released(FileHandle& handle) {
  const InodeRef inode = handle.inode;
  if (locks_.in_use()) locks_.released(handle);
  bool last = false, kept = false;
  {
    std::lock_guard lock(inode->mutex);
    if (std::exchange(handle.released, true)) return;
    FileData& file = *inode->file;
    // Opened for reading, and nothing was asked of us: what was read lay in the kernel's pages. It is told,
    // because it caches the old time.
    const bool reader = !handle.writable() && !handle.was_read && (handle.flags & O_NOATIME) == 0;
    if (reader && !file.unlinked && note_access(context_, *inode) && invalidations_.has_sink())
      invalidations_.push({.inode = inode->id});
    if (handle.writable() && file.writers > 0) --file.writers;
    if (file.handles > 0) last = --file.handles == 0;
    if (last) {
      kept = file.kept;
      file.idle_since = runtime_.clock().now() - (kept ? Duration(kIdleClose) : Duration(0));
      file.ahead.clear();
      close_if_unreachable(inode);
    }
  }
  if (last) write_back_.released(inode);
  if (kept) write_back_.save_soon(inode);
}

FileSystem::Task<void> FileSystemImpl::release(Handle handle) {
  release_now(std::move(handle));
  co_return Result<>{};
}

FileSystem::Task<void> FileSystemImpl::sync() {
  auto flushed = co_await write_back_.flush_all(Durable::kYes, context_.deadline());
  auto journaled = co_await fsyncdir(kRootInode);
  if (!flushed) co_return flushed;
  co_return journaled;
}

}  // namespace cairn::client
