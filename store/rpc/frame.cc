#include "store/rpc/frame.h"

#include <fmt/format.h>
#define XXH_STATIC_LINKING_ONLY  // the size of XXH3_state_t, to have one on the stack
#include <xxhash.h>

#include <array>
#include <cstring>

namespace cairn::rpc {
namespace {

constexpr std::uint32_t kMagic = 0x314e5243;  // "CRN1"
constexpr std::size_t kHeaderCheckAt = 18;
constexpr std::size_t kBodyChecksumAt = 32;

using HeaderBytes = std::array<std::byte, kHeaderSize>;

template <class T>
void put(HeaderBytes& to, std::size_t at, T value) {
  std::memcpy(to.data() + at, &value, sizeof value);
}
template <class T>
T get(const std::byte* from, std::size_t at) {
  T value;
  std::memcpy(&value, from + at, sizeof value);
  return value;
}

// `header` has header_check 0.
std::uint16_t header_check(const HeaderBytes& header) {
  return static_cast<std::uint16_t>(XXH3_64bits(header.data(), header.size()));
}

// `header` has header_check and body_checksum 0.
std::uint64_t body_checksum(const HeaderBytes& header, Bytes body) {
  return XXH3_64bits_withSeed(body.data(), body.size(), XXH3_64bits(header.data(), header.size()));
}

bool carries_nothing(FrameKind kind) {
  return kind == FrameKind::kCancel || kind == FrameKind::kGoodbye || kind == FrameKind::kPing ||
         kind == FrameKind::kPong;
}

}  // namespace

std::size_t body_size(Segments segments) {
  if (segments.size() == 0) return 0;
  std::size_t words =
      segments.size() / 2 + 1;  // the table: a count and a size each, 4 bytes, padded to words
  for (const auto& segment : segments) words += segment.size();
  return words * sizeof(capnp::word);
}

Result<> check_sendable(OutMessage& message) {
  const std::size_t body = body_size(message.builder().getSegmentsForOutput());
  if (body > kBodyMax) {
    return fail(Code::kInvalidArgument,
                fmt::format("message body of {} bytes exceeds the limit of {}", body, kBodyMax));
  }
  const std::size_t payload = message.payload.size();
  if (payload > kPayloadMax) {
    return fail(Code::kInvalidArgument,
                fmt::format("message payload of {} bytes exceeds the limit of {}", payload, kPayloadMax));
  }
  return {};
}

std::uint64_t payload_checksum(const Payload& payload) {
  if (payload.self_checked || payload.size() == 0) return 0;
  if (payload.pieces.size() == 1) {
    return XXH3_64bits(payload.pieces[0].bytes().data(), payload.pieces[0].size());
  }
  XXH3_state_t state;
  XXH3_64bits_reset(&state);
  for (const Buffer& piece : payload.pieces) XXH3_64bits_update(&state, piece.bytes().data(), piece.size());
  return XXH3_64bits_digest(&state);
}

void append_frame(std::string& out, FrameHeader header, Segments segments) {
  const std::size_t body_bytes = body_size(segments);
  header.body_words = static_cast<std::uint32_t>(body_bytes / sizeof(capnp::word));
  HeaderBytes bytes{};
  put(bytes, 0, kMagic);
  put(bytes, 4, static_cast<std::uint8_t>(header.kind));
  put(bytes, 5, header.flags);
  put(bytes, 6, header.method);
  put(bytes, 8, header.id);
  put(bytes, 16, header.status);
  put(bytes, 20, header.body_words);
  put(bytes, 24, header.payload_bytes);
  put(bytes, 28, header.deadline_ms);
  put(bytes, 40, header.payload_checksum);

  const std::size_t start = out.size();
  out.append(kHeaderSize, '\0');
  ByteWriter body(out);
  if (segments.size() > 0) {
    body.u32(static_cast<std::uint32_t>(segments.size() - 1));
    for (const auto& segment : segments) body.u32(static_cast<std::uint32_t>(segment.size()));
    if (segments.size() % 2 == 0) body.u32(0);
    for (const auto& segment : segments) body.raw(segment.begin(), segment.size() * sizeof(capnp::word));
  }
  put(bytes, kBodyChecksumAt, body_checksum(bytes, as_bytes(out).subspan(start + kHeaderSize)));
  put(bytes, kHeaderCheckAt, header_check(bytes));
  std::memcpy(out.data() + start, bytes.data(), kHeaderSize);
}

Result<FrameHeader> decode_header(const std::byte* from) {
  if (get<std::uint32_t>(from, 0) != kMagic) {
    return fail(Code::kProtocol, fmt::format("frame begins with {:#010x}, which is not a cairn frame",
                                             get<std::uint32_t>(from, 0)));
  }
  HeaderBytes bytes;
  std::memcpy(bytes.data(), from, kHeaderSize);
  put(bytes, kHeaderCheckAt, std::uint16_t{0});
  if (get<std::uint16_t>(from, kHeaderCheckAt) != header_check(bytes)) {
    return fail(Code::kProtocol, "frame header does not match its checksum");
  }
  FrameHeader header;
  header.kind = static_cast<FrameKind>(get<std::uint8_t>(from, 4));
  header.flags = get<std::uint8_t>(from, 5);
  header.method = get<std::uint16_t>(from, 6);
  header.id = get<std::uint64_t>(from, 8);
  header.status = get<std::uint16_t>(from, 16);
  header.body_words = get<std::uint32_t>(from, 20);
  header.payload_bytes = get<std::uint32_t>(from, 24);
  header.deadline_ms = get<std::uint32_t>(from, 28);
  header.body_checksum = get<std::uint64_t>(from, kBodyChecksumAt);
  header.payload_checksum = get<std::uint64_t>(from, 40);

  const auto kind = static_cast<unsigned>(header.kind);
  if (kind < static_cast<unsigned>(FrameKind::kRequest) || kind > static_cast<unsigned>(FrameKind::kPong)) {
    return fail(Code::kProtocol, fmt::format("frame has unknown kind {}", kind));
  }
  if ((header.flags & ~kFlagSelfChecked) != 0) {
    return fail(Code::kProtocol, fmt::format("frame has unknown flags {:#04x}", header.flags));
  }
  if (header.body_bytes() > kBodyMax) {
    return fail(Code::kProtocol,
                fmt::format("frame body of {} bytes exceeds the limit of {}", header.body_bytes(), kBodyMax));
  }
  if (header.payload_bytes > kPayloadMax) {
    return fail(Code::kProtocol, fmt::format("frame payload of {} bytes exceeds the limit of {}",
                                             header.payload_bytes, kPayloadMax));
  }
  if (carries_nothing(header.kind) && (header.body_words != 0 || header.payload_bytes != 0)) {
    return fail(Code::kProtocol, fmt::format("frame of kind {} carries a body or payload", kind));
  }
  return header;
}

Result<> verify_body(const std::byte* header_bytes, const FrameHeader& header, Bytes body) {
  HeaderBytes bytes;
  std::memcpy(bytes.data(), header_bytes, kHeaderSize);
  put(bytes, kHeaderCheckAt, std::uint16_t{0});
  put(bytes, kBodyChecksumAt, std::uint64_t{0});
  if (body_checksum(bytes, body) != header.body_checksum) {
    return fail(Code::kProtocol, "frame body does not match its checksum");
  }
  return {};
}

Result<> verify_payload(const FrameHeader& header, Bytes payload) {
  const bool unchecked = payload.empty() || (header.flags & kFlagSelfChecked) != 0;
  const std::uint64_t expected = unchecked ? 0 : XXH3_64bits(payload.data(), payload.size());
  if (expected != header.payload_checksum) {
    return fail(Code::kProtocol, "frame payload does not match its checksum");
  }
  return {};
}

}  // namespace cairn::rpc
