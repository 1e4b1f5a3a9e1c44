// Test support: several chunkservers on memory disks, a fake metadata server and a small client, in one
// process over a MemoryTransport. Not thread-safe, except TestClient where it says so.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "chunkserver/chunkserver.h"
#include "chunkserver/fake_meta.h"
#include "chunkserver/memory_engine.h"

namespace cairn::chunkserver {

// Waits until `done()`, at most 20 s of real time. False: it never was.
bool eventually(const std::function<bool()>& done);

// A session. Thread-safe if each chunk is used by one thread.
class TestClient {
 public:
  TestClient(rpc::Runtime& runtime, rpc::Transport& transport, FakeMeta& meta, SessionId session,
             std::uint32_t slots);
  ~TestClient();

  struct Written {
    Version version;
    Digest digest;
    std::uint32_t length = 0;
  };
  // One attempt, at the head by the present routing table, or at `at`.
  Result<Written> write_once(const WriteSpec& spec, const std::string& bytes, Duration timeout,
                             std::optional<TargetId> at = std::nullopt);
  // As the predecessor in the chain: `spec` has its version and base.
  Result<Written> hop(const WriteSpec& spec, const std::string& bytes, TargetId at);
  // As a real client: the same request again until it is answered for sure. Errors that cannot pass, or
  // kTimeout.
  Result<Written> write(WriteSpec spec, const std::string& bytes,
                        Duration timeout = std::chrono::seconds(20));
  Result<std::string> read_once(ChunkId chunk, TargetId at, Duration timeout, std::uint32_t offset = 0,
                                std::uint32_t length = UINT32_MAX);
  // Any in-sync member; goes on to others as the errors say.
  Result<std::string> read(ChunkId chunk, Duration timeout = std::chrono::seconds(20));
  Result<> sync(ChunkId chunk, Version version, Duration timeout = std::chrono::seconds(20));

  WriteSpec spec(ChunkId chunk, WriteKind kind = WriteKind::kWrite);  // with the next sequence
  std::uint32_t slot(const ChunkId& chunk) const { return slot_of(placement_hash(chunk), slots_); }

 private:
  std::shared_ptr<rpc::Channel> channel(const std::string& address);
  Result<Written> send(std::uint16_t method, WriteSpec spec, const std::string& bytes, Duration timeout,
                       TargetId at);

  rpc::Runtime& runtime_;
  rpc::Transport& transport_;
  FakeMeta& meta_;
  const SessionId session_;
  const std::uint32_t slots_;
  rpc::Identity identity_;
  std::atomic<std::uint64_t> sequence_{0};
  std::mutex mutex_;
  std::map<std::string, std::shared_ptr<rpc::Channel>> channels_;  // guarded by mutex_
};

struct TestClusterOptions {
  std::size_t servers = 3;
  std::size_t replicas = 2;
  std::uint32_t slots = 4;
  std::uint8_t min_replicas = 1;
  std::uint64_t capacity_bytes = 1ULL << 40;
};

class TestCluster {
 public:
  explicit TestCluster(const TestClusterOptions& options = {});
  ~TestCluster();

  void start(std::size_t i);
  void crash(std::size_t i);   // its process ends; the metadata server is told
  void vanish(std::size_t i);  // the same, untold
  bool running(std::size_t i) const { return nodes_[i].server != nullptr; }
  bool wait_whole(std::size_t replicas = 0);  // 0: as many as a group has

  std::optional<Error> gave_up(std::size_t i) const;  // why it said that it can never serve
  Chunkserver& server(std::size_t i) { return *nodes_[i].server; }
  std::shared_ptr<MemoryDisk> disk(std::size_t i) { return nodes_[i].disk; }
  TargetId target(std::size_t i) const { return TargetId(100 + i); }
  ServerId id(std::size_t i) const { return ServerId(10 + i); }
  std::size_t index_of(TargetId target) const { return target.value() - 100; }
  std::string address(std::size_t i) const { return "cs" + std::to_string(i); }
  std::size_t size() const { return nodes_.size(); }
  FakeMeta& meta() { return *meta_; }
  rpc::MemoryTransport& transport() { return transport_; }
  rpc::Runtime& runtime() { return *runtime_; }
  std::unique_ptr<TestClient> client(std::uint64_t session);
  // A chunk of the group (slot), the `n`th.
  ChunkId chunk_in(std::uint32_t slot, std::uint32_t n = 0) const;

 private:
  struct Node {
    std::shared_ptr<MemoryDisk> disk;
    std::unique_ptr<Chunkserver> server;
  };
  const TestClusterOptions options_;
  SystemClock clock_;
  SeededRng rng_{1};
  rpc::MemoryTransport transport_;
  std::unique_ptr<rpc::Runtime> runtime_;
  std::unique_ptr<FakeMeta> meta_;
  std::vector<Node> nodes_;
  mutable std::mutex mutex_;
  std::map<std::size_t, Error> gave_up_;  // guarded by mutex_
};

std::string pattern(std::size_t size, std::uint64_t seed);

}  // namespace cairn::chunkserver
