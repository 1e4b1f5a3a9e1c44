// MetaService: the wire entry of the metadata server. Each handler turns its message into plain structs,
// names the leases and the operation, which run on the executor, and fills the reply there; chunkservers' and
// operators' methods go to the cluster side. Runs on io threads; holds no state of its own but what it refers
// to.
#pragma once

#include <atomic>
#include <functional>
#include <memory>

#include "meta/cluster.h"
#include "meta/lease_arbiter.h"
#include "meta/object_waiters.h"
#include "meta/replies.h"
#include "meta/session_keeper.h"
#include "meta/sessions.h"
#include "meta/trash_keeper.h"
#include "meta/wire_convert.h"
#include "store/rpc/connection.h"
#include "store/rpc/methods.h"

namespace cairn::meta {

// Counters for `status`, written by the executor with each mutation. Thread-safe.
struct SharedCounters {
  std::atomic<std::uint64_t> files{0};
  std::atomic<std::uint64_t> objects{0};
  std::atomic<std::uint64_t> trash_files{0};
  std::atomic<std::uint64_t> trash_bytes{0};
  void publish(const Counters& counters) {
    files.store(counters.inodes - counters.directories, std::memory_order_relaxed);
    objects.store(counters.objects, std::memory_order_relaxed);
    trash_files.store(counters.trash_files, std::memory_order_relaxed);
    trash_bytes.store(counters.trash_bytes, std::memory_order_relaxed);
  }
};

class MetaService final : public rpc::Service {
 public:
  struct Parts {
    rpc::Runtime& runtime;
    Executor& executor;
    SessionTable& sessions;
    SessionKeeper& keeper;
    LeaseArbiter& arbiter;
    ReplyTable& replies;
    Cluster& cluster;
    ClusterService& cluster_service;
    SharedCounters& counters;
    ClusterId cluster_id;
    std::chrono::milliseconds lease;
    std::uint32_t feature_level;
    // [executor] Whether changes that need space may be made; false on a full file system.
    std::function<bool()> has_space = [] { return true; };
    TrashKeeper* trash = nullptr;
  };
  explicit MetaService(Parts parts) : p_(std::move(parts)) {}

  rpc::Task<Result<rpc::OutMessage>> handle(rpc::Request request) override;
  void connected(const std::shared_ptr<rpc::Peer>& peer) override { p_.cluster_service.connected(peer); }

 private:
  using Reply = Result<rpc::OutMessage>;
  using Body = std::function<Result<>(ops::Env&, OpGate&, rpc::OutMessage&)>;
  struct Call {
    SessionId session;  // none: a reader without leases
    std::optional<MutationId> mutation;
    Deadline deadline;
    Durability durability = Durability::kAccepted;
    bool needs_space = false;
  };
  // Runs `body` on the executor under the leases of the session; a mutation only once.
  rpc::Task<Reply> run(Call call, Body body);
  template <class M, class Fill>
  rpc::Task<Reply> query(const rpc::Request& request, std::uint64_t session, Fill fill);
  template <class M, class Fill>
  rpc::Task<Reply> mutate(const rpc::Request& request, schema::Mutation::Reader mutation, Fill fill,
                          Durability durability = Durability::kAccepted);

  // Not what frees space, nor what clients need to read, and to settle what they have begun.
  static bool needs_space(std::uint16_t method);

  Reply sessions_page() const;
  static rpc::Task<Reply> answer(Reply reply);

  rpc::Task<Reply> dispatch_session(rpc::Request request);
  rpc::Task<Reply> open_session(rpc::Request request);
  rpc::Task<Reply> reassert(rpc::Request request);
  rpc::Task<Reply> return_leases(rpc::Request request);
  rpc::Task<Reply> sync_meta(rpc::Request request);

