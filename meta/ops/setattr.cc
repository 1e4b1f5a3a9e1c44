#include <algorithm>

#include "meta/layers.h"
#include "meta/ops/acl.h"
#include "meta/ops/operations.h"

namespace cairn::meta::ops {

namespace {

constexpr std::uint64_t kBytesUnit = 4096;

std::uint64_t round_up(std::uint64_t value, std::uint64_t unit) {
  return (value + unit - 1) / unit * unit;
}

Result<> shrink(Env& env, InodeRecord& inode, InodeId id, std::uint64_t size) {
  const bool cuts = size < inode.size && size % inode.chunk_size() != 0;
  if (cuts && in_frozen_layer(inode, size / inode.chunk_size())) {
    // Nobody may cut it: others share it.
    return fail(Code::kInvalidArgument,
                "inode " + to_string(id) + " shares the chunk in which it would end (" +
                    std::to_string(size / inode.chunk_size()) + "): it is to be copied first");
  }
  give_up_chunks(inode, {inode.chunks_of(size), UINT64_MAX});
  TRYV(drop_empty_layers(env.txn, env.cluster, inode));
  inode.trim.to = std::max({inode.trim.to, inode.size, inode.bound * inode.chunk_size()});
  inode.trim.from = size;  // a size never passes a pending trim, so this only moves it down
  subtract_range(inode.holes, {inode.chunks_of(size), UINT64_MAX});
  inode.size = size;
  inode.synced_size = std::min(inode.synced_size, size);
  return set_bytes(env.txn, inode, std::min(inode.bytes, round_up(size, kBytesUnit)));
}

Result<> grow(InodeRecord& inode, InodeId id, std::uint64_t size) {
  if (!inode.trim.empty() && size > inode.trim.from) {
    return fail(Code::kLeaseLost, "inode " + to_string(id) +
                                      " was shrunk and its old chunks are not trimmed yet: open it "
                                      "for writing, trim them and report that, then set the size");
  }
  if (size > kSizeMax || inode.chunks_of(size) > UINT32_MAX) {
    return fail(Code::kRange, "a file can't be so large: " + std::to_string(size) + " bytes");
  }
  add_range(inode.holes, {inode.chunks_of(inode.size), inode.chunks_of(size)});
  if (inode.holes.size() > kHolesMax)
    return fail(Code::kRange, "inode " + to_string(id) + " has too many holes");
  inode.size = size;
  return {};
}

Result<> set_size(Env& env, InodeView& inode, const SetAttrArgs& args) {
  const std::uint64_t size = args.size;
  InodeRecord& record = inode.record;
  if (record.is_directory())
    return fail(Code::kIsDirectory, "inode " + to_string(inode.id) + " is a directory");
  if (!record.is_regular())
    return fail(Code::kInvalidArgument, "inode " + to_string(inode.id) + " has no size to set");
  if (size == 0) return truncate_to_zero(env, inode);
  if (size < record.size) return shrink(env, record, inode.id, size);
  TRYV(grow(record, inode.id, size));
  return args.shrinks ? shrink(env, record, inode.id, size) : Result<>{};
}

}  // namespace

Result<> truncate_to_zero(Env& env, InodeView& inode) {
  InodeRecord& record = inode.record;
  if (chunks_to_purge(record) > 0 || record.layers.size() > 1) {
    TRYV(release_data(env.txn, env.cluster, record));
    record.layers = {fresh_layer(env.txn, env.cluster.default_pool())};
  }
  TRYV(set_bytes(env.txn, record, 0));
  TRY(auto holder, find_exclusive(env.txn, inode.id));
  record.size = 0;
  record.synced_size = 0;
  record.bound = holder ? kInitialBound : 0;
  record.trim = {};
  record.holes.clear();
  return {};
}

Result<InodeView> setattr(Env& env, const SetAttrArgs& args) {
  env.gate.changes(args.inode);
  TRYV(env.gate.settle());
  TRY(auto record, load_inode(env.txn, args.inode));
  InodeView inode{args.inode, std::move(record)};
  InodeRecord& r = inode.record;
  const auto has = [&](std::uint32_t bits) { return (args.valid & bits) != 0; };

  if (has(SetAttrArgs::kSize)) {
    if (args.generation.valid()) TRYV(check_exclusive(env.txn, env.session, args.inode, args.generation));
    const bool changes = args.size != r.size;
    TRYV(set_size(env, inode, args));
    if (changes || !has(SetAttrArgs::kMtime)) r.mtime = env.txn.wall_ns();
  }
  if (has(SetAttrArgs::kUid | SetAttrArgs::kGid) && !r.is_directory()) {
    // A new owner does not inherit what the old one allowed to run as himself.
    r.mode &= ~static_cast<std::uint32_t>(S_ISUID);
    if (r.mode & S_IXGRP) r.mode &= ~static_cast<std::uint32_t>(S_ISGID);
  }
  if (has(SetAttrArgs::kMode)) {
    r.mode = (r.mode & S_IFMT) | (args.mode & 07777);
    TRYV(mode_to_acl(env, inode.id, r));
  }
  if (has(SetAttrArgs::kUid)) r.uid = args.uid;
  if (has(SetAttrArgs::kGid)) r.gid = args.gid;
  if (has(SetAttrArgs::kAtime)) r.atime = args.atime;
  if (has(SetAttrArgs::kMtime)) r.mtime = args.mtime;
  if (has(SetAttrArgs::kAtimeNow)) r.atime = env.txn.wall_ns();
  if (has(SetAttrArgs::kMtimeNow)) r.mtime = env.txn.wall_ns();
  touch(env.txn, r);
  if (has(SetAttrArgs::kCtime)) r.ctime = args.ctime;
  store_inode(env.txn, inode.id, r);
  return inode;
}

}  // namespace cairn::meta::ops
