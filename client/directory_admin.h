// What operators set on directories, by path in the Cairn file system ("/a/b"): quotas, how long deleted
// files are kept; and the trash. Blocking calls, not from the client's own io threads; thread-safe. Errors
// name the path.
#pragma once

#include <sys/stat.h>

#include "client/file_system.h"

namespace cairn {

// Limits on what a directory's subtree has, and what it has now.
struct Quota {
  std::string path;
  std::uint64_t bytes_max = 0;  // 0: no limit
  std::uint64_t inodes_max = 0;
  std::uint64_t bytes = 0;  // with what writers were allowed and did not store yet
  std::uint64_t inodes = 0;
};
struct QuotaChange {
  std::optional<std::uint64_t> bytes;  // 0: no limit
  std::optional<std::uint64_t> inodes;
};

// A deleted file, or a removed directory in which something was deleted that is still kept.
struct TrashEntry {
  InodeId inode;
  std::string path;  // that it had; under the present path of its directory. Empty: not known any more
  std::int64_t deleted_ns = 0;
  std::int64_t expires_ns = 0;
  Attr attr;  // of directories: mode and owner
  std::uint32_t by = 0;
  std::string client;
  InodeId parent;  // with inode, name and time what the server knows it by
  std::string name;
  bool is_directory() const { return S_ISDIR(attr.mode); }
};
struct Retention {
  std::int64_t own_ns = -1;  // -1: it has none of its own
  std::int64_t in_force_ns = 0;
};

class DirectoryAdmin {
 public:
  virtual ~DirectoryAdmin() = default;
  // Durable on return. What is there may be more than the limit: then nothing may be added.
  virtual Result<> set_quota(std::string_view path, QuotaChange change) = 0;
  virtual Result<Quota> quota(std::string_view path) = 0;
  // Of the directories at or below `path` that have one.
  virtual Result<std::vector<Quota>> quotas(std::string_view path) = 0;

  // Of what is deleted below `path` from now on; 0: nothing is kept; -1: as above it.
  virtual Result<> set_retention(std::string_view path, std::int64_t nanoseconds) = 0;
  virtual Result<Retention> retention(std::string_view path) = 0;
  // What was deleted at `path` or below it, in order of paths, oldest first.
  virtual Result<std::vector<TrashEntry>> trash(std::string_view path) = 0;
  // The same of `path` itself only.
  virtual Result<std::vector<TrashEntry>> versions(std::string_view path) = 0;
  // kExists: never over an existing name. kNotFound: its directory, or the entry, is gone. Durable on return.
  virtual Result<> undelete(const TrashEntry& entry, std::string_view to) = 0;
  struct Restored {
    std::vector<std::string> paths;
    std::vector<Error> refused;  // each names the path
  };
  // The newest of every file that was deleted below `path`, to the same place below `to`. Directories that
  // are missing are made again, with owner and mode if these are known.
  virtual Result<Restored> undelete_tree(std::string_view path, std::string_view to) = 0;
  // How many were there.
  virtual Result<std::uint64_t> empty_trash(const std::vector<TrashEntry>& entries) = 0;
};

}  // namespace cairn
