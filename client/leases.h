// Leases: makes sure that this client holds what an operation on a file needs. Thread-safe. Owner: the file
// system.
#pragma once

#include "client/write_back.h"

namespace cairn::client {

class Leases {
 public:
  Leases(FileContext& context, Reporter& reporter, WriteBack& write_back)
      : context_(context), reporter_(reporter), write_back_(write_back) {}

  // On return the inode was held at least so, with layout and attributes, and open at the server. A recall
  // may take it away at any moment: look again under the mutex, and call again.
  rpc::Task<Result<>> ensure(InodeRef inode, Lease lease, Deadline deadline);
  // open(O_TRUNC): unsaved bytes go, the server gives the file an empty layout.
  rpc::Task<Result<>> open_truncated(InodeRef inode, Deadline deadline);
  // Under inode.mutex: takes attributes and layout as the server has them.
  static void adopt(Inode& inode, FileData& file, const AttrRecord& attr, const Layout& layout);

 private:
  bool held(const Inode& inode, Lease lease) const;  // under inode.mutex
  enum class Truncate { kNo, kYes };
  rpc::Task<Result<>> ask_shared(InodeRef inode, Deadline deadline);
  rpc::Task<Result<>> open_at_server(InodeRef inode, Lease lease, Truncate truncate, Deadline deadline);

  FileContext& context_;
  Reporter& reporter_;
  WriteBack& write_back_;
};

// Keeps new bytes out of a file while a truncation or a recall works on it.
class Blocked {
 public:
  explicit Blocked(InodeRef inode) : inode_(std::move(inode)) {
    std::lock_guard lock(inode_->mutex);
    ++inode_->file->blocked;
  }
  ~Blocked() {
    std::lock_guard lock(inode_->mutex);
    --inode_->file->blocked;
    inode_->file->settled.notify();
  }
  Blocked(const Blocked&) = delete;

 private:
  InodeRef inode_;
};

// Keeps dirty bytes from being stored while the server may be making the file empty: they are dropped when it
// did, and stored later when it did not.
class Truncating {
 public:
  explicit Truncating(InodeRef inode) : inode_(std::move(inode)) {
    std::lock_guard lock(inode_->mutex);
    inode_->file->truncating = true;
  }
  ~Truncating() {
    std::lock_guard lock(inode_->mutex);
    inode_->file->truncating = false;
    inode_->file->settled.notify();
  }
  Truncating(const Truncating&) = delete;

 private:
  InodeRef inode_;
};

// Keeps a file from being closed at the server, and its lease from being given back, while an operation
// without a handle works on it.
class InUse {
 public:
  InUse(FileContext& context, WriteBack& write_back, InodeRef inode)
      : context_(context), write_back_(write_back), inode_(std::move(inode)) {
    std::lock_guard lock(inode_->mutex);
    ++file_of(context_, *inode_).handles;
  }
  ~InUse() {
    std::lock_guard lock(inode_->mutex);
    FileData& file = *inode_->file;
    if (file.handles == 0 || --file.handles != 0) return;
    file.idle_since = context_.runtime.clock().now();
    write_back_.released(inode_);
  }
  InUse(const InUse&) = delete;

 private:
  FileContext& context_;
  WriteBack& write_back_;
  InodeRef inode_;
};

}  // namespace cairn::client
