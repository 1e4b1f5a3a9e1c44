#include "fuse/invalidation.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cerrno>
#include <future>
#include <thread>

#include "store/base/log.h"

namespace cairn::fuse {
namespace {

// Records what it is told; drop_entry("stuck") and drop_inode(13, data) wait until let_go().
class FakeKernel final : public KernelNotifier {
 public:
  int drop_inode(InodeId inode, bool data) override {
    if (data && inode == InodeId(13)) freed_.wait();
    note("inode " + std::to_string(inode.value()) + (data ? " data" : ""));
    return -ENOENT;  // "not cached": not an error
  }
  int drop_entry(InodeId parent, const std::string& name) override {
    if (name == "stuck") {
      ++stuck_;
      freed_.wait();
    }
    note("entry " + std::to_string(parent.value()) + " " + name);
    return 0;
  }
  int distrust_all_entries() override {
    ++distrusted_;
    return old_ ? -EINVAL : 0;
  }
  int prune(const std::vector<InodeId>& inodes) override {
    note("prune " + std::to_string(inodes.size()));
    return prune_answer_;
  }
  void let_go() { free_.set_value(); }
  std::vector<std::string> told() {
    std::lock_guard lock(mutex_);
    return told_;
  }
  std::atomic<int> stuck_{0}, distrusted_{0};
  int prune_answer_ = 0;
  std::atomic<bool> old_{false};  // knows no FUSE_NOTIFY_INC_EPOCH

 private:
  void note(std::string what) {
    std::lock_guard lock(mutex_);
    told_.push_back(std::move(what));
  }
  std::mutex mutex_;
  std::vector<std::string> told_;
  std::promise<void> free_;
  std::shared_future<void> freed_{free_.get_future()};
};

constexpr auto kLong = std::chrono::minutes(5);  // never passes

TEST(Invalidation, ReturnsWhenTheKernelHasDroppedIt) {
  FakeKernel kernel;
  Invalidation invalidation(kernel, {.patience = kLong});
  invalidation.invalidate_inode(InodeId(5), true, [] {});
  EXPECT_EQ(kernel.told(), std::vector<std::string>{"inode 5 data"});
  invalidation.invalidate_inode(InodeId(6), false, [] {});
  invalidation.invalidate_entry(InodeId(1), "x");
  EXPECT_EQ(kernel.told().size(), 3u);
  EXPECT_EQ(kernel.told().back(), "entry 1 x");
  EXPECT_EQ(invalidation.given_up(), 0u);
}

TEST(Invalidation, AKernelThatCannotPruneIsAskedOnce) {
  FakeKernel kernel;
  Invalidation invalidation(kernel, {});
  invalidation.release_inodes({InodeId(5), InodeId(6)});
  EXPECT_EQ(kernel.told(), std::vector<std::string>{"prune 2"});
  kernel.prune_answer_ = -EINVAL;
  invalidation.release_inodes({InodeId(7)});
  invalidation.release_inodes({InodeId(8)});
  EXPECT_EQ(kernel.told().size(), 2u);
}

// The kernel waits for a lock that a local operation holds, which waits for us: the caller goes on, all names
// are distrusted instead, and others are still told. Further names of that directory wait for nothing.
TEST(Invalidation, StuckNotificationHoldsNobodyUp) {
  FakeKernel kernel;
  Invalidation invalidation(kernel, {.patience = std::chrono::milliseconds(50)});
  invalidation.invalidate_entry(InodeId(1), "stuck");
  EXPECT_EQ(kernel.distrusted_, 1);
  EXPECT_EQ(invalidation.given_up(), 1u);
  for (int i = 0; i < 100; ++i) invalidation.invalidate_entry(InodeId(1), "beside");
  EXPECT_EQ(kernel.distrusted_, 101);
  EXPECT_EQ(invalidation.given_up(), 1u);
  invalidation.invalidate_entry(InodeId(2), "elsewhere");
  while (kernel.told().empty()) std::this_thread::yield();
  kernel.let_go();
}

// A page is locked by a write that waits for us: attributes are dropped first, so that read(2) asks.
TEST(Invalidation, StuckPagesHoldNobodyUp) {
  FakeKernel kernel;
  Invalidation invalidation(kernel, {.patience = std::chrono::milliseconds(20)});
  std::atomic<bool> dropped{false};
  invalidation.invalidate_inode(InodeId(13), true, [&] { dropped = true; });
  EXPECT_FALSE(dropped);
  EXPECT_EQ(kernel.told(), std::vector<std::string>{"inode 13"});
  EXPECT_EQ(invalidation.given_up(), 1u);
  EXPECT_EQ(kernel.distrusted_, 0);
  kernel.let_go();
  while (!dropped) std::this_thread::yield();
  EXPECT_EQ(kernel.told().back(), "inode 13 data");
}

// Kernels that can't distrust names: the caller waits longer.
TEST(Invalidation, OldKernelsAreWaitedFor) {
  log_set_level(LogLevel::kError);
  FakeKernel kernel;
  kernel.old_ = true;
  Invalidation invalidation(kernel, {.patience = std::chrono::milliseconds(5), .patience_max = kLong});
  std::thread frees([&] {
    while (kernel.distrusted_ == 0) std::this_thread::yield();
    kernel.let_go();
  });
  invalidation.invalidate_entry(InodeId(1), "stuck");
  EXPECT_EQ(kernel.told(), std::vector<std::string>{"entry 1 stuck"});
  invalidation.invalidate_entry(InodeId(1), "x");
  EXPECT_EQ(kernel.told().back(), "entry 1 x");
  EXPECT_EQ(kernel.distrusted_, 1);
  frees.join();
}

TEST(Invalidation, FullQueueBlocksWithinPatience) {
  FakeKernel kernel;
  {
    Invalidation invalidation(kernel,
                              {.queue_max = 1, .patience = std::chrono::milliseconds(30), .workers = 1});
    for (unsigned i = 1; i <= 4; ++i) invalidation.invalidate_entry(InodeId(i), "stuck");
    EXPECT_EQ(invalidation.given_up(), 4u);
    EXPECT_EQ(kernel.distrusted_, 4);
    kernel.let_go();
    while (kernel.told().size() < 4) std::this_thread::yield();  // told late, but told
    invalidation.invalidate_inode(InodeId(9), false, [] {});
    EXPECT_EQ(kernel.told().back(), "inode 9");
  }
}

}  // namespace
}  // namespace cairn::fuse
