#include "chunkserver/group_config.h"

namespace cairn::chunkserver {

Place place_of(const GroupConfig& config, TargetId target) {
  Place place;
  std::vector<GroupMember> chain;  // in-sync members, then the first joiner
  for (const GroupMember& member : config.members)
    if (member.in_sync) chain.push_back(member);
  place.in_sync = chain.size();
  for (const GroupMember& member : config.members) {
    if (member.in_sync) continue;
    chain.push_back(member);
    break;
  }
  place.writable = chain.size();
  for (std::size_t i = 0; i < chain.size(); ++i) {
    if (chain[i].target != target) continue;
    place.role = chain[i].in_sync ? Role::kInSync : Role::kJoiner;
    place.head = i == 0 && chain[i].in_sync;
    if (i > 0) place.source = chain[i - 1];
    if (i + 1 < chain.size()) place.successor = chain[i + 1];
    break;
  }
  // A joiner that no in-sync member stands before has nobody to copy from.
  if (place.role == Role::kJoiner && place.in_sync == 0) place.role = Role::kOut;
  return place;
}

}  // namespace cairn::chunkserver
