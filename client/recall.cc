// What the server takes back, and what happens when a session ends.
//
// A recall is answered when nothing of the inode is cached here or in the kernel any more, and dirty bytes
// are stored and reported. It never waits for a lease that is being asked for: that request may wait, at the
// server, for this recall.
#include "client/fan_out.h"
#include "client/file_system_impl.h"
#include "store/base/log.h"

namespace cairn::client {
namespace {

// The server waits for a minute, and then ends the session, with what is unsaved of all files. Sooner, only
// what can't be stored of one is lost.
constexpr auto kRecallMax = std::chrono::seconds(45);
constexpr auto kSyncPatience = std::chrono::seconds(5);
constexpr auto kSinkPatience =
    std::chrono::seconds(5);  // a kernel that does not let go must not cost the session

std::vector<std::string> names_of(const Inode& inode) {
  std::vector<std::string> names;
  if (!inode.dir) return names;
  names.reserve(inode.dir->entries.size());
  for (const auto& [name, child] : inode.dir->entries) names.push_back(name);
  return names;
}

// All that the kernel has of an inode. Until it is dropped there, attributes are answered late, and never to
// be kept: a read(2) that asks for them goes on with pages which may be from before.
Invalidation everything(const InodeRef& inode, std::vector<std::string> names) {
  {
    std::lock_guard lock(inode->mutex);
    ++inode->dropping;
  }
  Invalidation all;
  all.inode = inode->id;
  all.data = true;
  all.names = std::move(names);
  all.dropped = [inode] {
    std::lock_guard lock(inode->mutex);
    if (--inode->dropping == 0) inode->dropped.notify();
  };
  return all;
}

}  // namespace

rpc::Task<Result<>> FileSystemImpl::invalidate(Invalidation what, Deadline deadline) {
  if (!invalidations_.has_sink()) {
    if (what.dropped) what.dropped();
    co_return Result<>{};
  }
  auto done = std::make_shared<rpc::Event>(runtime_);
  what.done = done;
  invalidations_.push(std::move(what));
  auto told = co_await done->wait(std::min(deadline, Deadline::after(runtime_.clock(), kSinkPatience)));
  co_return told;
}

// Runs in the file system's own task group: a request is cancelled when its connection breaks, and half a
// recall would lose data. The server asks again on the next connection, and then waits for the one that runs.
rpc::Task<> FileSystemImpl::recall(std::vector<RecallItem> items, std::uint64_t serial) {
  auto done = std::make_shared<rpc::Event>(runtime_);
  inodes_.recalled(items, serial);
  if (!tasks_.spawn(runtime_.make_strand(), recall_all(std::move(items), done))) co_return;
  auto waited = co_await done->wait(Deadline::never());
  (void)waited;
}

rpc::Task<> FileSystemImpl::recall_all(std::vector<RecallItem> items, std::shared_ptr<rpc::Event> all_done) {
  std::vector<rpc::Task<Result<>>> tasks;
  for (const RecallItem& item : items) tasks.push_back(recall_one(item));
  auto done = co_await run_all(runtime_, std::move(tasks), 64);
  if (!done) log_warn("recall_failed", "error={}", log_quote(done.error().to_string()));
  all_done->set();
}

// Flushes and reports what is dirty under an exclusive lease, so that at most a shared one is held at the
// server. That goes, if it is to go, with the answer to the recall: until then the kernel may serve what it
// cached.
rpc::Task<Result<>> FileSystemImpl::give_back(InodeRef inode, Lease keep, Deadline deadline) {
  bool exclusive = false;
  {
    std::lock_guard lock(inode->mutex);
    exclusive = inode->lease == Lease::kExclusive;
  }
  // Under an exclusive lease a truncation is not kept waiting at the server; without it one may wait there
  // for this very recall.
  Budget::Hold turn;
  if (exclusive) {
    auto taken = co_await inode->file->changing.take(1, deadline);
    if (!taken) co_return fail(taken.error().with("recall of inode " + to_string(inode->id)));
    turn = std::move(*taken);
  }
  auto flushed = co_await write_back_.flush(inode, Durable::kNo, deadline, WriteBack::For::kRecall);
  if (keep == Lease::kNone) {
    // Who gets the file may remove its chunks: whether ours were synced can't be asked later, nor be written
    // again.
    const Deadline soon = std::min(deadline, Deadline::after(runtime_.clock(), kSyncPatience));
    auto synced = co_await write_back_.sync_chunks(inode, soon);
    if (synced && *synced == SyncLedger::Outcome::kWriteAgain) {
      flushed = co_await write_back_.flush(inode, Durable::kYes, deadline, WriteBack::For::kRecall);
    }
  }
  {
    std::lock_guard lock(inode->mutex);
    inode->file->keep = Lease::kShared;
    if (inode->lease == Lease::kNone) co_return flushed;
  }
  auto reported = co_await reporter_.report(inode, Durable::kNo, deadline);
  if (!flushed) co_return flushed;
  co_return reported;
}

rpc::Task<Result<>> FileSystemImpl::recall_one(RecallItem item) {
  const Deadline deadline = std::min(context_.deadline(), Deadline::after(runtime_.clock(), kRecallMax));
  InodeRef inode = inodes_.find(item.inode);
  if (!inode) {
    Invalidation unknown;
    unknown.inode = item.inode;
    unknown.data = true;
    co_return co_await invalidate(std::move(unknown), deadline);
  }
  bool dirty = false, mapped = false;
  {
    std::lock_guard lock(inode->mutex);
    mapped = inode->lease == Lease::kExclusive && !inode->recalling && inode->file &&
             inode->file->writers != 0 && item.keep == Lease::kNone;
  }
  // Pages that a process changed through a mapping come out while they may still be written.
  if (mapped) {
    auto out = co_await invalidate(everything(inode, {}), deadline);
    // One request for each of them.
    if (out)
      out = co_await dropped(inode, std::min(deadline, Deadline::after(runtime_.clock(), kSinkPatience)));
  }
  std::vector<std::string> names;
  for (;;) {
    std::shared_ptr<rpc::Event> other;  // another recall of this inode runs
    {
      std::lock_guard lock(inode->mutex);
      if (inode->recalling) {
        other = file_of(context_, *inode).settled.next(runtime_);
      } else {
        inode->recalling = true;
        dirty =
            inode->file && inode->session == session_.id() &&
            (inode->lease == Lease::kExclusive ||
             (item.keep == Lease::kNone && (!inode->file->unsynced.empty() ||
                                            (inode->file->server_opens != 0 && inode->file->handles == 0))));
      }
    }
    if (!other) break;
    CO_TRYV(co_await other->wait(deadline));
  }
  Result<> outcome;
  bool all = false;  // nothing stays here
  if (dirty) outcome = co_await give_back(inode, item.keep, deadline);
  {
    std::lock_guard lock(inode->mutex);
    // What could not be stored can't be any more: it is given up, with an error for who wrote it, before
    // others see the file without it.
    const bool failed = !outcome || (dirty && !inode->file->clean());
    all = item.keep == Lease::kNone || failed;
    if (all) {
      names = names_of(*inode);
      // Without the lease nothing can be stored any more, nor stored again.
      if (inode->file && !inode->file->clean()) write_back_.lose(*inode);
      if (inode->file) write_back_.give_up_unsynced(*inode);
      InodeCache::drop(*inode);
    } else {
      inode->lease = std::min(inode->lease, item.keep);
    }
    inode->recalling = false;
    if (inode->file) {
      inode->file->keep = Lease::kExclusive;
      inode->file->settled.notify();
    }
  }
  if (all) {
    auto told = co_await invalidate(everything(inode, std::move(names)), deadline);
    if (!told)
      log_warn("kernel_not_told", "inode={} error={}", to_string(item.inode),
               log_quote(told.error().to_string()));
  }
  co_return outcome;
}

Held FileSystemImpl::held(std::uint64_t attachment) {
  Held held = inodes_.held(attachment);
  held.locks = locks_.begin_epoch(&held.lock_epoch);
  return held;
}

void FileSystemImpl::drop_shared() {
  for (const InodeRef& inode : inodes_.all()) {
    std::vector<std::string> names;
    {
      std::lock_guard lock(inode->mutex);
      if (inode->lease != Lease::kShared) continue;
      names = names_of(*inode);
      InodeCache::drop(*inode);
    }
    invalidations_.push(everything(inode, std::move(names)));
  }
}

void FileSystemImpl::session_ended(SessionId ended) {
  locks_.session_ended();
  for (const InodeRef& inode : inodes_.all()) {
    std::vector<std::string> names;
    {
      std::lock_guard lock(inode->mutex);
      if (inode->session != ended) continue;
      write_back_.lose(*inode);
      names = names_of(*inode);
      InodeCache::drop(*inode);
    }
    invalidations_.push(everything(inode, std::move(names)));
  }
}

}  // namespace cairn::client
