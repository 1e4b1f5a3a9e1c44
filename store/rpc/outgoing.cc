#include "store/rpc/outgoing.h"

namespace cairn::rpc {
namespace {
constexpr std::size_t kKeptCapacity = 64 * 1024;  // a rare large body does not stay for the connection's life
}

void Outgoing::add(FrameHeader header, Segments body, Payload payload) {
  const std::size_t before = bytes_.size();
  header.payload_bytes = static_cast<std::uint32_t>(payload.size());
  if (payload.self_checked) header.flags |= kFlagSelfChecked;
  append_frame(bytes_, header, body);
  size_ += bytes_.size() - before + header.payload_bytes;
  for (Buffer& piece : payload.pieces) {
    if (piece.size() > 0) runs_.push_back({bytes_.size(), std::move(piece)});
  }
}

const std::vector<Bytes>& Outgoing::pieces(std::size_t written) {
  pieces_.clear();
  const auto push = [&](Bytes piece) {
    const std::size_t skip = std::min(written, piece.size());
    written -= skip;
    if (skip < piece.size()) pieces_.push_back(piece.subspan(skip));
  };
  const Bytes small = as_bytes(bytes_);
  std::size_t at = 0;
  for (const Run& run : runs_) {
    push(small.subspan(at, run.end - at));
    push(run.payload.bytes());
    at = run.end;
  }
  push(small.subspan(at));
  return pieces_;
}

void Outgoing::clear() {
  if (bytes_.capacity() > kKeptCapacity) {
    bytes_ = std::string();
  } else {
    bytes_.clear();
  }
  runs_.clear();
  pieces_.clear();
  size_ = answered_ = answered_payload_ = 0;
}

}  // namespace cairn::rpc
