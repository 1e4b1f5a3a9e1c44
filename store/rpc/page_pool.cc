#include "store/rpc/page_pool.h"

#include <array>
#include <bit>
#include <cstdlib>
#include <mutex>
#include <new>
#include <vector>

namespace cairn::rpc {
namespace {

constexpr std::size_t kPage = 4096;
constexpr int kFirstClass = std::countr_zero(kPooledMin);
constexpr int kClasses = std::countr_zero(kPooledMax) - kFirstClass + 1;

void* take_from_heap(std::size_t size) {
  void* memory = std::aligned_alloc(kPage, (size + kPage - 1) & ~(kPage - 1));
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

class PagePool {
 public:
  void* take(int size_class) {
    {
      std::lock_guard lock(mutex_);
      auto& idle = idle_[static_cast<std::size_t>(size_class)];
      if (!idle.empty()) {
        void* memory = idle.back();
        idle.pop_back();
        idle_bytes_ -= kPooledMin << size_class;
        return memory;
      }
    }
    return take_from_heap(kPooledMin << size_class);
  }

  void give(void* memory, int size_class) noexcept {
    {
      std::lock_guard lock(mutex_);
      if (idle_bytes_ + (kPooledMin << size_class) <= kIdleMax) {
        idle_[static_cast<std::size_t>(size_class)].push_back(
            memory);  // last in, first out: warm in the cache
        idle_bytes_ += kPooledMin << size_class;
        return;
      }
    }
    std::free(memory);
  }

  std::size_t idle_bytes() {
    std::lock_guard lock(mutex_);
    return idle_bytes_;
  }

 private:
  std::mutex mutex_;
  std::array<std::vector<void*>, kClasses> idle_;
  std::size_t idle_bytes_ = 0;
};

// Never destroyed: buffers may outlive every static object.
PagePool& pool() {
  static PagePool& pool = *new PagePool;
  return pool;
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kPooling = false;  // the sanitizer is to see each buffer's own end
#else
constexpr bool kPooling = true;
#endif

}  // namespace

std::shared_ptr<void> allocate_pages(std::size_t size) {
  if (!kPooling || size < kPooledMin || size > kPooledMax) return {take_from_heap(size), std::free};
  const int size_class = std::countr_zero(std::bit_ceil(size)) - kFirstClass;
  void* memory = pool().take(size_class);
  return {memory, [size_class](void* gone) { pool().give(gone, size_class); }};
}

std::size_t idle_page_bytes() {
  return pool().idle_bytes();
}

}  // namespace cairn::rpc
