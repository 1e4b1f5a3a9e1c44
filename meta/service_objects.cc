// The objects' handlers.
#include <algorithm>

#include "meta/service.h"
#include "store/base/log.h"

namespace cairn::meta {

namespace {
constexpr unsigned kKeysMax = 4096;  // in one GetObjects
}

std::optional<rpc::Task<MetaService::Reply>> MetaService::dispatch_objects(const rpc::Request& request) {
  switch (request.method) {
    case rpc::method::CreateObject::kNumber:
      return create_object(request);
    case rpc::method::Seal::kNumber:
      return seal(request);
    case rpc::method::AbortObject::kNumber:
      return abort_object(request);
    case rpc::method::GetObjects::kNumber: {
      auto body = request.body<rpc::method::GetObjects>();
      std::vector<ObjectKey> keys;
      for (const auto key : body.getKeys()) keys.push_back(object_key_of(key));
      const auto wait = std::chrono::milliseconds(std::uint64_t{body.getWaitMs()});
      const Deadline until = std::min(request.deadline, Deadline::after(p_.runtime.clock(), wait));
      return get_objects(SessionId(body.getSession()), std::move(keys), body.getWaitCount(),
                         body.getWaitMs() == 0 ? Deadline{} : until);
    }
    case rpc::method::ListObjects::kNumber:
      return list_objects(request);
    case rpc::method::DeleteObject::kNumber:
      return delete_object(request);
    default:
      return std::nullopt;
  }
}

rpc::Task<MetaService::Reply> MetaService::create_object(const rpc::Request& request) {
  auto body = request.body<rpc::method::CreateObject>();
  ops::CreateObjectArgs args{object_key_of(body.getKey()), body.getSize()};
  return mutate<rpc::method::CreateObject>(
      request, body.getMutation(),
      [args = std::move(args)](ops::Env& env, OpGate&, schema::CreateObjectReply::Builder out) -> Result<> {
        TRY(auto created, ops::create_object(env, args));
        out.setData(created.data.value());
        out.setPool(created.pool.value());
        out.setChunkSize(created.chunk_size);
        return {};
      });
}

rpc::Task<MetaService::Reply> MetaService::seal(const rpc::Request& request) {
  auto body = request.body<rpc::method::Seal>();
  ops::SealArgs args{object_key_of(body.getKey()),     DataId(body.getData()),    body.getSize(),
                     digest_of_wire(body.getDigest()), body.getReceipts().size(), text_of(body.getLineage())};
  const MutationId mutation = mutation_of(body.getMutation());
  const DataId data = args.data;
  // A sealed object is durable: acknowledged when its record is.
  auto sealing = mutate<rpc::method::Seal>(
      request, body.getMutation(),
      [this, args = std::move(args)](ops::Env& env, OpGate&, schema::SealReply::Builder out) -> Result<> {
        TRY(auto sealed, ops::seal(env, args));
        fill(out.initRecord(), sealed.object);
        out.setExisted(sealed.existed);
        env.txn.on_commit([this, key = encode_object_key(args.key)] { object_waiters_.sealed(key); });
        return {};
      },
      Durability::kSynced);
  return collect_conflicting(mutation, data, std::move(sealing));
}

// The loser of a conflict is collected at once, not only when its session ends.
rpc::Task<MetaService::Reply> MetaService::collect_conflicting(MutationId mutation, DataId data,
                                                               rpc::Task<Reply> sealing) {
  auto reply = co_await std::move(sealing);
  if (reply || reply.error().code() != Code::kConflict) co_return reply;
  LeaseArbiter::Operation<bool> collect = [data](ops::Env& env, OpGate&) -> Result<bool> {
    TRYV(ops::abort_object(env, data));
    return true;
  };
  auto collected = co_await p_.arbiter.perform<bool>(mutation.session, std::move(collect), Deadline::never());
  if (!collected)
    log_debug("conflicting_data_kept", "data={} error={}", to_string(data), collected.error().to_string());
  co_return reply;
}

rpc::Task<MetaService::Reply> MetaService::abort_object(const rpc::Request& request) {
  auto body = request.body<rpc::method::AbortObject>();
  return mutate<rpc::method::AbortObject>(
      request, body.getMutation(),
      [data = DataId(body.getData())](ops::Env& env, OpGate&, schema::Empty::Builder) {
        return ops::abort_object(env, data);
      });
}

rpc::Task<MetaService::Reply> MetaService::get_objects(SessionId session, std::vector<ObjectKey> keys,
                                                       std::uint32_t count, Deadline wait_until) {
  if (keys.size() > kKeysMax) co_return fail(Code::kInvalidArgument, "at most 4096 objects in one request");
  const std::size_t wanted = count == 0 ? keys.size() : std::min<std::size_t>(count, keys.size());
  for (;;) {
    auto event = std::make_shared<rpc::Event>(p_.runtime);
    auto found = std::make_shared<std::size_t>(0);
    const bool may_wait = !wait_until.passed(p_.runtime.clock());
    Body body = [this, keys, event, found, may_wait, wanted](ops::Env& env, OpGate&,
                                                             rpc::OutMessage& out) -> Result<> {
      auto results = out.body<schema::GetObjectsReply>().initResults(static_cast<unsigned>(keys.size()));
      std::vector<std::string> missing;
      *found = 0;
      for (unsigned i = 0; i < keys.size(); ++i) {
        auto object = ops::get_object(env, keys[i]);
        if (object) {
          ++*found;
          fill(results[i].initRecord(), *object);
          continue;
        }
        results[i].setCode(static_cast<std::uint16_t>(object.error().code()));
        missing.push_back(encode_object_key(keys[i]));
      }
      if (may_wait && *found < wanted) {
        for (const std::string& key : missing) object_waiters_.add(key, event);
      }
      return {};
    };
    auto reply = co_await run(Call{session, std::nullopt, wait_until}, std::move(body));
    if (!reply || *found >= wanted || !may_wait) co_return reply;
    auto woken = co_await event->wait(wait_until);
    if (!woken && woken.error().code() == Code::kCancelled)
      co_return std::unexpected(std::move(woken.error()));
  }
}

rpc::Task<MetaService::Reply> MetaService::list_objects(const rpc::Request& request) {
  auto body = request.body<rpc::method::ListObjects>();
  ops::ListObjectsArgs args{text_of(body.getNamespace()), text_of(body.getPrefix()), text_of(body.getAfter()),
                            body.getLimit()};
  return query<rpc::method::ListObjects>(
      request, 0,
      [args = std::move(args)](ops::Env& env, OpGate&, schema::ListObjectsReply::Builder out) -> Result<> {
        TRY(auto listed, ops::list_objects(env, args));
        auto records = out.initRecords(static_cast<unsigned>(listed.objects.size()));
        for (unsigned i = 0; i < listed.objects.size(); ++i) fill(records[i], listed.objects[i]);
        out.setDone(listed.done);
        return {};
      });
}

rpc::Task<MetaService::Reply> MetaService::delete_object(const rpc::Request& request) {
  auto body = request.body<rpc::method::DeleteObject>();
  return mutate<rpc::method::DeleteObject>(
      request, body.getMutation(),
      [key = object_key_of(body.getKey())](ops::Env& env, OpGate&, schema::Empty::Builder) {
        return ops::delete_object(env, key);
      });
}

}  // namespace cairn::meta
