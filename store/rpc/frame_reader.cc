#include "store/rpc/frame_reader.h"

#include <algorithm>
#include <cstring>

namespace cairn::rpc {
namespace {
// Enough for a hundred small frames; at most this much of a large payload is copied (0.4 % of 4 MiB).
constexpr std::size_t kAheadSize = 16 * 1024;
}  // namespace

FrameReader::FrameReader() : ahead_(std::make_unique_for_overwrite<std::byte[]>(kAheadSize)) {}

Result<std::optional<Frame>> FrameReader::next() {
  if (large_) return next_large();
  if (!header_) {
    if (end_ - begin_ < kHeaderSize) return std::nullopt;
    TRY(header_, decode_header(ahead_.get() + begin_));
  }
  if (kHeaderSize + header_->body_bytes() + header_->payload_bytes <= kAheadSize) return next_small(*header_);
  large_ = std::make_unique<Large>();
  std::memcpy(large_->header_bytes.data(), ahead_.get() + begin_, kHeaderSize);
  begin_ += kHeaderSize;
  large_->frame.header = *header_;
  large_->frame.body = Buffer::allocate(header_->body_bytes());
  header_.reset();
  return next_large();
}

Result<std::optional<Frame>> FrameReader::next_small(const FrameHeader& header) {
  const std::size_t body_bytes = header.body_bytes();
  if (end_ - begin_ < kHeaderSize + body_bytes + header.payload_bytes) return std::nullopt;
  const std::byte* at = ahead_.get() + begin_;
  Bytes body(at + kHeaderSize, body_bytes);
  Bytes payload(at + kHeaderSize + body_bytes, header.payload_bytes);
  TRYV(verify_body(at, header, body));
  TRYV(verify_payload(header, payload));
  Frame frame{header, Buffer::copy(body), Buffer::copy(payload)};
  begin_ += kHeaderSize + body_bytes + payload.size();
  header_.reset();
  return std::optional<Frame>(std::move(frame));
}

Result<std::optional<Frame>> FrameReader::next_large() {
  Frame& frame = large_->frame;
  take_ahead(frame.body.writable(), large_->body_have);
  if (large_->body_have < frame.body.size()) return std::nullopt;
  if (!large_->body_verified) {  // the size of the payload is believed only after this
    TRYV(verify_body(large_->header_bytes.data(), frame.header, frame.body.bytes()));
    large_->body_verified = true;
    frame.payload = Buffer::allocate(frame.header.payload_bytes);
  }
  take_ahead(frame.payload.writable(), large_->payload_have);
  if (large_->payload_have < frame.payload.size()) return std::nullopt;
  TRYV(verify_payload(frame.header, frame.payload.bytes()));
  std::optional<Frame> done(std::move(frame));
  large_.reset();
  return done;
}

void FrameReader::take_ahead(MutableBytes into, std::size_t& have) {
  const std::size_t count = std::min(end_ - begin_, into.size() - have);
  if (count == 0) return;
  std::memcpy(into.data() + have, ahead_.get() + begin_, count);
  have += count;
  begin_ += count;
}

MutableBytes FrameReader::space() {
  if (large_) {
    if (!large_->body_verified) return large_->frame.body.writable().subspan(large_->body_have);
    return large_->frame.payload.writable().subspan(large_->payload_have);
  }
  if (begin_ == end_) {
    begin_ = end_ = 0;
  } else if (begin_ > 0) {  // what is left is part of one frame: make room for the rest of it
    std::memmove(ahead_.get(), ahead_.get() + begin_, end_ - begin_);
    end_ -= begin_;
    begin_ = 0;
  }
  return {ahead_.get() + end_, kAheadSize - end_};
}

void FrameReader::filled(std::size_t bytes) {
  if (!large_) {
    end_ += bytes;
  } else if (!large_->body_verified) {
    large_->body_have += bytes;
  } else {
    large_->payload_have += bytes;
  }
}

}  // namespace cairn::rpc
