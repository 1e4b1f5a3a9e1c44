// FileLocks: the file locks of this client's processes, as far as this side knows them; docs/locks.md is the
// plan.
//
// The server decides about every lock; what was granted is recorded here, to be named again when the session
// is resumed (a restarted server has forgotten all), and to know at a close whether there is anything to
// unlock. The record is what the processes were told: an unlock leaves it before it is sent, a lock enters it
// when granted. With each resumption an *epoch* begins, in which the server knows exactly what was named:
// whatever was under way from the epoch before is void, and asked for again by those who wait for it. Within
// an epoch the server numbers its changes, and they enter the record in that order, since replies and
// LocksSettled pass each other.
//
// Requests about one file go one at a time; who waits for a lock does so at the server, without holding up
// others. A session that ends takes its locks with it: the handles through which they were taken are marked
// (FileHandle::lost_lock), and neither read, write nor lock any more.
//
// Thread-safe. Owned by the file system; its tasks run in the given TaskGroup, which is closed before it
// goes.
#pragma once

#include <atomic>
#include <map>
#include <mutex>
#include <unordered_map>

#include "client/budget.h"
#include "client/inode.h"
#include "client/lock_wire.h"
#include "client/session.h"

namespace cairn::client {

class FileLocks {
 public:
  FileLocks(rpc::Runtime& runtime, Session& session, rpc::TaskGroup& tasks, Duration timeout)
      : runtime_(runtime), session_(session), tasks_(tasks), timeout_(timeout) {}

  rpc::Task<Result<LockResult>> lock(Handle handle, LockSpec wanted, std::shared_ptr<LockWait> wait);
  rpc::Task<Result<std::optional<LockSpec>>> test(Handle handle, LockSpec wanted);
  // Whether the owner may have record locks on the file. Cheap while nobody locks anything.
  bool may_hold(InodeId inode, std::uint64_t owner) const;
  bool in_use() const { return files_known_.load(std::memory_order_relaxed) != 0; }
  // The handle is closed: locks that were taken through no other handle are released, in the background.
  void released(const FileHandle& handle);
  // Ends all waits with kCancelled.
  void end_waits();

  // --- for the session ---
  // All locks, with which a new epoch begins.
  std::vector<NamedLock> begin_epoch(std::uint64_t* epoch);
  void settled(std::uint64_t epoch, const std::vector<SettledLock>& items);
  void session_ended();

 private:
  struct OwnerKey {
    LockKind kind;
    std::uint64_t id;
    auto operator<=>(const OwnerKey&) const = default;
  };
  struct Via {
    const FileHandle* handle;
    std::weak_ptr<FileHandle> alive;
  };
  struct Owned {
    LockRanges ranges;
    std::uint32_t pid = 0;
    std::vector<Via> vias;  // the handles through which it locked
  };
  struct File {
    explicit File(rpc::Runtime& runtime) : turn(runtime, 1) {}
    Budget turn;  // one request at a time
    // Under mutex_:
    std::map<OwnerKey, Owned> owners;
    unsigned unlocking = 0;  // tasks that unlock what nobody holds any more: who asks now waits for them
    Signal unlocked;
  };
  using FileRef = std::shared_ptr<File>;
  class Use;
  // A request for a lock.
  struct Asked {
    InodeId inode;
    LockSpec wanted;
    std::weak_ptr<FileHandle> handle;
    const FileHandle* via = nullptr;
    std::shared_ptr<LockWait> wait;
    // Under mutex_:
    std::uint64_t epoch = 0;
    std::uint64_t ticket = 0;
    bool done = false;
    LockResult result = LockResult::kGranted;
  };
  using AskedRef = std::shared_ptr<Asked>;
  struct Change {
    AskedRef asked;
    LockType type;  // what the range has afterwards
  };
  enum class Step { kDone, kAgain, kWaits };
  struct Sent {
    Step step = Step::kDone;
    LockResult result = LockResult::kGranted;
  };

  rpc::Task<Result<Sent>> send(AskedRef asked, FileRef file, Deadline deadline);
  rpc::Task<Result<std::optional<LockResult>>> wait_for(AskedRef asked);
  // Nobody knows whether it was carried out: makes the server agree with the record. Who asks for locks of
  // the file waits for that.
  void restore_later(const AskedRef& asked, const FileRef& file);
  rpc::Task<> restore(AskedRef asked, FileRef file);
  rpc::Task<Result<>> restore_now(AskedRef asked, FileRef file);
  rpc::Task<Result<>> set_now(AskedRef asked);
  rpc::Task<> unlock_closed(InodeId inode, FileRef file, std::vector<AskedRef> unlocks);
  void unlocked(File& file);
  // Under mutex_:
  void applied(std::uint64_t change, Change what);
  void apply(const Change& what);
  void apply_pending();
  void forget_asked();
  void leave_record(File& file, const OwnerKey& owner, LockRange range);

  rpc::Runtime& runtime_;
  Session& session_;
  rpc::TaskGroup& tasks_;
  const Duration timeout_;
  std::atomic<std::size_t> files_known_{0};  // files_.size()

  mutable std::mutex mutex_;  // guards all below
  std::unordered_map<InodeId, FileRef> files_;
  std::uint64_t epoch_ = 1;
  std::uint64_t next_change_ = 1;
  std::uint64_t next_ticket_ = 1;
  std::map<std::uint64_t, Change> pending_;  // by number; an earlier one has not come yet
  std::map<std::uint64_t, AskedRef> asked_;  // by ticket
  bool ending_ = false;
};

}  // namespace cairn::client
