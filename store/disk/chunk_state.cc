#include "store/disk/chunk_state.h"

#include <fmt/format.h>

#include <algorithm>

namespace cairn::disk {
namespace {

constexpr std::uint8_t kFormat = 1;
constexpr std::uint8_t kAbsentFlag = 4;
constexpr std::uint8_t kObjectFlag = 8;
constexpr std::uint8_t kSettledFlag = 16;

void encode_state(ByteWriter& out, const State& state) {
  std::uint8_t flags = static_cast<std::uint8_t>(state.content.place);
  if (state.presence == ChunkState::kAbsent) flags |= kAbsentFlag;
  if (state.object) flags |= kObjectFlag;
  if (state.settled) flags |= kSettledFlag;
  out.u8(flags);
  out.u64(state.version.epoch.value());
  out.u64(state.version.counter);
  out.u64(state.request.session.value());
  out.u64(state.request.sequence);
  out.u64(state.digest.high);
  out.u64(state.digest.low);
  out.u32(state.length);
  out.u32(state.content.id);
  out.u64(state.redo_sequence);
  out.u64(state.generation);
  if (state.content.place == Place::kExtent) {
    out.u64(state.content.extent.unit);
    out.u8(state.content.extent.size_class);
  }
  out.u8(static_cast<std::uint8_t>(state.sums.size()));
  for (BlockChecksum sum : state.sums) out.u64(sum);
}

bool decode_state(ByteReader& in, State& state) {
  std::uint8_t flags = in.u8();
  if ((flags & 3) > 2) return false;
  state.content.place = static_cast<Place>(flags & 3);
  state.presence = (flags & kAbsentFlag) ? ChunkState::kAbsent : ChunkState::kPresent;
  state.object = (flags & kObjectFlag) != 0;
  state.settled = (flags & kSettledFlag) != 0;
  state.version.epoch = Epoch(in.u64());
  state.version.counter = in.u64();
  state.request.session = SessionId(in.u64());
  state.request.sequence = in.u64();
  state.digest.high = in.u64();
  state.digest.low = in.u64();
  state.length = in.u32();
  state.content.id = in.u32();
  state.redo_sequence = in.u64();
  state.generation = in.u64();
  if (state.content.place == Place::kExtent) {
    state.content.extent.unit = in.u64();
    state.content.extent.size_class = in.u8();
    if (state.content.extent.size_class >= kSizeClasses || state.length > state.content.extent.bytes())
      return false;
  }
  if (state.length > kChunkBytesMax) return false;
  std::uint8_t count = in.u8();
  if (count > kSumsInRecord) return false;
  state.sums.resize(count);
  for (BlockChecksum& sum : state.sums) sum = in.u64();
  return in.ok();
}

std::unexpected<Error> undecodable(std::string_view what) {
  return fail(Code::kCorrupt, fmt::format("{} does not decode", what));
}

}  // namespace

std::vector<BlockChecksum> sums_to_keep(const State& state, const std::vector<BlockChecksum>& all) {
  if (state.blocks() <= kSumsInRecord) return all;
  return {all.back()};
}

std::string encode_record(const Chunk& chunk) {
  std::string text;
  text.reserve(160 + chunk.before.size() * 140);
  ByteWriter out(text);
  out.u8(kFormat);
  out.u64(chunk.owner_hint.value());
  State now = chunk.now;
  now.sums.clear();
  if (now.blocks() <= kSumsInRecord) now.sums = chunk.sums;
  encode_state(out, now);
  out.u8(static_cast<std::uint8_t>(chunk.before.size()));
  for (const State& state : chunk.before) encode_state(out, state);
  return text;
}

Result<> decode_record(std::string_view text, Chunk& to) {
  ByteReader in(text);
  std::uint8_t format = in.u8();
  if (in.ok() && format != kFormat)
    return fail(Code::kVersionMismatch,
                fmt::format("index record has format {}, this program reads {}", format, kFormat));
  to.exists = true;
  to.owner_hint = InodeId(in.u64());
  if (!decode_state(in, to.now)) return undecodable("index record");
  if (to.now.blocks() <= kSumsInRecord) {
    if (to.now.sums.size() != to.now.blocks()) return undecodable("index record");
    to.sums = std::move(to.now.sums);
  }
  to.now.sums.clear();
  std::uint8_t count = in.u8();
  if (count > kFallbacksMax) return undecodable("index record");
  to.before.resize(count);
  for (State& state : to.before) {
    if (!decode_state(in, state)) return undecodable("index record");
    std::size_t kept = state.blocks() <= kSumsInRecord ? state.blocks() : 1;
    if (state.sums.size() != kept) return undecodable("index record");
  }
  if (!in.done()) return undecodable("index record");
  return {};
}

std::string encode_redo(const Redo& redo) {
  std::string text;
  text.reserve(22 + redo.old_sums.size() * 8 + redo.bytes.size());
  ByteWriter out(text);
  out.u8(kFormat);
  out.u8(redo.zeros ? 1 : 0);
  out.u32(redo.offset);
  out.u32(redo.length);
  out.u64(redo.generation);
  out.u32(static_cast<std::uint32_t>(redo.old_sums.size()));
  for (BlockChecksum sum : redo.old_sums) out.u64(sum);
  out.raw(redo.bytes.data(), redo.bytes.size());
  return text;
}

Result<Redo> decode_redo(std::string_view text) {
  ByteReader in(text);
  Redo redo;
  std::uint8_t format = in.u8();
  redo.zeros = (in.u8() & 1) != 0;
  redo.offset = in.u32();
  redo.length = in.u32();
  redo.generation = in.u64();
  std::uint32_t count = in.u32();
  if (!in.ok() || format != kFormat || redo.length > kChunkBytesMax ||
      redo.offset > kChunkBytesMax - redo.length || count > in.left() / 8)
    return undecodable("redo row");
  redo.old_sums.resize(count);
  for (BlockChecksum& sum : redo.old_sums) sum = in.u64();
  if (in.left() != (redo.zeros ? 0 : redo.length)) return undecodable("redo row");
  redo.bytes = in.raw(in.left());
  return redo;
}

std::string encode_sums(std::span<const BlockChecksum> sums) {
  return std::string(reinterpret_cast<const char*>(sums.data()), sums.size_bytes());
}

bool decode_sums(std::string_view text, std::span<BlockChecksum> to) {
  if (text.size() != to.size_bytes()) return false;
  std::memcpy(to.data(), text.data(), text.size());
  return true;
}

void overlay_redo(const std::vector<Redo>& redo, std::uint32_t offset, MutableBytes bytes) {
  std::uint32_t end = offset + static_cast<std::uint32_t>(bytes.size());
  for (const Redo& entry : redo) {
    std::uint32_t from = std::max(entry.offset, offset);
    std::uint32_t to = std::min(entry.end(), end);
    if (from >= to) continue;
    if (entry.zeros)
      std::memset(bytes.data() + (from - offset), 0, to - from);
    else
      std::memcpy(bytes.data() + (from - offset), entry.bytes.data() + (from - entry.offset), to - from);
  }
}

ChunkInfo info_of(const Chunk& chunk) {
  ChunkInfo info;
  info.chunk = chunk.key.chunk();
  info.pool = chunk.key.pool();
  info.version = chunk.now.version;
  info.state = chunk.now.presence;
  info.length = chunk.now.length;
  info.last_request = chunk.now.request;
  info.owner_hint = chunk.owner_hint;
  info.object = chunk.now.object;
  info.digest = chunk.now.digest;
  return info;
}

}  // namespace cairn::disk
