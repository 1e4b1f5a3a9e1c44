#include "meta/wire_convert.h"

#include <algorithm>

namespace cairn::meta {

namespace {
constexpr std::uint64_t kDirectorySize = 4096;  // what stat shows for directories

void fill_ranges(capnp::List<schema::Range>::Builder to, const Ranges& ranges) {
  for (unsigned i = 0; i < ranges.size(); ++i) {
    to[i].setFrom(ranges[i].from);
    to[i].setTo(ranges[i].to);
  }
}
}  // namespace

MutationId mutation_of(schema::Mutation::Reader from) {
  return {SessionId(from.getSession()), from.getSequence(), from.getAwaited()};
}

std::vector<InodeId> inodes_of(capnp::List<std::uint64_t>::Reader from) {
  std::vector<InodeId> out;
  out.reserve(from.size());
  for (const std::uint64_t inode : from) out.emplace_back(inode);
  return out;
}

Ranges ranges_of(capnp::List<schema::Range>::Reader from) {
  Ranges out;
  out.reserve(from.size());
  for (const auto range : from) add_range(out, {range.getFrom(), range.getTo()});
  return out;
}

LeaseKind lease_kind_of(schema::LeaseKind from) {
  switch (from) {
    case schema::LeaseKind::NONE:
      return LeaseKind::kNone;
    case schema::LeaseKind::SHARED:
      return LeaseKind::kShared;
    case schema::LeaseKind::EXCLUSIVE:
      break;
  }
  return LeaseKind::kExclusive;
}

Digest digest_of_wire(schema::Digest::Reader from) {
  return {from.getHigh(), from.getLow()};
}

ObjectKey object_key_of(schema::ObjectKey::Reader from) {
  return {text_of(from.getNamespace()), text_of(from.getId()), from.getVersion()};
}

void fill(schema::Attr::Builder to, InodeId id, const InodeRecord& record) {
  to.setInode(id.value());
  to.setMode(record.mode);
  to.setNlink(record.nlink);
  to.setUid(record.uid);
  to.setGid(record.gid);
  to.setRdev(record.rdev);
  to.setSize(record.is_directory() ? kDirectorySize : record.size);
  to.setBytes(record.bytes);
  to.setAtime(record.atime);
  to.setMtime(record.mtime);
  to.setCtime(record.ctime);
  to.setBtime(record.btime);
  to.setChange(record.change);
  to.setNoXattrs((record.flags & InodeRecord::kHasXattrs) == 0);
}

void fill(schema::Layout::Builder to, const InodeRecord& record) {
  if (!record.is_regular()) return;
  auto layers = to.initLayers(static_cast<unsigned>(record.layers.size()));
  for (unsigned i = 0; i < record.layers.size(); ++i) {
    const LayerRecord& layer = record.layers[i];
    layers[i].setData(layer.data.value());
    layers[i].setPool(layer.pool.value());
    layers[i].setChunkSize(layer.chunk_size);
    layers[i].setFrozen(layer.frozen);
    layers[i].setShift(layer.shift);
    fill_ranges(layers[i].initChunks(static_cast<unsigned>(layer.chunks.size())), layer.chunks);
  }
  fill_ranges(to.initHoles(static_cast<unsigned>(record.holes.size())), record.holes);
  if (!record.trim.empty()) {
    auto trim = to.initTrim();
    trim.setFrom(record.trim.from);
    trim.setTo(record.trim.to);
  }
  to.setBound(record.bound);
}

void fill(schema::ObjectRecord::Builder to, const ops::ObjectView& object) {
  auto key = to.initKey();
  key.setNamespace(rpc::data(object.key.name_space));
  key.setId(rpc::data(object.key.id));
  key.setVersion(object.key.version);
  const ObjectRecord& record = object.record;
  to.setState(static_cast<schema::ObjectState>(record.state));
  to.setSize(record.size);
  auto digest = to.initDigest();
  digest.setHigh(record.digest.high);
  digest.setLow(record.digest.low);
  auto layout = to.initLayout();
  auto layer = layout.initLayers(1)[0];
  layer.setData(record.data.value());
  layer.setPool(record.pool.value());
  layer.setChunkSize(record.chunk_size);
  layer.setFrozen(true);
  layout.setBound((record.size + record.chunk_size - 1) / record.chunk_size);
  to.setCreated(record.created);
  to.setSealed(record.sealed);
  to.setLineage(rpc::data(record.lineage));
}

void fill(capnp::List<schema::Grant>::Builder to, const std::vector<Grant>& grants) {
  for (unsigned i = 0; i < grants.size(); ++i) {
    to[i].setInode(grants[i].inode.value());
    to[i].setKind(static_cast<schema::LeaseKind>(grants[i].kind));
    to[i].setGeneration(grants[i].generation.value());
  }
}

}  // namespace cairn::meta
