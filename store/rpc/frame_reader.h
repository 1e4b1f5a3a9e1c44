// Cuts a byte stream into frames. Small frames are read ahead, many with one read; the body and payload of a
// large one go from the stream straight into their final buffers. Only on the executor of its stream; no I/O
// of its own:
//
//   for (;;) {
//     while (frame = next()) ...          every frame that is complete
//     n = co_await stream.read_some(space());
//     filled(n);
//   }
#pragma once

#include <array>
#include <memory>
#include <optional>

#include "store/rpc/frame.h"
#include "store/rpc/message.h"

namespace cairn::rpc {

struct Frame {
  FrameHeader header;
  Buffer body;
  Buffer payload;
};

class FrameReader {
 public:
  FrameReader();
  // The next complete frame, verified; nothing: more bytes are needed. kProtocol: the stream cannot be read
  // further.
  Result<std::optional<Frame>> next();
  // Where the next bytes of the stream belong; never empty after next() found nothing.
  MutableBytes space();
  void filled(std::size_t bytes);
  // True between frames: an end of the stream here is in good order.
  bool at_boundary() const { return begin_ == end_ && !large_; }

 private:
  // A frame too large for the read-ahead buffer, while it arrives.
  struct Large {
    std::array<std::byte, kHeaderSize> header_bytes;
    Frame frame;
    std::size_t body_have = 0;
    std::size_t payload_have = 0;
    bool body_verified = false;
  };
  Result<std::optional<Frame>> next_small(const FrameHeader& header);
  Result<std::optional<Frame>> next_large();
  void take_ahead(MutableBytes into, std::size_t& have);

  std::unique_ptr<std::byte[]> ahead_;
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
  std::optional<FrameHeader> header_;  // of the frame at begin_, decoded, whose rest has not arrived
  std::unique_ptr<Large> large_;
};

}  // namespace cairn::rpc
