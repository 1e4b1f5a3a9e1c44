// Random namespace operations compared with a plain tree of nodes in memory: same outcomes, same tree, and in
// the store nothing that the tree does not explain (subtree totals, counters, names of hard links, rows left
// behind, purged data).
#include <gtest/gtest.h>

#include <memory>

#include "meta/keys.h"
#include "meta/ops/testing.h"
#include "store/base/rng.h"

namespace cairn::meta {
namespace {

using testing::OpRunner;

struct Node {
  InodeId id;
  std::uint32_t type = 0;
  std::uint32_t nlink = 0;
  std::uint64_t size = 0;
  std::uint64_t bytes = 0;
  std::uint64_t opens = 0;
  std::map<std::string, Node*> children;
  Node* parent = nullptr;  // directories
  bool is_dir() const { return type == S_IFDIR; }
};

class NamespaceModel : public ::testing::TestWithParam<std::uint64_t> {
 protected:
  NamespaceModel() : rng_(GetParam()) {
    nodes_.push_back(std::make_unique<Node>());
    root_ = nodes_.back().get();
    root_->id = kRootInode;
    root_->type = S_IFDIR;
    root_->nlink = 2;
  }

  std::vector<Node*> directories() {
    std::vector<Node*> out{root_};
    for (std::size_t i = 0; i < out.size(); ++i) {
      for (auto& [name, child] : out[i]->children) {
        if (child->is_dir()) out.push_back(child);
      }
    }
    return out;
  }
  Node* any_directory() {
    auto all = directories();
    return all[rng_.below(all.size())];
  }
  std::string any_name() { return std::string(1, static_cast<char>('a' + rng_.below(6))); }
  static Node* child(Node* dir, const std::string& name) {
    auto it = dir->children.find(name);
    return it == dir->children.end() ? nullptr : it->second;
  }
  static bool below(Node* node, Node* above) {
    for (; node; node = node->parent) {
      if (node == above) return true;
    }
    return false;
  }
  template <class R>
  void expect_code(const R& result, Code code, std::string_view what) {
    ASSERT_EQ(result ? Code::kOk : result.error().code(), code)
        << what << (result ? "" : ": " + result.error().to_string()) << " seed " << GetParam() << " step "
        << step_;
  }

  // --- quotas: what an operation may add is known from the totals, which compare_all() checks ---
  DirectoryRecord totals(Node* dir) {
    return DirectoryRecord::decode(*runner_.kv.get(keys::directory(dir->id)).value()).value();
  }
  std::int64_t charged(Node* file) {
    const auto reserved = runner_.kv.get(keys::reserved(file->id)).value();
    return static_cast<std::int64_t>(file->bytes + (reserved ? CountRecord::decode(*reserved)->count : 0));
  }
  void set_quota() {
    Node* dir = any_directory();
    const auto now = totals(dir);
    ops::SetQuotaArgs args{dir->id, 3};
    if (!rng_.one_in(3)) args.inodes = static_cast<std::uint64_t>(now.inodes) + rng_.below(4);
    if (rng_.one_in(2)) args.bytes = static_cast<std::uint64_t>(now.bytes) + rng_.below(1 << 20) + 1;
    expect_code(runner_.run(kSession, [&](ops::Env& env) { return ops::set_quota(env, args); }), Code::kOk,
                "set_quota");
  }
  // Of the limited directories at and above `dir`, but not at or above `without`: is one above its limit when
  // so much more is below it?
  bool over(Node* dir, Node* without, std::int64_t bytes, std::int64_t inodes) {
    for (Node* at = dir; at; at = at->parent) {
      if (without && below(without, at)) break;
      const auto now = totals(at);
      const auto passes = [](std::int64_t more, std::int64_t total, std::uint64_t most) {
        return more > 0 && most != 0 && total + more > static_cast<std::int64_t>(most);
      };
      if (passes(bytes, now.bytes, now.bytes_max) || passes(inodes, now.inodes, now.inodes_max)) return true;
    }
    return false;
  }
  // --- trash: whatever lost its last name, by the model's clock of steps ---
  void trash_something() {
    if (rng_.one_in(3)) {
      runner_.retention_ns = rng_.one_in(2) ? 0 : 50;  // of the runner's clock, one tick an operation
      return;
    }
    auto listed = runner_.run(kSession, [&](ops::Env& env) {
      return ops::list_trash(env, {{}, {}, {}, 500});
    });
    expect_code(listed, Code::kOk, "list_trash");
    if (listed->items.empty() || rng_.one_in(3)) {
      auto done = runner_.run(kSession, [&](ops::Env& env) {
        return ops::expire_trash(env, {env.txn.wall_ns(), rng_.one_in(3) ? rng_.below(1 << 20) : 0});
      });
      expect_code(done, Code::kOk, "expire_trash");
      return;
    }
    const TrashEntry entry = listed->items[rng_.below(listed->items.size())].entry;
    if (rng_.one_in(4)) {
      auto done = runner_.run(kSession, [&](ops::Env& env) { return ops::empty_trash(env, {entry.id}); });
      expect_code(done, Code::kOk, "empty_trash");
      EXPECT_EQ(*done, 1u);
      return;
    }
    Node* to = any_directory();
    const std::string name = any_name();
    Node* node = nullptr;
    for (auto& one : nodes_) {
      if (one->id == entry.id.inode) node = one.get();
    }
    ASSERT_NE(node, nullptr);
    ASSERT_EQ(node->nlink, 0u);
    const bool exists = child(to, name) != nullptr;
    const bool full = over(to, nullptr, static_cast<std::int64_t>(node->bytes), 1);
    auto done = runner_.run(kSession, [&](ops::Env& env) {
      return ops::undelete(env, {entry.id, to->id, name});
    });
    if (exists) return expect_code(done, Code::kExists, "undelete");
    if (node->is_dir()) return expect_code(done, Code::kIsDirectory, "undelete");
    if (full) return expect_code(done, Code::kQuotaExceeded, "undelete");
    expect_code(done, Code::kOk, "undelete");
    node->nlink = 1;
    to->children[name] = node;
  }

