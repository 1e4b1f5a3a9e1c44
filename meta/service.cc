#include "meta/service.h"

#include <nlohmann/json.hpp>

#include "store/base/log.h"

namespace cairn::meta {

namespace {

constexpr std::size_t kReturnStep = 4096;  // leases given back in one transaction
constexpr std::size_t kNameMaxSession = 256;

std::string flat_bytes(rpc::OutMessage& message) {
  const auto words = capnp::messageToFlatArray(message.builder());
  const auto bytes = words.asBytes();
  return {reinterpret_cast<const char*>(bytes.begin()), bytes.size()};
}

// A reply as it was stored: our own bytes, yet from disk.
Result<rpc::OutMessage> stored_reply(const std::string& bytes) {
  if (bytes.size() % sizeof(capnp::word) != 0)
    return fail(Code::kCorrupt, "a stored reply has an odd length");
  auto words = kj::heapArray<capnp::word>(bytes.size() / sizeof(capnp::word));
  std::memcpy(words.begin(), bytes.data(), bytes.size());
  try {
    capnp::FlatArrayMessageReader reader(words);
    rpc::OutMessage out;
    out.builder().getRoot<capnp::AnyPointer>().set(reader.getRoot<capnp::AnyPointer>());
    return out;
  } catch (const kj::Exception& e) {
    return fail(Code::kCorrupt, std::string("a stored reply does not decode: ") + e.getDescription().cStr());
  }
}

}  // namespace

rpc::Task<MetaService::Reply> MetaService::run(Call call, Body body) {
  if (call.session.valid()) {
    auto alive = p_.sessions.touch(call.session);
    if (!alive) co_return std::unexpected(std::move(alive.error()));
  } else if (call.mutation) {
    co_return fail(Code::kSessionEnded, "a request that changes something needs a session: open one");
  }
  LeaseArbiter::Operation<rpc::OutMessage> operation = [this, call, body = std::move(body)](
                                                           ops::Env& env, OpGate& gate) -> Reply {
    if (call.session.valid() && !p_.sessions.is_alive(call.session)) {
      return fail(Code::kSessionEnded, "session " + to_string(call.session) + " has ended: open a new one");
    }
    if (call.mutation) {
      TRY(auto stored, p_.replies.begin(env.txn, *call.mutation));
      if (stored) return stored_reply(*stored);
    }
    if (call.needs_space && !p_.has_space())
      return fail(
          Code::kNoSpace,
          "the metadata server's file system is full: remove files, or make room where its data_dir is");
    rpc::OutMessage out;
    env.may_keep = p_.has_space();
    TRYV(body(env, gate, out));
    if (!call.mutation) return out;
    const std::string reply = flat_bytes(out);
    if (env.txn.bytes_written() + reply.size() + kEntryBytesMax / 8 > kEntryBytesMax) {
      return fail(Code::kInvalidArgument,
                  "the request changes more than one journal entry can hold: split it");
    }
    p_.replies.store(env.txn, *call.mutation, reply);
    TRY(const Counters counters, load_counters(env.txn));
    p_.counters.publish(counters);
    return out;
  };
  auto reply = co_await p_.arbiter.perform<rpc::OutMessage>(call.session, std::move(operation), call.deadline,
                                                            call.durability);
  co_return reply;
}

bool MetaService::needs_space(std::uint16_t method) {
  switch (method) {
    case rpc::method::Open::kNumber:
    case rpc::method::Report::kNumber:
    case rpc::method::Remove::kNumber:
    case rpc::method::SetQuota::kNumber:
    case rpc::method::SetRetention::kNumber:
    case rpc::method::EmptyTrash::kNumber:
    case rpc::method::RemoveXattr::kNumber:
    case rpc::method::AbortObject::kNumber:
    case rpc::method::DeleteObject::kNumber:
      return false;
    default:
      return true;
  }
}

// {sessions: [{id, name, address, state: alive | restored | ending, silent_seconds}]}
MetaService::Reply MetaService::sessions_page() const {
  using State = SessionTable::State;
  nlohmann::json list = nlohmann::json::array();
  for (const SessionTable::Info& session : p_.sessions.list()) {
    const std::string_view state = session.state == State::kAlive      ? "alive"
                                   : session.state == State::kRestored ? "restored"
                                                                       : "ending";
    list.push_back({{"id", to_string(session.id)},
                    {"name", session.name},
                    {"address", session.address},
                    {"state", state},
                    {"silent_seconds", static_cast<double>(session.silent.count()) / 1e9}});
  }
  rpc::OutMessage out;
  // Names come from clients: what is no UTF-8 must not make the page unreadable.
  const nlohmann::json page = {{"sessions", std::move(list)}};
  out.body<schema::StatusReply>().setJson(
      page.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
  return out;
}

rpc::Task<MetaService::Reply> MetaService::answer(Reply reply) {
  co_return std::move(reply);
}

rpc::Task<MetaService::Reply> MetaService::handle(rpc::Request request) {
  if (request.method == rpc::method::Status::kNumber &&
      request.body<rpc::method::Status>().getWhat() == schema::StatusRequest::What::SESSIONS)
    return answer(sessions_page());
  if (p_.cluster_service.serves(request.method)) return p_.cluster_service.handle(std::move(request));
  return dispatch_session(std::move(request));
}

// Keeps the request alive while its handler runs. Sessions are served here, the rest by the other files.
rpc::Task<MetaService::Reply> MetaService::dispatch_session(rpc::Request request) {
  switch (request.method) {
    case rpc::method::OpenSession::kNumber: {
      auto task = open_session(std::move(request));
      auto reply = co_await std::move(task);
      co_return reply;
    }
    case rpc::method::KeepAlive::kNumber: {
      const SessionId session(request.body<rpc::method::KeepAlive>().getSession());
      CO_TRYV(p_.sessions.touch(session));
      rpc::OutMessage out;
      auto body = out.body<schema::KeepAliveReply>();
      body.setLeaseMs(static_cast<std::uint32_t>(p_.lease.count()));
      body.setRoutingVersion(p_.cluster.routing_version());
      body.setNearFull(p_.cluster.space().near_full);
      co_return out;
    }
    case rpc::method::CloseSession::kNumber: {
      const SessionId session(request.body<rpc::method::CloseSession>().getSession());
      auto closed = co_await p_.keeper.close(session);
      if (!closed) co_return std::unexpected(std::move(closed.error()));
      rpc::OutMessage out;
      out.body<schema::Empty>();
      co_return out;
    }
    case rpc::method::Reassert::kNumber: {
      auto task = reassert(std::move(request));
      auto reply = co_await std::move(task);
      co_return reply;
    }
    case rpc::method::ReturnLeases::kNumber: {
      auto task = return_leases(std::move(request));
      auto reply = co_await std::move(task);
      co_return reply;
    }
    case rpc::method::SyncMeta::kNumber: {
      auto task = sync_meta(std::move(request));
      auto reply = co_await std::move(task);
      co_return reply;
    }
    default:
      break;
  }
  auto task = dispatch_namespace(request);
  if (!task) task = dispatch_objects(request);
  if (!task) task = dispatch_settings(request);
  if (!task) task = dispatch_locks(request);
  if (!task) {
    co_return fail(Code::kUnimplemented, "the metadata server does not serve " +
                                             std::string(rpc::method_name(request.method)) + " (method " +
                                             std::to_string(request.method) + ")");
  }
  auto reply = co_await std::move(*task);
  co_return reply;
}

rpc::Task<MetaService::Reply> MetaService::open_session(rpc::Request request) {
  auto body = request.body<rpc::method::OpenSession>();
  std::string name(body.getName().cStr(), std::min<std::size_t>(body.getName().size(), kNameMaxSession));
  const SessionId resume(body.getResume());
  auto opened = co_await p_.keeper.open(std::move(name), resume, request.peer);
  if (!opened) co_return std::unexpected(std::move(opened.error()));
  rpc::OutMessage out;
  auto reply = out.body<schema::OpenSessionReply>();
  reply.setSession(opened->session.value());
  reply.setCluster(p_.cluster_id.value());
  reply.setLeaseMs(static_cast<std::uint32_t>(p_.lease.count()));
  reply.setFeatureLevel(p_.feature_level);
  reply.setResumed(opened->resumed);
  reply.setRoutingVersion(p_.cluster.routing_version());
  co_return out;
}

rpc::Task<MetaService::Reply> MetaService::reassert(rpc::Request request) {
  auto body = request.body<rpc::method::Reassert>();
  const SessionId session(body.getSession());
  Reassertion named{inodes_of(body.getExclusive()), inodes_of(body.getShared()), inodes_of(body.getOpen()),
                    body.getLast()};
  CO_TRYV(p_.sessions.touch(session));
  auto done = co_await p_.keeper.reassert(session, std::move(named));
  if (!done) co_return std::unexpected(std::move(done.error()));
  rpc::OutMessage out;
  out.body<schema::Empty>();
  co_return out;
}

rpc::Task<MetaService::Reply> MetaService::return_leases(rpc::Request request) {
  auto body = request.body<rpc::method::ReturnLeases>();
  const SessionId session(body.getSession());
  std::vector<LeaseItem> items;
  items.reserve(body.getItems().size());
  for (const auto item : body.getItems()) {
    items.push_back(
        {InodeId(item.getInode()), lease_kind_of(item.getKeep()), LeaseGeneration(item.getGeneration())});
  }
  CO_TRYV(p_.sessions.touch(session));
  for (std::size_t from = 0; from < items.size(); from += kReturnStep) {
    const auto end = std::min(items.size(), from + kReturnStep);
    std::vector<LeaseItem> step(items.begin() + static_cast<std::ptrdiff_t>(from),
                                items.begin() + static_cast<std::ptrdiff_t>(end));
    auto given = co_await p_.arbiter.give_back(session, std::move(step));
    if (!given) co_return std::unexpected(std::move(given.error()));
  }
  rpc::OutMessage out;
  out.body<schema::Empty>();
  co_return out;
}

rpc::Task<MetaService::Reply> MetaService::sync_meta(rpc::Request request) {
  const SessionId session(request.body<rpc::method::SyncMeta>().getSession());
  if (session.valid()) CO_TRYV(p_.sessions.touch(session));
  auto synced = co_await p_.executor.sync();
  if (!synced) co_return std::unexpected(std::move(synced.error()));
  rpc::OutMessage out;
  out.body<schema::Empty>();
  co_return out;
}

}  // namespace cairn::meta
