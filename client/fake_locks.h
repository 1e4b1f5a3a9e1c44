// The file locks of FakeCluster's metadata server: conflicts, waits and epochs as the protocol promises; no
// deadlock detection. Guarded by the owner's mutex.
#pragma once

#include <list>
#include <map>
#include <set>

#include "client/lock_wire.h"

namespace cairn::client {

class FakeLocks {
 public:
  struct Settled {
    SessionId session;
    std::uint64_t epoch = 0;
    SettledLock lock;
  };

  Result<rpc::OutMessage> lock(schema::LockRequest::Reader body) {
    const SessionId session(body.getSession());
    if (body.getEpoch() < epochs_[session]) return fail(Code::kStale, "an earlier epoch");
    if (!expected_.empty()) return fail(Code::kStarting, "not all have named their locks");
    epochs_[session] = body.getEpoch();
    const Wish wish{session, decode(body.getLock()), body.getTicket()};
    rpc::OutMessage reply;
    auto out = reply.body<schema::LockReply>();
    if (in_the_way(wish) == nullptr) {
      out.setChange(set(wish));
      out.setOutcome(schema::LockOutcome::GRANTED);
      settle();
    } else if (wish.ticket == 0) {
      out.setOutcome(schema::LockOutcome::CONFLICT);
    } else {
      out.setOutcome(schema::LockOutcome::WAITING);
      waits_.push_back(wish);
    }
    return reply;
  }
  Result<rpc::OutMessage> cancel(schema::CancelLockRequest::Reader body) {
    const auto count = std::erase_if(waits_, [&](const Wish& wish) {
      return wish.session.value() == body.getSession() && wish.ticket == body.getTicket();
    });
    rpc::OutMessage reply;
    reply.body<schema::CancelLockReply>().setRemoved(count != 0);
    return reply;
  }
  Result<rpc::OutMessage> test(schema::TestLockRequest::Reader body) {
    const Wish wish{SessionId(body.getSession()), decode(body.getLock()), 0};
    rpc::OutMessage reply;
    auto out = reply.body<schema::TestLockReply>();
    if (const Holder* holder = in_the_way(wish)) {
      const auto part = *held_[{wish.lock.inode, wish.lock.lock.kind}][*holder].ranges.conflict(
          wish.lock.lock.range, wish.lock.lock.type);
      out.setConflict(true);
      out.setSession(holder->first.value());
      NamedLock found = wish.lock;
      found.lock.type = part.type;
      found.lock.range = part.range;
      found.lock.pid = held_[{wish.lock.inode, wish.lock.lock.kind}][*holder].pid;
      encode(found, out.initLock());
    }
    return reply;
  }
  Result<rpc::OutMessage> name(schema::NameLocksRequest::Reader body) {
    const SessionId session(body.getSession());
    drop(session);  // nobody of them is expected any more
    for (const auto lock : body.getLocks()) set({session, decode(lock), 0});
    epochs_[session] = body.getEpoch();
    changes_[session] = 0;
    settle();
    rpc::OutMessage reply;
    reply.body<schema::Empty>();
    return reply;
  }
  void drop(SessionId session) {
    for (auto& [file, holders] : held_)
      std::erase_if(holders, [&](const auto& held) { return held.first.first == session; });
    std::erase_if(waits_, [&](const Wish& wish) { return wish.session == session; });
    changes_.erase(session);
    epochs_.erase(session);
    expected_.erase(session);
    settle();
  }
  // Those will name what they hold.
  void restart(std::set<SessionId> expected) {
    expected_ = std::move(expected);
    held_.clear();
    waits_.clear();
    changes_.clear();
    epochs_.clear();
  }
  std::vector<Settled> take_settled() { return std::exchange(settled_, {}); }
  std::size_t waiting() const { return waits_.size(); }
  std::size_t held() const {
    std::size_t count = 0;
    for (const auto& [file, holders] : held_) {
      for (const auto& [owner, held] : holders) count += held.ranges.count();
    }
    return count;
  }

 private:
  using Holder = std::pair<SessionId, std::uint64_t>;
  struct Held {
    LockRanges ranges;
    std::uint32_t pid = 0;
  };
  struct Wish {
    SessionId session;
    NamedLock lock;
    std::uint64_t ticket = 0;
  };
  static NamedLock decode(schema::FileLock::Reader from) {
    NamedLock out;
    out.inode = InodeId(from.getInode());
    out.lock = {static_cast<LockKind>(from.getKind()),
                static_cast<LockType>(from.getType()),
                {from.getFirst(), from.getLast()},
                from.getOwner(),
                from.getPid()};
    return out;
  }
  const Holder* in_the_way(const Wish& wish) {
    for (const auto& [owner, held] : held_[{wish.lock.inode, wish.lock.lock.kind}]) {
      if (owner == Holder{wish.session, wish.lock.lock.owner}) continue;
      if (held.ranges.conflict(wish.lock.lock.range, wish.lock.lock.type)) return &owner;
    }
    return nullptr;
  }
  std::uint64_t set(const Wish& wish) {
    Held& held = held_[{wish.lock.inode, wish.lock.lock.kind}][Holder{wish.session, wish.lock.lock.owner}];
    held.ranges.set(wish.lock.lock.range, wish.lock.lock.type);
    held.pid = wish.lock.lock.pid;
    return ++changes_[wish.session];
  }
  void settle() {
    for (auto wait = waits_.begin(); wait != waits_.end();) {
      if (in_the_way(*wait) != nullptr) {
        ++wait;
        continue;
      }
      const std::uint64_t change = set(*wait);
      settled_.push_back({wait->session, epochs_[wait->session], {wait->ticket, true, change}});
      wait = waits_.erase(wait);
    }
  }

  std::map<std::pair<InodeId, LockKind>, std::map<Holder, Held>> held_;
  std::list<Wish> waits_;
  std::map<SessionId, std::uint64_t> changes_, epochs_;
  std::set<SessionId> expected_;
  std::vector<Settled> settled_;
};

}  // namespace cairn::client
