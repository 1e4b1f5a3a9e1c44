// Keys of the namespace side, one function a prefix. See meta/key_prefixes.h for the list.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "meta/key_prefixes.h"
#include "store/base/bytes.h"
#include "store/base/ids.h"

namespace cairn::meta::keys {

inline std::string prefix(KeyPrefix p) {
  return std::string(1, static_cast<char>(p));
}
inline void append64(std::string& key, std::uint64_t value) {
  ByteWriter(key).be64(value);
}
inline std::string one(KeyPrefix p, std::uint64_t a) {
  std::string key = prefix(p);
  append64(key, a);
  return key;
}
inline std::string two(KeyPrefix p, std::uint64_t a, std::uint64_t b) {
  std::string key = one(p, a);
  append64(key, b);
  return key;
}
// The 64-bit number `index` places after the prefix byte (0: first, 1: second). 0 if the key is too short.
inline std::uint64_t part(std::string_view key, std::size_t index) {
  if (key.size() < 1 + 8 * (index + 1)) return 0;
  return ByteReader(key.substr(1 + 8 * index)).be64();
}

inline std::string system(std::string_view name) {
  return prefix(KeyPrefix::kSystem).append(name);
}
inline std::string inode(InodeId id) {
  return one(KeyPrefix::kInode, id.value());
}
inline std::string dentries(InodeId parent) {
  return one(KeyPrefix::kDentry, parent.value());
}
inline std::string dentry(InodeId parent, std::string_view name) {
  return dentries(parent).append(name);
}
inline std::string cookies(InodeId parent) {
  return one(KeyPrefix::kDirCookie, parent.value());
}
inline std::string cookie(InodeId parent, std::uint64_t c) {
  return two(KeyPrefix::kDirCookie, parent.value(), c);
}
inline std::string xattrs(InodeId id) {
  return one(KeyPrefix::kXattr, id.value());
}
inline std::string xattr(InodeId id, std::string_view name) {
  return xattrs(id).append(name);
}
inline std::string symlink(InodeId id) {
  return one(KeyPrefix::kSymlink, id.value());
}
inline std::string orphan(InodeId id) {
  return one(KeyPrefix::kOrphan, id.value());
}
inline std::string directory(InodeId id) {
  return one(KeyPrefix::kDirectory, id.value());
}
inline std::string directory_setting(InodeId id) {
  return one(KeyPrefix::kDirectorySetting, id.value());
}
inline std::string reserved(InodeId id) {
  return one(KeyPrefix::kReserved, id.value());
}
inline std::string trash(std::int64_t expires, InodeId id) {
  return two(KeyPrefix::kTrash, static_cast<std::uint64_t>(expires), id.value());
}
inline std::string trash_names(InodeId parent) {
  return one(KeyPrefix::kTrashName, parent.value());
}
inline std::string trash_names(InodeId parent, std::string_view name) {
  return trash_names(parent).append(name).append(1, '\0');
}
inline std::string trash_name(InodeId parent, std::string_view name, std::int64_t deleted, InodeId id) {
  std::string key = trash_names(parent, name);
  append64(key, static_cast<std::uint64_t>(deleted));
  append64(key, id.value());
  return key;
}
inline std::string link_parents(InodeId id) {
  return one(KeyPrefix::kLinkParent, id.value());
}
inline std::string link_parent(InodeId id, InodeId parent) {
  return two(KeyPrefix::kLinkParent, id.value(), parent.value());
}
inline std::string data_ref(DataId d) {
  return one(KeyPrefix::kDataRef, d.value());
}
inline std::string session(SessionId id) {
  return one(KeyPrefix::kSession, id.value());
}
inline std::string replies(SessionId id) {
  return one(KeyPrefix::kReply, id.value());
}
inline std::string reply(SessionId id, std::uint64_t sequence) {
  return two(KeyPrefix::kReply, id.value(), sequence);
}
inline std::string exclusive(InodeId id) {
  return one(KeyPrefix::kExclusive, id.value());
}
inline std::string exclusives_of(SessionId s) {
  return one(KeyPrefix::kExclusiveBy, s.value());
}
inline std::string exclusive_of(SessionId s, InodeId id) {
  return two(KeyPrefix::kExclusiveBy, s.value(), id.value());
}
inline std::string opens_of(SessionId s) {
  return one(KeyPrefix::kOpen, s.value());
}
inline std::string open(SessionId s, InodeId id) {
  return two(KeyPrefix::kOpen, s.value(), id.value());
}
inline std::string opens_all(InodeId id) {
  return one(KeyPrefix::kOpenBy, id.value());
}
inline std::string pending_data(DataId d) {
  return one(KeyPrefix::kPendingData, d.value());
}
inline std::string session_data_of(SessionId s) {
  return one(KeyPrefix::kSessionData, s.value());
}
inline std::string session_data(SessionId s, DataId d) {
  return two(KeyPrefix::kSessionData, s.value(), d.value());
}

}  // namespace cairn::meta::keys
