// Operations on immutable objects. Each create makes a fresh data id; the first seal of a key wins.
//
// A key's record exists while something is known of it: pending (only unsealed data ids), sealed, or deleted
// (kept for a time, so that a reader learns that it was there). Unsealed data ids are rows of their own (by
// data, and by session).
#pragma once

#include <string>
#include <vector>

#include "meta/object_key.h"
#include "meta/ops/env.h"

namespace cairn::meta::ops {

constexpr std::size_t kLineageMax = 64 * 1024;
constexpr std::uint32_t kUnknownChunks = 65536;  // purged of an unsealed object whose size nobody said

struct ObjectView {
  ObjectKey key;
  ObjectRecord record;
};

struct CreateObjectArgs {
  ObjectKey key;
  std::uint64_t size = 0;  // 0: not known
};
struct CreateObjectResult {
  DataId data;
  PoolId pool;
  std::uint32_t chunk_size = 0;
};
Result<CreateObjectResult> create_object(Env& env, const CreateObjectArgs& args);

struct SealArgs {
  ObjectKey key;
  DataId data;
  std::uint64_t size = 0;
  Digest digest;
  std::uint64_t receipts = 0;  // count: one a chunk
  std::string lineage;
};
struct SealResult {
  ObjectView object;
  bool existed = false;
};
// kConflict names both digests; the data id then still waits for abort_object.
Result<SealResult> seal(Env& env, const SealArgs& args);

// Nothing if `data` is not pending for this session (sealed, aborted before).
Result<> abort_object(Env& env, DataId data);

// kNotFound, kNotSealed, kDeleted, kLost.
Result<ObjectView> get_object(Env& env, const ObjectKey& key);

struct ListObjectsArgs {
  std::string name_space;
  std::string prefix;
  std::string after;
  std::uint32_t limit = 0;
};
struct ListObjectsResult {
  std::vector<ObjectView> objects;
  bool done = false;
};
Result<ListObjectsResult> list_objects(Env& env, const ListObjectsArgs& args);

Result<> delete_object(Env& env, const ObjectKey& key);  // kNotFound, kNotSealed
// Forgets objects deleted before `wall_ns`, a bounded number; true: there may be more.
Result<bool> forget_deleted(Env& env, std::int64_t wall_ns);

}  // namespace cairn::meta::ops
