#include "client/inode_cache.h"

#include <fcntl.h>
#include <sys/stat.h>

namespace cairn {

bool FileHandle::writable() const {
  return (flags & O_ACCMODE) != O_RDONLY;
}
bool FileHandle::append() const {
  return (flags & O_APPEND) != 0;
}

}  // namespace cairn

namespace cairn::client {
namespace {

constexpr auto kRecallMemory = std::chrono::minutes(5);  // longer than any request lives
constexpr std::size_t kEvictStep = 256;                  // looked at under one hold of the mutex
constexpr std::size_t kEvictMax = 16'384;
constexpr std::size_t kReleaseMax = 4096;

}  // namespace

std::uint64_t allocated_bytes(const Inode& inode) {
  const FileData& file = *inode.file;
  const std::uint32_t chunk_size = inode.layout.chunk_size();
  const std::uint64_t chunks = chunks_of(inode.size(), chunk_size);
  std::uint64_t stored = chunks - file.holes.count_below(chunks);
  for (std::uint64_t index : file.dirty.active_chunks()) stored += file.holes.contains(index) ? 1 : 0;
  for (std::uint64_t index : file.dirty.flushing_chunks()) {
    if (!file.dirty.has_active(index) && file.holes.contains(index)) ++stored;
  }
  return std::min(inode.size(), stored * chunk_size);
}

InodeRef InodeCache::find(InodeId id) const {
  std::lock_guard lock(mutex_);
  auto it = inodes_.find(id);
  return it == inodes_.end() ? nullptr : it->second;
}

InodeRef InodeCache::get(InodeId id) {
  std::lock_guard lock(mutex_);
  auto& inode = inodes_[id];
  if (!inode) {
    inode = std::make_shared<Inode>(id);
    order_.push_back(id);
  }
  return inode;
}

std::vector<InodeRef> InodeCache::all() const {
  std::lock_guard lock(mutex_);
  std::vector<InodeRef> out;
  out.reserve(inodes_.size());
  for (const auto& [id, inode] : inodes_) out.push_back(inode);
  return out;
}

bool InodeCache::is_void(const Stamp& stamp, const Grant& grant) const {
  if (stamp.replayed || stamp.attachment < attachment_ || stamp.session != session_.id()) return true;
  auto it = recalled_.find(grant.inode);
  return it != recalled_.end() && it->second.serial > stamp.recalls &&
         grant.generation <= it->second.generation;
}

bool InodeCache::take_grants(const Stamp& stamp, const std::vector<Grant>& grants, InodeId about) {
  bool taken = false;
  for (const Grant& grant : grants) {
    if (grant.kind == Lease::kNone || !grant.inode.valid()) continue;
    std::lock_guard lock(mutex_);
    if (is_void(stamp, grant)) continue;
    auto& inode = inodes_[grant.inode];
    if (!inode) {
      inode = std::make_shared<Inode>(grant.inode);
      order_.push_back(grant.inode);
    }
    std::lock_guard inode_lock(inode->mutex);
    if (inode->session != stamp.session) {
      if (inode->lease != Lease::kNone) drop(*inode);
      inode->session = stamp.session;
    }
    if (inode->lease == Lease::kNone) {
      inode->no_xattrs = false;  // what it was then may have changed since
      inode->lease_since = runtime_.clock().now();
    }
    if (grant.kind == Lease::kExclusive) inode->generation = std::max(inode->generation, grant.generation);
    inode->lease = std::max(inode->lease, grant.kind);
    taken = taken || grant.inode == about;
  }
  return taken;
}

bool InodeCache::take_attr(Inode& inode, const AttrRecord& record, TimePoint sent, Granted granted) {
  std::lock_guard lock(inode.mutex);
  if (inode.have_attr && record.change < inode.attr.change) return true;  // overtaken by a later reply
  const bool ours = inode.file != nullptr && inode.lease == Lease::kExclusive && inode.have_layout;
  if (!ours && inode.file && (inode.file->reporting || inode.file->told_at >= sent)) return false;
  const Attr before = inode.attr.attr;
  inode.attr = record;
  // Answers from before a change of ours may come after it.
  inode.no_xattrs = record.no_xattrs && inode.xattr_changes == 0;
  if (inode.file && inode.file->accessed)
    inode.attr.attr.atime_ns = std::max(before.atime_ns, record.attr.atime_ns);
  if (ours) {
    if (inode.file->report_mode || inode.file->reporting_mode) inode.attr.attr.mode = before.mode;
    inode.attr.attr.size = before.size;
    inode.attr.attr.bytes = std::max(before.bytes, record.attr.bytes);
    // The record may be from before the last report.
    if (inode.file->report_times || inode.file->reporting_times || record.attr.ctime_ns < before.ctime_ns) {
      inode.attr.attr.mtime_ns = before.mtime_ns;
      inode.attr.attr.atime_ns = before.atime_ns;
      inode.attr.attr.ctime_ns = std::max(before.ctime_ns, record.attr.ctime_ns);
    }
  }
  const bool of_lease = granted == Granted::kYes || inode.lease_since <= sent;
  inode.have_attr = inode.have_attr || of_lease;
  return true;
}

void InodeCache::drop(Inode& inode) {
  inode.lease = Lease::kNone;
  ++inode.lease_serial;
  inode.have_attr = false;
  inode.have_layout = false;
  inode.target.reset();
  inode.xattrs.clear();
  inode.no_xattrs = false;
  if (inode.dir) {
    inode.dir->entries.clear();
    inode.dir->complete = false;
    inode.dir->listing = false;
    inode.dir->ahead = {.running = inode.dir->ahead.running};
    ++inode.dir->changes;
  }
  if (inode.file) {
    inode.file->ahead.clear();
    inode.file->accessed = false;
  }
}

void InodeCache::recalled(const std::vector<RecallItem>& items, std::uint64_t serial) {
  const TimePoint now = runtime_.clock().now();
  std::lock_guard lock(mutex_);
  for (const auto& item : items) {
    auto& entry = recalled_[item.inode];
    entry.serial = std::max(entry.serial, serial);
    entry.generation = std::max(entry.generation, item.generation);
    entry.at = now;
    recalled_order_.push_back(item.inode);
  }
  while (!recalled_order_.empty()) {
    auto it = recalled_.find(recalled_order_.front());
    if (it != recalled_.end()) {
      if (it->second.at + kRecallMemory > now) break;
      recalled_.erase(it);
    }
    recalled_order_.pop_front();
  }
}

Held InodeCache::held(std::uint64_t attachment) {
  Held held;
  std::lock_guard lock(mutex_);
  attachment_ = attachment;
  const SessionId session = session_.id();
  for (const auto& [id, inode] : inodes_) {
    std::lock_guard inode_lock(inode->mutex);
    if (inode->session != session) continue;
    // A lease that a report gives back is held until the report arrives: without it the server would refuse
    // the sizes in it.
    const Lease lease = std::max(inode->lease, inode->file ? inode->file->reporting_from : Lease::kNone);
    if (lease == Lease::kExclusive) held.exclusive.push_back(id.value());
    if (lease == Lease::kShared) held.shared.push_back(id.value());
    if (inode->file && inode->file->server_opens != 0) held.open.push_back(id.value());
  }
  return held;
}

void InodeCache::evict() {
  std::vector<InodeId> unneeded;
  for (std::size_t looked_at = 0; looked_at < kEvictMax; looked_at += kEvictStep) {
    std::lock_guard lock(mutex_);
    // The more there are too many, the further it looks: a walk brings them faster than a fixed number takes
    // them.
    if (inodes_.size() <= limit_ || looked_at > 4 * (inodes_.size() - limit_)) break;
    for (std::size_t step = 0; inodes_.size() > limit_ && step < kEvictStep && !order_.empty(); ++step) {
      const InodeId id = order_.front();
      order_.pop_front();
      auto it = inodes_.find(id);
      if (it == inodes_.end()) continue;
      InodeRef inode = it->second;
      bool needed = inode.use_count() > 2;
      bool known = false;
      {
        std::lock_guard inode_lock(inode->mutex);
        needed = needed || inode->recalling || inode->requests != 0 || id == kRootInode ||
                 (inode->file && (inode->file->handles != 0 || inode->file->server_opens != 0 ||
                                  !inode->file->clean() || !inode->file->unsynced.empty()));
        known = inode->lookups != 0;
      }
      if (!needed && !known) {
        inodes_.erase(it);
        continue;
      }
      order_.push_back(id);
      if (!needed && unneeded.size() < kReleaseMax) unneeded.push_back(id);
    }
  }
  if (release_ && !unneeded.empty()) release_(std::move(unneeded));
}

}  // namespace cairn::client
