#include "chunkserver/apply.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

namespace cairn::chunkserver {
namespace {

using disk::ChunkEngine;
using disk::ChunkInfo;
using PutMode = ChunkEngine::PutMode;

std::uint32_t present_length(const std::optional<ChunkInfo>& stored) {
  return stored && stored->state == disk::ChunkState::kPresent ? stored->length : 0;
}

Result<ChunkInfo> put_bytes(ChunkEngine& engine, const WriteSpec& spec, std::string_view content) {
  const Bytes bytes = as_bytes(content);
  return engine.put(spec.chunk, bytes, block_checksums(bytes), PutMode::kReplaceLower, options_of(spec));
}

Result<ChunkInfo> put_fresh(ChunkEngine& engine, const WriteSpec& spec, Bytes payload) {
  if (spec.offset == 0 && spec.checksums.size() == blocks_in(payload.size()))
    return engine.put(spec.chunk, payload, spec.checksums, PutMode::kReplaceLower, options_of(spec));
  return put_bytes(engine, spec, apply_to_bytes({}, spec, payload));
}

Result<ChunkInfo> put_object(ChunkEngine& engine, const WriteSpec& spec, Bytes payload, Onto onto) {
  disk::WriteOptions options = options_of(spec);
  options.object = true;
  const PutMode mode = onto == Onto::kNothing ? PutMode::kReplaceLower : PutMode::kObjectOnce;
  auto stored = engine.put(spec.chunk, payload, spec.checksums, mode, options);
  // The same bytes were there under an older version: every member must name them by the same one.
  if (stored && stored->version < spec.version) return engine.reversion(spec.chunk, options);
  return stored;
}

Result<ChunkInfo> apply_onto_nothing(ChunkEngine& engine, const WriteSpec& spec, Bytes payload) {
  switch (spec.kind) {
    case WriteKind::kPut:
      return put_object(engine, spec, payload, Onto::kNothing);
    case WriteKind::kRemove:
      return engine.make_absent(spec.chunk, options_of(spec));
    case WriteKind::kFresh:
    case WriteKind::kWrite:
      return put_fresh(engine, spec, payload);
    default:
      return put_bytes(engine, spec, apply_to_bytes({}, spec, payload));
  }
}

}  // namespace

disk::WriteOptions options_of(const WriteSpec& spec) {
  disk::WriteOptions options;
  options.pool = spec.pool;
  options.version = spec.version;
  options.request = spec.request;
  options.owner_hint = spec.owner;
  options.durable = spec.durable;
  return options;
}

Result<ChunkInfo> apply_write(ChunkEngine& engine, const WriteSpec& spec, Bytes payload, Onto onto) {
  auto stored = engine.stat(spec.pool, spec.chunk);
  if (!stored && stored.error().code() != Code::kNotFound) return stored;
  if (onto == Onto::kNothing && stored && stored->version > spec.version)
    return fail(Code::kStale,
                fmt::format("chunk {}: version {} is stored here, above {}", to_string(spec.chunk),
                            to_string(stored->version), to_string(spec.version)));
  if (stored && stored->version >= spec.version) {
    // Sent again. It may have been applied without being synced, by an attempt that was cut off in between.
    if (spec.durable) TRYV(engine.sync());
    return stored;
  }
  if (onto == Onto::kNothing) return apply_onto_nothing(engine, spec, payload);
  const Version base = stored ? stored->version : Version();
  if (base != spec.base && !replaces_all(spec.kind))
    return fail(Code::kStale,
                fmt::format("chunk {}: version {} stands on {}, but {} is stored", to_string(spec.chunk),
                            to_string(spec.version), to_string(spec.base), to_string(base)));
  switch (spec.kind) {
    case WriteKind::kWrite:
      // Over an absent record the engine starts from nothing, as all members do.
      return engine.write(spec.chunk, spec.offset, payload, spec.checksums, options_of(spec));
    case WriteKind::kFresh:
      return put_fresh(engine, spec, payload);
    case WriteKind::kPut:
      return put_object(engine, spec, payload, onto);
    case WriteKind::kTruncate:
      return engine.truncate(spec.chunk, spec.length, options_of(spec));
    case WriteKind::kPunch:
      return engine.punch(spec.chunk, spec.offset, spec.length, options_of(spec));
    case WriteKind::kRemove:
      return engine.make_absent(spec.chunk, options_of(spec));
    case WriteKind::kReversion:
      return engine.reversion(spec.chunk, options_of(spec));
  }
  return fail(Code::kInvalidArgument, "unknown kind of write");
}

bool needs_stored_bytes(const WriteSpec& spec, std::size_t payload_bytes,
                        const std::optional<ChunkInfo>& stored) {
  const std::uint32_t length = spec.kind == WriteKind::kWrite ? present_length(stored) : 0;
  const std::uint64_t end = spec.offset + payload_bytes;
  return (spec.offset % kBlockSize != 0 && spec.offset / kBlockSize * kBlockSize < length) ||
         (end % kBlockSize != 0 && end < length);
}

Result<> make_whole_blocks(ChunkEngine* engine, WriteSpec& spec, rpc::Buffer& payload,
                           const std::optional<ChunkInfo>& stored, bool& bad_payload) {
  bad_payload = false;
  if (!spec.checksums.empty()) {
    const int bad = first_bad_block(payload.bytes(), spec.checksums);
    if (bad >= 0) {
      bad_payload = true;
      return fail(Code::kCorrupt,
                  fmt::format("chunk {}: block {} of the bytes sent does not match its checksum",
                              to_string(spec.chunk), spec.offset / kBlockSize + bad));
    }
  }
  const std::uint32_t length = spec.kind == WriteKind::kWrite ? present_length(stored) : 0;
  const auto size = static_cast<std::uint32_t>(payload.size());
  const std::uint32_t begin = spec.offset;
  const std::uint32_t end = begin + size;
  const std::uint32_t whole_begin = begin / kBlockSize * kBlockSize;
  const std::uint32_t last_block = end / kBlockSize * kBlockSize;
  const bool tail_edge = end % kBlockSize != 0 && end < length;
  const std::uint32_t whole_end = tail_edge ? std::min(last_block + kBlockSize, length) : end;
  if (whole_begin == begin && whole_end == end) {
    if (spec.checksums.empty() && size > 0) spec.checksums = block_checksums(payload.bytes());
    return {};
  }
  rpc::Buffer whole = rpc::Buffer::allocate(whole_end - whole_begin);
  std::byte* to = whole.writable().data();
  if (begin > whole_begin) {
    std::memset(to, 0, begin - whole_begin);
    if (whole_begin < length) {
      TRY(auto edge, engine->read(spec.pool, spec.chunk, whole_begin, begin - whole_begin));
      std::memcpy(to, edge.data.data(), std::min<std::size_t>(edge.data.size(), begin - whole_begin));
    }
  }
  std::memcpy(to + (begin - whole_begin), payload.bytes().data(), size);
  if (tail_edge) {
    TRY(auto edge, engine->read(spec.pool, spec.chunk, last_block, whole_end - last_block));
    const std::size_t skip = end - edge.aligned_offset;
    if (edge.aligned_offset > end || edge.data.size() < skip + (whole_end - end))
      return fail(Code::kInternal,
                  fmt::format("chunk {}: {} bytes at {} where {} were expected", to_string(spec.chunk),
                              edge.data.size(), edge.aligned_offset, whole_end - last_block));
    std::memcpy(to + (end - whole_begin), edge.data.data() + skip, whole_end - end);
  }
  spec.offset = whole_begin;
  spec.checksums = block_checksums(whole.bytes());
  payload = std::move(whole);
  return {};
}

std::string apply_to_bytes(std::string content, const WriteSpec& spec, Bytes payload) {
  switch (spec.kind) {
    case WriteKind::kFresh:
    case WriteKind::kPut:
      content.clear();
      [[fallthrough]];
    case WriteKind::kWrite: {
      const std::size_t end = spec.offset + payload.size();
      if (content.size() < end) content.resize(end, '\0');
      if (!payload.empty()) std::memcpy(content.data() + spec.offset, payload.data(), payload.size());
      break;
    }
    case WriteKind::kTruncate:
      content.resize(spec.length, '\0');
      break;
    case WriteKind::kPunch: {
      const std::size_t end =
          std::min<std::uint64_t>(content.size(), std::uint64_t{spec.offset} + spec.length);
      if (spec.offset < end) std::memset(content.data() + spec.offset, 0, end - spec.offset);
      break;
    }
    case WriteKind::kRemove:
      content.clear();
      break;
    case WriteKind::kReversion:
      break;
  }
  return content;
}

}  // namespace cairn::chunkserver
