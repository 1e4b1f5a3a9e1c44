// Handlers of file locks. Every request of a process comes here: the kernel keeps none of its own
// (docs/locks.md).
//
// Owners: for fcntl() the kernel tells one number a process (its table of descriptors) or, for OFD locks, one
// an open file description; for flock() one a description. They mean something within this mount only. When a
// process closes a descriptor, FLUSH names it as owner, and its record locks on the file go; locks of
// descriptions go with RELEASE.
//
// F_SETLKW and flock() wait until granted, without a deadline. Any signal ends the wait with EINTR, which the
// kernel turns into a restart where the program asked for that; so it costs nothing to be quick here.
#include <fcntl.h>
#include <sys/file.h>

#include <memory>

#include "fuse/frontend.h"
#include "store/base/log.h"

namespace cairn::fuse {
namespace {

struct flock to_flock(const LockSpec& lock) {
  struct flock out {};
  out.l_type = lock.type == LockType::kWrite ? F_WRLCK : F_RDLCK;
  out.l_whence = SEEK_SET;
  out.l_start = static_cast<off_t>(lock.range.first);
  // 0: to the end.
  const bool to_end = lock.range.last >= static_cast<std::uint64_t>(INT64_MAX);
  out.l_len = to_end ? 0 : static_cast<off_t>(lock.range.last - lock.range.first + 1);
  out.l_pid = static_cast<pid_t>(lock.pid);
  return out;
}

LockType type_of(short type) {
  return type == F_WRLCK ? LockType::kWrite : type == F_RDLCK ? LockType::kRead : LockType::kNone;
}

LockSpec to_spec(const struct flock& from, const fuse_file_info& info) {
  LockSpec lock;
  lock.kind = LockKind::kRecord;
  lock.type = type_of(from.l_type);
  lock.range.first = static_cast<std::uint64_t>(from.l_start);
  lock.range.last =
      from.l_len == 0 ? UINT64_MAX : lock.range.first + static_cast<std::uint64_t>(from.l_len) - 1;
  lock.owner = info.lock_owner;
  lock.pid = static_cast<std::uint32_t>(from.l_pid);
  return lock;
}

// ENOLCK where the lock itself is the trouble: lost with its session, or too many.
void reply_lock_error(fuse_req_t req, InodeId inode, const Error& error) {
  const Code code = error.code();
  if (code != Code::kSessionEnded && code != Code::kNoSpace) return reply_error(req, {"lock", inode}, error);
  log_warn("lock_refused", "inode={} errno={} error={}", to_string(inode), ENOLCK,
           log_quote(error.to_string()));
  fuse_reply_err(req, ENOLCK);
}

void reply_lock(fuse_req_t req, InodeId inode, const Result<LockResult>& result) {
  if (!result) return reply_lock_error(req, inode, result.error());
  switch (*result) {
    case LockResult::kGranted:
      fuse_reply_err(req, 0);
      break;
    case LockResult::kConflict:
      fuse_reply_err(req, EAGAIN);
      break;
    case LockResult::kDeadlock:
      fuse_reply_err(req, EDEADLK);
      break;
    case LockResult::kInterrupted:
      fuse_reply_err(req, EINTR);
      break;
  }
}

enum class Patience { kNone, kWaits };

void set_lock(fuse_req_t req, fuse_ino_t ino, const LockSpec& wanted, const fuse_file_info& info,
              Patience patience) {
  Frontend& front = frontend(req);
  FileSystem& files = front.files;
  const InodeId inode(ino);
  const Handle handle = OpenFiles::get(info.fh)->handle;
  std::shared_ptr<LockWait> wait;
  std::shared_ptr<Request> request;
  if (patience == Patience::kWaits && wanted.type != LockType::kNone) {
    wait = std::make_shared<LockWait>(files.runtime());
    request = front.requests.begin_wait(req, "setlkw", [wait] { wait->interrupt(); });
  } else {
    request = front.requests.begin(req, Kind::kChange, "setlk");
  }
  files.spawn<LockResult>(
      files.lock(handle, wanted, wait), [request, inode, handle, wanted, &files](Result<LockResult> result) {
        if (fuse_req_t req = request->take()) return reply_lock(req, inode, result);
        // Nobody knows that it was granted: EINTR or ETIMEDOUT was said.
        if (!result || *result != LockResult::kGranted || wanted.type == LockType::kNone) return;
        LockSpec undo = wanted;
        undo.type = LockType::kNone;
        files.spawn<LockResult>(files.lock(handle, undo, nullptr), [inode](Result<LockResult> undone) {
          if (!undone)
            log_warn("lock_kept", "inode={} error={} what=\"until its owner closes the file\"",
                     to_string(inode), log_quote(undone.error().to_string()));
        });
      });
}

void handle_setlk(fuse_req_t req, fuse_ino_t ino, fuse_file_info* info, struct flock* lock, int sleep) {
  frontend(req).open_files.record_lock_seen();
  set_lock(req, ino, to_spec(*lock, *info), *info, sleep != 0 ? Patience::kWaits : Patience::kNone);
}

void handle_flock(fuse_req_t req, fuse_ino_t ino, fuse_file_info* info, int op) {
  LockSpec wanted;
  wanted.kind = LockKind::kFlock;
  wanted.owner = info->lock_owner;
  wanted.pid = static_cast<std::uint32_t>(fuse_req_ctx(req)->pid);
  const int what = op & ~LOCK_NB;
  wanted.type = what == LOCK_EX ? LockType::kWrite : what == LOCK_SH ? LockType::kRead : LockType::kNone;
  set_lock(req, ino, wanted, *info, op & LOCK_NB ? Patience::kNone : Patience::kWaits);
}

void handle_getlk(fuse_req_t req, fuse_ino_t ino, fuse_file_info* info, struct flock* lock) {
  using Found = std::optional<LockSpec>;
  FileSystem& files = frontend(req).files;
  const InodeId inode(ino);
  const LockSpec wanted = to_spec(*lock, *info);
  start<Found>(req, Kind::kRead, "getlk", files.test_lock(OpenFiles::get(info->fh)->handle, wanted),
               [inode, asked = *lock](fuse_req_t req, Result<Found> found) {
                 if (req == nullptr) return;
                 if (!found) return reply_lock_error(req, inode, found.error());
                 struct flock reply = asked;
                 reply.l_type = F_UNLCK;
                 if (*found) reply = to_flock(**found);
                 fuse_reply_lock(req, &reply);
               });
}

}  // namespace

FileSystem::Task<void> unlock_then_flush(FileSystem& files, Handle handle, std::uint64_t owner) {
  LockSpec all;
  all.owner = owner;
  auto unlocking = files.lock(handle, all, nullptr);
  auto unlocked = co_await std::move(unlocking);
  auto flushing = files.flush(std::move(handle));
  auto flushed = co_await std::move(flushing);
  // The bytes come first: whoever holds no lock any more forgets it by itself, at the latest with its
  // session.
  if (!unlocked) log_warn("unlock_failed", "error={}", log_quote(unlocked.error().to_string()));
  co_return flushed;
}

void add_lock_handlers(fuse_lowlevel_ops& ops) {
  ops.getlk = handle_getlk;
  ops.setlk = handle_setlk;
  ops.flock = handle_flock;
}

}  // namespace cairn::fuse
