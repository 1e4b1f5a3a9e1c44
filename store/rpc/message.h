// Messages on the wire: a Cap'n Proto body and, beside it, a payload of bulk bytes that is never copied into
// it.
//
// A frame is a header of 48 bytes, the body and the payload; its format stands in frame.h. Bodies are at most
// kBodyMax, payloads at most kPayloadMax; anything else closes the connection with a logged reason. The
// body's checksum is always verified; the payload's unless block checksums inside the body cover it
// (Payload::self_checked).
#pragma once

#include <capnp/message.h>
#include <capnp/serialize.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "store/base/bytes.h"
#include "store/base/result.h"

namespace cairn::rpc {

constexpr std::size_t kBodyMax = 4 << 20;
constexpr std::size_t kPayloadMax = 16 << 20;
constexpr std::uint16_t kProtocolVersion = 1;

// Received bulk bytes: one uninitialised buffer with an owner, page-aligned from kPageSize bytes up. Copies
// share the bytes; freed with the last one.
constexpr std::size_t kPageSize = 4096;
class Buffer {
 public:
  Buffer() = default;
  static Buffer allocate(std::size_t size);
  static Buffer copy(Bytes bytes);
  static Buffer take(std::string bytes);
  // Bytes that somebody else keeps: `owner` is released with the last reference.
  static Buffer wrap(Bytes bytes, std::shared_ptr<void> owner);
  MutableBytes writable() { return {const_cast<std::byte*>(bytes_.data()), bytes_.size()}; }
  Bytes bytes() const { return bytes_; }
  std::size_t size() const { return bytes_.size(); }
  // A part that keeps the whole alive.
  Buffer slice(std::size_t offset, std::size_t size) const;

 private:
  std::shared_ptr<void> owner_;
  Bytes bytes_;
};

// Bulk bytes to send: pieces written with one gather write. Each piece keeps its owner alive until sent (also
// after the call was cancelled), so that bytes are neither copied nor freed under the kernel.
struct Payload {
  std::vector<Buffer> pieces;
  bool self_checked = false;  // block checksums inside the body cover it
  std::size_t size() const;
};

// A message to send. body<S>() makes the root once.
class OutMessage {
 public:
  OutMessage() : builder_(std::make_unique<capnp::MallocMessageBuilder>(256)) {}
  template <class S>
  typename S::Builder body() {
    return builder_->initRoot<S>();
  }
  capnp::MessageBuilder& builder() { return *builder_; }
  Payload payload;

 private:
  std::unique_ptr<capnp::MallocMessageBuilder> builder_;
};

// A received message. body<S>() reads in place: views live as long as the InMessage. A malformed body makes
// accessors throw kj::Exception; services are called under a guard that turns it into kProtocol (see
// Service), so convert what you keep before the first co_await.
class InMessage {
 public:
  InMessage() = default;
  // Throws kj::Exception when the segment table is malformed. `words`: 8-byte aligned, a multiple of 8; may
  // be empty, which reads as a root with every member at its default.
  InMessage(Buffer words, Buffer payload);
  InMessage(InMessage&&) noexcept = default;
  InMessage& operator=(InMessage&&) noexcept = default;
  template <class S>
  typename S::Reader body() const {
    return reader_->getRoot<S>();
  }
  const Buffer& payload() const { return payload_; }
  Buffer take_payload() { return std::move(payload_); }

 private:
  Buffer words_;
  Buffer payload_;
  std::unique_ptr<capnp::MessageReader> reader_;  // traversal limit: 8 x the body; nesting limit 16
};

// A reply read as S: `reply->getX()`; the payload beside it.
template <class S>
class Reply {
 public:
  explicit Reply(InMessage message) : message_(std::move(message)), reader_(message_.body<S>()) {}
  Reply(Reply&& other) noexcept : message_(std::move(other.message_)), reader_(message_.body<S>()) {}
  Reply& operator=(Reply&& other) noexcept {
    message_ = std::move(other.message_);
    reader_ = message_.body<S>();
    return *this;
  }
  const typename S::Reader* operator->() const { return &reader_; }
  const typename S::Reader& operator*() const { return reader_; }
  Buffer take_payload() { return message_.take_payload(); }
  const Buffer& payload() const { return message_.payload(); }

 private:
  InMessage message_;
  typename S::Reader reader_;
};

inline std::string_view text(capnp::Data::Reader data) {
  return {reinterpret_cast<const char*>(data.begin()), data.size()};
}
inline capnp::Data::Reader data(std::string_view text) {
  return {reinterpret_cast<const capnp::byte*>(text.data()), text.size()};
}

}  // namespace cairn::rpc
