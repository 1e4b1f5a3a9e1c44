// LockTable: who holds and who waits for locks on which files, for all sessions. What fcntl(F_SETLK,
// F_SETLKW, F_GETLK) and flock() mean is decided here; docs/locks.md says how it is kept true over restarts
// and broken connections. Memory only, no time and no messages: LockKeeper (lock_keeper.h) connects it to
// both. Not thread-safe.
//
// As Linux does: a request is granted if no other owner's lock conflicts, whoever waits; who waits is served
// in the order of asking as soon as nothing conflicts. A waiter keeps what it holds, but for flock(), where a
// conversion gives up the old lock first. A wait for a record lock that would close a circle of owners
// waiting for each other is refused; also one that comes to be part of a circle later, by a grant to an owner
// with several threads.
#pragma once

#include <compare>
#include <cstdint>
#include <list>
#include <map>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "store/base/ids.h"
#include "store/base/lock_ranges.h"
#include "store/base/result.h"

namespace cairn::meta {

enum class LockKind : std::uint8_t { kRecord = 0, kFlock = 1 };
enum class LockOutcome : std::uint8_t { kGranted = 0, kConflict = 1, kWaiting = 2, kDeadlock = 3 };

struct LockOwner {
  SessionId session;
  std::uint64_t id = 0;
  auto operator<=>(const LockOwner&) const = default;
};

struct FileLock {
  InodeId inode;
  LockKind kind = LockKind::kRecord;
  LockType type = LockType::kNone;
  LockOwner owner;
  LockRange range;
  std::uint32_t pid = 0;
};

// change: the number of the change to the session's locks, from 1; 0: nothing changed.
struct LockAnswer {
  LockOutcome outcome = LockOutcome::kGranted;
  std::uint64_t change = 0;
};
// A wait that ended.
struct SettledWait {
  SessionId session;
  std::uint64_t epoch = 0;
  std::uint64_t ticket = 0;
  LockAnswer answer;
};

class LockTable {
 public:
  // More parts and waits of one session are refused.
  explicit LockTable(std::size_t per_session_max = 100'000) : per_session_max_(per_session_max) {}

  // Locks, converts or unlocks. ticket 0: does not wait. kStale: `epoch` is not the session's any more;
  // kNoSpace: too many locks.
  Result<LockAnswer> ask(const FileLock& wanted, std::uint64_t epoch, std::uint64_t ticket);
  // False: it does not wait (any more).
  bool cancel(SessionId session, std::uint64_t epoch, std::uint64_t ticket);
  // The first lock of another owner that `wanted` would conflict with.
  std::optional<FileLock> test(const FileLock& wanted) const;
  // The session has exactly these from now on, and waits for nothing. kConflict: another session has one that
  // is in the way; nothing is changed.
  Result<> replace(SessionId session, std::uint64_t epoch, const std::vector<FileLock>& locks);
  void drop(SessionId session);
  // Waits that ended since the last call.
  std::vector<SettledWait> take_settled();

  std::size_t sessions() const { return sessions_.size(); }

 private:
  struct FileKey {
    InodeId inode;
    LockKind kind = LockKind::kRecord;
    auto operator<=>(const FileKey&) const = default;
  };
  struct Held {
    LockRanges ranges;
    std::uint32_t pid = 0;
  };
  struct Wait {
    FileLock wanted;
    std::uint64_t ticket = 0;
  };
  using Waits = std::list<Wait>;
  struct File {
    std::map<LockOwner, Held> held;
    Waits waits;  // in the order of asking
  };
  struct Session {
    std::uint64_t epoch = 0;
    std::uint64_t changes = 0;
    std::size_t parts = 0;
    std::set<FileKey> files;  // where it holds something
    std::map<std::uint64_t, FileKey> tickets;
  };

  static FileKey key_of(const FileLock& lock) { return {lock.inode, lock.kind}; }
  // An owner whose lock conflicts with `wanted`; all of them into `all`, if given.
  static const LockOwner* blocker(const File& file, const FileLock& wanted,
                                  std::vector<LockOwner>* all = nullptr);
  std::uint64_t set(File& file, const FileLock& lock);
  void remove(File& file, SessionId session);
  void enqueue(File& file, const FileLock& wanted, std::uint64_t ticket);
  Waits::iterator dequeue(File& file, Waits::iterator wait);
  bool deadlocks(const File& file, const FileLock& wanted) const;
  void settle(const FileKey& key, bool may_close_circle);
  void tidy(const FileKey& key);

  const std::size_t per_session_max_;
  std::map<FileKey, File> files_;
  std::map<SessionId, Session> sessions_;
  std::map<LockOwner, std::vector<const Wait*>> waiting_;  // record locks only
  std::vector<SettledWait> settled_;
};

}  // namespace cairn::meta
