// What every handler of a FUSE request uses: the client, the registry of waiting requests, and how results
// are replied.
//
// A handler runs on a FUSE thread and never blocks there: it answers from the client's cache (try_ forms), or
// it starts the client's coroutine with start() and returns; the completion, on an io thread, replies.
#pragma once

#include <functional>
#include <memory>
#include <string_view>
#include <utility>

#include "client/file_system.h"
#include "fuse/attributes.h"
#include "fuse/errno.h"
#include "fuse/kernel_cache.h"
#include "fuse/lowlevel.h"
#include "fuse/open_files.h"
#include "fuse/requests.h"

namespace cairn::fuse {

struct Frontend {
  FileSystem& files;
  Requests& requests;
  KernelCache cache;
  OpenFiles open_files;
  std::function<void()> on_serving;  // once, when the kernel has agreed on the protocol
};

inline Frontend& frontend(fuse_req_t req) {
  return *static_cast<Frontend*>(fuse_req_userdata(req));
}
inline Owner owner_of(fuse_req_t req) {
  const fuse_ctx* caller = fuse_req_ctx(req);
  return {caller->uid, caller->gid, static_cast<std::uint32_t>(caller->umask)};
}

// What kNotFound means: the name asked for does not exist (ENOENT), or the inode that the kernel found by an
// earlier lookup is gone (ESTALE: the kernel walks the path again, and finds what replaced it or nothing).
enum class Missing { kName, kInode };

// Where an error happened, for the log and for errno.
struct Where {
  std::string_view op;  // a literal
  InodeId inode;
  RangeMeans range = RangeMeans::kValue;
  Missing missing = Missing::kName;
};
// Replies errno; logs what is not ordinary (at most ten lines a second).
void reply_error(fuse_req_t req, const Where& where, const Error& error);

// `finish(req, result)` runs once on an io thread. A null req: the kernel was answered already (interrupt,
// deadline); give back what the result holds.
template <class T, class Finish>
void start(fuse_req_t req, Kind kind, std::string_view op, FileSystem::Task<T> task, Finish finish) {
  Frontend& f = frontend(req);
  auto request = f.requests.begin(req, kind, op);
  f.files.spawn<T>(std::move(task),
                   [request = std::move(request), finish = std::move(finish)](Result<T> result) mutable {
                     finish(request->take(), std::move(result));
                   });
}

// Replies an entry (lookup, mkdir, ...). If the kernel gave up on the request, it does not know the inode:
// undone.
void reply_entry(fuse_req_t req, const Entry& entry);
void reply_attr(fuse_req_t req, const Entry& entry);

// --- handlers, by what they work on ---
void add_name_handlers(fuse_lowlevel_ops& ops);       // names.cc
void add_attribute_handlers(fuse_lowlevel_ops& ops);  // attribute_handlers.cc
void add_file_handlers(fuse_lowlevel_ops& ops);       // files.cc
void add_directory_handlers(fuse_lowlevel_ops& ops);  // directories.cc
void add_lock_handlers(fuse_lowlevel_ops& ops);       // locks.cc

// A close of a descriptor whose process has record locks on the file: they go.
FileSystem::Task<void> unlock_then_flush(FileSystem& files, Handle handle, std::uint64_t owner);

}  // namespace cairn::fuse
