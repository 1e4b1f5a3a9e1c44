// The metadata protocol as plain structs. Messages are converted here, at the edge, and nowhere else: Cap'n
// Proto readers point into a message and throw on malformed bytes.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "client/file_system.h"
#include "client/objects.h"
#include "client/ranges.h"
#include "store/base/ids.h"
#include "store/rpc/methods.h"

namespace cairn::client {

enum class Lease : std::uint8_t { kNone = 0, kShared = 1, kExclusive = 2 };
struct Grant {
  InodeId inode;
  Lease kind = Lease::kNone;
  std::uint64_t generation = 0;
};
struct RecallItem {
  InodeId inode;
  Lease keep = Lease::kNone;
  std::uint64_t generation = 0;
};

struct AttrRecord {
  Attr attr;
  std::uint64_t change = 0;  // grows with each change of attributes or entries
  bool no_xattrs = false;    // it has no extended attributes; false: not known
};

struct Layer {
  DataId data;
  PoolId pool;
  std::uint32_t chunk_size = 0;
  bool frozen = false;
  RangeSet chunks;         // frozen: indices in the file
  std::int64_t shift = 0;  // frozen: index in the data id, less the index in the file
  ChunkId chunk(std::uint64_t index) const {
    return {data, static_cast<std::uint32_t>(index + static_cast<std::uint64_t>(shift)), 0};
  }
};
struct Layout {
  std::vector<Layer> layers;    // the file's own first; the others are frozen: docs/layouts.md
  RangeSet holes;               // chunk indices below the size that were never written
  Range trim;                   // bytes to be trimmed before the file may grow past trim.from
  std::uint64_t bound = 0;      // first chunk index that may not be written yet
  bool limited = false;         // below a byte quota: the exclusive holder lets it have at most bytes_max
  std::uint64_t bytes_max = 0;  // allocated bytes; more is asked for
  bool valid() const { return !layers.empty(); }
  std::uint32_t chunk_size() const { return layers.front().chunk_size; }
  // The frozen layer that holds chunk `index`; null: it is in the file's own, or a hole.
  const Layer* frozen_layer_of(std::uint64_t index) const;
  const Layer& layer_of(std::uint64_t index) const;
  // The chunk is in the file's own layer from now on, or a hole.
  void take_from_frozen(std::uint64_t index);
};

struct ObjectRecord {
  ObjectInfo info;
  Layout layout;
};

AttrRecord decode(schema::Attr::Reader from);
Layout decode(schema::Layout::Reader from);
std::vector<Grant> decode(capnp::List<schema::Grant>::Reader from);
ObjectRecord decode(schema::ObjectRecord::Reader from);
schema::LeaseKind encode(Lease lease);
Lease decode(schema::LeaseKind kind);
void encode(const Attr& attr, schema::Attr::Builder to);

// Runs a decoder; what a malformed message throws becomes kProtocol.
template <class F>
auto decoded(std::string_view what, F&& decoder) -> Result<decltype(decoder())> {
  try {
    if constexpr (std::is_void_v<decltype(decoder())>) {
      decoder();
      return {};
    } else {
      return decoder();
    }
  } catch (const kj::Exception& e) {
    return fail(Code::kProtocol, std::string(what) + ": malformed reply: " + e.getDescription().cStr());
  }
}

}  // namespace cairn::client
