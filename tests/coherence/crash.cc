#include "crash.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <functional>
#include <random>
#include <set>

#include "model.h"

namespace coherence {
namespace {

// The stream of changes that a seed means. Only changes that succeed are made.
class Changes {
 public:
  explicit Changes(std::uint64_t seed) : rng_(seed) {}

  struct Change {
    enum Kind {
      kFile,
      kMkdir,
      kSymlink,
      kUnlink,
      kRmdir,
      kRename,
      kLink,
      kChmod,
      kXattr,
      kSyncDir
    } kind = kFile;
    std::string path, other;
    std::string bytes;
    bool sync = false;
    mode_t mode = 0;
  };
  // Makes the next change in the model.
  Change next() {
    for (;;) {
      Change c;
      c.kind = static_cast<Change::Kind>(rng_() % 10);
      if (rng_() % 3 == 0) c.kind = Change::kFile;
      c.path = path();
      c.other = path();
      c.mode = static_cast<mode_t>(0600 + rng_() % 0100);
      c.sync = rng_() % 4 == 0;
      const std::size_t size = rng_() % 5 == 0 ? rng_() % 200'000 : rng_() % 5000;
      const unsigned start = static_cast<unsigned>(rng_());
      if (apply(c, size, start)) return c;
    }
  }
  const Model& model() const { return model_; }
  const std::set<const Node*>& synced() const { return synced_; }

