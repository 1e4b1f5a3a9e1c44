#include "meta/layers.h"

#include <algorithm>

#include "meta/inode_store.h"
#include "meta/keys.h"
#include "store/base/log.h"

namespace cairn::meta {

namespace {

// How many ranges there can be of a layer's chunks, at most, when some of them are given up.
std::uint64_t ranges_possible(const Ranges& chunks) {
  std::uint64_t count = 0;
  for (const Range& range : chunks) count += (range.to - range.from + 1) / 2;
  return count;
}

Result<> check_limits(const InodeRecord& inode) {
  std::uint64_t ranges = 0;
  for (const LayerRecord& layer : inode.layers) ranges += ranges_possible(layer.chunks);
  if (inode.layers.size() > kLayersMax || ranges > kLayerRangesMax) {
    return fail(Code::kRange, "too many shared pieces: " + std::to_string(inode.layers.size()) + " layers, " +
                                  std::to_string(ranges) + " ranges; copy the bytes instead");
  }
  return {};
}

Result<std::optional<DataRefRecord>> find_ref(Txn& txn, DataId data) {
  TRY(auto bytes, txn.get(keys::data_ref(data)));
  if (!bytes) return std::nullopt;
  TRY(auto ref, DataRefRecord::decode(*bytes));
  return ref;
}

}  // namespace

bool in_frozen_layer(const InodeRecord& inode, std::uint64_t index) {
  return std::any_of(inode.layers.begin(), inode.layers.end(),
                     [&](const LayerRecord& layer) { return layer.frozen && contains(layer.chunks, index); });
}

Ranges own_chunks(const InodeRecord& inode, Range window) {
  window.to = std::min(window.to, inode.chunks_of(inode.size));
  Ranges own;
  add_range(own, window);
  const auto without = [&](const Ranges& others) {
    for (const Range& other : intersection(others, window)) subtract_range(own, other);
  };
  without(inode.holes);
  for (const LayerRecord& layer : inode.layers) {
    if (layer.frozen) without(layer.chunks);
  }
  return own;
}

Result<> freeze(Txn& txn, Cluster& cluster, InodeRecord& inode) {
  Ranges own = own_chunks(inode, {0, UINT64_MAX});
  if (own.empty()) return {};
  LayerRecord frozen = inode.layers.front();
  frozen.frozen = true;
  frozen.chunks = std::move(own);
  const std::uint64_t chunks = std::min<std::uint64_t>(chunks_to_purge(inode), UINT32_MAX);
  LayerRecord fresh = fresh_layer(txn, cluster.default_pool());
  fresh.chunk_size = frozen.chunk_size;
  inode.layers.front() = std::move(fresh);
  txn.put(keys::data_ref(frozen.data), DataRefRecord{1, static_cast<std::uint32_t>(chunks)}.encode());
  inode.layers.push_back(std::move(frozen));
  return check_limits(inode);
}

std::vector<LayerRecord> shared_pieces(const InodeRecord& inode, std::uint64_t from, std::uint64_t to,
                                       std::uint64_t count) {
  std::vector<LayerRecord> pieces;
  for (const LayerRecord& layer : inode.layers) {
    if (!layer.frozen) continue;
    Ranges chunks = intersection(layer.chunks, {from, from + count});
    if (chunks.empty()) continue;
    for (Range& range : chunks) range = {range.from - from + to, range.to - from + to};
    LayerRecord piece = layer;
    piece.chunks = std::move(chunks);
    piece.shift = layer.shift + static_cast<std::int64_t>(from) - static_cast<std::int64_t>(to);
    pieces.push_back(std::move(piece));
  }
  return pieces;
}

Result<> add_pieces(Txn& txn, InodeRecord& inode, const std::vector<LayerRecord>& pieces) {
  for (const LayerRecord& added : pieces) {
    auto same = std::find_if(inode.layers.begin(), inode.layers.end(), [&](const LayerRecord& layer) {
      return layer.frozen && layer.data == added.data && layer.shift == added.shift;
    });
    if (same != inode.layers.end()) {
      for (const Range& range : added.chunks) add_range(same->chunks, range);
      continue;
    }
    TRY(auto ref, find_ref(txn, added.data));
    if (!ref) return fail(Code::kCorrupt, "frozen data " + to_string(added.data) + " has no reference count");
    ++ref->count;
    txn.put(keys::data_ref(added.data), ref->encode());
    inode.layers.push_back(added);
  }
  return check_limits(inode);
}

void give_up_chunks(InodeRecord& inode, Range chunks) {
  for (LayerRecord& layer : inode.layers) {
    if (layer.frozen) subtract_range(layer.chunks, chunks);
  }
}

Result<> drop_empty_layers(Txn& txn, Cluster& cluster, InodeRecord& inode) {
  for (const LayerRecord& layer : inode.layers) {
    if (layer.frozen && layer.chunks.empty()) TRYV(release_layer(txn, cluster, layer));
  }
  std::erase_if(inode.layers, [](const LayerRecord& layer) { return layer.frozen && layer.chunks.empty(); });
  return {};
}

Result<std::uint64_t> unshared_bytes(Txn& txn, const InodeRecord& inode) {
  std::uint64_t shared = 0;
  for (const LayerRecord& layer : inode.layers) {
    if (!layer.frozen) continue;
    TRY(const auto ref, find_ref(txn, layer.data));
    const auto ours = std::count_if(inode.layers.begin(), inode.layers.end(), [&](const LayerRecord& other) {
      return other.frozen && other.data == layer.data;
    });
    if (ref && ref->count <= static_cast<std::uint64_t>(ours)) continue;
    for (const Range& range : layer.chunks) shared += (range.to - range.from) * layer.chunk_size;
  }
  return inode.bytes - std::min(inode.bytes, shared);
}

Result<> release_layer(Txn& txn, Cluster& cluster, const LayerRecord& layer) {
  TRY(auto ref, find_ref(txn, layer.data));
  if (!ref) {
    // Who else has it is not known: never a reason to remove bytes.
    log_error("data_reference_missing", "data={}", to_string(layer.data));
    return {};
  }
  if (ref->count > 1) {
    --ref->count;
    txn.put(keys::data_ref(layer.data), ref->encode());
    return {};
  }
  txn.erase(keys::data_ref(layer.data));
  if (ref->chunks > 0) cluster.queue_purge(txn, layer.data, layer.pool, ref->chunks);
  return {};
}

}  // namespace cairn::meta
