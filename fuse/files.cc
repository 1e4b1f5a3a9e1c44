// Handlers of open files.
//
// Bytes are copied once each way: a read's pieces go from the client's cache to the kernel in one gather
// write, a write's bytes from libfuse's buffer into the write-back buffer. (write_buf with splice would save
// nothing: the bytes are checksummed and kept here, and the pipe costs two more system calls for each small
// request.)
#include <fcntl.h>

#include <array>
#include <climits>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "fuse/frontend.h"

namespace cairn::fuse {
namespace {

OpenFileRef& file_of(const fuse_file_info* info) {
  return OpenFiles::get(info->fh);
}

bool read_only(int flags) {
  return (flags & O_ACCMODE) == O_RDONLY;
}

void fill_opened(fuse_file_info& info, const Opened& opened, Frontend& front) {
  // Appends pick their offset here, where the true size is known; the kernel's page cache would guess it.
  // O_DIRECT needs no such thing: the kernel bypasses its cache for it by itself, and shared mappings keep
  // working.
  info.direct_io = (info.flags & O_APPEND) != 0 && !read_only(info.flags);
  info.keep_cache = opened.keep_cache && front.cache.pages && (info.flags & O_TRUNC) == 0;
  // Nothing written, nothing to report at close: saves a round trip for each file read. But where record
  // locks are in use, each close is heard: it gives back those of the process that closes.
  info.noflush = read_only(info.flags) && !front.open_files.record_locks_seen();
  info.fh =
      front.open_files.add(std::make_shared<OpenFile>(opened.entry.attr.inode, info.flags, opened.handle));
}

// Also when the kernel gave up on the open meanwhile: nobody will close it then.
void close_file(Frontend& front, const fuse_file_info& info) {
  if (auto file = front.open_files.remove(info.fh)) file->release(front.files);
}

void handle_open(fuse_req_t req, fuse_ino_t ino, fuse_file_info* asked) {
  FileSystem& files = frontend(req).files;
  const InodeId inode(ino);
  auto finish = [inode, info = *asked, &files](fuse_req_t req, Result<Opened> opened) mutable {
    if (req == nullptr) {
      if (opened) files.release_now(std::move(opened->handle));
      return;
    }
    if (!opened)
      return reply_error(req, {"open", inode, RangeMeans::kValue, Missing::kInode}, opened.error());
    Frontend& front = frontend(req);
    fill_opened(info, *opened, front);
    if (fuse_reply_open(req, &info) != 0) close_file(front, info);
  };
  if (auto known = files.try_open(inode, asked->flags)) return finish(req, std::move(*known));
  const Kind kind = asked->flags & O_TRUNC ? Kind::kChange : Kind::kRead;
  start<Opened>(req, kind, "open", files.open(inode, asked->flags), finish);
}

// The kernel sends CREATE when it believes that the name does not exist, and then checks no permission on
// what it gets. So it is always made exclusively here: if another host was faster, ESTALE makes the kernel
// look the name up again and open what it finds in the ordinary, checked way.
void handle_create(fuse_req_t req, fuse_ino_t parent, const char* name, mode_t mode, fuse_file_info* asked) {
  FileSystem& files = frontend(req).files;
  const InodeId dir(parent);
  start<Opened>(req, Kind::kChange, "create",
                files.create(dir, name, mode, asked->flags | O_EXCL, owner_of(req)),
                [dir, info = *asked, &files](fuse_req_t req, Result<Opened> made) mutable {
                  if (req == nullptr) {
                    if (!made) return;
                    files.release_now(made->handle);
                    files.forget(made->entry.attr.inode, 1);
                    return;
                  }
                  if (!made) {
                    if (made.error().code() == Code::kExists && (info.flags & O_EXCL) == 0) {
                      fuse_reply_err(req, ESTALE);
                    } else {
                      reply_error(req, {"create", dir}, made.error());
                    }
                    return;
                  }
                  Frontend& front = frontend(req);
                  fill_opened(info, *made, front);
                  const auto entry = to_entry_param(made->entry, front.cache.attributes_max);
                  if (fuse_reply_create(req, &entry, &info) != 0) {
                    close_file(front, info);
                    files.forget(made->entry.attr.inode, 1);
                  }
                });
}

void handle_release(fuse_req_t req, fuse_ino_t, fuse_file_info* info) {
  Frontend& front = frontend(req);
  fuse_reply_err(req, 0);  // nobody waits for it
  close_file(front, *info);
}

// --- data ---

void reply_payload(fuse_req_t req, const rpc::Payload& payload) {
  // One slot of a gather write is libfuse's own header.
  constexpr std::size_t pieces_max = IOV_MAX - 1;
  std::vector<iovec> many;
  std::array<iovec, 16> few;
  iovec* vec = few.data();
  const std::size_t count = payload.pieces.size();
  if (count > pieces_max) {  // a file in tiny pieces: one copy
    std::string all;
    all.reserve(payload.size());
    for (const auto& piece : payload.pieces) all.append(as_text(piece.bytes()));
    fuse_reply_buf(req, all.data(), all.size());
    return;
  }
  if (count > few.size()) {
    many.resize(count);
    vec = many.data();
  }
  for (std::size_t i = 0; i < count; ++i) {
    const Bytes bytes = payload.pieces[i].bytes();
    vec[i] = {const_cast<std::byte*>(bytes.data()), bytes.size()};
  }
  fuse_reply_iov(req, vec, static_cast<int>(count));
}

void handle_read(fuse_req_t req, fuse_ino_t ino, std::size_t size, off_t offset, fuse_file_info* info) {
  FileSystem& files = frontend(req).files;
  const OpenFileRef& file = file_of(info);
  const InodeId inode(ino);
  auto finish = [inode](fuse_req_t req, Result<rpc::Payload> data) {
    if (req == nullptr) return;
    if (data) {
      reply_payload(req, *data);
    } else {
      reply_error(req, {"read", inode, RangeMeans::kOffset}, data.error());
    }
  };
  const auto from = static_cast<std::uint64_t>(offset);
  const auto length = static_cast<std::uint32_t>(size);
  if (auto known = files.try_read(file->handle, from, length)) return finish(req, std::move(*known));
  start<rpc::Payload>(req, Kind::kRead, "read", files.read(file->handle, from, length), finish);
}

FileSystem::Task<std::uint32_t> open_and_write(FileSystem& files, OpenFileRef file, std::uint64_t offset,
                                               rpc::Buffer data) {
  const int flags = (file->flags ^ O_APPEND) & ~(O_CREAT | O_EXCL | O_TRUNC);
  auto opening = files.open(file->inode, flags);
  CO_TRY(Opened opened, co_await std::move(opening));
  if (Handle spare = file->keep_other(std::move(opened.handle))) files.release_now(std::move(spare));
  Handle handle = file->of_kind((flags & O_APPEND) != 0);
  if (!handle) co_return fail(Code::kCancelled, "the file was closed while a write waited");
  auto writing = files.write(std::move(handle), offset, std::move(data));
  co_return co_await std::move(writing);
}

void handle_write(fuse_req_t req, fuse_ino_t ino, const char* data, std::size_t size, off_t offset,
                  fuse_file_info* info) {
  FileSystem& files = frontend(req).files;
  const OpenFileRef& file = file_of(info);
  const InodeId inode(ino);
  const auto to = static_cast<std::uint64_t>(offset);
  const Bytes bytes{reinterpret_cast<const std::byte*>(data), size};
  auto finish = [inode](fuse_req_t req, Result<std::uint32_t> written) {
    if (req == nullptr) return;
    if (written) {
      fuse_reply_write(req, *written);
    } else {
      reply_error(req, {"write", inode, RangeMeans::kOffset}, written.error());
    }
  };
  const bool append = info->writepage == 0 && (info->flags & O_APPEND) != 0;
  Handle handle = file->of_kind(append);
  if (!handle) {
    start<std::uint32_t>(req, Kind::kChange, "write",
                         open_and_write(files, file, to, rpc::Buffer::copy(bytes)), finish);
    return;
  }
  if (auto done = files.try_write(handle, to, bytes)) return finish(req, std::move(*done));
  start<std::uint32_t>(req, Kind::kChange, "write",
                       files.write(std::move(handle), to, rpc::Buffer::copy(bytes)), finish);
}

// Completion of what has no answer but an error.
auto finish_empty(std::string_view op, InodeId inode, RangeMeans range = RangeMeans::kValue) {
  return [op, inode, range](fuse_req_t req, Result<> done) {
    if (req == nullptr) return;
    if (done) {
      fuse_reply_err(req, 0);
    } else {
      reply_error(req, {op, inode, range}, done.error());
    }
  };
}

void handle_flush(fuse_req_t req, fuse_ino_t ino, fuse_file_info* info) {
  FileSystem& files = frontend(req).files;
  const OpenFileRef& file = file_of(info);
  const InodeId inode(ino);
  auto finish = finish_empty("flush", inode);
  if (files.may_hold_locks(file->handle, info->lock_owner)) {
    start<void>(req, Kind::kFlush, "flush", unlock_then_flush(files, file->handle, info->lock_owner), finish);
    return;
  }
  if (read_only(file->flags)) return finish(req, {});
  if (auto known = files.try_flush(file->handle)) return finish(req, std::move(*known));
  start<void>(req, Kind::kFlush, "flush", files.flush(file->handle), finish);
}

void handle_fsync(fuse_req_t req, fuse_ino_t ino, int data_only, fuse_file_info* info) {
  const InodeId inode(ino);
  start<void>(req, Kind::kFlush, "fsync", frontend(req).files.fsync(file_of(info)->handle, data_only != 0),
              finish_empty("fsync", inode));
}

// Collapsing and inserting ranges would move bytes between chunks; ext4's other modes are there.
void handle_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t length,
                      fuse_file_info* info) {
  constexpr int kPunch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
  const InodeId inode(ino);
  if (mode != kPunch && (mode & ~(FALLOC_FL_KEEP_SIZE | FALLOC_FL_ZERO_RANGE)) != 0) {
    fuse_reply_err(req, EOPNOTSUPP);
    return;
  }
  start<void>(req, Kind::kChange, "fallocate",
              frontend(req).files.allocate(file_of(info)->handle, mode, static_cast<std::uint64_t>(offset),
                                           static_cast<std::uint64_t>(length)),
              finish_empty("fallocate", inode, RangeMeans::kOffset));
}

// The kernel asks for SEEK_DATA and SEEK_HOLE only.
void handle_lseek(fuse_req_t req, fuse_ino_t ino, off_t offset, int whence, fuse_file_info* info) {
  using Place = std::optional<std::uint64_t>;
  const InodeId inode(ino);
  start<Place>(req, Kind::kRead, "lseek",
               frontend(req).files.seek(file_of(info)->handle, static_cast<std::uint64_t>(offset), whence),
               [inode](fuse_req_t req, Result<Place> found) {
                 if (req == nullptr) return;
                 if (!found) return reply_error(req, {"lseek", inode}, found.error());
                 if (*found) {
                   fuse_reply_lseek(req, static_cast<off_t>(**found));
                 } else {
                   fuse_reply_err(req, ENXIO);
                 }
               });
}

// What can't be shared is copied by the client too, in pieces: the kernel would read and write every byte.
void handle_copy_file_range(fuse_req_t req, fuse_ino_t, off_t from_offset, fuse_file_info* from_info,
                            fuse_ino_t ino, off_t to_offset, fuse_file_info* to_info, std::size_t length,
                            int) {
  Handle from = file_of(from_info)->handle;
  Handle to = file_of(to_info)->of_kind(false);
  if (!to) {  // opened for appending, which ended since: the kernel copies
    fuse_reply_err(req, EOPNOTSUPP);
    return;
  }
  const InodeId inode(ino);
  start<std::uint64_t>(
      req, Kind::kFlush, "copy_file_range",
      frontend(req).files.copy_range(std::move(from), static_cast<std::uint64_t>(from_offset), std::move(to),
                                     static_cast<std::uint64_t>(to_offset), length),
      [inode](fuse_req_t req, Result<std::uint64_t> copied) {
        if (req == nullptr) return;
        if (copied) {
          fuse_reply_write(req, *copied);
        } else {
          reply_error(req, {"copy_file_range", inode, RangeMeans::kOffset}, copied.error());
        }
      });
}

}  // namespace

void add_file_handlers(fuse_lowlevel_ops& ops) {
  ops.open = handle_open;
  ops.create = handle_create;
  ops.release = handle_release;
  ops.read = handle_read;
  ops.write = handle_write;
  ops.flush = handle_flush;
  ops.fsync = handle_fsync;
  ops.fallocate = handle_fallocate;
  ops.lseek = handle_lseek;
  ops.copy_file_range = handle_copy_file_range;
}

}  // namespace cairn::fuse
