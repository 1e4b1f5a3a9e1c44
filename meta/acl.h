// POSIX access control lists (withdrawn POSIX.1e, as Linux has them), as values: no rows, no inodes. The
// kernel decides with them; what they mean for permission bits is decided here (meta/ops/acl.h for the rows).
//
// The group bits of a mode show the mask where there is one, so mode and list never disagree: setting either
// changes the other.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "store/base/result.h"

namespace cairn::meta {

// Names of the extended attributes that carry them.
constexpr std::string_view kAccessAcl = "system.posix_acl_access";
constexpr std::string_view kDefaultAcl =
    "system.posix_acl_default";  // of directories: for what is made in them

struct AclEntry {
  enum Tag : std::uint16_t { kUserObj = 1, kUser = 2, kGroupObj = 4, kGroup = 8, kMask = 16, kOther = 32 };
  std::uint16_t tag = 0;
  std::uint16_t permissions = 0;  // rwx: 0 to 7
  std::uint32_t id = UINT32_MAX;  // of kUser and kGroup
  bool operator==(const AclEntry&) const = default;
};

class Acl {
 public:
  // Linux's form: version u32 = 2, then each entry: tag u16 | permissions u16 | id u32, little-endian.
  // Without entries: empty(), which means "no list". kInvalidArgument: not in the order owner, users, group,
  // groups, mask, others, or one that must be there is not.
  static Result<Acl> decode(std::string_view bytes);
  std::string encode() const;

  bool empty() const { return entries_.empty(); }
  // Says no more than permission bits do.
  bool minimal() const { return entries_.size() == 3; }
  std::uint32_t mode() const;         // 0 to 0777
  void set_mode(std::uint32_t mode);  // chmod
  // As the list of something made with `mode`: each grants only what both allow. The permission bits left.
  std::uint32_t restrict(std::uint32_t mode);
  const std::vector<AclEntry>& entries() const { return entries_; }

 private:
  AclEntry* find(std::uint16_t tag);
  // What the group bits of a mode stand for.
  AclEntry& group_class();

  std::vector<AclEntry> entries_;
};

}  // namespace cairn::meta
