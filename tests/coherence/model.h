// A file system in memory, as POSIX and Linux have it: what every call should give. The checker makes each
// call here and on a mount, and compares. Plain data, one thread; what ext4 answers is what is right.
#pragma once

#include <sys/stat.h>

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace coherence {

// What a call gave: a value of its own, or -errno.
using Value = long;

// A time that a file system chose: unknown until somebody saw it; from then on all mounts tell the same until
// it changes.
struct Time {
  std::int64_t not_before = 0;       // of the last change
  std::optional<std::int64_t> seen;  // told since the last change
  std::optional<std::int64_t> old;   // told before a change that need not have moved it
  void changed(std::int64_t now) { *this = {now, std::nullopt, std::nullopt}; }
  void may_have_changed(std::int64_t now) {
    if (!seen) return;  // a change that nobody saw yet: the bound stays
    old = std::exchange(seen, std::nullopt);
    not_before = now;
  }
  void set(std::int64_t value) { *this = {value, value, std::nullopt}; }
};

struct Node;
using NodeRef = std::shared_ptr<Node>;
struct Node {
  mode_t type = S_IFREG;  // S_IFREG, S_IFDIR, S_IFLNK, S_IFIFO
  mode_t mode = 0;        // permission bits
  uid_t uid = 0;
  gid_t gid = 0;
  long nlink = 1;
  bool dead = false;                          // a directory that was removed
  std::string data;                           // bytes, or a link's target
  std::map<std::string, NodeRef> entries;     // of a directory
  std::map<std::string, std::string> xattrs;  // user.*
  Time mtime, ctime;
  std::optional<ino_t> ino;  // as first told
  static constexpr int kUnits = 16;
  std::map<int, std::array<int, kUnits>> records;  // OFD locks by handle: 0 none, 1 shared, 2 exclusive
  std::map<int, int> flocks;                       // by handle: 1 shared, 2 exclusive

  bool is(mode_t what) const { return type == what; }
};

struct Place {
  NodeRef parent;
  std::string name;
  NodeRef node;  // null: there is no such name
};

enum class Follow { kNo, kYes };

class Model {
 public:
  Model();
  const NodeRef& root() const { return root_; }
  void set_now(std::int64_t ns) { now_ = ns; }

  // 0 or -errno: the way to the last name.
  Value walk(const NodeRef& base, std::string_view path, Follow follow, Place* place) const;
  Value find(const NodeRef& base, std::string_view path, Follow follow, NodeRef* node) const;

  Value open(const NodeRef& base, std::string_view path, int flags, mode_t mode, NodeRef* opened);
  Value make(const NodeRef& base, std::string_view path, mode_t type, mode_t mode, std::string_view target);
  Value unlink(const NodeRef& base, std::string_view path);
  Value rmdir(const NodeRef& base, std::string_view path);
  Value link(const NodeRef& base, std::string_view from, std::string_view to);
  Value rename(const NodeRef& base, std::string_view from, std::string_view to, unsigned flags);
  Value write(Node& node, std::size_t offset, std::string_view bytes);
  void resize(Node& node, std::size_t size);
  // fallocate's modes.
  void allocate(Node& node, int mode, std::size_t offset, std::size_t length);
  Value set_xattr(Node& node, const std::string& name, const std::string& value, int flags);
  Value remove_xattr(Node& node, const std::string& name);
  // Of one handle, units [from, from + count). 0: unlock. -EAGAIN: another handle is in the way.
  Value lock_records(Node& node, int handle, int from, int count, int type);
  Value lock_file(Node& node, int handle, int type);

  void touch(Node& node) { node.ctime.changed(now_); }
  std::int64_t now() const { return now_; }

 private:
  void changed_entries(Node& dir);
  NodeRef new_node(mode_t type, mode_t mode);
  void drop_name(Node& node);

  NodeRef root_;
  std::int64_t now_ = 0;
};

bool is_below(const NodeRef& dir, const NodeRef& node);  // node is dir or in its tree

}  // namespace coherence
