#include "meta/ops/acl.h"

#include "meta/acl.h"
#include "meta/keys.h"

namespace cairn::meta::ops {

namespace {

constexpr std::uint32_t kPermissionBits = 0777;

std::uint8_t acl_flag(std::string_view name) {
  return name == kDefaultAcl ? InodeRecord::kHasDefaultAcl : InodeRecord::kHasAcl;
}

void put_acl(Env& env, InodeId inode, InodeRecord& record, std::string_view name, const Acl& acl) {
  env.txn.put(keys::xattr(inode, name), acl.encode());
  record.flags |= InodeRecord::kHasXattrs | acl_flag(name);
}

Result<Acl> load_acl(Env& env, InodeId inode, std::string_view name) {
  TRY(auto row, env.txn.get(keys::xattr(inode, name)));
  if (!row) return Acl{};
  auto acl = Acl::decode(*row);
  if (!acl) return fail(Code::kCorrupt, "inode " + to_string(inode) + ": " + acl.error().message());
  return acl;
}

}  // namespace

Result<> set_acl(Env& env, InodeId inode, InodeRecord& record, const std::string& name,
                 std::string_view value) {
  if (record.is_symlink()) return fail(Code::kUnimplemented, "a symbolic link has no access control list");
  TRY(auto acl, Acl::decode(value));
  const bool access = name == kAccessAcl;
  if (!access && !record.is_directory() && !acl.empty())
    return fail(Code::kPermission, "only a directory has a default access control list");
  if (access && !acl.empty()) record.mode = (record.mode & ~kPermissionBits) | acl.mode();
  if (acl.empty() || (access && acl.minimal())) {
    remove_acl(env, inode, record, name);
  } else {
    put_acl(env, inode, record, name, acl);
  }
  return {};
}

void remove_acl(Env& env, InodeId inode, InodeRecord& record, const std::string& name) {
  if ((record.flags & acl_flag(name)) == 0) return;
  env.txn.erase(keys::xattr(inode, name));
  record.flags &= static_cast<std::uint8_t>(~acl_flag(name));
}

Result<> mode_to_acl(Env& env, InodeId inode, const InodeRecord& record) {
  if ((record.flags & InodeRecord::kHasAcl) == 0) return {};
  TRY(auto acl, load_acl(env, inode, kAccessAcl));
  if (acl.empty()) return {};
  acl.set_mode(record.mode);
  env.txn.put(keys::xattr(inode, kAccessAcl), acl.encode());
  return {};
}

Result<> inherit_acl(Env& env, InodeId parent, InodeId inode, InodeRecord& record, std::uint32_t mode) {
  if (record.is_symlink()) return {};
  TRY(auto acl, load_acl(env, parent, kDefaultAcl));
  if (acl.empty()) return {};
  if (record.is_directory()) put_acl(env, inode, record, kDefaultAcl, acl);
  record.mode = (record.mode & ~kPermissionBits) | acl.restrict(mode);
  if (!acl.minimal()) put_acl(env, inode, record, kAccessAcl, acl);
  return {};
}

}  // namespace cairn::meta::ops
