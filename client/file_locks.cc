#include "client/file_locks.h"

#include <algorithm>

#include "store/base/log.h"

namespace cairn::client {
namespace {

using LockReply = rpc::Reply<schema::LockReply>;
using Fill = std::function<void(schema::LockRequest::Builder, std::uint64_t)>;

std::unexpected<Error> lost_error(InodeId inode) {
  return fail(Code::kSessionEnded,
              "a file lock on inode " + to_string(inode) +
                  ", taken through this descriptor, ended with the session: open it again");
}
std::unexpected<Error> ending_error() {
  return fail(Code::kCancelled, "the client is closing");
}

// It was sent, and may have been carried out.
bool unknown(Code code) {
  return code == Code::kTimeout || code == Code::kMaybeApplied;
}
// The server could not be reached: whoever may wait asks again.
bool undecided(Code code) {
  return unknown(code) || code == Code::kUnavailable || code == Code::kStarting;
}

}  // namespace

// While it lives, the file stays known.
class FileLocks::Use {
 public:
  Use(FileLocks& locks, InodeId inode) : locks_(locks), inode_(inode) {
    std::lock_guard lock(locks_.mutex_);
    FileRef& file = locks_.files_[inode];
    if (!file) file = std::make_shared<File>(locks_.runtime_);
    file_ = file;
    locks_.files_known_ = locks_.files_.size();
  }
  ~Use() {
    std::lock_guard lock(locks_.mutex_);
    file_.reset();
    auto it = locks_.files_.find(inode_);
    if (it == locks_.files_.end() || it->second.use_count() > 1 || !it->second->owners.empty()) return;
    locks_.files_.erase(it);
    locks_.files_known_ = locks_.files_.size();
  }
  Use(const Use&) = delete;
  const FileRef& file() const { return file_; }

