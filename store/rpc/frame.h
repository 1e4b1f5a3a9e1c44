// Frames: how messages lie on the wire, and the checks that a received header must pass.
//
// frame        = header, body, payload
// header       = magic u32 'CRN1' | kind u8 | flags u8 | method u16 (8 bytes)
//              | id u64 (8) | status u16 | header_check u16 | body_words u32 (8) | payload_bytes u32 |
//              deadline_ms u32                                                        (8) | body_checksum u64
//              | payload_checksum u64                                                   (16)
// body         = body_words 8-byte words: a Cap'n Proto message in its stream framing (segment table,
// segments);
//                0 words read as a root with every member at its default
// payload      = payload_bytes bytes
// All integers are little-endian; the header has 48 bytes. Protocol version 1.
//
// kind         1 request      method, id (chosen by the sender, not in use by another of its requests),
// deadline_ms
//                             (time left when it was sent, 0 = none), body, payload
//              2 reply        id of the request; status 0, or a Code with a Failure as body. Each request
//              gets exactly
//                             one, also after a cancel.
//              3 cancel       id of a request whose answer is no longer wanted; no body
//              4 hello        first frame of the connecting side; body Hello
//              5 hello reply  its answer; status 0 and a HelloReply, or a Code and a Failure, after which the
//                             connection is closed
//              6 goodbye      the sender closes when the requests in flight have been answered and takes no
//              new ones;
//                             id = how many requests of this connection it took. Later ones were not acted
//                             on.
//              7 ping         answered with 8 pong, same id; no body
// flags        1 = the payload is covered by block checksums inside the body: payload_checksum is 0 and not
// verified here header_check     the low 16 bits of XXH3-64 over the header with this field 0: verified
// before anything is allocated body_checksum    XXH3-64 of the body, its seed the XXH3-64 of the header with
// both this field and header_check 0;
//                  so it covers the header too
// payload_checksum XXH3-64 of the payload; 0 when there is none
#pragma once

#include <capnp/message.h>

#include <cstdint>
#include <string>

#include "store/base/bytes.h"
#include "store/base/result.h"
#include "store/rpc/message.h"

namespace cairn::rpc {

enum class FrameKind : std::uint8_t {
  kRequest = 1,
  kReply = 2,
  kCancel = 3,
  kHello = 4,
  kHelloReply = 5,
  kGoodbye = 6,
  kPing = 7,
  kPong = 8,
};

constexpr std::size_t kHeaderSize = 48;
constexpr std::uint8_t kFlagSelfChecked = 1;

struct FrameHeader {
  FrameKind kind = FrameKind::kRequest;
  std::uint8_t flags = 0;
  std::uint16_t method = 0;
  std::uint64_t id = 0;
  std::uint16_t status = 0;
  std::uint32_t body_words = 0;
  std::uint32_t payload_bytes = 0;
  std::uint32_t deadline_ms = 0;
  std::uint64_t body_checksum = 0;  // set by append_frame()
  std::uint64_t payload_checksum = 0;

  std::size_t body_bytes() const { return std::size_t{body_words} * sizeof(capnp::word); }
};

using Segments = kj::ArrayPtr<const kj::ArrayPtr<const capnp::word>>;

// Size of the body that `segments` make, with their table; 0 for a message without a root.
std::size_t body_size(Segments segments);

// kInvalidArgument, naming the size and the limit, when `message` cannot be sent in one frame.
Result<> check_sendable(OutMessage& message);

// Checksum of a payload in pieces; 0 when it is empty or self-checked.
std::uint64_t payload_checksum(const Payload& payload);

// Appends header and body to `out`; the payload goes on the wire behind them. body_words and body_checksum
// are filled in.
void append_frame(std::string& out, FrameHeader header, Segments segments);

// Decodes 48 bytes. kProtocol for a wrong magic, check, kind, flag, or a size over the limits.
Result<FrameHeader> decode_header(const std::byte* bytes);

// kProtocol when `body` (or the header before it) is not what was sent. `header` as decode_header() gave it.
Result<> verify_body(const std::byte* header_bytes, const FrameHeader& header, Bytes body);
Result<> verify_payload(const FrameHeader& header, Bytes payload);

}  // namespace cairn::rpc
