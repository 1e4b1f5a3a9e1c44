#include "meta/trash_keeper.h"

#include <gtest/gtest.h>

#include <thread>

#include "meta/service_testing.h"
#include "store/base/log.h"

namespace cairn::meta {
namespace {

using namespace std::chrono_literals;
using testing::Running;
using testing::TestClient;
using testing::TestServer;

// Purges are done when the test says so.
class SlowPurges final : public testing::FakeCluster {
 public:
  explicit SlowPurges(rpc::Runtime& runtime) : done_(runtime) {}
  rpc::Task<Result<bool>> purged(Deadline deadline) override {
    ++waiting_;
    auto done = co_await done_.wait(deadline);
    if (!done) co_return std::unexpected(std::move(done.error()));
    co_return true;
  }
  SpaceInfo space() const override {
    ++looked_;
    return FakeCluster::space();
  }
  unsigned looked() const { return looked_; }    // for space
  unsigned waiting() const { return waiting_; }  // or have waited
  void finish() { done_.set(); }

 private:
  rpc::Event done_;
  std::atomic<unsigned> waiting_{0};
  mutable std::atomic<unsigned> looked_{0};
};

class TrashKeeperTest : public ::testing::Test {
 protected:
  static constexpr std::uint64_t kFile = 4000;

  TrashKeeperTest() : runtime_(clock_, 2, "test"), cluster_(runtime_) {
    log_set_level(LogLevel::kError);
    testing::TestLimits limits;
    limits.retention = 100h;
    limits.lease = 100h;
    server_ =
        std::make_unique<TestServer>(runtime_, clock_, transport_, MapKvStore::Content{}, "boot", limits);
    client_ = std::make_unique<TestClient>(runtime_, clock_, transport_);
    client_->open_session();
    keeper_ = std::make_unique<TrashKeeper>(runtime_, cluster_, server_->arbiter,
                                            [this](const Counters& all) { server_->counters.publish(all); });
  }
  ~TrashKeeperTest() override {
    client_.reset();
    server_.reset();
    runtime_.stop();
  }
  void delete_files(int count) {
    for (int i = 0; i < count; ++i) {
      const std::string name = "f" + std::to_string(i);
      const auto made = client_->make(name, S_IFREG | 0644, true);
      ASSERT_TRUE(made);
      ASSERT_EQ(client_->report(made->inode, made->generation, kFile, schema::LeaseKind::NONE, 1), Code::kOk);
      ASSERT_TRUE(client_->mutate<rpc::method::Remove>([&](schema::RemoveRequest::Builder body) {
        body.setParent(1);
        body.setName(rpc::data(name));
      }));
    }
  }
  Running<Result<bool>> reclaim(Duration patience) {
    return {runtime_, keeper_->reclaim(1, Deadline::after(clock_, patience))};
  }
  std::uint64_t kept() const { return server_->counters.trash_files.load(); }
  template <class Condition>
  void eventually(Condition condition) {
    for (int i = 0; i < 20'000 && !condition(); ++i) std::this_thread::sleep_for(1ms);
    ASSERT_TRUE(condition());
  }

  testing::TestClock clock_;
  rpc::Runtime runtime_;
  rpc::MemoryTransport transport_;
  SlowPurges cluster_;
  std::unique_ptr<TestServer> server_;
  std::unique_ptr<TestClient> client_;
  std::unique_ptr<TrashKeeper> keeper_;
};

// All who waited were told that there was nothing, and their writers failed.
TEST_F(TrashKeeperTest, OneWithoutPatienceDoesNotSpoilItForOthers) {
  cluster_.set_space({});
  delete_files(2);
  auto first = reclaim(5s);
  eventually([&] { return cluster_.waiting() == 1; });
  EXPECT_EQ(kept(), 1u);
  auto second = reclaim(10min), third = reclaim(10min);
  clock_.advance(6s);
  auto over = first.get();
  ASSERT_FALSE(over);
  EXPECT_EQ(over.error().code(), Code::kTimeout);
  eventually([&] { return cluster_.waiting() == 2; });
  cluster_.finish();
  auto freed = second.get(), freed_too = third.get();
  ASSERT_TRUE(freed);
  ASSERT_TRUE(freed_too);
  EXPECT_TRUE(*freed);
  EXPECT_TRUE(*freed_too);
}

TEST_F(TrashKeeperTest, NothingIsGivenUpBeforeEarlierPurgesAreDoneOrForOneFullServer) {
  SpaceInfo space{1'000'000, 10'000, true};
  cluster_.set_space(space);
  delete_files(3);
  rpc::TaskGroup tasks(runtime_);
  tasks.spawn(runtime_.executor(), keeper_->run());
  eventually([&] {
    clock_.advance(1s);
    return cluster_.looked() >= 3;
  });
  EXPECT_EQ(kept(), 3u) << "one server is nearly full";
  EXPECT_EQ(cluster_.waiting(), 0u);
  space.scarce = true;
  cluster_.set_space(space);
  eventually([&] {
    clock_.advance(1s);
    return cluster_.waiting() >= 3;  // rounds that gave up waiting
  });
  EXPECT_EQ(kept(), 3u) << "earlier purges are not done";
  cluster_.finish();
  eventually([&] {
    clock_.advance(1s);
    return kept() == 0;
  });
  tasks.close_blocking();
}

}  // namespace
}  // namespace cairn::meta
