#include "meta/ops/objects.h"

#include <algorithm>

#include "meta/keys.h"

namespace cairn::meta::ops {

namespace {

constexpr std::uint32_t kListMax = 2000;
constexpr std::size_t kForgetMax = 256;

std::uint64_t chunks_of(std::uint64_t size, std::uint32_t chunk_size) {
  return size / chunk_size + (size % chunk_size != 0 ? 1 : 0);
}
Result<> check_size(std::uint64_t size) {
  if (size <= kSizeMax) return {};
  return fail(Code::kRange, "an object can't be so large: " + std::to_string(size) + " bytes");
}
std::uint32_t clamp32(std::uint64_t value) {
  return static_cast<std::uint32_t>(std::min<std::uint64_t>(value, UINT32_MAX));
}

Result<std::optional<ObjectRecord>> find_object(Txn& txn, const std::string& key) {
  TRY(auto bytes, txn.get(key));
  if (!bytes) return std::nullopt;
  return ObjectRecord::decode(*bytes);
}
Result<std::optional<PendingRecord>> find_pending(Txn& txn, DataId data) {
  TRY(auto bytes, txn.get(keys::pending_data(data)));
  if (!bytes) return std::nullopt;
  return PendingRecord::decode(*bytes);
}
std::string deleted_row(std::int64_t wall_ns, std::string_view key) {
  return keys::one(KeyPrefix::kDeletedObject, static_cast<std::uint64_t>(wall_ns)).append(key);
}

// The data id is pending no more. The record's row is the caller's to store.
void drop_pending(Env& env, DataId data, const PendingRecord& pending, ObjectRecord& record) {
  env.txn.erase(keys::pending_data(data));
  env.txn.erase(keys::session_data(pending.session, data));
  if (record.pending > 0) --record.pending;
}

}  // namespace

Result<CreateObjectResult> create_object(Env& env, const CreateObjectArgs& args) {
  TRYV(check_object_key(args.key));
  TRYV(check_size(args.size));
  const std::string key = encode_object_key(args.key);
  TRY(auto found, find_object(env.txn, key));
  ObjectRecord record = found.value_or(ObjectRecord{});
  const LayerRecord layer = fresh_layer(env.txn, env.cluster.default_pool());
  if (!found) record.created = env.txn.wall_ns();
  ++record.pending;
  env.txn.put(key, record.encode());
  const std::uint64_t chunks = args.size == 0 ? kUnknownChunks : chunks_of(args.size, layer.chunk_size);
  env.txn.put(keys::pending_data(layer.data),
              PendingRecord{env.session, layer.pool, clamp32(chunks), key}.encode());
  env.txn.put(keys::session_data(env.session, layer.data), CountRecord{1}.encode());
  return CreateObjectResult{layer.data, layer.pool, layer.chunk_size};
}

Result<SealResult> seal(Env& env, const SealArgs& args) {
  TRYV(check_object_key(args.key));
  TRYV(check_size(args.size));
  if (args.lineage.size() > kLineageMax)
    return fail(Code::kInvalidArgument, "a lineage may have at most 64 KiB");
  const std::string key = encode_object_key(args.key);
  TRY(auto pending, find_pending(env.txn, args.data));
  if (!pending || pending->object != key || pending->session != env.session) {
    return fail(Code::kNotFound, "data " + to_string(args.data) + " is not waiting to be sealed as object " +
                                     to_string(args.key) + " by this session");
  }
  TRY(auto record, find_object(env.txn, key));
  if (!record)
    return fail(Code::kCorrupt, "object " + to_string(args.key) + " has unsealed data but no record");
  const PoolInfo pool = env.cluster.default_pool();
  if (args.receipts != chunks_of(args.size, pool.chunk_size)) {
    return fail(Code::kInvalidArgument, "object " + to_string(args.key) + " of " + std::to_string(args.size) +
                                            " bytes needs one receipt a chunk, not " +
                                            std::to_string(args.receipts));
  }

  if (record->state == ObjectState::kSealed || record->state == ObjectState::kSealedMemory) {
    if (record->digest != args.digest || record->size != args.size) {
      return fail(Code::kConflict, "object " + to_string(args.key) + " is sealed with digest " +
                                       to_string(record->digest) + " (" + std::to_string(record->size) +
                                       " bytes); these bytes have digest " + to_string(args.digest) + " (" +
                                       std::to_string(args.size) + " bytes)");
    }
    drop_pending(env, args.data, *pending, *record);
    env.txn.put(key, record->encode());
    env.cluster.queue_purge(env.txn, args.data, pending->pool,
                            clamp32(chunks_of(args.size, pool.chunk_size)));
    return SealResult{{args.key, std::move(*record)}, true};
  }

  drop_pending(env, args.data, *pending, *record);
  if (record->state == ObjectState::kDeleted) env.txn.erase(deleted_row(record->sealed, key));
  record->state = ObjectState::kSealed;
  record->size = args.size;
  record->digest = args.digest;
  record->data = args.data;
  record->pool = pending->pool;
  record->chunk_size = pool.chunk_size;
  record->sealed = env.txn.wall_ns();
  record->lineage = args.lineage;
  env.txn.put(key, record->encode());
  TRYV(add_counters(env.txn, 0, 0, 1));
  return SealResult{{args.key, std::move(*record)}, false};
}

Result<> abort_object(Env& env, DataId data) {
  TRY(auto pending, find_pending(env.txn, data));
  if (!pending || pending->session != env.session) return {};
  TRY(auto record, find_object(env.txn, pending->object));
  if (!record) return fail(Code::kCorrupt, "unsealed data " + to_string(data) + " has no object record");
  drop_pending(env, data, *pending, *record);
  env.cluster.queue_purge(env.txn, data, pending->pool, pending->chunks);
  if (record->state == ObjectState::kPending && record->pending == 0) {
    env.txn.erase(pending->object);
  } else {
    env.txn.put(pending->object, record->encode());
  }
  return {};
}

Result<ObjectView> get_object(Env& env, const ObjectKey& key) {
  TRYV(check_object_key(key));
  TRY(auto record, find_object(env.txn, encode_object_key(key)));
  if (!record) return fail(Code::kNotFound, "no object " + to_string(key));
  switch (record->state) {
    case ObjectState::kPending:
      return fail(Code::kNotSealed, "object " + to_string(key) + " is not sealed yet");
    case ObjectState::kDeleted:
      return fail(Code::kDeleted, "object " + to_string(key) + " was deleted");
    case ObjectState::kLost:
      return fail(Code::kLost, "no copy is left of object " + to_string(key));
    case ObjectState::kSealed:
    case ObjectState::kSealedMemory:
      return ObjectView{key, std::move(*record)};
  }
  return fail(Code::kCorrupt, "object " + to_string(key) + " has an unknown state");
}

Result<ListObjectsResult> list_objects(Env& env, const ListObjectsArgs& args) {
  const std::string prefix = object_prefix(args.name_space, args.prefix);
  const std::string from = args.after.empty() ? std::string() : after_object(args.name_space, args.after);
  const std::size_t limit = std::clamp<std::uint32_t>(args.limit, 1, kListMax);
  ListObjectsResult result;
  result.done = true;
  if (!from.empty() && from > prefix && !from.starts_with(prefix))
    return result;  // `after` lies behind them all
  std::optional<Error> bad;
  std::string last;  // a page ends with an id's last version, because the next begins after the id
  TRYV(env.txn.scan(prefix, from, [&](std::string_view key, std::string_view value) {
    auto name = decode_object_key(key);
    auto record = ObjectRecord::decode(value);
    if (!name || !record) {
      bad = name ? record.error() : name.error();
      return false;
    }
    if (record->state == ObjectState::kPending || record->state == ObjectState::kDeleted) return true;
    if (result.objects.size() >= limit && name->id != last) {
      result.done = false;
      return false;
    }
    last = name->id;
    result.objects.push_back({std::move(*name), std::move(*record)});
    return true;
  }));
  if (bad) return fail(*bad);
  return result;
}

Result<> delete_object(Env& env, const ObjectKey& key) {
  TRY(auto object, get_object(env, key));
  ObjectRecord& record = object.record;
  env.cluster.queue_purge(env.txn, record.data, record.pool,
                          clamp32(chunks_of(record.size, record.chunk_size)));
  record.state = ObjectState::kDeleted;
  record.data = DataId{};
  record.lineage.clear();
  record.sealed = env.txn.wall_ns();  // from here on: when it was deleted
  const std::string row = encode_object_key(key);
  env.txn.put(row, record.encode());
  env.txn.put(deleted_row(record.sealed, row), CountRecord{1}.encode());
  return add_counters(env.txn, 0, 0, -1);
}

Result<bool> forget_deleted(Env& env, std::int64_t wall_ns) {
  std::vector<std::string> rows;
  bool more = false;
  TRYV(env.txn.scan(keys::prefix(KeyPrefix::kDeletedObject), {}, [&](std::string_view key, std::string_view) {
    if (static_cast<std::int64_t>(keys::part(key, 0)) >= wall_ns) return false;
    more = rows.size() == kForgetMax;
    if (more) return false;
    rows.emplace_back(key);
    return true;
  }));
  for (const std::string& row : rows) {
    env.txn.erase(row);
    const std::string key = row.substr(1 + 8);
    TRY(auto record, find_object(env.txn, key));
    if (!record || record->state != ObjectState::kDeleted) continue;
    if (record->pending == 0) {
      env.txn.erase(key);
    } else {
      record->state = ObjectState::kPending;
      env.txn.put(key, record->encode());
    }
  }
  return more;
}

}  // namespace cairn::meta::ops
