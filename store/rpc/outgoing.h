// Frames gathered for one write: the small parts (headers and bodies) in one run of bytes, payloads in their
// own buffers between them, never copied. Not thread-safe.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "store/rpc/frame.h"

namespace cairn::rpc {

class Outgoing {
 public:
  // `header` without its size fields. The payload's buffers are kept until clear().
  void add(FrameHeader header, Segments body, Payload payload);
  // A reply to a request that had a payload of this size: what the write sets free.
  void add_answered(std::size_t payload_bytes) {
    ++answered_;
    answered_payload_ += payload_bytes;
  }
  bool empty() const { return size_ == 0; }
  std::size_t size() const { return size_; }
  std::size_t answered() const { return answered_; }
  std::size_t answered_payload() const { return answered_payload_; }
  // What is left to write after the first `written` bytes; valid until the next change.
  const std::vector<Bytes>& pieces(std::size_t written);
  void clear();

 private:
  struct Run {  // bytes_[previous run's end, end), then `payload`
    std::size_t end = 0;
    Buffer payload;
  };
  std::string bytes_;
  std::vector<Run> runs_;
  std::vector<Bytes> pieces_;
  std::size_t size_ = 0;
  std::size_t answered_ = 0;
  std::size_t answered_payload_ = 0;
};

}  // namespace cairn::rpc