 private:
  FileLocks& locks_;
  const InodeId inode_;
  FileRef file_;
};

// --- the record ---

void FileLocks::leave_record(File& file, const OwnerKey& owner, LockRange range) {
  auto it = file.owners.find(owner);
  if (it == file.owners.end()) return;
  it->second.ranges.set(range, LockType::kNone);
  if (it->second.ranges.empty()) file.owners.erase(it);
}

void FileLocks::apply(const Change& what) {
  const Asked& asked = *what.asked;
  const OwnerKey key{asked.wanted.kind, asked.wanted.owner};
  if (what.type == LockType::kNone) {
    if (auto it = files_.find(asked.inode); it != files_.end())
      leave_record(*it->second, key, asked.wanted.range);
    return;
  }
  FileRef& file = files_[asked.inode];
  if (!file) file = std::make_shared<File>(runtime_);
  files_known_ = files_.size();
  Owned& owned = file->owners[key];
  owned.ranges.set(asked.wanted.range, what.type);
  owned.pid = asked.wanted.pid;
  const bool known = std::any_of(owned.vias.begin(), owned.vias.end(),
                                 [&](const Via& via) { return via.handle == asked.via; });
  if (!known) owned.vias.push_back({asked.via, asked.handle});
}

void FileLocks::applied(std::uint64_t change, Change what) {
  if (change == 0) return;
  pending_.emplace(change, std::move(what));
  while (!pending_.empty() && pending_.begin()->first <= next_change_) {
    apply(pending_.begin()->second);
    next_change_ = pending_.begin()->first + 1;
    pending_.erase(pending_.begin());
  }
}

// What is missing in between was never told to a process: it is asked for again.
void FileLocks::apply_pending() {
  for (const auto& [number, change] : pending_) apply(change);
  pending_.clear();
}

// All that is under way is void.
void FileLocks::forget_asked() {
  ++epoch_;
  next_change_ = 1;
  for (auto& [ticket, asked] : asked_) {
    if (asked->wait) asked->wait->changed().set();
  }
  asked_.clear();
}

bool FileLocks::may_hold(InodeId inode, std::uint64_t owner) const {
  if (!in_use()) return false;
  std::lock_guard lock(mutex_);
  auto it = files_.find(inode);
  if (it == files_.end()) return false;
  return !pending_.empty() || it->second->owners.contains({LockKind::kRecord, owner});
}

// --- requests ---

rpc::Task<Result<FileLocks::Sent>> FileLocks::send(AskedRef asked, FileRef file, Deadline deadline) {
  const LockSpec wanted = asked->wanted;
  const OwnerKey owner{wanted.kind, wanted.owner};
  for (;;) {
    std::shared_ptr<rpc::Event> unlocked;
    {
      std::lock_guard lock(mutex_);
      if (file->unlocking == 0 || wanted.type == LockType::kNone) break;
      unlocked = file->unlocked.next(runtime_);
    }
    CO_TRYV(co_await unlocked->wait(deadline));
  }
  CO_TRY(auto turn, co_await file->turn.take(1, deadline));
  // A conversion of a flock gives up the old one first.
  if (wanted.type == LockType::kNone || wanted.kind == LockKind::kFlock) {
    std::lock_guard lock(mutex_);
    auto it = file->owners.find(owner);
    const bool same = it != file->owners.end() && wanted.kind == LockKind::kFlock &&
                      it->second.ranges.parts() == std::vector<LockRanges::Part>{{wanted.range, wanted.type}};
    if (same) co_return Sent{Step::kDone, LockResult::kGranted};
    leave_record(*file, owner, wanted.range);
  }
  Fill fill = [this, asked](schema::LockRequest::Builder body, std::uint64_t session) {
    std::lock_guard lock(mutex_);
    asked_.erase(asked->ticket);
    asked->epoch = epoch_;
    asked->ticket = next_ticket_++;
    asked->done = false;
    if (asked->wait) asked_[asked->ticket] = asked;
    body.setSession(session);
    body.setEpoch(asked->epoch);
    body.setTicket(asked->wait ? asked->ticket : 0);
    encode(NamedLock{asked->inode, asked->wanted}, body.initLock());
  };
  auto reply = co_await session_.query<rpc::method::Lock>(std::move(fill), deadline);
  if (!reply) {
    if (reply.error().code() == Code::kStale) co_return Sent{Step::kAgain, {}};
    if (unknown(reply.error().code())) restore_later(asked, file);
    co_return fail(std::move(reply.error()));
  }
  std::lock_guard lock(mutex_);
  const bool valid = asked->epoch == epoch_;
  if (!valid) co_return Sent{Step::kAgain, {}};
  const auto outcome = (*reply)->getOutcome();
  const bool granted = outcome == schema::LockOutcome::GRANTED;
  applied((*reply)->getChange(), {asked, granted ? wanted.type : LockType::kNone});
  if (outcome == schema::LockOutcome::WAITING) co_return Sent{Step::kWaits, {}};
  asked_.erase(asked->ticket);
  if (granted) co_return Sent{Step::kDone, LockResult::kGranted};
  co_return Sent{Step::kDone,
                 outcome == schema::LockOutcome::DEADLOCK ? LockResult::kDeadlock : LockResult::kConflict};
}

rpc::Task<Result<std::optional<LockResult>>> FileLocks::wait_for(AskedRef asked) {
  using Outcome = std::optional<LockResult>;  // none: void, ask again
  bool cancelled = false;                     // too late: the outcome is on its way
  for (;;) {
    asked->wait->changed().reset();
    {
      std::lock_guard lock(mutex_);
      if (asked->done) co_return Outcome(asked->result);
      if (asked->epoch != epoch_) co_return Outcome();
      if (ending_) co_return ending_error();
    }
    if (asked->wait->interrupted() && !cancelled) {
      std::function<void(schema::CancelLockRequest::Builder, std::uint64_t)> fill =
          [asked](schema::CancelLockRequest::Builder body, std::uint64_t session) {
            body.setSession(session);
            body.setEpoch(asked->epoch);
            body.setTicket(asked->ticket);
          };
      auto reply = co_await session_.query<rpc::method::CancelLock>(
          std::move(fill), Deadline::after(runtime_.clock(), timeout_));
      if (!reply) {
        if (!undecided(reply.error().code()) && reply.error().code() != Code::kMaybeApplied)
          co_return fail(std::move(reply.error()));
        continue;
      }
      cancelled = true;
      if (!(*reply)->getRemoved()) continue;
      std::lock_guard lock(mutex_);
      asked_.erase(asked->ticket);
      co_return Outcome(LockResult::kInterrupted);
    }
    CO_TRYV(co_await asked->wait->changed().wait(Deadline::never()));
  }
}

rpc::Task<Result<LockResult>> FileLocks::lock(Handle handle, LockSpec wanted,
                                              std::shared_ptr<LockWait> wait) {
  const InodeId inode = handle->inode->id;
  Use use(*this, inode);
  auto asked = std::make_shared<Asked>();
  asked->inode = inode;
  asked->wanted = wanted;
  asked->handle = handle;
  asked->via = handle.get();
  asked->wait = wait;
  const Deadline deadline = Deadline::after(runtime_.clock(), timeout_);
  Result<LockResult> outcome = LockResult::kInterrupted;
  for (;;) {
    if (handle->lost_lock) {
      if (wanted.type == LockType::kNone) outcome = LockResult::kGranted;  // it is gone
      if (wanted.type != LockType::kNone) outcome = lost_error(inode);
      break;
    }
    if (wait && wait->interrupted()) break;
    auto sent =
        co_await send(asked, use.file(), wait ? Deadline::after(runtime_.clock(), timeout_) : deadline);
    bool ending = false;
    {
      std::lock_guard lock(mutex_);
      ending = ending_;
    }
    if (!sent) {
      // A wait outlives an outage of the server of any length.
      if (wait && !ending && undecided(sent.error().code())) continue;
      outcome = fail(std::move(sent.error()));
      break;
    }
    if (sent->step == Step::kAgain) {
      if (!ending && (wait || !deadline.passed(runtime_.clock()))) continue;
      outcome = ending_error();
      break;
    }
    if (sent->step == Step::kDone) {
      outcome = sent->result;
      break;
    }
    auto ended = co_await wait_for(asked);
    if (!ended) {
      outcome = fail(std::move(ended.error()));
      break;
    }
    if (!*ended) continue;
    outcome = **ended;
    break;
  }
  // The session ended on the way, and this is an answer from the next: the descriptor is not to be trusted
  // any more.
  if (outcome && wanted.type != LockType::kNone && handle->lost_lock) {
    if (*outcome == LockResult::kGranted) {
      {
        std::lock_guard lock(mutex_);
        leave_record(*use.file(), {wanted.kind, wanted.owner}, wanted.range);
      }
      restore_later(asked, use.file());
    }
    outcome = lost_error(inode);
  }
  std::lock_guard lock(mutex_);
  asked_.erase(asked->ticket);
  co_return outcome;
}

rpc::Task<Result<std::optional<LockSpec>>> FileLocks::test(Handle handle, LockSpec wanted) {
  const InodeId inode = handle->inode->id;
  if (handle->lost_lock) co_return lost_error(inode);
  auto mine = std::make_shared<std::uint64_t>(0);
  std::function<void(schema::TestLockRequest::Builder, std::uint64_t)> fill =
      [inode, wanted, mine](schema::TestLockRequest::Builder body, std::uint64_t session) {
        *mine = session;
        body.setSession(session);
        encode(NamedLock{inode, wanted}, body.initLock());
      };
  auto reply = co_await session_.query<rpc::method::TestLock>(std::move(fill),
                                                              Deadline::after(runtime_.clock(), timeout_));
  if (!reply) co_return fail(std::move(reply.error()));
  co_return decoded("TestLock", [&]() -> std::optional<LockSpec> {
    if (!(*reply)->getConflict()) return std::nullopt;
    const auto found = (*reply)->getLock();
    LockSpec spec = wanted;
    spec.type = found.getType() == schema::LockType::WRITE ? LockType::kWrite : LockType::kRead;
    spec.range = {found.getFirst(), found.getLast()};
    spec.owner = found.getOwner();
    spec.pid = (*reply)->getSession() == *mine ? found.getPid() : 0;  // of another host: means nothing here
    return spec;
  });
}

void FileLocks::restore_later(const AskedRef& asked, const FileRef& file) {
  auto copy = std::make_shared<Asked>(*asked);
  {
    std::lock_guard lock(mutex_);
    asked_.erase(asked->ticket);
    if (copy->epoch != epoch_) return;  // the server has forgotten it
    ++file->unlocking;
  }
  if (tasks_.spawn(runtime_.make_strand(), restore(std::move(copy), file))) return;
  std::lock_guard lock(mutex_);
  --file->unlocking;
}

void FileLocks::unlocked(File& file) {
  std::lock_guard lock(mutex_);
  --file.unlocking;
  file.unlocked.notify();
}

rpc::Task<> FileLocks::restore(AskedRef asked, FileRef locked) {
  Use use(*this, asked->inode);
  const FileRef file = std::move(locked);  // goes before `use`, which forgets a file that nobody else has
  auto restored = co_await restore_now(asked, file);
  if (!restored)
    log_debug("lock_not_restored", "inode={} error={}", to_string(asked->inode),
              log_quote(restored.error().to_string()));
  unlocked(*file);
}

// Fails when a new epoch made it needless, or when the client closes.
rpc::Task<Result<>> FileLocks::restore_now(AskedRef asked, FileRef file) {
  CO_TRY(auto turn, co_await file->turn.take(1, Deadline::never()));
  const std::uint64_t epoch = asked->epoch;
  if (asked->wait) {
    std::function<void(schema::CancelLockRequest::Builder, std::uint64_t)> fill =
        [epoch, ticket = asked->ticket](schema::CancelLockRequest::Builder body, std::uint64_t session) {
          body.setSession(session);
          body.setEpoch(epoch);
          body.setTicket(ticket);
        };
    CO_TRY(auto cancelled,
           co_await session_.query<rpc::method::CancelLock>(std::move(fill), Deadline::never()));
  }
  std::vector<LockRanges::Part> parts{{asked->wanted.range, LockType::kNone}};
  {
    std::lock_guard lock(mutex_);
    if (auto it = file->owners.find({asked->wanted.kind, asked->wanted.owner}); it != file->owners.end()) {
      for (const LockRanges::Part& part : it->second.ranges.parts()) {
        const LockRange range{std::max(part.range.first, asked->wanted.range.first),
                              std::min(part.range.last, asked->wanted.range.last)};
        if (range.first <= range.last) parts.push_back({range, part.type});
      }
    }
  }
  // One type over the whole range: no moment without it.
  if (parts.size() == 2 && parts[1].range == parts[0].range) parts.erase(parts.begin());
  for (const LockRanges::Part& part : parts) {
    auto one = std::make_shared<Asked>(*asked);
    one->wanted.range = part.range;
    one->wanted.type = part.type;
    CO_TRYV(co_await set_now(one));
  }
  co_return Result<>{};
}

// Sets without waiting for the lock, in the epoch of `asked` only.
rpc::Task<Result<>> FileLocks::set_now(AskedRef asked) {
  Fill fill = [asked](schema::LockRequest::Builder body, std::uint64_t session) {
    body.setSession(session);
    body.setEpoch(asked->epoch);
    encode(NamedLock{asked->inode, asked->wanted}, body.initLock());
  };
  auto reply = co_await session_.query<rpc::method::Lock>(std::move(fill), Deadline::never());
  if (!reply) co_return fail(std::move(reply.error()));
  std::lock_guard lock(mutex_);
  if (asked->epoch == epoch_) applied((*reply)->getChange(), {asked, asked->wanted.type});
  co_return Result<>{};
}

void FileLocks::released(const FileHandle& handle) {
  const InodeId inode = handle.inode->id;
  std::vector<AskedRef> unlocks;
  FileRef file;
  {
    std::lock_guard lock(mutex_);
    auto it = files_.find(inode);
    if (it == files_.end()) return;
    file = it->second;
    std::vector<OwnerKey> owners;
    for (const auto& [number, change] : pending_) {  // told, and not in the record yet
      if (change.asked->via == &handle && change.type != LockType::kNone)
        owners.push_back({change.asked->wanted.kind, change.asked->wanted.owner});
    }
    for (auto owned = file->owners.begin(); owned != file->owners.end();) {
      auto& vias = owned->second.vias;
      const auto gone = std::erase_if(vias, [&](const Via& via) { return via.handle == &handle; });
      if (gone == 0 || !vias.empty()) {
        ++owned;
        continue;
      }
      owners.push_back(owned->first);
      owned = file->owners.erase(owned);
    }
    for (const OwnerKey& owner : owners) {
      auto asked = std::make_shared<Asked>();
      asked->inode = inode;
      asked->wanted = {owner.kind, LockType::kNone, kWholeFile, owner.id, 0};
      asked->epoch = epoch_;
      unlocks.push_back(std::move(asked));
    }
    if (unlocks.empty()) return;
    ++file->unlocking;
  }
  if (!tasks_.spawn(runtime_.make_strand(), unlock_closed(inode, file, std::move(unlocks)))) unlocked(*file);
}

rpc::Task<> FileLocks::unlock_closed(InodeId inode, FileRef locked, std::vector<AskedRef> unlocks) {
  Use use(*this, inode);
  const FileRef file = std::move(locked);  // goes before `use`, which forgets a file that nobody else has
  auto turn = co_await file->turn.take(1, Deadline::never());
  for (const AskedRef& asked : unlocks) {
    if (!turn) break;
    auto done = co_await set_now(asked);
    if (!done) break;  // a new epoch, in which the server does not know them; or closing
  }
  unlocked(*file);
}

void FileLocks::end_waits() {
  std::lock_guard lock(mutex_);
  ending_ = true;
  for (auto& [ticket, asked] : asked_) {
    if (asked->wait) asked->wait->changed().set();
  }
}

// --- the session ---

std::vector<NamedLock> FileLocks::begin_epoch(std::uint64_t* epoch) {
  std::lock_guard lock(mutex_);
  apply_pending();
  forget_asked();
  *epoch = epoch_;
  std::vector<NamedLock> locks;
  for (const auto& [inode, file] : files_) {
    for (const auto& [owner, owned] : file->owners) {
      for (const LockRanges::Part& part : owned.ranges.parts())
        locks.push_back({inode, {owner.kind, part.type, part.range, owner.id, owned.pid}});
    }
  }
  return locks;
}

void FileLocks::settled(std::uint64_t epoch, const std::vector<SettledLock>& items) {
  std::lock_guard lock(mutex_);
  if (epoch != epoch_) return;
  for (const SettledLock& item : items) {
    auto it = asked_.find(item.ticket);
    if (it == asked_.end()) continue;
    const AskedRef asked = it->second;
    asked_.erase(it);
    applied(item.change, {asked, item.granted ? asked->wanted.type : LockType::kNone});
    asked->done = true;
    asked->result = item.granted ? LockResult::kGranted : LockResult::kDeadlock;
    asked->wait->changed().set();
  }
}

void FileLocks::session_ended() {
  std::vector<Handle> handles;  // goes after the lock: a last reference closes the file
  std::lock_guard lock(mutex_);
  apply_pending();
  forget_asked();
  std::size_t lost = 0;
  for (auto it = files_.begin(); it != files_.end();) {
    for (auto& [owner, owned] : it->second->owners) {
      lost += owned.ranges.count();
      for (const Via& via : owned.vias) {
        if (auto handle = via.alive.lock()) {
          handle->lost_lock = true;
          handles.push_back(std::move(handle));
        }
      }
    }
    it->second->owners.clear();
    it = it->second.use_count() == 1 ? files_.erase(it) : std::next(it);
  }
  files_known_ = files_.size();
  if (lost == 0) return;
  log_warn("locks_lost",
           "count={} what=\"the session ended: descriptors through which they were taken give EIO\"", lost);
}

}  // namespace cairn::client
