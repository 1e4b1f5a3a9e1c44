#include "client/file_system.h"

#include "client/file_system_impl.h"
#include "store/base/log.h"

namespace cairn::client {
namespace {

// Inodes that are cached, about 1.5 KB each: the quarter of the memory that is for neither unsaved bytes nor
// reading ahead.
std::size_t inodes_max(std::uint64_t memory_bytes) {
  return std::max<std::uint64_t>(100, memory_bytes / 4 / 1536);
}

}  // namespace

FileSystemImpl::FileSystemImpl(rpc::Runtime& runtime, Session& session, ChunkIo& chunks,
                               const ClientOptions& options)
    : runtime_(runtime),
      session_(session),
      options_(options),
      tasks_(runtime),
      dirty_memory_(runtime, options.memory_bytes / 2),
      ahead_memory_(runtime, options.memory_bytes / 4),
      inodes_(runtime, session, inodes_max(options.memory_bytes)),
      context_{runtime, session, chunks, inodes_, options, tasks_, dirty_memory_, ahead_memory_},
      reporter_(context_),
      write_back_(context_, reporter_),
      leases_(context_, reporter_, write_back_),
      locks_(runtime, session, tasks_, options.timeout),
      reader_(context_, leases_) {
  inodes_.set_release([this](std::vector<InodeId> unneeded) { invalidations_.release(std::move(unneeded)); });
  reporter_.on_gone([this](Inode& inode) { write_back_.discard(inode); });
  tasks_.spawn(runtime.make_strand(), reporter_.run());
  tasks_.spawn(runtime.make_strand(), write_back_.run());
}

FileSystemImpl::~FileSystemImpl() {
  tasks_.close_blocking();
}

Result<> FileSystemImpl::close(Deadline deadline) {
  // Files without names end here.
  for (InodeRef& inode : inodes_.all()) {
    std::lock_guard lock(inode->mutex);
    if (!inode->file || !inode->file->unlinked) continue;
    inode->file->handles = inode->file->writers = 0;
    inode->lookups = 0;
    write_back_.discard(*inode);
  }
  Result<> outcome = rpc::block_on(runtime_, write_back_.flush_all(Durable::kNo, deadline));
  // Closed at the server, so that unlinked files go and others need no recall.
  std::vector<InodeRef> last;
  for (InodeRef& inode : inodes_.all()) {
    std::lock_guard lock(inode->mutex);
    if (!inode->file) continue;
    inode->file->handles = inode->file->writers = 0;
    inode->file->idle_since = runtime_.clock().now() - kIdleClose;
    last.push_back(inode);
  }
  for (std::size_t i = 0; i + 1 < last.size(); ++i) reporter_.add(last[i]);
  if (!last.empty()) {
    Result<> reported = rpc::block_on(runtime_, reporter_.report(last.back(), Durable::kNo, deadline));
    if (outcome && !reported) outcome = reported;
  }
  rpc::block_on(runtime_, tasks_.close());
  return outcome;
}

void FileSystemImpl::set_invalidation_sink(InvalidationSink* sink) {
  counting_ = sink != nullptr;
  invalidations_.set_sink(sink);
}

}  // namespace cairn::client
