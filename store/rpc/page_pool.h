// Memory of large buffers, kept for the next one: fresh pages cost a fault and a zeroing each, which for bulk
// bytes is dearer than copying them.
//
// Pieces are rounded up to a power of two from kPooledMin to kPooledMax; others come from the heap. At most
// kIdleMax bytes lie idle in a process. Thread-safe.
#pragma once

#include <cstddef>
#include <memory>

namespace cairn::rpc {

constexpr std::size_t kPooledMin = 64 << 10;
constexpr std::size_t kPooledMax = 4 << 20;
constexpr std::size_t kIdleMax = 32 << 20;

// Page-aligned, uninitialised, at least `size` bytes. Throws std::bad_alloc.
std::shared_ptr<void> allocate_pages(std::size_t size);

// Bytes that lie idle now.
std::size_t idle_page_bytes();

}  // namespace cairn::rpc
