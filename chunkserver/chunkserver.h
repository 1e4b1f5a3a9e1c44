// One chunkserver process: its targets, the groups on them, its service, and its link to the metadata server.
//
// start() returns when it listens; it serves once the metadata server named it a member of groups. stop()
// ends it in good order. Construct and stop from a thread outside the runtime; everything else is
// thread-safe.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "chunkserver/chunk_service.h"
#include "chunkserver/config.h"
#include "chunkserver/meta_link.h"
#include "chunkserver/purger.h"
#include "chunkserver/reclaimer.h"
#include "store/base/rng.h"

namespace cairn::chunkserver {

struct OpenedTarget {
  std::string path;
  std::unique_ptr<disk::ChunkEngine> engine;
};

class Chunkserver final : private MetaLinkHost {
 public:
  // Told at most once, on an io thread, that this process can never serve (see never_heals): the owner should
  // stop it and say why. The error says what to do. Must not block.
  using GiveUp = std::function<void(const Error&)>;

  // `targets`: opened, not empty, all of one cluster and server (kConfig names the odd one).
  static Result<std::unique_ptr<Chunkserver>> start(rpc::Runtime& runtime, rpc::Transport& transport,
                                                    Rng& rng, const ChunkserverConfig& config,
                                                    std::vector<OpenedTarget> targets, GiveUp give_up);
  ~Chunkserver() override;

  // Refuses clients and lets what is under way end (ChunkserverConfig::drain), stops serving, says so to the
  // metadata server by closing that connection, then closes the listener and the disks. Idempotent.
  void stop();
  // As stop(), without waiting for anything that is under way: what a crash looks like to the others. For
  // tests.
  void stop_hard();

  const std::string& address() const { return address_; }
  ServerId id() const { return server_id_; }
  const Counters& counters() const { return counters_; }
  const GroupTable& groups() const { return groups_; }

 private:
  struct Disk {  // one target and what it remembers
    std::unique_ptr<Target> target;
    std::unique_ptr<GroupMemory> memory;
  };

  Chunkserver(rpc::Runtime& runtime, rpc::Transport& transport, Rng& rng, const ChunkserverConfig& config,
              std::vector<OpenedTarget> targets, GiveUp give_up);
  static std::vector<Disk> make_disks(std::vector<OpenedTarget> targets, const ChunkserverConfig& config);
  Result<> restore(const std::vector<disk::ChunkEngine*>& engines);
  Result<> listen();
  void end();

  rpc::OutMessage register_request() override;
  rpc::OutMessage heartbeat_request() override;
  rpc::Task<Result<>> obey(Orders orders) override;
  void refused_for_good(const Error& why) override;
  rpc::Task<> apply_routing(RoutingChange change);
  rpc::Task<> apply_to_disk(Disk* disk, std::vector<GroupConfig> configs);
  rpc::Task<> take_drop(DropOrder order);
  void fill_targets(capnp::List<schema::TargetReport>::Builder to) const;

  rpc::Task<> confirm_fences();  // remembers ended sessions and waits for their writes, then reports it
  rpc::Task<> tick();            // once a second: usage, pacing, journal position
  rpc::Task<Result<>> remember_everywhere(std::string_view key, std::string value);

  std::vector<Target*> targets() const;
  bool joins() const;

  rpc::Runtime& runtime_;
  rpc::Transport& transport_;
  const ChunkserverConfig config_;
  const GiveUp give_up_;
  const ClusterId cluster_;
  const ServerId server_id_;
  const std::uint64_t boot_;
  rpc::Identity identity_;
  std::string address_;  // constant after start()

  std::vector<Disk> disks_;
  ServerLease lease_;
  SessionFence sessions_;
  PurgedIds purged_;
  Counters counters_;
  LatencyMeter latency_;
  Pacer pacer_;
  Peers peers_;
  Quota copies_;
  Quota copy_bytes_;
  Quota compares_;
  Quota write_bytes_;
  rpc::TaskGroup tasks_;
  GroupEnv env_;
  GroupTable groups_;
  MetaLink link_;
  Purger purger_;
  Reclaimer reclaimer_;
  ChunkService service_;
  std::unique_ptr<rpc::Server> server_;
  bool ended_ = false;

  std::atomic<std::uint64_t> routing_version_{0};
  std::atomic<std::uint64_t> fences_wanted_{0};
  std::atomic<std::uint64_t> fences_done_{0};
  rpc::Event fence_wake_;
  std::atomic<std::uint32_t> foreground_ms_{0};
  mutable std::mutex mutex_;
  std::map<PoolId, PoolEntry> pools_;  // guarded by mutex_
  JournalPosition journal_;            // highest seen; guarded by mutex_
  JournalPosition journal_kept_;       // on disk; guarded by mutex_
};

}  // namespace cairn::chunkserver