  void make() {
    Node* dir = any_directory();
    const std::string name = any_name();
    constexpr std::uint32_t kTypes[] = {S_IFREG, S_IFREG, S_IFDIR, S_IFLNK, S_IFIFO};
    const std::uint32_t type = kTypes[rng_.below(5)];
    ops::MakeArgs args{dir->id,        name,          type | 0600, 0, 0, 0, type == S_IFLNK ? "target" : "",
                       rng_.one_in(2), rng_.one_in(2)};
    const bool full = over(dir, nullptr, 0, 1);
    auto result = runner_.run(kSession, [&](ops::Env& env) { return ops::make(env, args); });
    Node* there = child(dir, name);
    if (there && (args.exclusive || type != S_IFREG)) return expect_code(result, Code::kExists, "make");
    if (there && there->is_dir()) return expect_code(result, Code::kIsDirectory, "make");
    if (!there && full) return expect_code(result, Code::kQuotaExceeded, "make");
    expect_code(result, Code::kOk, "make");
    if (!there) {
      nodes_.push_back(std::make_unique<Node>());
      there = nodes_.back().get();
      *there = Node{result->inode.id, type, type == S_IFDIR ? 2u : 1u, type == S_IFLNK ? 6u : 0u};
      if (there->is_dir()) {
        there->parent = dir;
        ++dir->nlink;
      }
      dir->children[name] = there;
    }
    EXPECT_EQ(result->inode.id, there->id);
    if (args.open && there->type == S_IFREG && S_ISREG(type)) ++there->opens;
  }

  void dropped(Node* node) {
    if (node->is_dir()) {
      node->nlink = 0;
    } else {
      --node->nlink;
    }
  }

  void remove() {
    Node* dir = any_directory();
    const std::string name = any_name();
    const bool as_directory = rng_.one_in(2);
    auto result = runner_.run(kSession, [&](ops::Env& env) {
      return ops::remove(env, {dir->id, name, as_directory});
    });
    Node* node = child(dir, name);
    if (!node) return expect_code(result, Code::kNotFound, "remove");
    if (node->is_dir() && !as_directory) return expect_code(result, Code::kIsDirectory, "remove");
    if (!node->is_dir() && as_directory) return expect_code(result, Code::kNotDirectory, "remove");
    if (!node->children.empty()) return expect_code(result, Code::kNotEmpty, "remove");
    expect_code(result, Code::kOk, "remove");
    dir->children.erase(name);
    if (node->is_dir()) --dir->nlink;
    dropped(node);
  }

