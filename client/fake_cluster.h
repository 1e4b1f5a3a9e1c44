// FakeCluster: a metadata server and chunkservers in memory, speaking the real protocol over MemoryTransport,
// for tests of the client. It keeps the protocol's promises that the client relies on (stored replies, grants
// and recalls, bounds, holes, whole-block checksums, one sequence once) and checks those that the client
// makes (CHECK on a broken one). Faults: errors, lost replies, cut connections, ended sessions, corrupt or
// absent copies. Thread-safe.
#pragma once

#include <functional>
#include <map>
#include <mutex>
#include <set>

#include "client/client_impl.h"

namespace cairn::client {

enum class Fault {
  kNone,
  kUnavailable,  // refused before anything happened
  kNoSpace,      // likewise, for good
  kRange,        // likewise
  kTimeout,      // carried out by the metadata server, which says that the time was over
  kLoseReply,    // carried out; the connection breaks before the reply
  kLoseRequest,  // the connection breaks before it is carried out
};

class FakeCluster {
 public:
  struct Options {
    unsigned servers = 3;
    unsigned replicas = 2;
    std::uint32_t chunk_size = 256 << 10;
    std::uint32_t lease_ms = 10'000;
    std::uint64_t initial_bound = 1;
  };
  FakeCluster();
  explicit FakeCluster(Options options);
  ~FakeCluster();

  std::unique_ptr<ClientImpl> connect(std::uint64_t memory_bytes = 64 << 20,
                                      AccessTimes access_times = AccessTimes::kRelative);
  rpc::MemoryTransport& transport() { return transport_; }
  std::string meta_address() const { return "meta:1"; }
  std::string server_address(unsigned server) const { return "chunk:" + std::to_string(server); }

  // Decides about each request, by method number; `server` is -1 for the metadata server.
  void on_request(std::function<Fault(int server, std::uint16_t method)> decide);
  unsigned requests(std::uint16_t method) const;
  void reset_counts();

  // --- what an operator or an accident does ---
  void set_quota(std::uint64_t bytes);      // of all files together; gives away ahead all that is left
  void end_session(SessionId session);      // fenced: its leases are gone, chunkservers refuse it
  void restart_meta();                      // connections break, shared leases and file locks are forgotten
  void new_epoch(unsigned without_server);  // groups lose that server; nobody else takes its place
  void corrupt(unsigned server);            // flips a byte of each chunk stored there
  void wipe(unsigned server);               // its chunks are gone, but it stays in sync
  void restart_servers();                   // all at once: groups are reconciled, and nothing is lost
  void lose_unsynced();                     // all servers restarted: bytes never synced are gone
  void resize(InodeId inode, std::uint64_t size);  // by somebody else, within the last chunk
  std::size_t chunks_on(unsigned server) const;
  std::size_t unsynced_chunks() const;
  Lease lease_of(InodeId inode, SessionId session) const;
  unsigned opens_of(InodeId inode) const;
  std::size_t locks_held() const;  // parts, of all sessions
  std::size_t locks_waiting() const;
  bool exists(InodeId inode) const;  // one without names goes with its last open, and its chunks with it
  std::uint64_t server_size(InodeId inode) const;

 private:
  struct State;
  rpc::MemoryTransport transport_;
  SystemClock clock_;
  std::unique_ptr<rpc::Runtime> runtime_;
  std::unique_ptr<State> state_;
};

}  // namespace cairn::client
