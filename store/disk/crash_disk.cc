#include "store/disk/crash_disk.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

namespace cairn::disk {
namespace {

std::string parent_of(const std::string& path) {
  std::size_t slash = path.rfind('/');
  return slash == std::string::npos ? std::string() : path.substr(0, slash);
}

// RocksDB writes "index/" and "index//CURRENT" too. "." is the root of this disk.
std::string normal(const std::string& path) {
  if (path == ".") return "";
  std::string result;
  for (char c : path)
    if (c != '/' || (!result.empty() && result.back() != '/')) result.push_back(c);
  if (!result.empty() && result.back() == '/') result.pop_back();
  return result;
}

std::unexpected<Error> missing(const std::string& path) {
  return fail(Code::kNotFound, path + ": no such file");
}

}  // namespace

class CrashFile final : public File {
 public:
  CrashFile(CrashDisk& disk, std::shared_ptr<CrashDisk::Node> node, std::string path)
      : disk_(disk), node_(std::move(node)), path_(std::move(path)), incarnation_(disk.incarnation_) {}

  Result<std::size_t> pread(std::uint64_t offset, MutableBytes to) override {
    std::lock_guard lock(disk_.mutex_);
    TRYV(usable());
    if (disk_.fault_)
      if (auto code = disk_.fault_(CrashDisk::Operation::kRead, path_))
        return fail(*code, path_ + ": injected");
    if (offset >= node_->size) return 0;
    std::size_t size = std::min<std::uint64_t>(to.size(), node_->size - offset);
    for (std::size_t done = 0; done < size;) {
      std::uint64_t at = offset + done;
      std::size_t part = std::min<std::uint64_t>(size - done, CrashDisk::kPage - at % CrashDisk::kPage);
      auto page = node_->pages.find(at / CrashDisk::kPage);
      if (page == node_->pages.end())
        std::memset(to.data() + done, 0, part);
      else
        std::memcpy(to.data() + done, page->second->data() + at % CrashDisk::kPage, part);
      done += part;
    }
    return size;
  }
  Result<> pwrite(std::uint64_t offset, Bytes from) override {
    std::lock_guard lock(disk_.mutex_);
    TRYV(usable());
    bool last = false;
    TRYV(disk_.begin(CrashDisk::Operation::kWrite, path_, last));
    std::string_view bytes = as_text(from);
    if (last) bytes = bytes.substr(0, disk_.rng_.below(bytes.size() + 1));
    if (disk_.full() && !bytes.empty()) return fail(Code::kNoSpace, path_ + ": no space left on device");
    disk_.write_bytes(*node_, offset, bytes);
    return last ? gone() : Result<>{};
  }
  Result<> pwritev(std::uint64_t offset, std::span<const Bytes> pieces) override {
    for (Bytes piece : pieces) {
      TRYV(pwrite(offset, piece));
      offset += piece.size();
    }
    return {};
  }
  Result<> sync() override {
    std::lock_guard lock(disk_.mutex_);
    TRYV(usable());
    bool last = false;
    TRYV(disk_.begin(CrashDisk::Operation::kSync, path_, last));
    if (!last || disk_.rng_.one_in(2)) {
      node_->unsynced.clear();
      node_->sizes.clear();
    }
    return last ? gone() : Result<>{};
  }
  Result<> truncate(std::uint64_t size) override {
    std::lock_guard lock(disk_.mutex_);
    TRYV(usable());
    bool last = false;
    TRYV(disk_.begin(CrashDisk::Operation::kTruncate, path_, last));
    disk_.set_size(*node_, size);
    return last ? gone() : Result<>{};
  }
  Result<> allocate(std::uint64_t offset, std::uint64_t length) override {
    std::lock_guard lock(disk_.mutex_);
    TRYV(usable());
    bool last = false;
    TRYV(disk_.begin(CrashDisk::Operation::kTruncate, path_, last));
    if (last) return gone();
    if (disk_.used_bytes() + length > disk_.capacity_)
      return fail(Code::kNoSpace, path_ + ": no space left on device");
    disk_.allocate_pages(*node_, offset, length);
    return {};
  }
  Result<> punch(std::uint64_t offset, std::uint64_t length) override {
    std::lock_guard lock(disk_.mutex_);
    TRYV(usable());
    bool last = false;
    TRYV(disk_.begin(CrashDisk::Operation::kPunch, path_, last));
    if (!last || disk_.rng_.one_in(2)) disk_.zero_bytes(*node_, offset, length);
    return last ? gone() : Result<>{};
  }
  Result<std::uint64_t> size() override {
    std::lock_guard lock(disk_.mutex_);
    TRYV(usable());
    return node_->size;
  }

