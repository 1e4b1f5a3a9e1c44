// Handlers of open directories. They hold no state: the position is the cookie of the last entry that the
// kernel got, so telldir and seekdir work, also across processes and after deletions.
#include <dirent.h>
#include <sys/stat.h>

#include <cstdint>
#include <string>
#include <vector>

#include "fuse/frontend.h"

namespace cairn::fuse {
namespace {

// Offsets as the kernel sees them: 0 start, 1 after ".", 2 after "..", then the client's cookies moved up by
// 2 (they start at 1, 0 is "from the start"). An offset is signed; cookies stay far below.
constexpr std::uint64_t kAfterDot = 1, kAfterDotDot = 2;

// Room of an entry with a name of about 16 bytes in each form of reply: asking for more entries than fit is
// waste, for fewer only costs one more request.
constexpr std::uint32_t kPlainRoom = 40, kPlusRoom = 168;

class Listing {
 public:
  Listing(fuse_req_t req, std::size_t size, bool plus, Duration cache_max)
      : req_(req), bytes_(size), plus_(plus), cache_max_(cache_max) {}

  // False: no room for it; the listing ends here.
  bool add(const std::string& name, const fuse_entry_param& entry, std::uint64_t offset) {
    char* at = bytes_.data() + used_;
    const std::size_t left = bytes_.size() - used_;
    const auto next = static_cast<off_t>(offset);
    const std::size_t need = plus_ ? fuse_add_direntry_plus(req_, at, left, name.c_str(), &entry, next)
                                   : fuse_add_direntry(req_, at, left, name.c_str(), &entry.attr, next);
    if (need > left) return false;
    used_ += need;
    return true;
  }
  // "." and "..": the kernel takes number and type from them, and no attributes.
  bool add_dot(const char* name, InodeId inode, std::uint64_t offset) {
    fuse_entry_param entry{};
    entry.attr.st_ino = inode.value();
    entry.attr.st_mode = S_IFDIR;
    return add(name, entry, offset);
  }
  bool add(const DirEntry& from) {
    fuse_entry_param entry{};
    if (plus_ && from.entry) {
      entry = to_entry_param(*from.entry, cache_max_);
    } else {
      entry.attr.st_ino = from.inode.value();
      entry.attr.st_mode = from.type & S_IFMT ? from.type : DTTOIF(from.type);
    }
    return add(from.name, entry, from.cookie + kAfterDotDot);
  }
  bool reply() { return fuse_reply_buf(req_, bytes_.data(), used_) == 0; }  // false: it did not get there

 private:
  fuse_req_t req_;
  std::vector<char> bytes_;
  std::size_t used_ = 0;
  bool plus_;
  Duration cache_max_;
};

void list(fuse_req_t req, fuse_ino_t ino, std::size_t size, off_t position, bool plus) {
  const InodeId dir(ino);
  const auto offset = static_cast<std::uint64_t>(position);
  const std::uint64_t cookie = offset > kAfterDotDot ? offset - kAfterDotDot : 0;
  const auto limit = static_cast<std::uint32_t>(size / (plus ? kPlusRoom : kPlainRoom) + 1);
  FileSystem& files = frontend(req).files;
  start<DirPage>(req, Kind::kRead, "readdir", files.readdir(dir, cookie, limit, plus),
                 [&files, dir, offset, size, plus](fuse_req_t req, Result<DirPage> page) {
                   // Counted as looked up, but the kernel does not hear of them.
                   const auto forget_from = [&](std::size_t first) {
                     for (std::size_t i = first; page && i < page->entries.size(); ++i) {
                       if (page->entries[i].entry) files.forget(page->entries[i].inode, 1);
                     }
                   };
                   if (req == nullptr) return forget_from(0);
                   if (!page) return reply_error(req, {"readdir", dir}, page.error());
                   Listing listing(req, size, plus, frontend(req).cache.attributes_max);
                   bool room = true;
                   if (offset < kAfterDot) room = listing.add_dot(".", dir, kAfterDot);
                   if (room && offset < kAfterDotDot)
                     room = listing.add_dot("..", page->parent, kAfterDotDot);
                   std::size_t added = 0;
                   for (; room && added < page->entries.size(); ++added) {
                     room = listing.add(page->entries[added]);
                     if (!room) break;
                   }
                   forget_from(listing.reply() ? added : 0);
                 });
}

void handle_readdir(fuse_req_t req, fuse_ino_t ino, std::size_t size, off_t offset, fuse_file_info*) {
  list(req, ino, size, offset, false);
}

void handle_readdirplus(fuse_req_t req, fuse_ino_t ino, std::size_t size, off_t offset, fuse_file_info*) {
  list(req, ino, size, offset, true);
}

// The kernel may keep the listing: at each start from the top it compares the directory's mtime, which it
// asks for again once its lease was recalled, and it drops the listing at changes of its own.
void handle_opendir(fuse_req_t req, fuse_ino_t, fuse_file_info* info) {
  const bool keep = frontend(req).cache.listings;
  info->cache_readdir = keep;
  info->keep_cache = keep;
  fuse_reply_open(req, info);
}

void handle_releasedir(fuse_req_t req, fuse_ino_t, fuse_file_info*) {
  fuse_reply_err(req, 0);
}

void handle_fsyncdir(fuse_req_t req, fuse_ino_t ino, int, fuse_file_info*) {
  const InodeId dir(ino);
  start<void>(req, Kind::kFlush, "fsyncdir", frontend(req).files.fsyncdir(dir),
              [dir](fuse_req_t req, Result<> done) {
                if (req == nullptr) return;
                if (done) {
                  fuse_reply_err(req, 0);
                } else {
                  reply_error(req, {"fsyncdir", dir}, done.error());
                }
              });
}

}  // namespace

void add_directory_handlers(fuse_lowlevel_ops& ops) {
  ops.opendir = handle_opendir;
  ops.readdir = handle_readdir;
  ops.readdirplus = handle_readdirplus;
  ops.releasedir = handle_releasedir;
  ops.fsyncdir = handle_fsyncdir;
}

}  // namespace cairn::fuse
