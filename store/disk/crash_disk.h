// A disk in memory for tests: it stops at any chosen operation and loses what was not synced.
//
// Faults keep to what the engine claims to survive (README.md):
//   - a crash at any mutating operation: a write cut short there, a sync that did or did not happen;
//   - then, of the bytes written since a file's last sync, any 512-byte sector holds any version it had since
//   then;
//     a file that grew keeps a prefix of the growth (its size never covers bytes that were not written:
//     ext4's ordered mode and XFS promise that, and RocksDB's MANIFEST needs it); of the names changed since
//     a directory's last sync, a prefix of the changes is there;
//   - EIO and ENOSPC from chosen operations; a full disk.
// A sector is never torn inside, and synced bytes do not change by themselves (damage() does that on demand).
// Thread-safe.
#pragma once

#include <array>
#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "store/base/rng.h"
#include "store/disk/disk.h"

namespace cairn::disk {

class CrashDisk final : public Disk {
 public:
  enum class Operation { kWrite, kSync, kTruncate, kPunch, kNames, kSyncDir, kRead };
  enum class Loss {
    kNothing,  // the process died, the machine lives
    kAll,      // power cut: nothing unsynced reached the disk
    kSome,     // power cut: any part of it did
  };

  explicit CrashDisk(std::uint64_t seed = 1, std::uint64_t capacity_bytes = std::uint64_t{1} << 40);

  // The n-th mutating operation from now on (1: the next one) is the last one; 0: never. After it all calls
  // fail.
  void crash_at(std::uint64_t n);
  // Stops now.
  void crash();
  bool crashed() const { return crashed_; }
  std::uint64_t operations() const { return operations_; }
  // What is on the disk when the machine (or only the process: kNothing) is back. All files must be closed or
  // abandoned; old File objects fail for ever.
  void restart(Loss loss);

  // Called before each operation while set; a Code fails it without effect.
  using Fault = std::function<std::optional<Code>(Operation, const std::string& path)>;
  void set_fault(Fault fault);
  void set_capacity(std::uint64_t bytes);
  // Changes one stored byte, durably, behind everybody's back.
  void damage(const std::string& path, std::uint64_t offset);
  // Where `needle` stands in the files under `prefix`: (path, offset).
  std::optional<std::pair<std::string, std::uint64_t>> find(const std::string& prefix,
                                                            std::string_view needle);
  std::uint64_t stored_bytes();  // blocks in use

  Result<std::unique_ptr<File>> open(const std::string& path, Open mode) override;
  Result<FileStat> stat(const std::string& path) override;
  Result<std::vector<std::string>> list(const std::string& dir) override;
  Result<> make_dir(const std::string& path) override;
  Result<> remove_dir(const std::string& path) override;
  Result<> rename(const std::string& from, const std::string& to) override;
  Result<> unlink(const std::string& path) override;
  Result<> sync_dir(const std::string& dir) override;
  Result<Space> space(const std::string& path) override;
  Result<std::unique_ptr<DiskLock>> lock(const std::string& path) override;
  void pause(std::chrono::microseconds) override {}
  Result<std::string> machine_boot_id() override;

 private:
  friend class CrashFile;
  friend class CrashLock;
  static constexpr std::uint64_t kSector = 512;
  static constexpr std::uint64_t kPage = 4096;
  using Sector = std::array<char, kSector>;
  using Page = std::array<char, kPage>;
  struct Node {
    bool directory = false;
    std::uint64_t size = 0;
    std::unordered_map<std::uint64_t, std::unique_ptr<Page>> pages;
    std::map<std::uint64_t, std::vector<Sector>> unsynced;  // per sector: the synced version, then later ones
    std::vector<std::uint64_t> sizes;  // the synced size, then later ones but the present
  };
  struct NameChange {
    std::string remove;  // empty: none
    std::string add;     // empty: none
    std::shared_ptr<Node> node;
  };
  using Names = std::map<std::string, std::shared_ptr<Node>>;

  // Counts a mutating operation. Error: the disk is gone. `last`: this is the one to be cut short.
  Result<> begin(Operation operation, const std::string& path, bool& last);
  Result<> alive() const;
  void change_names(NameChange change);
  static void apply(Names& names, const NameChange& change);
  void write_bytes(Node& node, std::uint64_t offset, std::string_view bytes);
  void zero_bytes(Node& node, std::uint64_t offset, std::uint64_t length);
  void set_size(Node& node, std::uint64_t size);
  static void allocate_pages(Node& node, std::uint64_t offset, std::uint64_t length);
  void keep_version(Node& node, std::uint64_t sector);
  void settle(Node& node, Loss loss);
  static Sector read_sector(const Node& node, std::uint64_t sector);
  void write_sector(Node& node, std::uint64_t sector, const Sector& bytes);
  std::uint64_t used_bytes() const;
  bool full() const { return used_bytes() >= capacity_; }

  mutable std::mutex mutex_;
  SeededRng rng_;
  std::uint64_t capacity_;
  Names names_;
  Names synced_names_;
  std::map<std::string, std::vector<NameChange>> unsynced_names_;  // by directory
  std::set<std::string> locks_;
  Fault fault_;
  std::atomic<std::uint64_t> operations_{0};
  std::uint64_t crash_at_ = 0;
  std::atomic<bool> crashed_{false};
  std::uint64_t boot_ = 1;
  std::uint64_t incarnation_ = 1;
};

}  // namespace cairn::disk