 private:
  std::string path() {
    const char* names[] = {"a", "b", "c", "d", "e", "f", "g", "h"};
    std::string text = names[rng_() % 8];
    while (rng_() % 3 == 0) text += std::string("/") + names[rng_() % 8];
    return text;
  }
  bool apply(Change& c, std::size_t size, unsigned start) {
    const NodeRef& root = model_.root();
    NodeRef node;
    switch (c.kind) {
      case Change::kFile: {
        if (model_.open(root, c.path, O_CREAT | O_EXCL | O_WRONLY, c.mode, &node) != 0) return false;
        c.bytes.resize(size);
        for (std::size_t i = 0; i < size; ++i)
          c.bytes[i] = static_cast<char>('!' + (start + i * 7 + i / 97) % 90);
        node->data = c.bytes;
        if (c.sync) synced_.insert(keep_.emplace_back(node).get());
        return true;
      }
      case Change::kMkdir:
        return model_.make(root, c.path, S_IFDIR, c.mode | 0100, "") == 0;
      case Change::kSymlink:
        return model_.make(root, c.path, S_IFLNK, 0777, c.other) == 0;
      case Change::kUnlink:
        return model_.unlink(root, c.path) == 0;
      case Change::kRmdir:
        return model_.rmdir(root, c.path) == 0;
      case Change::kRename:
        return c.path != c.other && model_.rename(root, c.path, c.other, 0) == 0;
      case Change::kLink:
        return model_.link(root, c.path, c.other) == 0;
      case Change::kChmod:
        if (model_.find(root, c.path, Follow::kNo, &node) != 0 || node->is(S_IFLNK)) return false;
        node->mode = c.mode | (node->is(S_IFDIR) ? 0100 : 0);
        c.mode = node->mode;
        return true;
      case Change::kXattr:
        if (model_.find(root, c.path, Follow::kNo, &node) != 0 || node->is(S_IFLNK)) return false;
        return model_.set_xattr(*node, "user.x", std::to_string(start), 0) == 0 &&
               (c.other = std::to_string(start), true);
      default:
        return rng_() % 5 == 0;
    }
  }
  Model model_;
  std::mt19937_64 rng_;
  std::set<const Node*> synced_;
  std::vector<NodeRef> keep_;  // their addresses stay theirs
};

bool done_for_real(const std::string& dir, const Changes::Change& c) {
  const std::string path = dir + "/" + c.path, other = dir + "/" + c.other;
  using Change = Changes::Change;
  switch (c.kind) {
    case Change::kFile: {
      const int fd = ::open(path.c_str(), O_CREAT | O_EXCL | O_WRONLY, c.mode);
      if (fd < 0) return false;
      bool good = ::write(fd, c.bytes.data(), c.bytes.size()) == static_cast<ssize_t>(c.bytes.size());
      good = good && (!c.sync || ::fsync(fd) == 0);
      return ::close(fd) == 0 && good;
    }
    case Change::kMkdir:
      return ::mkdir(path.c_str(), c.mode | 0100) == 0;
    case Change::kSymlink:
      return ::symlink(c.other.c_str(), path.c_str()) == 0;
    case Change::kUnlink:
      return ::unlink(path.c_str()) == 0;
    case Change::kRmdir:
      return ::rmdir(path.c_str()) == 0;
    case Change::kRename:
      return ::rename(path.c_str(), other.c_str()) == 0;
    case Change::kLink:
      return ::link(path.c_str(), other.c_str()) == 0;
    case Change::kChmod:
      return ::chmod(path.c_str(), c.mode) == 0;
    case Change::kXattr:
      return ::setxattr(path.c_str(), "user.x", c.other.data(), c.other.size(), 0) == 0;
    default: {
      const int fd = ::open(dir.c_str(), O_RDONLY | O_DIRECTORY);
      const bool good = fd >= 0 && ::fsync(fd) == 0;
      if (fd >= 0) ::close(fd);
      return good;
    }
  }
}

// Permission bits of files are not compared: like times they are told to the server with the file's data.
using Tell = std::function<void(const std::string& path, const std::string& line)>;

void tell_model(const Node& dir, const std::string& path, const Tell& tell) {
  for (const auto& [name, node] : dir.entries) {
    const std::string below = path + "/" + name;
    std::string line = std::to_string(node->type) + " nlink=" + std::to_string(node->nlink);
    if (node->is(S_IFDIR)) line += " mode=" + std::to_string(node->mode);
    if (node->is(S_IFLNK)) line += " to=" + node->data;
    if (const auto x = node->xattrs.find("user.x"); x != node->xattrs.end()) line += " x=" + x->second;
    tell(below, line);
    if (node->is(S_IFDIR)) tell_model(*node, below, tell);
  }
}

void tell_real(const std::string& root, const std::string& path, const Tell& tell) {
  std::set<std::string> names;
  DIR* stream = ::opendir((root + path).c_str());
  if (stream == nullptr) return tell(path, std::string("opendir: ") + ::strerrorname_np(errno));
  while (const dirent* entry = ::readdir(stream)) names.insert(entry->d_name);
  ::closedir(stream);
  for (const std::string& name : names) {
    if (name == "." || name == "..") continue;
    const std::string below = path + "/" + name, real = root + below;
    struct stat st {};
    if (::lstat(real.c_str(), &st) != 0) {
      tell(below, std::string("lstat: ") + ::strerrorname_np(errno));
      continue;
    }
    const mode_t type = st.st_mode & S_IFMT;
    std::string line = std::to_string(type) + " nlink=" + std::to_string(st.st_nlink);
    char text[256];
    if (type == S_IFDIR) line += " mode=" + std::to_string(st.st_mode & 07777);
    if (type == S_IFLNK)
      line += " to=" + std::string(text, static_cast<std::size_t>(std::max<ssize_t>(
                                             0, ::readlink(real.c_str(), text, sizeof text))));
    if (const ssize_t n = ::lgetxattr(real.c_str(), "user.x", text, sizeof text); n >= 0)
      line += " x=" + std::string(text, static_cast<std::size_t>(n));
    tell(below, line);
    if (type == S_IFDIR) tell_real(root, below, tell);
  }
}

}  // namespace

int crash_work(const std::string& dir, const std::string& log, std::uint64_t seed) {
  ::umask(0);
  Changes changes(seed);
  const int fd = ::open(log.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, 0644);
  for (std::uint64_t n = 1;; ++n) {
    const auto change = changes.next();
    ::dprintf(fd, "begin %lu\n", static_cast<unsigned long>(n));
    if (!done_for_real(dir, change)) {
      std::printf("change %lu: %s\n", static_cast<unsigned long>(n), ::strerrorname_np(errno));
      return errno == EEXIST || errno == ENOENT ? 1 : 0;  // it died; or never was what the model says
    }
    ::dprintf(fd, "%s %lu\n", change.kind == Changes::Change::kSyncDir || change.sync ? "synced" : "done",
              static_cast<unsigned long>(n));
  }
}

int crash_check(const std::string& dir, const std::string& log, std::uint64_t seed) {
  std::uint64_t begun = 0, done = 0, synced = 0, number = 0;
  std::ifstream in(log);
  for (std::string word; in >> word >> number;) {
    if (word == "begin") begun = number;
    if (word == "done" || word == "synced") done = number;
    if (word == "synced") synced = number;
  }
  std::string real;
  tell_real(dir, "",
            [&](const std::string& path, const std::string& line) { real += path + " " + line + "\n"; });
  Changes changes(seed);
  std::string wanted;
  for (std::uint64_t n = 0; n <= begun; ++n) {
    if (n > 0) changes.next();
    if (n < synced) continue;
    wanted.clear();
    tell_model(*changes.model().root(), "",
               [&](const std::string& path, const std::string& line) { wanted += path + " " + line + "\n"; });
    if (wanted != real) continue;
    // This prefix. What was fsynced is there; what was not is a beginning of what was written.
    std::string wrong;
    std::function<void(const Node&, const std::string&)> look = [&](const Node& node,
                                                                    const std::string& path) {
      for (const auto& [name, child] : node.entries) {
        const std::string below = path + "/" + name;
        if (child->is(S_IFDIR)) look(*child, below);
        if (!child->is(S_IFREG)) continue;
        std::ifstream file(dir + below, std::ios::binary);
        const std::string bytes((std::istreambuf_iterator<char>(file)), {});
        if (file.bad() || !file.is_open()) wrong = below + " can't be read";
        if (!child->data.starts_with(bytes)) wrong = below + " has bytes that nobody wrote";
        if (changes.synced().contains(child.get()) && n <= done && bytes.size() != child->data.size())
          wrong = below + " has " + std::to_string(bytes.size()) + " of " +
                  std::to_string(child->data.size()) + " bytes that were fsynced";
      }
    };
    look(*changes.model().root(), "");
    if (!wrong.empty()) {
      std::printf("WRONG seed=%lu: %s\n", static_cast<unsigned long>(seed), wrong.c_str());
      return 1;
    }
    std::printf("crash seed=%lu: %lu of %lu changes are there, %lu were synced\n",
                static_cast<unsigned long>(seed), static_cast<unsigned long>(n),
                static_cast<unsigned long>(begun), static_cast<unsigned long>(synced));
    return 0;
  }
  std::printf(
      "WRONG seed=%lu: no prefix of the changes (%lu synced, %lu done, %lu begun) leaves this:\n%sAll "
      "leave:\n%s",
      static_cast<unsigned long>(seed), static_cast<unsigned long>(synced), static_cast<unsigned long>(done),
      static_cast<unsigned long>(begun), real.c_str(), wanted.c_str());
  return 1;
}

}  // namespace coherence
