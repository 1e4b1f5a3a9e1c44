// Inode: what this client caches and holds of one inode. A plain record with a mutex: the operations on it
// live in the files named after them (names, attributes, handles, write_back, reads, truncate, recall).
//
// Rules. `mutex` is never held over a co_await, and no other inode's mutex is taken under it. After each
// co_await the state is looked at again: lease, layout and size may have changed. What is cached may be used
// while lease >= shared, `session` is the living session and that session's own lease runs
// (InodeCache::usable).
#pragma once

#include <atomic>
#include <chrono>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>

#include "client/dirty_data.h"
#include "client/read_ahead.h"
#include "client/wire.h"

namespace cairn::client {

struct TextHash {
  using is_transparent = void;
  std::size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
};

// A name whose inode is not known (any more), but which the kernel may have cached.
constexpr InodeId kUnknownEntry{UINT64_MAX};

// Entries of a directory, as far as known.
struct Directory {
  std::unordered_map<std::string, InodeId, TextHash, std::equal_to<>> entries;  // none: known not to exist
  bool complete = false;      // a name that is not in `entries` does not exist
  std::uint64_t changes = 0;  // grows when a change of ours begins and when it ends
  // Changes of ours under way, by name. Two at once on one name: which came last is not known here.
  struct Changing {
    unsigned count = 0;
    bool tainted = false;
  };
  std::unordered_map<std::string, Changing, TextHash, std::equal_to<>> changing;
  // A listing under way from the first entry on; ends as `complete` if nothing came in between.
  std::uint64_t listing_next = 0;
  std::uint64_t listing_changes = 0;
  std::uint64_t listing_lease = 0;
  bool listing = false;
  // Entries fetched before they are asked for, because others of the directory were: client/directories.cc.
  struct Ahead {
    unsigned misses = 0;        // lookups that had to ask the server
    unsigned patience = 3;      // so many of them begin it
    std::uint64_t cookie = 0;   // where the next page begins
    std::uint64_t changes = 0;  // Directory::changes at the first page
    std::uint64_t fetched = 0;
    std::uint64_t hits = 0;  // lookups answered from here since the first page was fetched
    bool running = false;
    bool done = false;
  };
  Ahead ahead;
};

// Wakes coroutines that wait for a state guarded by a mutex: take next() under it, release it, wait for the
// event.
class Signal {
 public:
  std::shared_ptr<rpc::Event> next(rpc::Runtime& runtime) {
    if (!event_) event_ = std::make_shared<rpc::Event>(runtime);
    return event_;
  }
  void notify() {
    if (event_) std::exchange(event_, nullptr)->set();
  }

 private:
  std::shared_ptr<rpc::Event> event_;
};

// Bytes acknowledged by the chain and not known to be synced.
struct Unsynced {
  DataId data;  // of the layer it was written to; the file may have got another one since
  PoolId pool;
  Version version;
  std::shared_ptr<const ChunkBytes> bytes;  // null: given up when memory was short
  bool counted = false;                     // the memory of `bytes` is counted with this entry
};

// State of a file that is, or was lately, open here.
struct FileData {
  explicit FileData(rpc::Runtime& runtime) : acquiring(runtime, 1), changing(runtime, 1) {}

  Budget acquiring;  // one Open at a time
  Budget changing;   // one truncation or recall at a time
  Signal settled;    // a flush, a report, a recall or a truncation of this file ended

  unsigned handles = 0;  // opens here
  unsigned writers = 0;
  unsigned server_opens = 0;  // opens that the server counts; closed some time after the last handle
  TimePoint idle_since;       // of the last release
  unsigned blocked = 0;       // > 0: no new dirty bytes (a recall or truncation runs)
  bool truncating = false;    // an open that truncates is on its way: what is dirty may go away, and waits
  Lease keep = Lease::kExclusive;  // a recall runs: at most this may be held after the next report

  DirtyData dirty;
  bool queued = false;  // in the flusher's list
  RangeSet holes;       // chunk indices that were never written, up to infinity
  RangeSet written;     // chunk indices flushed and not reported
  RangeSet punched;     // chunk indices made holes and not reported
  std::map<std::uint64_t, std::vector<Unsynced>> unsynced;  // by chunk index, oldest first
  bool sweep_queued = false;                                // in the sync ledger's list
  std::uint64_t reported_size = 0;
  std::uint64_t report_max = UINT64_MAX;  // a truncation runs: from here on unsaved bytes were set aside
  bool report_size = false;               // size, written or bytes differ from what the server knows
  bool report_times = false;              // mtime
  bool report_atime = false;
  bool accessed = false;  // atime grew by reading: to be told with something else, and no loss if it is not
  bool report_mode = false;
  bool trim_done = false;               // to be reported
  bool reporting = false;               // an item about this file is on its way
  bool reporting_mode = false;          // and tells the mode
  bool reporting_times = false;         // and tells mtime
  Lease reporting_from = Lease::kNone;  // held until that item arrives, whatever it gives back
  TimePoint told_at;                    // the server took the last report that told something
  bool meta_dirty = false;              // the journal may not be synced with what the server replied about it
  bool unlinked = false;                // the last name went
  bool read_elsewhere = false;          // since then others have it open: what is dirty is stored
  bool gone = false;                    // the inode itself went
  bool kept = false;                    // it has no name, and is in the trash: saved and closed without delay

