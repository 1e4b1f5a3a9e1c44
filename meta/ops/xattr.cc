#include <sys/stat.h>

#include "meta/acl.h"
#include "meta/keys.h"
#include "meta/ops/acl.h"
#include "meta/ops/operations.h"
#include "store/base/log.h"

namespace cairn::meta::ops {

namespace {
Result<> check_xattr_name(std::string_view name) {
  if (name.empty() || name.find('\0') != name.npos)
    return fail(Code::kInvalidArgument, "not a name for an attribute");
  if (name.size() > kNameMax) return fail(Code::kRange, "an attribute's name may have at most 255 bytes");
  return {};
}
std::unexpected<Error> absent(InodeId inode, std::string_view name) {
  return fail(Code::kNoAttribute, "inode " + to_string(inode) + " has no attribute " + log_quote(name));
}
bool is_acl(std::string_view name) {
  return name == kAccessAcl || name == kDefaultAcl;
}
}  // namespace

Result<std::string> getxattr(Env& env, InodeId inode, const std::string& name) {
  TRYV(check_xattr_name(name));
  TRY(auto value, env.txn.get(keys::xattr(inode, name)));
  if (value) return std::move(*value);
  TRYV(load_inode(env.txn, inode));
  return absent(inode, name);
}

Result<> setxattr(Env& env, const SetXattrArgs& args) {
  TRYV(check_xattr_name(args.name));
  if (args.value.size() > kXattrValueMax) return fail(Code::kRange, "an attribute may have at most 64 KiB");
  env.gate.changes(args.inode);
  TRYV(env.gate.settle());
  TRY(auto inode, load_inode(env.txn, args.inode));
  const std::string key = keys::xattr(args.inode, args.name);
  TRY(auto old, env.txn.get(key));
  if (old && (args.flags & SetXattrArgs::kCreate)) {
    return fail(Code::kExists,
                "inode " + to_string(args.inode) + " has an attribute " + log_quote(args.name));
  }
  if (!old && (args.flags & SetXattrArgs::kReplace)) return absent(args.inode, args.name);
  std::size_t total = key.size() + args.value.size();
  TRYV(env.txn.scan(keys::xattrs(args.inode), {}, [&](std::string_view other, std::string_view value) {
    if (other != key) total += other.size() + value.size();
    return true;
  }));
  if (total > kXattrTotalMax)
    return fail(Code::kNoSpace, "the attributes of one inode may have at most 128 KiB");
  if (is_acl(args.name)) {
    TRYV(set_acl(env, args.inode, inode, args.name, args.value));
    if (args.flags & SetXattrArgs::kClearSetgid) inode.mode &= ~static_cast<std::uint32_t>(S_ISGID);
  } else {
    env.txn.put(key, args.value);
    inode.flags |= InodeRecord::kHasXattrs;
  }
  touch(env.txn, inode);
  store_inode(env.txn, args.inode, inode);
  return {};
}

Result<std::vector<std::string>> listxattr(Env& env, InodeId inode) {
  TRYV(load_inode(env.txn, inode));
  const std::string prefix = keys::xattrs(inode);
  std::vector<std::string> names;
  TRYV(env.txn.scan(prefix, {}, [&](std::string_view key, std::string_view) {
    names.emplace_back(key.substr(prefix.size()));
    return true;
  }));
  return names;
}

Result<> removexattr(Env& env, InodeId inode, const std::string& name) {
  TRYV(check_xattr_name(name));
  env.gate.changes(inode);
  TRYV(env.gate.settle());
  TRY(auto record, load_inode(env.txn, inode));
  const std::string key = keys::xattr(inode, name);
  TRY(auto old, env.txn.get(key));
  // A list that says no more than the mode is there without a row.
  if (!old && is_acl(name)) return {};
  if (!old) return absent(inode, name);
  if (is_acl(name)) {
    remove_acl(env, inode, record, name);
  } else {
    env.txn.erase(key);
  }
  touch(env.txn, record);
  store_inode(env.txn, inode, record);
  return {};
}

}  // namespace cairn::meta::ops
