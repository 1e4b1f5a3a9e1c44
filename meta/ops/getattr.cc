#include "meta/ops/operations.h"

namespace cairn::meta::ops {

Result<InodeView> getattr(Env& env, InodeId inode) {
  env.gate.reads(inode);
  TRYV(env.gate.settle());
  TRY(auto record, load_inode(env.txn, inode));
  return InodeView{inode, std::move(record)};
}

}  // namespace cairn::meta::ops