  void rename() {
    Node* from = any_directory();
    Node* to = rng_.one_in(2) ? from : any_directory();
    const std::string name = any_name();
    const std::string new_name = any_name();
    const auto flags = static_cast<std::uint32_t>(rng_.below(4));
    std::map<Node*, DirectoryRecord> before;
    for (Node* dir : directories()) before[dir] = totals(dir);
    auto result = runner_.run(kSession, [&](ops::Env& env) {
      return ops::rename(env, {from->id, name, to->id, new_name, flags});
    });
    // What lingers ends here: the model knows no time.
    for (InodeId inode : std::exchange(runner_.gate.lingering, {})) {
      auto ended = runner_.run(kSession, [&](ops::Env& env) { return ops::close_opens(env, inode, 0); });
      expect_code(ended, Code::kOk, "end of a replaced file");
    }
    Node* source = child(from, name);
    Node* target = child(to, new_name);
    if (flags == 3) return expect_code(result, Code::kInvalidArgument, "rename");
    if (!source) return expect_code(result, Code::kNotFound, "rename");
    if (flags == 2 && !target) return expect_code(result, Code::kNotFound, "rename");
    if (flags == 1 && target) return expect_code(result, Code::kExists, "rename");
    if (source == target) return expect_code(result, Code::kOk, "rename");
    if (source->is_dir() && below(to, source)) return expect_code(result, Code::kCrossesTree, "rename");
    if (flags == 2) {
      if (target->is_dir() && below(from, target)) return expect_code(result, Code::kCrossesTree, "rename");
    } else if (target) {
      if (source->is_dir() && !target->is_dir()) return expect_code(result, Code::kNotDirectory, "rename");
      if (!source->is_dir() && target->is_dir()) return expect_code(result, Code::kIsDirectory, "rename");
      if (!target->children.empty()) return expect_code(result, Code::kNotEmpty, "rename");
    }
    if (!result && result.error().code() == Code::kQuotaExceeded) {
      // Refused only if what moves might have been too much for a directory that it comes into.
      const auto moves = [&](Node* what) {
        const auto below = what->is_dir() ? totals(what) : DirectoryRecord{};
        return std::pair(what->is_dir() ? below.bytes : charged(what), what->is_dir() ? below.inodes + 1 : 1);
      };
      const auto [bytes, inodes] = moves(source);
      bool may = over(to, from, bytes, inodes);
      if (flags == 2) {
        const auto [back_bytes, back_inodes] = moves(target);
        may = may || over(from, to, back_bytes, back_inodes);
      }
      EXPECT_TRUE(may) << "seed " << GetParam() << " step " << step_;
      return;
    }
    expect_code(result, Code::kOk, "rename");
    // What is replaced may have another name: it then accounts to that one's directory, limit or not.
    const bool rehomed = target && flags != 2 && !target->is_dir() && target->nlink > 1;
    for (const auto& [dir, was] : before) {
      if (rehomed || (target == dir && flags != 2)) continue;
      const auto now = totals(dir);
      if (now.inodes > was.inodes && now.inodes_max != 0) {
        EXPECT_LE(now.inodes, static_cast<std::int64_t>(now.inodes_max)) << "step " << step_;
      }
      if (now.bytes > was.bytes && now.bytes_max != 0) {
        EXPECT_LE(now.bytes, static_cast<std::int64_t>(now.bytes_max)) << "step " << step_;
      }
    }
    from->children.erase(name);
    if (source->is_dir()) {
      --from->nlink;
      ++to->nlink;
      source->parent = to;
    }
    if (target && flags == 2) {
      from->children[name] = target;
      if (target->is_dir()) {
        --to->nlink;
        ++from->nlink;
        target->parent = from;
      }
    } else if (target) {
      if (target->is_dir()) --to->nlink;
      dropped(target);
    }
    to->children[new_name] = source;
  }

  void link() {
    Node* from = any_directory();
    Node* node = child(from, any_name());
    if (!node) return;
    Node* to = any_directory();
    const std::string name = any_name();
    auto result = runner_.run(kSession, [&](ops::Env& env) {
      return ops::link(env, {node->id, to->id, name});
    });
    if (child(to, name)) return expect_code(result, Code::kExists, "link");
    if (node->is_dir()) return expect_code(result, Code::kNotPermitted, "link");
    expect_code(result, Code::kOk, "link");
    ++node->nlink;
    to->children[name] = node;
  }

  Node* any_file() {
    std::vector<Node*> files;
    for (auto& node : nodes_) {
      if (node->type == S_IFREG && (node->nlink > 0 || node->opens > 0)) files.push_back(node.get());
    }
    return files.empty() ? nullptr : files[rng_.below(files.size())];
  }

