#include "meta/ops/operations.h"

namespace cairn::meta::ops {

Result<LookupResult> lookup(Env& env, const LookupArgs& args) {
  TRY(auto parent, load_directory_inode(env.txn, args.parent));
  InodeId id;
  if (args.name == "..") {
    id = parent.parent.valid() ? parent.parent : args.parent;
  } else {
    TRYV(check_name(args.name));
    TRY(auto dentry, find_dentry(env.txn, args.parent, args.name));
    if (dentry) id = dentry->inode;
  }
  env.gate.reads(args.parent);
  if (id.valid()) env.gate.reads(id);
  TRYV(env.gate.settle());
  if (!id.valid()) return LookupResult{};
  auto inode = load_inode(env.txn, id);
  if (!inode)
    return fail(Code::kCorrupt,
                "a name in directory " + to_string(args.parent) + " leads to " + inode.error().message());
  return LookupResult{InodeView{id, std::move(*inode)}};
}

}  // namespace cairn::meta::ops
