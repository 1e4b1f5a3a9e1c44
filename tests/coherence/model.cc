#include "model.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <sys/xattr.h>

#include <algorithm>
#include <cerrno>
#include <deque>

namespace coherence {
namespace {

void split_before(std::string_view path, std::deque<std::string>& rest) {
  std::deque<std::string> parts;
  while (!path.empty()) {
    const auto slash = path.find('/');
    parts.emplace_back(path.substr(0, slash));
    path = slash == path.npos ? std::string_view() : path.substr(slash + 1);
  }
  rest.insert(rest.begin(), parts.begin(), parts.end());
}

}  // namespace

bool is_below(const NodeRef& dir, const NodeRef& node) {
  if (dir == node) return true;
  return std::ranges::any_of(dir->entries, [&](const auto& entry) { return is_below(entry.second, node); });
}

Model::Model() : root_(std::make_shared<Node>()) {
  root_->type = S_IFDIR;
  root_->mode = 0755;
  root_->nlink = 2;
}

Value Model::walk(const NodeRef& base, std::string_view path, Follow follow, Place* place) const {
  std::deque<std::string> rest;
  split_before(path, rest);
  NodeRef at = base;
  int links = 0;
  for (;;) {
    if (!at->is(S_IFDIR)) return -ENOTDIR;
    const std::string name = std::move(rest.front());
    rest.pop_front();
    const bool last = rest.empty();
    const auto found = at->entries.find(name);
    NodeRef child = found == at->entries.end() ? nullptr : found->second;
    if (child && child->is(S_IFLNK) && (!last || follow == Follow::kYes)) {
      if (++links > 40) return -ELOOP;
      split_before(child->data, rest);
      continue;
    }
    if (last) {
      *place = {at, name, child};
      return 0;
    }
    if (!child) return -ENOENT;
    at = child;
  }
}

Value Model::find(const NodeRef& base, std::string_view path, Follow follow, NodeRef* node) const {
  Place place;
  if (const Value error = walk(base, path, follow, &place)) return error;
  if (!place.node) return -ENOENT;
  *node = place.node;
  return 0;
}

NodeRef Model::new_node(mode_t type, mode_t mode) {
  auto node = std::make_shared<Node>();
  node->type = type;
  node->mode = mode;
  node->nlink = type == S_IFDIR ? 2 : 1;
  node->mtime.changed(now_);
  node->ctime.changed(now_);
  return node;
}

void Model::changed_entries(Node& dir) {
  dir.mtime.changed(now_);
  dir.ctime.changed(now_);
}

void Model::drop_name(Node& node) {
  if (node.is(S_IFDIR)) {
    node.nlink = 0;
    node.dead = true;
  } else {
    --node.nlink;
  }
  node.ctime.may_have_changed(now_);
}

Value Model::open(const NodeRef& base, std::string_view path, int flags, mode_t mode, NodeRef* opened) {
  const bool create = flags & O_CREAT, exclusive = create && (flags & O_EXCL);
  Place place;
  const Follow follow = exclusive || (flags & O_NOFOLLOW) ? Follow::kNo : Follow::kYes;
  if (const Value error = walk(base, path, follow, &place)) return error;
  if (!place.node) {
    if (!create || place.parent->dead) return -ENOENT;
    place.node = new_node(S_IFREG, mode);
    place.parent->entries[place.name] = place.node;
    changed_entries(*place.parent);
    *opened = place.node;
    return 0;
  }
  if (exclusive) return -EEXIST;
  Node& node = *place.node;
  if (node.is(S_IFLNK)) return -ELOOP;
  if (node.is(S_IFDIR) && (create || (flags & O_ACCMODE) != O_RDONLY)) return -EISDIR;
  if (!node.is(S_IFDIR) && (flags & O_DIRECTORY)) return -ENOTDIR;
  if ((flags & O_TRUNC) && node.is(S_IFREG)) {
    const bool same = node.data.empty();
    node.data.clear();
    if (same) {
      node.mtime.may_have_changed(now_);
      node.ctime.may_have_changed(now_);
    } else {
      node.mtime.changed(now_);
      node.ctime.changed(now_);
    }
  }
  *opened = place.node;
  return 0;
}

Value Model::make(const NodeRef& base, std::string_view path, mode_t type, mode_t mode,
                  std::string_view target) {
  Place place;
  if (const Value error = walk(base, path, Follow::kNo, &place)) return error;
  if (place.node) return -EEXIST;
  if (place.parent->dead) return -ENOENT;
  NodeRef node = new_node(type, mode);
  if (type == S_IFLNK) node->data = target;
  if (type == S_IFDIR) ++place.parent->nlink;
  place.parent->entries[place.name] = node;
  changed_entries(*place.parent);
  return 0;
}

Value Model::unlink(const NodeRef& base, std::string_view path) {
  Place place;
  if (const Value error = walk(base, path, Follow::kNo, &place)) return error;
  if (!place.node) return -ENOENT;
  if (place.node->is(S_IFDIR)) return -EISDIR;
  place.parent->entries.erase(place.name);
  changed_entries(*place.parent);
  drop_name(*place.node);
  return 0;
}

Value Model::rmdir(const NodeRef& base, std::string_view path) {
  Place place;
  if (const Value error = walk(base, path, Follow::kNo, &place)) return error;
  if (!place.node) return -ENOENT;
  if (!place.node->is(S_IFDIR)) return -ENOTDIR;
  if (!place.node->entries.empty()) return -ENOTEMPTY;
  place.parent->entries.erase(place.name);
  --place.parent->nlink;
  changed_entries(*place.parent);
  drop_name(*place.node);
  return 0;
}

Value Model::link(const NodeRef& base, std::string_view from, std::string_view to) {
  NodeRef node;
  if (const Value error = find(base, from, Follow::kNo, &node)) return error;
  Place place;
  if (const Value error = walk(base, to, Follow::kNo, &place)) return error;
  if (place.node) return -EEXIST;
  if (place.parent->dead) return -ENOENT;
  if (node->is(S_IFDIR)) return -EPERM;
  ++node->nlink;
  touch(*node);
  place.parent->entries[place.name] = node;
  changed_entries(*place.parent);
  return 0;
}

// In the order in which Linux looks (do_renameat2).
Value Model::rename(const NodeRef& base, std::string_view from, std::string_view to, unsigned flags) {
  Place a, b;
  const bool exchange = flags & RENAME_EXCHANGE;
  if (const Value error = walk(base, from, Follow::kNo, &a)) return error;
  if (const Value error = walk(base, to, Follow::kNo, &b)) return error;
  if (!a.node) return -ENOENT;
  if ((flags & RENAME_NOREPLACE) && b.node) return -EEXIST;
  if (exchange && !b.node) return -ENOENT;
  if (a.parent != b.parent) {
    if (a.node->is(S_IFDIR) && is_below(a.node, b.parent)) return -EINVAL;
    if (b.node && b.node->is(S_IFDIR) && is_below(b.node, a.parent)) return exchange ? -EINVAL : -ENOTEMPTY;
  }
  if (a.node == b.node) return 0;
  const bool dir = a.node->is(S_IFDIR);
  if (!b.node) {
    if (b.parent->dead) return -ENOENT;
  } else if (!exchange) {
    if (dir && !b.node->is(S_IFDIR)) return -ENOTDIR;
    if (!dir && b.node->is(S_IFDIR)) return -EISDIR;
    if (dir && !b.node->entries.empty()) return -ENOTEMPTY;
  }
  if (exchange) {
    a.parent->entries[a.name] = b.node;
    b.parent->entries[b.name] = a.node;
    if (a.parent != b.parent && dir != b.node->is(S_IFDIR)) {
      a.parent->nlink += dir ? -1 : 1;
      b.parent->nlink += dir ? 1 : -1;
    }
    b.node->ctime.may_have_changed(now_);
  } else {
    if (b.node) {
      if (dir) --b.parent->nlink;
      drop_name(*b.node);
    }
    a.parent->entries.erase(a.name);
    b.parent->entries[b.name] = a.node;
    if (dir) --a.parent->nlink, ++b.parent->nlink;
  }
  a.node->ctime.may_have_changed(now_);
  changed_entries(*a.parent);
  changed_entries(*b.parent);
  return 0;
}

Value Model::write(Node& node, std::size_t offset, std::string_view bytes) {
  if (bytes.empty()) return 0;
  if (node.data.size() < offset + bytes.size()) node.data.resize(offset + bytes.size());
  bytes.copy(node.data.data() + offset, bytes.size());
  node.mtime.changed(now_);
  node.ctime.changed(now_);
  return static_cast<Value>(bytes.size());
}

void Model::resize(Node& node, std::size_t size) {
  const bool same = node.data.size() == size;
  node.data.resize(size);
  if (same) {
    node.mtime.may_have_changed(now_);
    node.ctime.may_have_changed(now_);
  } else {
    node.mtime.changed(now_);
    node.ctime.changed(now_);
  }
}

void Model::allocate(Node& node, int mode, std::size_t offset, std::size_t length) {
  const std::size_t end = offset + length;
  if (!(mode & FALLOC_FL_KEEP_SIZE) && node.data.size() < end) node.data.resize(end);
  if (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) {
    for (std::size_t i = offset; i < std::min(end, node.data.size()); ++i) node.data[i] = 0;
  }
  node.mtime.may_have_changed(now_);
  node.ctime.may_have_changed(now_);
}

Value Model::set_xattr(Node& node, const std::string& name, const std::string& value, int flags) {
  const bool there = node.xattrs.contains(name);
  if (there && (flags & XATTR_CREATE)) return -EEXIST;
  if (!there && (flags & XATTR_REPLACE)) return -ENODATA;
  node.xattrs[name] = value;
  node.ctime.may_have_changed(now_);
  return 0;
}

Value Model::remove_xattr(Node& node, const std::string& name) {
  if (node.xattrs.erase(name) == 0) return -ENODATA;
  node.ctime.may_have_changed(now_);
  return 0;
}

Value Model::lock_records(Node& node, int handle, int from, int count, int type) {
  for (const auto& [other, held] : node.records) {
    if (other == handle || type == 0) continue;
    for (int i = from; i < from + count; ++i) {
      if (held[static_cast<std::size_t>(i)] == 2 || (type == 2 && held[static_cast<std::size_t>(i)] != 0))
        return -EAGAIN;
    }
  }
  for (int i = from; i < from + count; ++i) node.records[handle][static_cast<std::size_t>(i)] = type;
  return 0;
}

Value Model::lock_file(Node& node, int handle, int type) {
  for (const auto& [other, held] : node.flocks) {
    if (other != handle && (type == 2 || (type == 1 && held == 2))) return -EAGAIN;
  }
  if (type == 0) {
    node.flocks.erase(handle);
  } else {
    node.flocks[handle] = type;
  }
  return 0;
}

}  // namespace coherence