  void open_write_close() {
    Node* node = any_file();
    if (!node) return;
    auto opened = runner_.run(kSession, [&](ops::Env& env) {
      return ops::open(env, {node->id, true, rng_.one_in(4)});
    });
    expect_code(opened, Code::kOk, "open");
    ++node->opens;
    node->size = opened->inode.record.size;
    node->bytes = opened->inode.record.bytes;
    if (rng_.one_in(2)) {
      const std::uint64_t wanted = rng_.below(1 << 20);
      const auto allowed = runner_.run(kSession, [&](ops::Env& env) {
        return ops::extend_bound(env, {node->id, *opened->exclusive, 0, wanted});
      });
      if (allowed && allowed->allowed.limited) {
        EXPECT_GE(allowed->allowed.bytes_max, wanted);
      } else if (!allowed) {
        expect_code(allowed, Code::kQuotaExceeded, "extend_bound");
      }
    }
    ops::ReportItem item;
    if (rng_.one_in(2)) item.bytes_max = rng_.below(1 << 20);
    item.inode = node->id;
    item.generation = *opened->exclusive;
    item.has_size = true;
    item.trim_done = true;
    item.size = rng_.below(opened->inode.record.bound * runner_.cluster.chunk_size + 1);
    item.bytes = rng_.below(1 << 20);
    if (item.size > 0) item.written = {{0, (item.size + 4095) / 4096}};
    const std::uint64_t close = rng_.one_in(2) ? 1 : 0;
    item.closed = close;
    item.keep = rng_.one_in(2) ? ops::Keep::kNone : ops::Keep::kExclusive;
    auto result = runner_.run(kSession, [&](ops::Env& env) { return ops::report(env, {item}, true); });
    expect_code(result, Code::kOk, "report");
    EXPECT_EQ(result->at(0), Code::kOk);
    node->size = std::max(node->size, item.size);
    node->bytes = item.bytes;
    node->opens -= close;
  }

  void close() {
    Node* node = any_file();
    if (!node || node->opens == 0) return;
    expect_code(runner_.run(kSession, [&](ops::Env& env) { return ops::close_opens(env, node->id, 1); }),
                Code::kOk, "close");
    --node->opens;
  }