  // service_namespace.cc; not coroutines themselves: `request` lives in handle()
  std::optional<rpc::Task<Reply>> dispatch_namespace(const rpc::Request& request);
  rpc::Task<Reply> lookup(const rpc::Request& request);
  rpc::Task<Reply> getattr(const rpc::Request& request);
  rpc::Task<Reply> setattr(const rpc::Request& request);
  rpc::Task<Reply> make(const rpc::Request& request);
  rpc::Task<Reply> open(const rpc::Request& request);
  rpc::Task<Reply> report(const rpc::Request& request);
  rpc::Task<Reply> extend_bound(const rpc::Request& request);
  rpc::Task<Reply> share_chunks(const rpc::Request& request);
  rpc::Task<Reply> remove(const rpc::Request& request);
  rpc::Task<Reply> rename(const rpc::Request& request);
  rpc::Task<Reply> link(const rpc::Request& request);
  rpc::Task<Reply> readlink(const rpc::Request& request);
  rpc::Task<Reply> readdir(const rpc::Request& request);
  rpc::Task<Reply> getxattr(const rpc::Request& request);
  rpc::Task<Reply> setxattr(const rpc::Request& request);
  rpc::Task<Reply> listxattr(const rpc::Request& request);
  rpc::Task<Reply> removexattr(const rpc::Request& request);
  rpc::Task<Reply> statfs(const rpc::Request& request);

  // service_settings.cc; as service_namespace.cc
  std::optional<rpc::Task<Reply>> dispatch_settings(const rpc::Request& request);
  rpc::Task<Reply> set_quota(const rpc::Request& request);
  rpc::Task<Reply> get_quotas(const rpc::Request& request);
  rpc::Task<Reply> set_retention(const rpc::Request& request);
  rpc::Task<Reply> get_retention(const rpc::Request& request);
  rpc::Task<Reply> list_trash(const rpc::Request& request);
  rpc::Task<Reply> undelete(const rpc::Request& request);
  rpc::Task<Reply> empty_trash(const rpc::Request& request);
  rpc::Task<Reply> reclaim(SessionId session, std::uint64_t bytes, Deadline deadline);

  // service_locks.cc
  std::optional<rpc::Task<Reply>> dispatch_locks(const rpc::Request& request);
  rpc::Task<Reply> lock(FileLock wanted, std::uint64_t epoch, std::uint64_t ticket);
  rpc::Task<Reply> cancel_lock(SessionId session, std::uint64_t epoch, std::uint64_t ticket);
  rpc::Task<Reply> test_lock(FileLock wanted);
  rpc::Task<Reply> name_locks(SessionId session, std::uint64_t epoch, std::vector<FileLock> locks);

  // service_objects.cc
  std::optional<rpc::Task<Reply>> dispatch_objects(const rpc::Request& request);
  rpc::Task<Reply> create_object(const rpc::Request& request);
  rpc::Task<Reply> seal(const rpc::Request& request);
  rpc::Task<Reply> collect_conflicting(MutationId mutation, DataId data, rpc::Task<Reply> sealing);
  rpc::Task<Reply> abort_object(const rpc::Request& request);
  rpc::Task<Reply> get_objects(SessionId session, std::vector<ObjectKey> keys, std::uint32_t count,
                               Deadline wait_until);
  rpc::Task<Reply> list_objects(const rpc::Request& request);
  rpc::Task<Reply> delete_object(const rpc::Request& request);

  Parts p_;
  ObjectWaiters object_waiters_;  // [executor]
};

template <class M, class Fill>
rpc::Task<MetaService::Reply> MetaService::query(const rpc::Request& request, std::uint64_t session,
                                                 Fill fill) {
  Body body = [fill = std::move(fill)](ops::Env& env, OpGate& gate, rpc::OutMessage& out) -> Result<> {
    return fill(env, gate, out.body<typename M::ReplyBody>());
  };
  return run(Call{SessionId(session), std::nullopt, request.deadline}, std::move(body));
}

template <class M, class Fill>
rpc::Task<MetaService::Reply> MetaService::mutate(const rpc::Request& request,
                                                  schema::Mutation::Reader mutation, Fill fill,
                                                  Durability durability) {
  Body body = [fill = std::move(fill)](ops::Env& env, OpGate& gate, rpc::OutMessage& out) -> Result<> {
    return fill(env, gate, out.body<typename M::ReplyBody>());
  };
  const MutationId id = mutation_of(mutation);
  return run(Call{id.session, id, request.deadline, durability, needs_space(M::kNumber)}, std::move(body));
}

// The grants of this run, into any reply that has them.
template <class Builder>
void fill_grants(Builder reply, const OpGate& gate) {
  if (!gate.grants().empty())
    fill(reply.initGrants(static_cast<unsigned>(gate.grants().size())), gate.grants());
}

}  // namespace cairn::meta
