#include "meta/leases.h"

#include <algorithm>

namespace cairn::meta {

std::span<const LeaseHolder> LeaseTable::holders(InodeId inode) const {
  auto it = inodes_.find(inode);
  if (it == inodes_.end()) return {};
  return it->second;
}

const LeaseHolder* LeaseTable::find(InodeId inode, SessionId session) const {
  for (const LeaseHolder& holder : holders(inode)) {
    if (holder.session == session) return &holder;
  }
  return nullptr;
}

void LeaseTable::set(InodeId inode, SessionId session, LeaseKind kind, LeaseGeneration generation) {
  auto& holders = inodes_[inode];
  auto it = std::find_if(holders.begin(), holders.end(),
                         [&](const LeaseHolder& h) { return h.session == session; });
  if (it == holders.end()) {
    holders.push_back({session, kind, generation});
    sessions_[session].insert(inode);
  } else {
    *it = {session, kind, generation};
  }
  if (holders.size() == 1) return;
  for (const LeaseHolder& holder : holders) {
    CHECK(holder.kind != LeaseKind::kExclusive,
          "an exclusive lease beside another one on inode " + to_string(inode));
  }
}

bool LeaseTable::lower(InodeId inode, SessionId session, LeaseKind keep) {
  auto entry = inodes_.find(inode);
  if (entry == inodes_.end()) return false;
  auto& holders = entry->second;
  auto it = std::find_if(holders.begin(), holders.end(),
                         [&](const LeaseHolder& h) { return h.session == session; });
  if (it == holders.end() || it->kind <= keep) return false;
  it->kind = keep;
  if (keep != LeaseKind::kNone) return true;
  holders.erase(it);
  if (holders.empty()) inodes_.erase(entry);
  auto session_entry = sessions_.find(session);
  session_entry->second.erase(inode);
  if (session_entry->second.empty()) sessions_.erase(session_entry);
  return true;
}

std::size_t LeaseTable::count(SessionId session) const {
  auto it = sessions_.find(session);
  return it == sessions_.end() ? 0 : it->second.size();
}

std::vector<InodeId> LeaseTable::held_by(SessionId session) const {
  auto it = sessions_.find(session);
  if (it == sessions_.end()) return {};
  std::vector<InodeId> inodes(it->second.begin(), it->second.end());
  std::sort(inodes.begin(), inodes.end());
  return inodes;
}

}  // namespace cairn::meta
