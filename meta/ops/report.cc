#include <sys/stat.h>

#include <algorithm>

#include "meta/journal.h"
#include "meta/keys.h"
#include "meta/layers.h"
#include "meta/ops/acl.h"
#include "meta/ops/operations.h"
#include "meta/quota.h"

namespace cairn::meta::ops {

namespace {

// What a report may say of a file under the bound that its holder has.
Code check_extent(const InodeRecord& inode, const ReportItem& item) {
  if (!inode.is_regular() || !well_formed(item.written) || !well_formed(item.punched))
    return Code::kInvalidArgument;
  if (!item.written.empty() && item.written.back().to > inode.bound) return Code::kRange;
  if (item.size > inode.size && inode.chunks_of(item.size) > inode.bound) return Code::kRange;
  const bool trim_pending = !inode.trim.empty() && !item.trim_done;
  if (trim_pending && item.size > inode.trim.from) return Code::kInvalidArgument;
  return Code::kOk;
}

// Size and holes after the report. The size never shrinks here: reports may pass each other on the way, and
// shrinking is setattr's work. kRange: too many holes.
Code apply_extent(InodeRecord& inode, const ReportItem& item, bool durable) {
  Ranges holes = inode.holes;
  const std::uint64_t size = std::max(inode.size, item.size);
  add_range(holes, {inode.chunks_of(inode.size), inode.chunks_of(size)});
  for (const Range& written : item.written) {
    subtract_range(holes, written);
    give_up_chunks(inode, written);  // it is in the file's own layer now
  }
  if (holes.size() > kHolesMax) return Code::kRange;
  // An emptied chunk reads as zeros, hole or not: with too many holes it stays a chunk without bytes. Room is
  // left for the holes that writes make, which are not ours to refuse. Only what was shared has no chunk that
  // could stay.
  Ranges more = holes;
  for (const Range& punched : item.punched) {
    const Range cut{punched.from, std::min(punched.to, inode.chunks_of(size))};
    for (std::size_t i = 1; i < inode.layers.size(); ++i) {
      for (const Range& shared : intersection(inode.layers[i].chunks, cut)) add_range(holes, shared);
    }
    give_up_chunks(inode, cut);
    add_range(more, cut);
  }
  if (holes.size() > kHolesMax) return Code::kRange;
  if (more.size() <= kHolesMax / 2) holes = std::move(more);
  inode.holes = std::move(holes);
  inode.size = size;
  if (item.trim_done) inode.trim = {};
  if (durable) inode.synced_size = std::max(inode.synced_size, std::min(item.size, size));
  return Code::kOk;
}

constexpr std::size_t kReportBytes = kEntryBytesMax * 3 / 4;

// What the inode's record will have at most.
std::size_t record_bytes_max(const InodeRecord& inode, const ReportItem& item) {
  constexpr std::size_t kRest = 1024, kRange = 16;
  std::size_t ranges = inode.holes.size() + 2 * (item.written.size() + item.punched.size());
  for (const LayerRecord& layer : inode.layers) ranges += 2 + layer.chunks.size();
  return kRest + kRange * ranges;
}

Result<Code> close_if_last(Env& env, const ReportItem& item) {
  TRY(auto orphan, env.txn.get(keys::orphan(item.inode)));
  TRY(const auto opens, count_opens(env.txn, env.session, item.inode));
  if (!orphan || opens.here != opens.all || opens.here > item.closed) return Code::kExists;
  TRYV(close_opens(env, item.inode, item.closed));
  return Code::kOk;
}

Result<Code> report_one(Env& env, const ReportItem& item, bool durable) {
  TRY(auto found, find_inode(env.txn, item.inode));
  if (!found) return Code::kNotFound;
  // Another request's: an entry of the journal holds only so much. The first one always fits.
  if (env.txn.bytes_written() + record_bytes_max(*found, item) > kReportBytes && env.txn.bytes_written() > 0)
    return Code::kOverloaded;
  if (item.if_last) return close_if_last(env, item);
  InodeRecord& inode = *found;
  TRY(auto held, find_exclusive(env.txn, item.inode));
  const bool holds = held && held->session == env.session &&
                     (!item.generation.valid() || held->generation == item.generation);
  const bool needs_lease = item.has_size || item.mtime != 0 || item.mode;
  // The opens ended whatever became of the lease.
  const bool refused = needs_lease && !holds;
  if (!refused && (needs_lease || item.atime != 0)) {
    if (item.has_size) {
      if (const Code code = check_extent(inode, item); code != Code::kOk) return code;
      if (const Code code = apply_extent(inode, item, durable); code != Code::kOk) return code;
      TRYV(drop_empty_layers(env.txn, env.cluster, inode));
      TRYV(report_bytes(env.txn, item.inode, inode, item.bytes, item.bytes_max));
    }
    // Who does not hold the file has only read it.
    if (item.atime != 0) inode.atime = holds ? item.atime : std::max(inode.atime, item.atime);
    if (item.mtime != 0) inode.mtime = item.mtime;
    if (item.mode) {
      inode.mode = (inode.mode & S_IFMT) | (*item.mode & 07777);
      TRYV(mode_to_acl(env, item.inode, inode));
    }
    if (needs_lease) {
      const std::int64_t before = inode.ctime;
      touch(env.txn, inode);
      // The holder's stat told this time already: everybody's has to.
      if (item.ctime != 0) inode.ctime = std::max(before, item.ctime);
    }
    store_inode(env.txn, item.inode, inode);
  }
  if (holds && item.keep != Keep::kExclusive) TRYV(release_exclusive(env.txn, item.inode));
  if (item.closed > 0) TRYV(close_opens(env, item.inode, item.closed));
  return refused ? Code::kLeaseLost : Code::kOk;
}

}  // namespace

Result<std::vector<Code>> report(Env& env, const std::vector<ReportItem>& items, bool durable) {
  std::vector<Code> codes;
  codes.reserve(items.size());
  for (const ReportItem& item : items) {
    TRY(const Code code, report_one(env, item, durable));
    codes.push_back(code);
  }
  return codes;
}

Result<> close_opens(Env& env, InodeId inode, std::uint64_t count) {
  TRYV(remove_opens(env.txn, env.session, inode, count));
  TRY(auto orphan, env.txn.get(keys::orphan(inode)));
  if (!orphan) return {};
  TRY(const bool open, is_open(env.txn, inode));
  if (open) return {};
  TRY(auto record, load_inode(env.txn, inode));
  env.gate.deleted(inode);
  return delete_inode(env.txn, env.cluster, inode, record);
}

}  // namespace cairn::meta::ops
