#include "meta/lock_table.h"

#include <algorithm>

namespace cairn::meta {

const LockOwner* LockTable::blocker(const File& file, const FileLock& wanted, std::vector<LockOwner>* all) {
  const LockOwner* first = nullptr;
  for (const auto& [owner, held] : file.held) {
    if (owner == wanted.owner || !held.ranges.conflict(wanted.range, wanted.type)) continue;
    if (!first) first = &owner;
    if (!all) break;
    all->push_back(owner);
  }
  return first;
}

// Returns the number of the change.
std::uint64_t LockTable::set(File& file, const FileLock& lock) {
  Session& session = sessions_[lock.owner.session];
  Held& held = file.held[lock.owner];
  session.parts -= held.ranges.count();
  held.ranges.set(lock.range, lock.type);
  session.parts += held.ranges.count();
  if (lock.type != LockType::kNone) held.pid = lock.pid;
  if (held.ranges.empty()) {
    file.held.erase(lock.owner);
    const auto next = file.held.lower_bound({lock.owner.session, 0});
    if (next == file.held.end() || next->first.session != lock.owner.session)
      session.files.erase(key_of(lock));
  } else {
    session.files.insert(key_of(lock));
  }
  return ++session.changes;
}

void LockTable::enqueue(File& file, const FileLock& wanted, std::uint64_t ticket) {
  file.waits.push_back({wanted, ticket});
  sessions_[wanted.owner.session].tickets[ticket] = key_of(wanted);
  if (wanted.kind == LockKind::kRecord) waiting_[wanted.owner].push_back(&file.waits.back());
}

LockTable::Waits::iterator LockTable::dequeue(File& file, Waits::iterator wait) {
  sessions_[wait->wanted.owner.session].tickets.erase(wait->ticket);
  if (auto it = waiting_.find(wait->wanted.owner); it != waiting_.end()) {
    std::erase(it->second, &*wait);
    if (it->second.empty()) waiting_.erase(it);
  }
  return file.waits.erase(wait);
}

// Whether one of those that block `wanted` waits, over any number of others, for its owner.
bool LockTable::deadlocks(const File& file, const FileLock& wanted) const {
  if (wanted.kind != LockKind::kRecord || waiting_.empty()) return false;
  std::vector<LockOwner> look;
  std::set<LockOwner> seen;
  blocker(file, wanted, &look);
  while (!look.empty()) {
    const LockOwner owner = look.back();
    look.pop_back();
    if (owner == wanted.owner) return true;
    if (!seen.insert(owner).second) continue;
    auto it = waiting_.find(owner);
    if (it == waiting_.end()) continue;
    for (const Wait* wait : it->second) {
      auto at = files_.find(key_of(wait->wanted));
      if (at != files_.end()) blocker(at->second, wait->wanted, &look);
    }
  }
  return false;
}

// Grants what can be granted now. `may_close_circle`: an owner that waits somewhere got a lock on this file.
void LockTable::settle(const FileKey& key, bool may_close_circle) {
  auto it = files_.find(key);
  if (it == files_.end()) return;
  File& file = it->second;
  const auto end_wait = [&](Waits::iterator wait, LockAnswer answer) {
    const SessionId session = wait->wanted.owner.session;
    settled_.push_back({session, sessions_[session].epoch, wait->ticket, answer});
    return dequeue(file, wait);
  };
  for (bool again = !file.waits.empty(); again;) {  // a grant may be a downgrade, which makes room for others
    again = false;
    for (auto wait = file.waits.begin(); wait != file.waits.end();) {
      if (blocker(file, wait->wanted)) {
        ++wait;
        continue;
      }
      const LockOwner owner = wait->wanted.owner;
      const std::uint64_t change = set(file, wait->wanted);
      wait = end_wait(wait, {LockOutcome::kGranted, change});
      may_close_circle = may_close_circle || waiting_.contains(owner);
      again = true;
    }
  }
  for (auto wait = file.waits.begin(); may_close_circle && wait != file.waits.end();) {
    wait = deadlocks(file, wait->wanted) ? end_wait(wait, {LockOutcome::kDeadlock, 0}) : std::next(wait);
  }
}

// Forgets what is empty.
void LockTable::tidy(const FileKey& key) {
  auto it = files_.find(key);
  if (it != files_.end() && it->second.held.empty() && it->second.waits.empty()) files_.erase(it);
}

Result<LockAnswer> LockTable::ask(const FileLock& wanted, std::uint64_t epoch, std::uint64_t ticket) {
  Session& session = sessions_[wanted.owner.session];
  if (epoch < session.epoch) return fail(Code::kStale, "a lock request from before a reconnect");
  if (epoch > session.epoch) {
    session.epoch = epoch;
    session.changes = 0;
  }
  if (wanted.type != LockType::kNone && session.parts + session.tickets.size() >= per_session_max_)
    return fail(Code::kNoSpace, "this client has too many file locks");
  // Unlocking within a range makes two of it. All of a file can always be unlocked.
  if (wanted.type == LockType::kNone && wanted.range != kWholeFile && session.parts >= 2 * per_session_max_)
    return fail(Code::kNoSpace, "this client has too many file locks: unlock whole files");

  const FileKey key = key_of(wanted);
  File& file = files_[key];
  LockAnswer answer;
  if (!blocker(file, wanted)) {
    answer = {LockOutcome::kGranted, set(file, wanted)};
    settle(key, wanted.type != LockType::kNone && waiting_.contains(wanted.owner));
    tidy(key);
    return answer;
  }
  if (wanted.kind == LockKind::kFlock && file.held.contains(wanted.owner)) {
    FileLock old = wanted;
    old.type = LockType::kNone;
    answer.change = set(file, old);
  }
  if (ticket == 0) {
    answer.outcome = LockOutcome::kConflict;
  } else if (deadlocks(file, wanted)) {
    answer.outcome = LockOutcome::kDeadlock;
  } else {
    answer.outcome = LockOutcome::kWaiting;
    enqueue(file, wanted, ticket);
  }
  if (answer.change != 0) settle(key, false);
  tidy(key);
  return answer;
}

bool LockTable::cancel(SessionId session, std::uint64_t epoch, std::uint64_t ticket) {
  auto it = sessions_.find(session);
  if (it == sessions_.end() || it->second.epoch != epoch) return false;
  auto at = it->second.tickets.find(ticket);
  if (at == it->second.tickets.end()) return false;
  const FileKey key = at->second;
  File& file = files_.at(key);
  const auto wait = std::find_if(file.waits.begin(), file.waits.end(), [&](const Wait& w) {
    return w.ticket == ticket && w.wanted.owner.session == session;
  });
  dequeue(file, wait);
  tidy(key);
  return true;
}

std::optional<FileLock> LockTable::test(const FileLock& wanted) const {
  auto it = files_.find(key_of(wanted));
  if (it == files_.end()) return std::nullopt;
  std::optional<FileLock> first;
  for (const auto& [owner, held] : it->second.held) {
    if (owner == wanted.owner) continue;
    const auto part = held.ranges.conflict(wanted.range, wanted.type);
    if (!part || (first && first->range.first <= part->range.first)) continue;
    first = FileLock{wanted.inode, wanted.kind, part->type, owner, part->range, held.pid};
  }
  return first;
}

void LockTable::remove(File& file, SessionId session) {
  for (auto held = file.held.lower_bound({session, 0});
       held != file.held.end() && held->first.session == session;) {
    sessions_[session].parts -= held->second.ranges.count();
    held = file.held.erase(held);
  }
  for (auto wait = file.waits.begin(); wait != file.waits.end();) {
    wait = wait->wanted.owner.session == session ? dequeue(file, wait) : std::next(wait);
  }
}

Result<> LockTable::replace(SessionId id, std::uint64_t epoch, const std::vector<FileLock>& locks) {
  for (const FileLock& lock : locks) {
    auto it = files_.find(key_of(lock));
    if (it == files_.end()) continue;
    std::vector<LockOwner> owners;
    blocker(it->second, lock, &owners);
    for (const LockOwner& owner : owners) {
      if (owner.session != id) {
        return fail(Code::kConflict, "a lock on inode " + to_string(lock.inode) + " is held by session " +
                                         to_string(owner.session));
      }
    }
  }
  Session& session = sessions_[id];
  std::set<FileKey> touched = std::exchange(session.files, {});
  for (const auto& [ticket, key] : session.tickets) touched.insert(key);
  for (const FileKey& key : touched) {
    if (auto it = files_.find(key); it != files_.end()) remove(it->second, id);
  }
  for (const FileLock& lock : locks) {
    touched.insert(key_of(lock));
    set(files_[key_of(lock)], lock);
  }
  session.epoch = epoch;
  session.changes = 0;
  for (const FileKey& key : touched) {
    settle(key, false);
    tidy(key);
  }
  return {};
}

void LockTable::drop(SessionId id) {
  auto it = sessions_.find(id);
  if (it == sessions_.end()) return;
  std::set<FileKey> touched = std::exchange(it->second.files, {});
  for (const auto& [ticket, key] : it->second.tickets) touched.insert(key);
  for (const FileKey& key : touched) {
    if (auto at = files_.find(key); at != files_.end()) remove(at->second, id);
  }
  sessions_.erase(it);
  for (const FileKey& key : touched) {
    settle(key, false);
    tidy(key);
  }
}

std::vector<SettledWait> LockTable::take_settled() {
  return std::exchange(settled_, {});
}

}  // namespace cairn::meta