  ReadAhead ahead;
  std::optional<Error> write_error;
  std::uint64_t errors = 0;       // bytes given up so far
  std::uint64_t errors_told = 0;  // of these, reported through some handle: an opener hears of the others
  std::optional<Error> failure;   // of the last attempt to store bytes that were kept
  std::uint64_t failures = 0;     // such attempts so far
  std::uint64_t losses = 0;       // ended sessions that took unsaved data with them
  bool extending = false;         // ExtendBound is on its way, or ShareChunks
  bool return_room = false;       // of what a quota allowed it, what it does not need is wanted elsewhere

  bool clean() const {
    return dirty.empty() && written.empty() && punched.empty() && !report_size && !report_times &&
           !report_atime && !report_mode && !trim_done;
  }
};

struct Inode {
  explicit Inode(InodeId id) : id(id) {}
  const InodeId id;
  std::mutex mutex;  // guards all below

  Lease lease = Lease::kNone;
  std::uint64_t generation = 0;    // of the exclusive lease
  SessionId session;               // which holds `lease`
  std::uint64_t lease_serial = 0;  // grows whenever the lease is lost
  TimePoint lease_since;           // when the lease came that has been held since
  bool recalling = false;
  unsigned dropping = 0;  // the kernel was told to drop pages, and may still serve some
  Signal dropped;         // it has
  bool have_attr = false;
  AttrRecord attr;  // under an exclusive lease size, times and permission bits are ours
  bool have_layout = false;
  Layout layout;
  std::uint64_t layout_changes = 0;   // grows when chunks are to be found elsewhere than before
  std::optional<std::string> target;  // symlink
  std::unique_ptr<Directory> dir;
  std::unique_ptr<FileData> file;
  // Extended attributes known under the lease; absent value: there is none of that name.
  std::map<std::string, std::optional<std::string>, std::less<>> xattrs;
  std::uint64_t xattr_changes = 0;
  bool no_xattrs = false;     // there are none but those in `xattrs`
  unsigned requests = 0;      // to the server, about it, that may wait for a recall elsewhere
  std::uint64_t lookups = 0;  // that the kernel did not forget yet

  Directory& directory() {
    if (!dir) dir = std::make_unique<Directory>();
    return *dir;
  }
  std::uint64_t size() const { return attr.attr.size; }
  // The last name went, and neither a handle nor the kernel leads here any more. On other hosts it may be
  // open.
  bool unreachable() const { return file && file->unlinked && file->handles == 0 && lookups == 0; }
};
using InodeRef = std::shared_ptr<Inode>;

inline std::uint64_t chunks_of(std::uint64_t size, std::uint32_t chunk_size) {
  return (size + chunk_size - 1) / chunk_size;
}
constexpr std::uint64_t kNoChunk = UINT64_MAX;
constexpr std::uint64_t kChunksMax = std::uint64_t{1} << 32;  // a chunk's index has 32 bits

// A file of so many bytes has too many chunks.
inline bool too_long(std::uint64_t size, std::uint32_t chunk_size) {
  return size / chunk_size >= kChunksMax;
}

}  // namespace cairn::client

namespace cairn {

// One open of a file; released at the latest when the last reference goes (before the client does).
class FileHandle {
 public:
  using Release = std::function<void(FileHandle&)>;
  FileHandle(client::InodeRef inode, int flags, std::weak_ptr<Release> release)
      : inode(std::move(inode)), flags(flags), release_(std::move(release)) {}
  ~FileHandle() {
    if (auto release = release_.lock()) (*release)(*this);
  }
  FileHandle(const FileHandle&) = delete;
  const client::InodeRef inode;
  const int flags;
  bool writable() const;
  bool append() const;
  bool keeps_size = false;  // writes are cut at the end of the file; set before use
  // A file lock taken through it ended with its session (client/file_locks.h): it reads and writes no more.
  std::atomic<bool> lost_lock{false};
  // Guarded by the inode's mutex:
  bool released = false;
  bool was_read = false;          // here: the kernel's pages may serve reads too
  std::uint64_t seen_errors = 0;  // bytes given up that somebody was told of, here or before
  std::uint64_t old_errors = 0;   // bytes given up before it was opened
  std::uint64_t seen_losses = 0;  // at open: a higher count means that data written through it may be lost
  std::uint64_t next_offset = 0;  // where a sequential reader goes on
  std::uint64_t window = 0;       // bytes fetched ahead

 private:
  const std::weak_ptr<Release> release_;
};

}  // namespace cairn
