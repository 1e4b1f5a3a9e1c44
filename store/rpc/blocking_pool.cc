#include <pthread.h>

#include <condition_variable>
#include <deque>
#include <mutex>

#include "store/rpc/task.h"

namespace cairn::rpc {

struct BlockingPool::State {
  const std::size_t queue_max;
  std::mutex mutex;
  std::condition_variable wake;
  std::deque<std::move_only_function<void()>> queue;  // guarded by mutex
  bool stopping = false;                              // guarded by mutex
  std::vector<std::thread> threads;

  explicit State(std::size_t max) : queue_max(max) {}
  void work() {
    std::unique_lock lock(mutex);
    for (;;) {
      wake.wait(lock, [this] { return stopping || !queue.empty(); });
      if (queue.empty()) return;
      {
        auto job = std::move(queue.front());
        queue.pop_front();
        lock.unlock();
        job();
      }  // the job's captures die before the lock is taken again
      lock.lock();
    }
  }
};

BlockingPool::BlockingPool(unsigned threads, std::size_t queue_max, std::string name)
    : state_(std::make_unique<State>(queue_max)) {
  CHECK(threads > 0, "a pool has at least one thread");
  for (unsigned i = 0; i < threads; ++i) {
    state_->threads.emplace_back([state = state_.get(), name] {
      pthread_setname_np(pthread_self(), name.substr(0, 15).c_str());  // the kernel takes 15 characters
      state->work();
    });
  }
}

BlockingPool::~BlockingPool() {
  {
    std::lock_guard lock(state_->mutex);
    state_->stopping = true;
  }
  state_->wake.notify_all();
  for (std::thread& thread : state_->threads) thread.join();
}

bool BlockingPool::submit(std::move_only_function<void()>& work) {
  {
    std::lock_guard lock(state_->mutex);
    if (state_->queue.size() >= state_->queue_max) return false;
    state_->queue.push_back(std::move(work));
  }
  state_->wake.notify_one();
  return true;
}

bool BlockingPool::post(std::function<void()> work) {
  std::move_only_function<void()> job = std::move(work);
  return submit(job);
}

}  // namespace cairn::rpc
