#include "meta/acl.h"

#include <algorithm>

#include "store/base/bytes.h"

namespace cairn::meta {

namespace {

constexpr std::uint32_t kAclVersion = 2;

std::unexpected<Error> not_an_acl(std::string_view why) {
  return fail(Code::kInvalidArgument, "not an access control list: " + std::string(why));
}

}  // namespace

Result<Acl> Acl::decode(std::string_view bytes) {
  ByteReader r(bytes);
  if (r.u32() != kAclVersion) return not_an_acl("unknown version");
  if (r.left() % 8 != 0) return not_an_acl("cut short");
  Acl acl;
  while (r.left() > 0) {
    AclEntry& entry = acl.entries_.emplace_back();
    entry.tag = r.u16();
    entry.permissions = r.u16();
    entry.id = r.u32();
    const bool named = entry.tag == AclEntry::kUser || entry.tag == AclEntry::kGroup;
    if (!named) entry.id = UINT32_MAX;
    if (named && entry.id == UINT32_MAX) return not_an_acl("nobody is named");
    if (entry.permissions > 7) return not_an_acl("unknown permissions");
    // Tags are numbered in the order in which they stand; only users and groups are named more than once.
    if (acl.entries_.size() > 1) {
      const std::uint16_t before = acl.entries_[acl.entries_.size() - 2].tag;
      if (entry.tag < before || (entry.tag == before && !named)) return not_an_acl("not in order");
    }
  }
  if (acl.empty()) return acl;
  constexpr unsigned kAlways = AclEntry::kUserObj | AclEntry::kGroupObj | AclEntry::kOther;
  constexpr unsigned kNamed = AclEntry::kUser | AclEntry::kGroup;
  unsigned tags = 0;
  for (const AclEntry& entry : acl.entries_) {
    const bool one_bit = entry.tag != 0 && (entry.tag & (entry.tag - 1)) == 0;
    if (!one_bit || (entry.tag & ~(kAlways | kNamed | AclEntry::kMask)) != 0)
      return not_an_acl("unknown entry");
    tags |= entry.tag;
  }
  if ((tags & kAlways) != kAlways) return not_an_acl("owner, group or others are missing");
  if ((tags & kNamed) != 0 && (tags & AclEntry::kMask) == 0) return not_an_acl("the mask is missing");
  return acl;
}

std::string Acl::encode() const {
  std::string out;
  ByteWriter w(out);
  w.u32(kAclVersion);
  for (const AclEntry& entry : entries_) {
    w.u16(entry.tag);
    w.u16(entry.permissions);
    w.u32(entry.id);
  }
  return out;
}

AclEntry* Acl::find(std::uint16_t tag) {
  auto it = std::find_if(entries_.begin(), entries_.end(), [&](const AclEntry& e) { return e.tag == tag; });
  return it == entries_.end() ? nullptr : &*it;
}

AclEntry& Acl::group_class() {
  AclEntry* mask = find(AclEntry::kMask);
  return mask != nullptr ? *mask : *find(AclEntry::kGroupObj);
}

std::uint32_t Acl::mode() const {
  Acl copy = *this;
  return copy.restrict(0777);
}

void Acl::set_mode(std::uint32_t mode) {
  find(AclEntry::kUserObj)->permissions = (mode >> 6) & 7;
  group_class().permissions = (mode >> 3) & 7;
  find(AclEntry::kOther)->permissions = mode & 7;
}

std::uint32_t Acl::restrict(std::uint32_t mode) {
  AclEntry& owner = *find(AclEntry::kUserObj);
  AclEntry& group = group_class();
  AclEntry& others = *find(AclEntry::kOther);
  owner.permissions &= static_cast<std::uint16_t>((mode >> 6) & 7);
  group.permissions &= static_cast<std::uint16_t>((mode >> 3) & 7);
  others.permissions &= static_cast<std::uint16_t>(mode & 7);
  return static_cast<std::uint32_t>(owner.permissions << 6 | group.permissions << 3 | others.permissions);
}

}  // namespace cairn::meta