  void set_size() {
    Node* node = any_file();
    if (!node) return;
    ops::SetAttrArgs args;
    args.inode = node->id;
    args.valid = ops::SetAttrArgs::kSize;
    args.size = rng_.one_in(3) ? 0 : rng_.below(100'000);
    auto before = runner_.run(kSession, [&](ops::Env& env) { return ops::getattr(env, node->id); });
    expect_code(before, Code::kOk, "getattr");
    auto result = runner_.run(kSession, [&](ops::Env& env) { return ops::setattr(env, args); });
    const Range trim = before->record.trim;
    if (!trim.empty() && args.size > trim.from) return expect_code(result, Code::kLeaseLost, "setattr");
    expect_code(result, Code::kOk, "setattr");
    EXPECT_EQ(result->record.size, args.size);
    if (args.size > 0 && args.size < before->record.size) {
      EXPECT_EQ(result->record.trim.from, args.size);
    }
    if (args.size == 0 && before->record.size > 0) {
      EXPECT_NE(result->record.layers[0].data, before->record.layers[0].data);
    }
    node->size = args.size;
    node->bytes = result->record.bytes;
  }

  struct Totals {
    std::int64_t bytes = 0;
    std::int64_t inodes = 0;
  };
  // Compares directory `node` with the store; returns what accounts to it. A file counts at one of its
  // directories.
  Totals compare(Node* node, std::map<InodeId, InodeId>& home) {
    Totals totals;
    auto record = runner_.run(kSession, [&](ops::Env& env) { return ops::getattr(env, node->id); });
    EXPECT_TRUE(record) << to_string(node->id);
    if (!record) return totals;
    EXPECT_EQ(record->record.nlink, node->nlink) << "inode " << to_string(node->id);
    EXPECT_EQ(record->record.mode & S_IFMT, node->type);
    if (!node->is_dir()) {
      EXPECT_EQ(record->record.size, node->size);
      EXPECT_EQ(record->record.bytes, node->bytes);
      home[node->id] = record->record.parent;
      return {charged(node), 1};
    }
    std::map<std::string, InodeId> listed;
    std::uint64_t cookie = 0;
    for (;;) {
      auto page = runner_.run(kSession, [&](ops::Env& env) {
        return ops::readdir(env, {node->id, cookie, 2, rng_.one_in(2)});
      });
      EXPECT_TRUE(page);
      EXPECT_EQ(page->parent, node->parent ? node->parent->id : kRootInode);
      for (auto& entry : page->entries) {
        EXPECT_TRUE(listed.emplace(entry.name, entry.inode).second);
        EXPECT_GT(entry.cookie, cookie);
        cookie = entry.cookie;
      }
      if (page->end) break;
    }
    std::map<std::string, InodeId> expected;
    for (auto& [name, child] : node->children) {
      expected.emplace(name, child->id);
      const Totals below = compare(child, home);
      if (child->is_dir() || home[child->id] == node->id) {
        if (child->is_dir() || counted_.insert(child->id).second) {
          totals.bytes += below.bytes;
          totals.inodes += below.inodes;
        }
      }
    }
    EXPECT_EQ(listed, expected) << "directory " << to_string(node->id);
    const auto usage = DirectoryRecord::decode(*runner_.kv.get(keys::directory(node->id)).value()).value();
    EXPECT_EQ(usage.bytes, totals.bytes) << "directory " << to_string(node->id);
    EXPECT_EQ(usage.inodes, totals.inodes) << "directory " << to_string(node->id);
    totals.inodes += 1;
    return totals;
  }

  void compare_all() {
    std::map<InodeId, InodeId> home;
    counted_.clear();
    compare(root_, home);
    Counters expected;
    for (auto& node : nodes_) {
      const auto record = runner_.kv.get(keys::inode(node->id)).value();
      const bool trashed = record && (InodeRecord::decode(*record)->flags & InodeRecord::kTrashed);
      if (trashed) {
        EXPECT_EQ(node->nlink, 0u);
        ++expected.trash_files;
        expected.trash_bytes += InodeRecord::decode(*record)->bytes;
        continue;
      }
      if (node->nlink == 0 && node->opens == 0) continue;
      ++expected.inodes;
      if (node->is_dir()) ++expected.directories;
    }
    EXPECT_EQ(Counters::decode(*runner_.kv.get(keys::system("counters")).value()).value(), expected);
  }

  static constexpr SessionId kSession{50};
  SeededRng rng_;
  OpRunner runner_;
  std::vector<std::unique_ptr<Node>> nodes_;
  Node* root_ = nullptr;
  std::set<InodeId> counted_;
  int step_ = 0;
};

TEST_P(NamespaceModel, AgreesWithTree) {
  for (step_ = 0; step_ < 1500 && !HasFailure(); ++step_) {
    switch (rng_.below(12)) {
      case 0:
      case 1:
      case 2:
        make();
        break;
      case 3:
        remove();
        break;
      case 4:
      case 5:
        rename();
        break;
      case 6:
        link();
        break;
      case 7:
        open_write_close();
        break;
      case 8:
        close();
        break;
      case 9:
        set_size();
        break;
      case 10:
        set_quota();
        break;
      case 11:
        trash_something();
        break;
    }
    if (step_ % 100 == 0) compare_all();
  }
  compare_all();
  ASSERT_FALSE(HasFailure()) << "seed " << GetParam() << " step " << step_;

  // Everything removed and closed, and the trash emptied: nothing is left but the root, and every data id
  // that could hold bytes is purged once.
  for (bool found = true; found;) {
    found = false;
    for (Node* dir : directories()) {
      for (auto& [name, node] : std::map<std::string, Node*>(dir->children)) {
        if (!node->children.empty()) continue;
        found = true;
        auto removed = runner_.run(kSession, [&, name = name](ops::Env& env) {
          return ops::remove(env, {dir->id, name, node->is_dir()});
        });
        ASSERT_TRUE(removed) << removed.error().to_string();
        dir->children.erase(name);
        dropped(node);
      }
      if (found) break;
    }
  }
  for (auto& node : nodes_) {
    if (node->opens == 0) continue;
    ASSERT_TRUE(
        runner_.run(kSession, [&](ops::Env& env) { return ops::close_opens(env, node->id, node->opens); }));
  }
  for (bool more = true; more;) {
    auto expired = runner_.run(kSession, [&](ops::Env& env) {
      return ops::expire_trash(env, {INT64_MAX, 0});
    });
    ASSERT_TRUE(expired) << expired.error().to_string();
    more = expired->more;
  }
  const std::string root = keys::directory_setting(kRootInode);
  std::vector<std::string> left;
  for (auto& [key, value] : runner_.kv.after_kill()) {
    const auto prefix = static_cast<KeyPrefix>(key[0]);
    if (prefix != KeyPrefix::kSystem && key != root)
      left.push_back(hex64(static_cast<unsigned char>(key[0])) + " " + hex64(keys::part(key, 0)));
  }
  EXPECT_EQ(left.size(), 2u) << ::testing::PrintToString(left);  // the root's inode and directory record
  std::set<DataId> purged;
  for (auto& purge : runner_.cluster.purges()) EXPECT_TRUE(purged.insert(purge.data).second);
}

INSTANTIATE_TEST_SUITE_P(Seeds, NamespaceModel, ::testing::Range<std::uint64_t>(1, 21));

}  // namespace
}  // namespace cairn::meta
