// Seeded random writes, reads and syncs while servers die, come back, and all lose power, against a model of
// each chunk that knows what was acknowledged. Nothing acknowledged is lost while one in-sync member
// survives; after a power cut of all nothing durable is. Threads make the interleaving differ between runs;
// the seed fixes what is done.
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "chunkserver/test_cluster.h"

namespace cairn::chunkserver {
namespace {

constexpr std::size_t kContentMax = 90'000;

// What a chunk may hold: one content, unless power was cut.
struct ModelChunk {
  ChunkId id;
  std::vector<std::optional<std::string>> since_synced{std::nullopt};  // the newest last; nullopt: no chunk
  Version newest;
};

struct Step {
  WriteSpec spec;
  std::string bytes;
};

Step random_step(TestClient& client, const ModelChunk& chunk, Rng& rng) {
  Step step;
  const bool exists = chunk.since_synced.back().has_value();
  WriteKind kind = WriteKind::kWrite;
  const std::uint64_t dice = rng.below(12);
  if (dice == 0) kind = WriteKind::kFresh;
  if (dice == 1 && exists) kind = WriteKind::kTruncate;
  if (dice == 2 && exists) kind = WriteKind::kPunch;
  if (dice == 3 && exists) kind = WriteKind::kRemove;
  step.spec = client.spec(chunk.id, kind);
  if (carries_bytes(kind) || kind == WriteKind::kPunch)
    step.spec.offset = static_cast<std::uint32_t>(rng.below(kContentMax / 2));
  if (carries_bytes(kind) && rng.one_in(2)) step.spec.offset = step.spec.offset / kBlockSize * kBlockSize;
  step.spec.length = static_cast<std::uint32_t>(rng.below(kContentMax / 2));
  step.spec.durable = rng.one_in(4);
  if (carries_bytes(kind))
    step.bytes = pattern(1 + rng.below(rng.one_in(2) ? 200 : kContentMax / 2), rng.next());
  return step;
}

std::optional<std::string> after(const std::optional<std::string>& content, const Step& step) {
  if (step.spec.kind == WriteKind::kRemove) return std::nullopt;
  return apply_to_bytes(content.value_or(""), step.spec, as_bytes(step.bytes));
}

class Worker {
 public:
  Worker(TestCluster& cluster, std::uint64_t seed, std::uint32_t slots)
      : seed_(seed), rng_(seed), client_(cluster.client(1000 + seed)) {
    for (std::uint32_t i = 0; i < 6; ++i)
      chunks_.push_back({cluster.chunk_in(i % slots, static_cast<std::uint32_t>(seed % 100) * 10 + i)});
  }

  // One random operation, carried out until its outcome is known. False after a failure (reported).
  bool step() {
    ModelChunk& chunk = chunks_[rng_.below(chunks_.size())];
    const std::uint64_t dice = rng_.below(10);
    if (dice < 3) return read(chunk);
    if (dice == 3 && chunk.newest.valid()) return sync(chunk);
    const Step step = random_step(*client_, chunk, rng_);
    auto written = client_->write(step.spec, step.bytes, std::chrono::seconds(40));
    if (!written) return report("write", chunk, written.error().to_string());
    chunk.since_synced.push_back(after(chunk.since_synced.back(), step));
    chunk.newest = written->version;
    if (step.spec.durable) keep_newest(chunk);
    return true;
  }

  // After all servers lost power: what is there now must be a state since the last durable one.
  bool settle() {
    for (ModelChunk& chunk : chunks_) {
      auto content = content_of(chunk);
      if (!content) return report("read after power cut", chunk, content.error().to_string());
      if (std::ranges::find(chunk.since_synced, *content) == chunk.since_synced.end())
        return report("read after power cut", chunk, "not a state that it may have");
      chunk.since_synced = {*content};
    }
    return true;
  }
  bool check() {
    for (ModelChunk& chunk : chunks_)
      if (!read(chunk)) return false;
    return true;
  }
  const std::vector<ModelChunk>& chunks() const { return chunks_; }

