// MetaServer: the parts of the metadata server put together, in the order in which they depend on each other.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "meta/kv_store.h"
#include "meta/meta_config.h"
#include "store/base/clock.h"
#include "store/base/rng.h"
#include "store/rpc/transport.h"

namespace cairn::meta {

class MetaServer {
 public:
  struct Surroundings {
    Clock& clock;
    Rng& rng;
    rpc::Transport& transport;
    // Called on a thread of the server when its journal failed, or when the metadata is found to have gone
    // back in time (kNeedsOperator): the process must exit without a clean stop.
    std::function<void(const Error&)> fatal;
    std::function<Result<std::string>()> boot_id;
    // Empty: RocksDB in config.data_dir. Given (tests): used instead, no directory is touched; outlives the
    // server.
    KvStore* store = nullptr;
  };
  // Blocking. On return the server accepts connections.
  static Result<std::unique_ptr<MetaServer>> start(const MetaConfig& config, Surroundings surroundings);
  ~MetaServer();  // without stop(): as if killed, but in order
  // Ends requests, closes connections, syncs, marks the store as clean. From a thread outside the runtime.
  Result<> stop();
  std::string address() const;  // with the port really bound
  ClusterId cluster() const;

 private:
  struct State;
  explicit MetaServer(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace cairn::meta