 private:
  Result<> usable() const {
    if (incarnation_ != disk_.incarnation_) return gone();
    return disk_.alive();
  }
  static Result<> gone() { return fail(Code::kIo, "the disk is gone (simulated crash)"); }

  CrashDisk& disk_;
  std::shared_ptr<CrashDisk::Node> node_;
  std::string path_;
  std::uint64_t incarnation_;
};

class CrashLock final : public DiskLock {
 public:
  CrashLock(CrashDisk& disk, std::string path)
      : disk_(disk), path_(std::move(path)), incarnation_(disk.incarnation_) {}
  ~CrashLock() override {
    std::lock_guard lock(disk_.mutex_);
    if (incarnation_ == disk_.incarnation_) disk_.locks_.erase(path_);
  }

 private:
  CrashDisk& disk_;
  std::string path_;
  std::uint64_t incarnation_;
};

CrashDisk::CrashDisk(std::uint64_t seed, std::uint64_t capacity_bytes)
    : rng_(seed), capacity_(capacity_bytes) {
  auto root = std::make_shared<Node>();
  root->directory = true;
  names_[""] = synced_names_[""] = root;
}

void CrashDisk::crash_at(std::uint64_t n) {
  std::lock_guard lock(mutex_);
  crash_at_ = n == 0 ? 0 : operations_ + n;
}

void CrashDisk::crash() {
  crashed_ = true;
}

void CrashDisk::set_fault(Fault fault) {
  std::lock_guard lock(mutex_);
  fault_ = std::move(fault);
}

void CrashDisk::set_capacity(std::uint64_t bytes) {
  std::lock_guard lock(mutex_);
  capacity_ = bytes;
}

Result<> CrashDisk::alive() const {
  if (crashed_) return fail(Code::kIo, "the disk is gone (simulated crash)");
  return {};
}

Result<> CrashDisk::begin(Operation operation, const std::string& path, bool& last) {
  TRYV(alive());
  if (fault_)
    if (auto code = fault_(operation, path)) return fail(*code, path + ": injected");
  last = ++operations_ == crash_at_;
  if (last) crashed_ = true;
  return {};
}

void CrashDisk::restart(Loss loss) {
  std::lock_guard lock(mutex_);
  ++incarnation_;
  locks_.clear();
  crashed_ = false;
  crash_at_ = 0;
  // The kernel still has everything, but a later power cut can still lose it: recovery must not build on it.
  if (loss == Loss::kNothing) return;
  ++boot_;
  Names names = synced_names_;
  for (const auto& [dir, changes] : unsynced_names_) {
    std::size_t count = changes.size();
    if (loss == Loss::kAll) count = 0;
    if (loss == Loss::kSome) count = rng_.below(changes.size() + 1);
    for (std::size_t i = 0; i < count; ++i) apply(names, changes[i]);
  }
  std::erase_if(names, [&](const auto& entry) {
    return !entry.first.empty() && !names.contains(parent_of(entry.first));
  });
  unsynced_names_.clear();
  names_ = synced_names_ = names;
  for (const auto& [path, node] : names_) settle(*node, loss);
}

void CrashDisk::settle(Node& node, Loss loss) {
  auto unsynced = std::move(node.unsynced);
  node.unsynced.clear();
  // What a file grew by is there in order: below the size that survived, nothing is missing.
  std::uint64_t synced_size = node.sizes.empty() ? node.size : node.sizes.front();
  bool grew = std::is_sorted(node.sizes.begin(), node.sizes.end()) &&
              (node.sizes.empty() || node.sizes.back() <= node.size);
  std::uint64_t size = node.size;
  if (loss == Loss::kAll) size = synced_size;
  if (loss == Loss::kSome && !node.sizes.empty()) {
    std::size_t pick = rng_.below(node.sizes.size() + 1);
    if (pick < node.sizes.size()) size = node.sizes[pick];
    if (grew && rng_.one_in(2)) size = synced_size + rng_.below(node.size - synced_size + 1);
  }
  for (const auto& [sector, versions] : unsynced) {
    if (grew && sector * kSector >= synced_size) continue;
    std::size_t pick = loss == Loss::kAll ? 0 : rng_.below(versions.size() + 1);
    if (grew && (sector + 1) * kSector > synced_size) pick = versions.size();  // the sector it grew from
    if (pick < versions.size()) write_sector(node, sector, versions[pick]);
  }
  if (size < node.size) zero_bytes(node, size, node.size - size);
  node.size = size;
  node.unsynced.clear();
  node.sizes.clear();
}

void CrashDisk::damage(const std::string& path, std::uint64_t offset) {
  std::lock_guard lock(mutex_);
  Node& node = *names_.at(path);
  Sector sector = read_sector(node, offset / kSector);
  sector[offset % kSector] = static_cast<char>(sector[offset % kSector] ^ 0x40);
  write_sector(node, offset / kSector, sector);
}

std::optional<std::pair<std::string, std::uint64_t>> CrashDisk::find(const std::string& prefix,
                                                                     std::string_view needle) {
  std::lock_guard lock(mutex_);
  for (const auto& [path, node] : names_) {
    if (!path.starts_with(prefix) || node->directory) continue;
    std::map<std::uint64_t, const Page*> pages;
    for (const auto& [number, page] : node->pages) pages[number] = page.get();
    std::string run;
    std::uint64_t run_at = 0;
    auto search = [&]() -> std::optional<std::pair<std::string, std::uint64_t>> {
      std::size_t at = run.find(needle);
      if (at == std::string::npos) return std::nullopt;
      return std::make_pair(path, run_at * kPage + at);
    };
    std::uint64_t next = 0;
    for (const auto& [number, page] : pages) {
      if (number != next || run.empty()) {
        if (auto found = search()) return found;
        run.clear();
        run_at = number;
      }
      run.append(page->data(), kPage);
      next = number + 1;
    }
    if (auto found = search()) return found;
  }
  return std::nullopt;
}

std::uint64_t CrashDisk::stored_bytes() {
  std::lock_guard lock(mutex_);
  return used_bytes();
}

// --- bytes ---

CrashDisk::Sector CrashDisk::read_sector(const Node& node, std::uint64_t sector) {
  Sector bytes{};
  auto page = node.pages.find(sector * kSector / kPage);
  if (page != node.pages.end())
    std::memcpy(bytes.data(), page->second->data() + sector * kSector % kPage, kSector);
  return bytes;
}

void CrashDisk::write_sector(Node& node, std::uint64_t sector, const Sector& bytes) {
  std::unique_ptr<Page>& page = node.pages[sector * kSector / kPage];
  if (page == nullptr) {
    page = std::make_unique<Page>();
    page->fill(0);
  }
  std::memcpy(page->data() + sector * kSector % kPage, bytes.data(), kSector);
}

void CrashDisk::keep_version(Node& node, std::uint64_t sector) {
  node.unsynced[sector].push_back(read_sector(node, sector));
}

void CrashDisk::write_bytes(Node& node, std::uint64_t offset, std::string_view bytes) {
  std::uint64_t end = offset + bytes.size();
  if (bytes.empty()) return;
  for (std::uint64_t sector = offset / kSector; sector * kSector < end; ++sector) {
    keep_version(node, sector);
    Sector content = read_sector(node, sector);
    std::uint64_t from = std::max(offset, sector * kSector);
    std::uint64_t to = std::min(end, (sector + 1) * kSector);
    std::memcpy(content.data() + from % kSector, bytes.data() + (from - offset), to - from);
    write_sector(node, sector, content);
  }
  if (end > node.size) set_size(node, end);
}

void CrashDisk::zero_bytes(Node& node, std::uint64_t offset, std::uint64_t length) {
  std::uint64_t end = offset + length;
  for (auto it = node.pages.begin(); it != node.pages.end();) {
    std::uint64_t page_from = it->first * kPage;
    std::uint64_t from = std::max(offset, page_from);
    std::uint64_t to = std::min(end, page_from + kPage);
    if (from >= to) {
      ++it;
      continue;
    }
    for (std::uint64_t sector = from / kSector; sector * kSector < to; ++sector) keep_version(node, sector);
    if (to - from == kPage) {
      it = node.pages.erase(it);
    } else {
      std::memset(it->second->data() + (from - page_from), 0, to - from);
      ++it;
    }
  }
}

void CrashDisk::allocate_pages(Node& node, std::uint64_t offset, std::uint64_t length) {
  for (std::uint64_t page = offset / kPage; page * kPage < offset + length; ++page) {
    std::unique_ptr<Page>& slot = node.pages[page];
    if (slot == nullptr) slot = std::make_unique<Page>(Page{});
  }
}

void CrashDisk::set_size(Node& node, std::uint64_t size) {
  node.sizes.push_back(node.size);
  if (size < node.size) zero_bytes(node, size, node.size - size);
  std::erase_if(node.pages, [&](const auto& page) { return page.first * kPage >= size; });
  node.size = size;
}

std::uint64_t CrashDisk::used_bytes() const {
  std::uint64_t pages = 0;
  for (const auto& [path, node] : names_) pages += node->pages.size();
  return pages * kPage;
}

// --- names ---

void CrashDisk::apply(Names& names, const NameChange& change) {
  if (!change.remove.empty()) names.erase(change.remove);
  if (!change.add.empty()) names[change.add] = change.node;
}

void CrashDisk::change_names(NameChange change) {
  apply(names_, change);
  unsynced_names_[parent_of(change.add.empty() ? change.remove : change.add)].push_back(std::move(change));
}

Result<std::unique_ptr<File>> CrashDisk::open(const std::string& raw_path, Open mode) {
  const std::string path = normal(raw_path);
  std::lock_guard lock(mutex_);
  TRYV(alive());
  auto found = names_.find(path);
  if (found == names_.end()) {
    if (mode == Open::kRead || !names_.contains(parent_of(path))) return missing(path);
    bool last = false;
    TRYV(begin(Operation::kNames, path, last));
    change_names({"", path, std::make_shared<Node>()});
    if (last) return fail(Code::kIo, "the disk is gone (simulated crash)");
    found = names_.find(path);
  } else if (found->second->directory) {
    return fail(Code::kIo, path + ": is a directory");
  } else if (mode == Open::kEmpty && found->second->size > 0) {
    bool last = false;
    TRYV(begin(Operation::kTruncate, path, last));
    set_size(*found->second, 0);
    if (last) return fail(Code::kIo, "the disk is gone (simulated crash)");
  }
  return std::make_unique<CrashFile>(*this, found->second, path);
}

Result<FileStat> CrashDisk::stat(const std::string& raw_path) {
  const std::string path = normal(raw_path);
  std::lock_guard lock(mutex_);
  TRYV(alive());
  auto found = names_.find(path);
  if (found == names_.end()) return missing(path);
  return FileStat{found->second->size, 1'700'000'000, found->second->directory};
}

Result<std::vector<std::string>> CrashDisk::list(const std::string& raw_dir) {
  const std::string dir = normal(raw_dir);
  std::lock_guard lock(mutex_);
  TRYV(alive());
  if (!names_.contains(dir)) return missing(dir);
  std::vector<std::string> result;
  for (const auto& [path, node] : names_)
    if (!path.empty() && parent_of(path) == dir)
      result.push_back(path.substr(dir.empty() ? 0 : dir.size() + 1));
  std::sort(result.begin(), result.end());
  return result;
}

Result<> CrashDisk::make_dir(const std::string& raw_path) {
  const std::string path = normal(raw_path);
  std::lock_guard lock(mutex_);
  TRYV(alive());
  if (names_.contains(path)) return {};
  if (!names_.contains(parent_of(path))) return missing(parent_of(path));
  bool last = false;
  TRYV(begin(Operation::kNames, path, last));
  auto node = std::make_shared<Node>();
  node->directory = true;
  change_names({"", path, node});
  return last ? Result<>(fail(Code::kIo, "the disk is gone (simulated crash)")) : Result<>{};
}

Result<> CrashDisk::remove_dir(const std::string& path) {
  return unlink(path);
}

Result<> CrashDisk::rename(const std::string& raw_from, const std::string& raw_to) {
  const std::string from = normal(raw_from);
  const std::string to = normal(raw_to);
  std::lock_guard lock(mutex_);
  TRYV(alive());
  auto found = names_.find(from);
  if (found == names_.end()) return missing(from);
  if (parent_of(from) != parent_of(to)) return fail(Code::kUnimplemented, "rename between directories");
  bool last = false;
  TRYV(begin(Operation::kNames, from, last));
  if (!last || rng_.one_in(2)) change_names({from, to, found->second});
  return last ? Result<>(fail(Code::kIo, "the disk is gone (simulated crash)")) : Result<>{};
}

Result<> CrashDisk::unlink(const std::string& raw_path) {
  const std::string path = normal(raw_path);
  std::lock_guard lock(mutex_);
  TRYV(alive());
  auto found = names_.find(path);
  if (found == names_.end()) return missing(path);
  bool last = false;
  TRYV(begin(Operation::kNames, path, last));
  if (!last || rng_.one_in(2)) {
    change_names({path, "", nullptr});
  }
  return last ? Result<>(fail(Code::kIo, "the disk is gone (simulated crash)")) : Result<>{};
}

Result<> CrashDisk::sync_dir(const std::string& raw_dir) {
  const std::string dir = normal(raw_dir);
  std::lock_guard lock(mutex_);
  bool last = false;
  TRYV(begin(Operation::kSyncDir, dir, last));
  if (!last || rng_.one_in(2)) {
    for (const NameChange& change : unsynced_names_[dir]) apply(synced_names_, change);
    unsynced_names_.erase(dir);
  }
  return last ? Result<>(fail(Code::kIo, "the disk is gone (simulated crash)")) : Result<>{};
}

Result<Space> CrashDisk::space(const std::string&) {
  std::lock_guard lock(mutex_);
  TRYV(alive());
  std::uint64_t used = used_bytes();
  return Space{capacity_, capacity_ > used ? capacity_ - used : 0};
}

Result<std::unique_ptr<DiskLock>> CrashDisk::lock(const std::string& raw_path) {
  const std::string path = normal(raw_path);
  std::lock_guard lock(mutex_);
  TRYV(alive());
  if (!locks_.insert(path).second) return fail(Code::kLocked, path + " is held by process 4711");
  return std::make_unique<CrashLock>(*this, path);
}

Result<std::string> CrashDisk::machine_boot_id() {
  std::lock_guard lock(mutex_);
  return fmt::format("boot-{}", boot_);
}

}  // namespace cairn::disk
