// InodeCache: all inodes known here, and the rules by which replies of the server become cached state.
//
// A grant is taken only if nothing voided it on its way: a recall of the inode after the request was sent, a
// reattachment (the server forgot what was not named), an ended session. Bounded: inodes that nobody has open
// go, oldest first; those that the kernel knows as soon as it has forgotten them, which it is asked for.
// Thread-safe. Lock order: the table's mutex before an inode's.
#pragma once

#include <list>

#include "client/inode.h"
#include "client/session.h"

namespace cairn::client {

enum class Granted { kNo, kYes };

class InodeCache {
 public:
  InodeCache(rpc::Runtime& runtime, Session& session, std::size_t limit)
      : runtime_(runtime), session_(session), limit_(limit) {}

  InodeRef find(InodeId id) const;
  InodeRef get(InodeId id);  // made if unknown
  std::vector<InodeRef> all() const;

  // Takes the valid ones of `grants`. True: that of `inode` was one. What the reply says of an inode may be
  // kept only then: held thanks to another reply, it may be older than that.
  bool take_grants(const Stamp& stamp, const std::vector<Grant>& grants, InodeId inode = {});
  // Attributes from the reply to a request of time `sent`. Size and times of a file written here stay ours.
  // `inode` need not be leased. False: the server may have answered before it took our last report of the
  // file, so that the answer is older than what was seen here; nothing is taken.
  // Granted: a lease of the inode came with the reply. What was asked for before the lease came that is held
  // now is the answer, but not cached.
  [[nodiscard]] bool take_attr(Inode& inode, const AttrRecord& record, TimePoint sent, Granted granted);

  // Under inode.mutex: what is cached may be used.
  bool usable(const Inode& inode, Lease at_least = Lease::kShared) const {
    return inode.lease >= at_least && inode.session == session_.id() && session_.alive();
  }
  // Under inode.mutex: the answer to a request of time `sent` is of the lease that is held. One that brought
  // no lease, asked for before the lease came, may be older: others may have changed the inode between the
  // two.
  bool holds(const Inode& inode, TimePoint sent, Granted granted) const {
    return usable(inode) && (granted == Granted::kYes || inode.lease_since <= sent);
  }
  // Under inode.mutex: how long the kernel may keep what it is told now.
  Duration valid(const Inode& inode) const {
    return usable(inode) && !inode.recalling && inode.dropping == 0 ? session_.lease_left() : Duration{0};
  }

  // A recall arrived: grants of earlier requests are void.
  void recalled(const std::vector<RecallItem>& items, std::uint64_t serial);
  Held held(std::uint64_t attachment);
  // Under inode.mutex: nothing is held any more. Cached names, attributes and layout go.
  static void drop(Inode& inode);
  // Removes what may go, some of it: it is called again soon. Leases are not returned: a grant that is on its
  // way would cross with the return. The server recalls when it needs one, and is answered at once.
  void evict();
  // Takes the inodes that stay for no other reason than that the kernel knows them. Set before the first
  // evict(), which calls it.
  using Release = std::function<void(std::vector<InodeId>)>;
  void set_release(Release release) { release_ = std::move(release); }

 private:
  bool is_void(const Stamp& stamp, const Grant& grant) const;  // under mutex_

  rpc::Runtime& runtime_;
  Session& session_;
  const std::size_t limit_;
  Release release_;
  mutable std::mutex mutex_;
  std::unordered_map<InodeId, InodeRef> inodes_;  // guarded by mutex_, as all below
  std::uint64_t attachment_ = 0;                  // grants of earlier ones are void
  struct Recalled {
    std::uint64_t serial = 0;
    std::uint64_t generation = 0;
    TimePoint at;
  };
  std::unordered_map<InodeId, Recalled> recalled_;  // in the last minutes
  std::deque<InodeId> recalled_order_;
  std::deque<InodeId> order_;  // candidates for eviction, oldest first
};

// Whether among the leases that came with an answer is one of `inode`.
Granted granted(const std::vector<Grant>& grants, InodeId inode);

// Under inode.mutex: bytes allocated to a file that is held exclusively, as the next reports will say them.
std::uint64_t allocated_bytes(const Inode& inode);

// Counts a request to the server about an inode for as long as it runs: it is not evicted meanwhile.
class RequestMark {
 public:
  explicit RequestMark(InodeRef inode) : inode_(std::move(inode)) {
    std::lock_guard lock(inode_->mutex);
    ++inode_->requests;
  }
  ~RequestMark() {
    if (!inode_) return;
    std::lock_guard lock(inode_->mutex);
    --inode_->requests;
  }
  RequestMark(RequestMark&&) noexcept = default;

 private:
  InodeRef inode_;
};

}  // namespace cairn::client
