#include "store/rpc/message.h"

#include <algorithm>

#include "store/rpc/page_pool.h"

namespace cairn::rpc {
namespace {

capnp::ReaderOptions reader_options(std::size_t words) {
  capnp::ReaderOptions options;
  options.traversalLimitInWords = std::max<std::uint64_t>(8 * words, 64);
  options.nestingLimit = 16;
  return options;
}

// A message of one segment with a null root: every member reads as its default.
alignas(8) constexpr std::uint64_t kEmptyMessage[2] = {std::uint64_t{1} << 32, 0};

}  // namespace

Buffer Buffer::allocate(std::size_t size) {
  Buffer buffer;
  if (size == 0) return buffer;
  if (size < kPageSize) {
    auto owner = std::make_shared_for_overwrite<std::max_align_t[]>((size + sizeof(std::max_align_t) - 1) /
                                                                    sizeof(std::max_align_t));
    buffer.bytes_ = {reinterpret_cast<const std::byte*>(owner.get()), size};
    buffer.owner_ = std::move(owner);
    return buffer;
  }
  buffer.owner_ = allocate_pages(size);
  buffer.bytes_ = {static_cast<const std::byte*>(buffer.owner_.get()), size};
  return buffer;
}

Buffer Buffer::copy(Bytes bytes) {
  Buffer buffer = allocate(bytes.size());
  if (!bytes.empty()) std::memcpy(buffer.writable().data(), bytes.data(), bytes.size());
  return buffer;
}

Buffer Buffer::take(std::string bytes) {
  auto owner = std::make_shared<std::string>(std::move(bytes));
  Bytes view = as_bytes(*owner);
  return wrap(view, std::move(owner));
}

Buffer Buffer::wrap(Bytes bytes, std::shared_ptr<void> owner) {
  Buffer buffer;
  buffer.owner_ = std::move(owner);
  buffer.bytes_ = bytes;
  return buffer;
}

Buffer Buffer::slice(std::size_t offset, std::size_t size) const {
  CHECK(offset <= bytes_.size() && size <= bytes_.size() - offset, "a slice lies inside its buffer");
  return wrap(bytes_.subspan(offset, size), owner_);
}

std::size_t Payload::size() const {
  std::size_t sum = 0;
  for (const Buffer& piece : pieces) sum += piece.size();
  return sum;
}

InMessage::InMessage(Buffer words, Buffer payload) : words_(std::move(words)), payload_(std::move(payload)) {
  const std::size_t count = words_.size() / sizeof(capnp::word);
  const void* first = count == 0 ? static_cast<const void*>(kEmptyMessage) : words_.bytes().data();
  kj::ArrayPtr<const capnp::word> array(static_cast<const capnp::word*>(first), count == 0 ? 2 : count);
  reader_ = std::make_unique<capnp::FlatArrayMessageReader>(array, reader_options(count));
}

}  // namespace cairn::rpc
