#include <algorithm>

#include "meta/layers.h"
#include "meta/ops/operations.h"
#include "meta/quota.h"

namespace cairn::meta::ops {

namespace {

Result<> check_files(const InodeRecord& source, const InodeRecord& target, const ShareArgs& args) {
  if (!source.is_regular() || !target.is_regular())
    return fail(Code::kInvalidArgument, "only regular files share chunks");
  if (source.chunk_size() != target.chunk_size())
    return fail(Code::kInvalidArgument, "the files have chunks of different sizes");
  const std::uint64_t chunks = source.chunks_of(source.size);
  if (args.count == 0 || args.from > chunks || args.count > chunks - args.from)
    return fail(Code::kInvalidArgument, "inode " + to_string(args.source) + " has no such chunks");
  if (args.to > UINT32_MAX || args.count > UINT32_MAX - args.to)
    return fail(Code::kRange, "a file can't have so many chunks");
  const bool overlap =
      args.source == args.target && args.from < args.to + args.count && args.to < args.from + args.count;
  if (overlap) return fail(Code::kInvalidArgument, "the ranges of the file overlap");
  return {};
}

Result<> check_leases(Env& env, const InodeRecord& source, const InodeRecord& target, const ShareArgs& args) {
  TRYV(check_exclusive(env.txn, env.session, args.target, args.generation));
  const auto untrimmed = [](InodeId id) {
    return fail(Code::kLeaseLost, "inode " + to_string(id) + " was shrunk and is not trimmed yet");
  };
  if (!target.trim.empty()) return untrimmed(args.target);
  if (args.source == args.target) return {};
  if (own_chunks(source, {args.from, args.from + args.count}).empty()) {
    if (env.gate.held_elsewhere(args.source))
      return fail(Code::kLeaseLost, "inode " + to_string(args.source) + " is being written elsewhere");
    return {};
  }
  TRYV(check_exclusive(env.txn, env.session, args.source, args.source_generation));
  if (!source.trim.empty()) return untrimmed(args.source);
  return {};
}

}  // namespace

Result<ShareResult> share_chunks(Env& env, const ShareArgs& args) {
  TRY(auto source, load_inode(env.txn, args.source));
  InodeRecord other;
  const bool same = args.source == args.target;
  if (!same) {
    TRY(other, load_inode(env.txn, args.target));
  }
  InodeRecord& target = same ? source : other;
  TRYV(check_files(source, target, args));
  TRYV(check_leases(env, source, target, args));
  const std::uint64_t chunk_size = target.chunk_size();
  const std::uint64_t bytes = std::min(args.count * chunk_size, source.size - args.from * chunk_size);
  if (args.bytes != 0 && args.bytes != bytes)
    return fail(Code::kInvalidArgument, "inode " + to_string(args.source) + " has become longer or shorter");
  const std::uint64_t end = args.to * chunk_size + bytes;  // of the shared bytes in the target
  if (end % chunk_size != 0 && target.size > end) {
    return fail(Code::kInvalidArgument,
                "inode " + to_string(args.target) + " has bytes behind those of the shared chunk");
  }

  if (!own_chunks(source, {args.from, args.from + args.count}).empty())
    TRYV(freeze(env.txn, env.cluster, source));
  const auto pieces = shared_pieces(source, args.from, args.to, args.count);
  const Ranges holes = intersection(source.holes, {args.from, args.from + args.count});

  const Range placed{args.to, args.to + args.count};
  const std::uint64_t size = std::max(target.size, end);
  add_range(target.holes, {target.chunks_of(target.size), target.chunks_of(size)});
  subtract_range(target.holes, placed);
  for (const Range& hole : holes)
    add_range(target.holes, {hole.from - args.from + args.to, hole.to - args.from + args.to});
  if (target.holes.size() > kHolesMax / 2)
    return fail(Code::kRange, "inode " + to_string(args.target) + " would have too many holes");
  give_up_chunks(target, placed);
  TRYV(add_pieces(env.txn, target, pieces));
  TRYV(drop_empty_layers(env.txn, env.cluster, target));
  target.size = size;
  if (target.synced_size >= args.to * chunk_size) target.synced_size = std::max(target.synced_size, end);
  std::uint64_t chunks = target.chunks_of(size);
  for (const Range& hole : target.holes) chunks -= hole.to - hole.from;
  const std::uint64_t allocated = std::min(size, chunks * chunk_size);
  if (allocated > target.bytes) {
    TRY(const Allowance allowed, extend_allowance(env.txn, args.target, target, allocated));
    (void)allowed;  // told with the layout
  }
  TRYV(report_bytes(env.txn, args.target, target, allocated, std::nullopt));
  target.mtime = env.txn.wall_ns();
  touch(env.txn, target);
  if (!same) store_inode(env.txn, args.source, source);
  store_inode(env.txn, args.target, target);
  return ShareResult{{args.source, source}, {args.target, target}};
}

}  // namespace cairn::meta::ops
