#include "client/objects.h"

#include <gtest/gtest.h>

#include "client/fake_cluster.h"
#include "store/base/rng.h"

namespace cairn::client {
namespace {

std::string random_bytes(std::uint64_t seed, std::size_t size) {
  SeededRng rng(seed);
  std::string out(size, '\0');
  for (auto& c : out) c = static_cast<char>(rng.next());
  return out;
}

TEST(Objects, PutAndGetOfAllSizes) {
  FakeCluster cluster;
  auto client = cluster.connect();
  Objects& objects = client->objects();
  for (std::size_t size : {0, 1, 1000, 16384, 262144, 262145, 1'500'000}) {
    const std::string bytes = random_bytes(size, size), id = "o" + std::to_string(size);
    auto put = objects.put(id, as_bytes(bytes));
    ASSERT_TRUE(put) << put.error().to_string();
    EXPECT_EQ(put->size, size);
    EXPECT_EQ(put->digest, digest_of(as_bytes(bytes)));
    EXPECT_EQ(objects.get(id), bytes);
  }
  EXPECT_EQ(cluster.unsynced_chunks(), 0u) << "a sealed object is synced";
  EXPECT_EQ(objects.get_range("o1500000", 262'000, 300),
            random_bytes(1'500'000, 1'500'000).substr(262'000, 300));
  EXPECT_EQ(objects.get_range("o1000", 990, 100), random_bytes(1000, 1000).substr(990));
  EXPECT_EQ(objects.get("none").error().code(), Code::kNotFound);
}

TEST(Objects, StreamsOfUnknownLength) {
  FakeCluster cluster;
  auto client = cluster.connect();
  const std::string bytes = random_bytes(9, 3'000'000);
  std::size_t at = 0;
  SeededRng rng(4);
  std::uint64_t reported = 0;
  PutOptions options;
  options.progress = [&](std::uint64_t done, std::uint64_t) { reported = done; };
  auto put = client->objects().put(
      "stream",
      [&](MutableBytes into) -> Result<std::size_t> {
        const std::size_t n = std::min({into.size(), bytes.size() - at, std::size_t{1 + rng.below(70'000)}});
        std::memcpy(into.data(), bytes.data() + at, n);
        at += n;
        return n;
      },
      0, options);
  ASSERT_TRUE(put) << put.error().to_string();
  EXPECT_EQ(reported, bytes.size());
  std::string back;
  auto got = client->objects().get("stream", [&](Bytes piece) -> Result<> {
    back += as_text(piece);
    return {};
  });
  ASSERT_TRUE(got) << got.error().to_string();
  EXPECT_EQ(back, bytes);
}

TEST(Objects, AFailingSourceOrSinkEndsTheCall) {
  FakeCluster cluster;
  auto client = cluster.connect();
  auto put = client->objects().put(
      "x", [](MutableBytes) -> Result<std::size_t> { return fail(Code::kIo, "disk"); }, 10);
  EXPECT_EQ(put.error().code(), Code::kIo);
  EXPECT_EQ(client->objects().stat("x").error().code(), Code::kNotFound);
  ASSERT_TRUE(client->objects().put("y", as_bytes(std::string(600'000, 'y'))));
  auto got = client->objects().get("y", [](Bytes) -> Result<> { return fail(Code::kIo, "pipe"); });
  EXPECT_EQ(got.error().code(), Code::kIo);
}

TEST(Objects, SameBytesAgainSucceedOthersConflict) {
  FakeCluster cluster;
  auto client = cluster.connect();
  ASSERT_TRUE(client->objects().put("a", as_bytes("one")));
  EXPECT_TRUE(client->objects().put("a", as_bytes("one")));
  EXPECT_EQ(client->objects().put("a", as_bytes("two")).error().code(), Code::kConflict);
  EXPECT_EQ(client->objects().get("a"), "one");
}

TEST(Objects, ListsRemovesAndWaits) {
  FakeCluster cluster;
  auto client = cluster.connect();
  for (const char* id : {"p/a", "p/b", "p/c", "q"}) ASSERT_TRUE(client->objects().put(id, as_bytes(id)));
  auto page = client->objects().list("p/", "p/a", 1);
  ASSERT_TRUE(page);
  ASSERT_EQ(page->objects.size(), 1u);
  EXPECT_EQ(page->objects[0].id, "p/b");
  EXPECT_FALSE(page->done);
  const std::vector<std::string> ids{"p/a", "later"};
  EXPECT_EQ(client->objects().wait(ids, 1, std::chrono::milliseconds(100)), (std::vector<bool>{true, false}));
  EXPECT_EQ(client->objects().wait(ids, 0, std::chrono::milliseconds(50)).error().code(), Code::kTimeout);
  EXPECT_TRUE(client->objects().remove("q"));
  EXPECT_EQ(client->objects().remove("q").error().code(), Code::kNotFound);
}

// A lost reply of any request of a put or get is repaired by repeating it, and nothing happens twice (the
// fake checks the order of sequences).
TEST(Objects, EveryReplyMayBeLostOnce) {
  FakeCluster cluster;
  auto client = cluster.connect();
  const std::string bytes = random_bytes(2, 700'000);
  for (std::uint16_t method :
       {rpc::method::CreateObject::kNumber, rpc::method::Write::kNumber, rpc::method::Seal::kNumber,
        rpc::method::GetObjects::kNumber, rpc::method::Read::kNumber}) {
    for (Fault fault : {Fault::kLoseReply, Fault::kLoseRequest, Fault::kUnavailable}) {
      auto left = std::make_shared<std::atomic<int>>(1);
      cluster.on_request(
          [=](int, std::uint16_t asked) { return asked == method && (*left)-- > 0 ? fault : Fault::kNone; });
      const std::string id = "m" + std::to_string(method) + "f" + std::to_string(static_cast<int>(fault));
      auto put = client->objects().put(id, as_bytes(bytes));
      ASSERT_TRUE(put) << id << ": " << put.error().to_string();
      EXPECT_EQ(client->objects().get(id), bytes) << id;
    }
  }
}

TEST(Objects, ASessionThatEndsDuringAPutCostsOnlyAnotherTry) {
  FakeCluster cluster;
  auto client = cluster.connect();
  auto once = std::make_shared<std::atomic<bool>>(true);
  cluster.on_request([&, once](int, std::uint16_t method) {
    if (method == rpc::method::Seal::kNumber && once->exchange(false)) cluster.end_session(client->session());
    return Fault::kNone;
  });
  auto put = client->objects().put("s", as_bytes("bytes"));
  ASSERT_TRUE(put) << put.error().to_string();
  EXPECT_EQ(client->objects().get("s"), "bytes");
}

TEST(Objects, ReadsFallOverToAnotherMember) {
  FakeCluster cluster;
  auto client = cluster.connect();
  const std::string bytes = random_bytes(2, 1'000'000);
  ASSERT_TRUE(client->objects().put("a", as_bytes(bytes)));
  cluster.corrupt(0);
  EXPECT_EQ(client->objects().get("a"), bytes) << "one member is corrupt";
  cluster.wipe(0);
  EXPECT_EQ(client->objects().get("a"), bytes) << "one member lost its chunks";
  cluster.transport().cut(cluster.server_address(1));
  cluster.transport().heal(cluster.server_address(1));
  EXPECT_EQ(client->objects().get("a"), bytes) << "a connection broke";
  cluster.new_epoch(0);
  EXPECT_EQ(client->objects().get("a"), bytes) << "a new epoch without a member";
  cluster.corrupt(1);
  cluster.corrupt(2);
  EXPECT_EQ(client->objects().get("a").error().code(), Code::kCorrupt) << "no good copy is left";
}

}  // namespace
}  // namespace cairn::client