 private:
  Result<std::optional<std::string>> content_of(const ModelChunk& chunk) {
    auto read = client_->read(chunk.id, std::chrono::seconds(40));
    if (read) return std::optional<std::string>(std::move(*read));
    if (read.error().code() == Code::kNotFound) return std::optional<std::string>();
    return fail(read.error());
  }
  bool read(ModelChunk& chunk) {
    auto content = content_of(chunk);
    if (!content) return report("read", chunk, content.error().to_string());
    if (*content == chunk.since_synced.back()) return true;
    return report("read", chunk, "another content than acknowledged");
  }
  bool sync(ModelChunk& chunk) {
    auto synced = client_->sync(chunk.id, chunk.newest, std::chrono::seconds(40));
    if (synced) {
      keep_newest(chunk);
      return true;
    }
    // After a power cut the newest may have been lost; settle() knows what is there.
    if (synced.error().code() == Code::kLostUnsynced && lost_allowed_) return true;
    return report("sync", chunk, synced.error().to_string());
  }
  static void keep_newest(ModelChunk& chunk) {
    chunk.since_synced.erase(chunk.since_synced.begin(), chunk.since_synced.end() - 1);
  }
  bool report(const char* what, const ModelChunk& chunk, const std::string& why) {
    ADD_FAILURE() << what << " chunk " << to_string(chunk.id) << " seed " << seed_ << ": " << why;
    return false;
  }

 public:
  bool lost_allowed_ = false;

 private:
  const std::uint64_t seed_;
  SeededRng rng_;
  std::unique_ptr<TestClient> client_;
  std::vector<ModelChunk> chunks_;
};

void compare_members(TestCluster& cluster, std::uint32_t slots,
                     const std::vector<std::unique_ptr<Worker>>& workers) {
  for (std::uint32_t slot = 0; slot < slots; ++slot) {
    const GroupConfig group = cluster.meta().group(slot);
    for (const auto& worker : workers)
      for (const ModelChunk& chunk : worker->chunks()) {
        if (slot_of(placement_hash(chunk.id), slots) != slot) continue;
        const auto first = cluster.disk(cluster.index_of(group.members[0].target));
        for (const auto& member : group.members) {
          const auto disk = cluster.disk(cluster.index_of(member.target));
          EXPECT_EQ(disk->content(FakeMeta::kPool, chunk.id), first->content(FakeMeta::kPool, chunk.id));
        }
      }
  }
}

void run_chaos(std::uint64_t seed, std::size_t replicas, std::uint8_t min_replicas, int rounds) {
  constexpr std::uint32_t kSlots = 4;
  TestCluster cluster(
      {.servers = replicas + 1, .replicas = replicas, .slots = kSlots, .min_replicas = min_replicas});
  ASSERT_TRUE(cluster.wait_whole());
  SeededRng rng(seed);
  std::vector<std::unique_ptr<Worker>> workers;
  for (std::uint64_t w = 0; w < 3; ++w)
    workers.push_back(std::make_unique<Worker>(cluster, seed * 10 + w, kSlots));
  for (int round = 0; round < rounds; ++round) {
    std::atomic<bool> stop{false};
    std::atomic<std::uint64_t> steps{0};
    std::vector<std::thread> threads;
    for (auto& worker : workers)
      threads.emplace_back([&, worker = worker.get()] {
        while (!stop && worker->step()) ++steps;
      });
    auto progress = [&](std::uint64_t n) {
      const std::uint64_t from = steps;
      return eventually([&] { return steps >= from + n || ::testing::Test::HasFailure(); });
    };
    EXPECT_TRUE(progress(20));
    // One server at a time, so that each group keeps a member (replicas >= 2).
    const std::size_t victim = rng.below(cluster.size());
    cluster.crash(victim);
    // With fewer members than are needed writes wait for the member to come back.
    if (min_replicas < replicas) {
      EXPECT_TRUE(progress(10 + rng.below(30)));
    }
    cluster.start(victim);
    EXPECT_TRUE(progress(10));
    EXPECT_TRUE(cluster.wait_whole());
    stop = true;
    for (auto& thread : threads) thread.join();
    for (auto& worker : workers) EXPECT_TRUE(worker->check());
    compare_members(cluster, kSlots, workers);
    if (::testing::Test::HasFailure()) return;

    if (round % 2 == 0) continue;
    for (std::size_t i = 0; i < cluster.size(); ++i) cluster.vanish(i);
    for (std::size_t i = 0; i < cluster.size(); ++i) cluster.disk(i)->power_cut(rng);
    cluster.meta().all_died();
    for (std::size_t i = 0; i < cluster.size(); ++i) cluster.start(i);
    EXPECT_TRUE(cluster.wait_whole());
    for (auto& worker : workers) {
      worker->lost_allowed_ = true;
      EXPECT_TRUE(worker->settle());
    }
    compare_members(cluster, kSlots, workers);
    if (::testing::Test::HasFailure()) return;
  }
}

TEST(Chaos, TwoReplicas) {
  run_chaos(1, 2, 1, 4);
}
TEST(Chaos, TwoReplicasBothNeeded) {
  run_chaos(2, 2, 2, 4);
}
TEST(Chaos, ThreeReplicas) {
  run_chaos(3, 3, 2, 4);
}

}  // namespace
}  // namespace cairn::chunkserver
