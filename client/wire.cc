#include "client/wire.h"

namespace cairn::client {

const Layer* Layout::frozen_layer_of(std::uint64_t index) const {
  for (const Layer& layer : layers) {
    if (layer.frozen && layer.chunks.contains(index)) return &layer;
  }
  return nullptr;
}

const Layer& Layout::layer_of(std::uint64_t index) const {
  const Layer* frozen = frozen_layer_of(index);
  return frozen ? *frozen : layers.front();
}

void Layout::take_from_frozen(std::uint64_t index) {
  for (Layer& layer : layers) layer.chunks.remove(index, index + 1);
}

AttrRecord decode(schema::Attr::Reader from) {
  AttrRecord out;
  Attr& to = out.attr;
  to.inode = InodeId(from.getInode());
  to.mode = from.getMode();
  to.nlink = from.getNlink();
  to.uid = from.getUid();
  to.gid = from.getGid();
  to.rdev = from.getRdev();
  to.size = from.getSize();
  to.bytes = from.getBytes();
  to.atime_ns = from.getAtime();
  to.mtime_ns = from.getMtime();
  to.ctime_ns = from.getCtime();
  to.btime_ns = from.getBtime();
  out.change = from.getChange();
  out.no_xattrs = from.getNoXattrs();
  return out;
}

void encode(const Attr& attr, schema::Attr::Builder to) {
  to.setInode(attr.inode.value());
  to.setMode(attr.mode);
  to.setNlink(attr.nlink);
  to.setUid(attr.uid);
  to.setGid(attr.gid);
  to.setRdev(attr.rdev);
  to.setSize(attr.size);
  to.setBytes(attr.bytes);
  to.setAtime(attr.atime_ns);
  to.setMtime(attr.mtime_ns);
  to.setCtime(attr.ctime_ns);
  to.setBtime(attr.btime_ns);
}

Layout decode(schema::Layout::Reader from) {
  Layout out;
  for (auto layer : from.getLayers()) {
    Layer& to = out.layers.emplace_back();
    to.data = DataId(layer.getData());
    to.pool = PoolId(layer.getPool());
    to.chunk_size = layer.getChunkSize();
    to.frozen = layer.getFrozen();
    to.shift = layer.getShift();
    for (auto range : layer.getChunks()) to.chunks.add(range.getFrom(), range.getTo());
    // A size that this program can't work with must not reach a division.
    if (to.chunk_size < kBlockSize || to.chunk_size % kBlockSize != 0 || to.chunk_size > rpc::kPayloadMax) {
      out.layers.clear();
      break;
    }
  }
  for (auto range : from.getHoles()) out.holes.add(range.getFrom(), range.getTo());
  out.trim = {from.getTrim().getFrom(), from.getTrim().getTo()};
  out.bound = from.getBound();
  out.limited = from.getLimited();
  out.bytes_max = from.getBytesMax();
  return out;
}

Lease decode(schema::LeaseKind kind) {
  switch (kind) {
    case schema::LeaseKind::SHARED:
      return Lease::kShared;
    case schema::LeaseKind::EXCLUSIVE:
      return Lease::kExclusive;
    default:
      return Lease::kNone;
  }
}

schema::LeaseKind encode(Lease lease) {
  switch (lease) {
    case Lease::kShared:
      return schema::LeaseKind::SHARED;
    case Lease::kExclusive:
      return schema::LeaseKind::EXCLUSIVE;
    case Lease::kNone:
      break;
  }
  return schema::LeaseKind::NONE;
}

std::vector<Grant> decode(capnp::List<schema::Grant>::Reader from) {
  std::vector<Grant> out;
  out.reserve(from.size());
  for (auto grant : from) {
    out.push_back({InodeId(grant.getInode()), decode(grant.getKind()), grant.getGeneration()});
  }
  return out;
}

ObjectRecord decode(schema::ObjectRecord::Reader from) {
  ObjectRecord out;
  out.info.id = std::string(rpc::text(from.getKey().getId()));
  switch (from.getState()) {
    case schema::ObjectState::SEALED_MEMORY:
      out.info.state = ObjectState::kSealedMemory;
      break;
    case schema::ObjectState::SEALED:
      out.info.state = ObjectState::kSealed;
      break;
    case schema::ObjectState::DELETED:
      out.info.state = ObjectState::kDeleted;
      break;
    case schema::ObjectState::LOST:
      out.info.state = ObjectState::kLost;
      break;
    default:
      out.info.state = ObjectState::kPending;
      break;
  }
  out.info.size = from.getSize();
  out.info.digest = {from.getDigest().getHigh(), from.getDigest().getLow()};
  out.info.created_ns = from.getCreated();
  out.info.sealed_ns = from.getSealed();
  out.layout = decode(from.getLayout());
  return out;
}

}  // namespace cairn::client
