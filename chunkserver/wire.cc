#include "chunkserver/wire.h"

#include <fmt/format.h>

namespace cairn::chunkserver {

ChunkId chunk_of(schema::ChunkId::Reader from) {
  return {DataId(from.getData()), from.getIndex(), from.getShard()};
}
Version version_of(schema::Version::Reader from) {
  return {Epoch(from.getEpoch()), from.getCounter()};
}
Digest digest_of(schema::Digest::Reader from) {
  return {from.getHigh(), from.getLow()};
}
GroupId group_of(schema::GroupId::Reader from) {
  return {PoolId(from.getPool()), from.getSlot()};
}
JournalPosition position_of(schema::JournalPosition::Reader from) {
  return {Era(from.getEra()), from.getTerm(), from.getIndex()};
}

void set_chunk(schema::ChunkId::Builder to, const ChunkId& chunk) {
  to.setData(chunk.data.value());
  to.setIndex(chunk.index);
  to.setShard(chunk.shard);
}
void set_version(schema::Version::Builder to, const Version& version) {
  to.setEpoch(version.epoch.value());
  to.setCounter(version.counter);
}
void set_digest(schema::Digest::Builder to, const Digest& digest) {
  to.setHigh(digest.high);
  to.setLow(digest.low);
}
void set_group(schema::GroupId::Builder to, const GroupId& group) {
  to.setPool(group.pool.value());
  to.setSlot(group.slot);
}
void set_position(schema::JournalPosition::Builder to, const JournalPosition& position) {
  to.setEra(position.era.value());
  to.setTerm(position.term);
  to.setIndex(position.index);
}

std::vector<BlockChecksum> checksums_of(capnp::List<std::uint64_t>::Reader from) {
  std::vector<BlockChecksum> out(from.size());
  for (unsigned i = 0; i < from.size(); ++i) out[i] = from[i];
  return out;
}

Result<WriteSpec> write_spec_of(schema::WriteRequest::Reader from, std::size_t payload_bytes) {
  const auto context = from.getContext();
  WriteSpec spec;
  spec.chunk = chunk_of(context.getChunk());
  spec.pool = PoolId(context.getPool());
  spec.epoch = Epoch(context.getEpoch());
  spec.request = {SessionId(context.getSession()), context.getSequence()};
  spec.owner = InodeId(context.getOwnerHint());
  spec.lease = LeaseGeneration(context.getLeaseGeneration());
  if (static_cast<std::uint16_t>(from.getKind()) > static_cast<std::uint16_t>(WriteKind::kReversion))
    return fail(Code::kInvalidArgument,
                fmt::format("write: unknown kind {}", static_cast<int>(from.getKind())));
  spec.kind = static_cast<WriteKind>(from.getKind());
  spec.offset = from.getOffset();
  spec.length = from.getLength();
  spec.checksums = checksums_of(from.getChecksums());
  spec.durable = from.getDurable();
  spec.version = version_of(from.getVersion());
  spec.base = version_of(from.getBase());

  if (!carries_bytes(spec.kind)) {
    if (payload_bytes > 0 || !spec.checksums.empty())
      return fail(Code::kInvalidArgument, "write: this kind takes no payload");
    const std::uint64_t end = std::uint64_t{spec.offset} + spec.length;
    if (end > rpc::kPayloadMax)
      return fail(Code::kInvalidArgument,
                  fmt::format("write: bytes {} to {} are past the largest chunk", spec.offset, end));
    return spec;
  }
  if (payload_bytes == 0 && spec.kind == WriteKind::kWrite)
    return fail(Code::kInvalidArgument, "write: no bytes");
  if (spec.offset > rpc::kPayloadMax || spec.offset + payload_bytes > rpc::kPayloadMax)
    return fail(Code::kInvalidArgument, fmt::format("write: bytes {} to {} are past the largest chunk",
                                                    spec.offset, spec.offset + payload_bytes));
  if (spec.kind == WriteKind::kPut && spec.offset != 0)
    return fail(Code::kInvalidArgument, "put: an object's chunk is written whole, offset must be 0");
  if (!spec.checksums.empty()) {
    if (spec.offset % kBlockSize != 0)
      return fail(Code::kInvalidArgument, "write: checksums need an offset at a block boundary");
    if (spec.checksums.size() != blocks_in(payload_bytes))
      return fail(Code::kInvalidArgument, fmt::format("write: {} checksums for {} blocks",
                                                      spec.checksums.size(), blocks_in(payload_bytes)));
  }
  return spec;
}

rpc::OutMessage forward_message(const WriteSpec& spec, Epoch epoch, TargetId target,
                                const rpc::Buffer& payload) {
  rpc::OutMessage out;
  auto body = out.body<schema::WriteRequest>();
  auto context = body.initContext();
  set_chunk(context.initChunk(), spec.chunk);
  context.setPool(spec.pool.value());
  context.setEpoch(epoch.value());
  context.setSession(spec.request.session.value());
  context.setSequence(spec.request.sequence);
  context.setOwnerHint(spec.owner.value());
  context.setLeaseGeneration(spec.lease.value());
  context.setTarget(target.value());
  body.setKind(static_cast<schema::WriteRequest::Kind>(spec.kind));
  body.setOffset(spec.offset);
  body.setLength(spec.length);
  auto checksums = body.initChecksums(static_cast<unsigned>(spec.checksums.size()));
  for (unsigned i = 0; i < spec.checksums.size(); ++i) checksums.set(i, spec.checksums[i]);
  body.setDurable(spec.durable);
  set_version(body.initVersion(), spec.version);
  set_version(body.initBase(), spec.base);
  if (payload.size() > 0) {
    out.payload.pieces.push_back(payload);
    out.payload.self_checked = !spec.checksums.empty();
  }
  return out;
}

WriteOutcome outcome_of(schema::WriteReply::Reader from) {
  return {version_of(from.getVersion()), digest_of(from.getDigest()), from.getLength(), from.getAvailable(),
          version_of(from.getBase())};
}

rpc::OutMessage write_reply(const WriteOutcome& outcome) {
  rpc::OutMessage out;
  auto body = out.body<schema::WriteReply>();
  set_version(body.initVersion(), outcome.version);
  set_digest(body.initDigest(), outcome.digest);
  body.setLength(outcome.length);
  body.setAvailable(outcome.available);
  set_version(body.initBase(), outcome.base);
  return out;
}

disk::ChunkInfo info_of(schema::ChunkEntry::Reader from, PoolId pool) {
  disk::ChunkInfo info;
  info.chunk = chunk_of(from.getChunk());
  info.pool = pool;
  info.version = version_of(from.getVersion());
  info.state = from.getState() == 0 ? disk::ChunkState::kPresent : disk::ChunkState::kAbsent;
  info.length = from.getLength();
  info.last_request = {SessionId(from.getSession()), from.getSequence()};
  info.owner_hint = InodeId(from.getOwnerHint());
  info.object = from.getObject();
  info.digest = digest_of(from.getDigest());
  return info;
}

void set_entry(schema::ChunkEntry::Builder to, const disk::ChunkInfo& info) {
  set_chunk(to.initChunk(), info.chunk);
  set_version(to.initVersion(), info.version);
  to.setLength(info.length);
  to.setState(static_cast<std::uint8_t>(info.state));
  to.setObject(info.object);
  to.setOwnerHint(info.owner_hint.value());
  set_digest(to.initDigest(), info.digest);
  to.setSession(info.last_request.session.value());
  to.setSequence(info.last_request.sequence);
}

}  // namespace cairn::chunkserver
