// Who waits for objects to be sealed: woken by the seal, no polling. Executor thread only.
#pragma once

#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "store/rpc/task.h"

namespace cairn::meta {

class ObjectWaiters {
 public:
  // `event` is set when the object of that key (encode_object_key) is sealed next; dropped with its last
  // other owner.
  void add(const std::string& key, const std::shared_ptr<rpc::Event>& event) {
    auto& list = waiting_[key];
    std::erase_if(list, [](const auto& waiter) { return waiter.expired(); });
    list.push_back(event);
    if (++added_ % kSweepEvery == 0) sweep();
  }
  void sealed(const std::string& key) {
    auto it = waiting_.find(key);
    if (it == waiting_.end()) return;
    for (const auto& waiter : it->second) {
      if (auto event = waiter.lock()) event->set();
    }
    waiting_.erase(it);
  }

 private:
  static constexpr std::size_t kSweepEvery = 4096;
  void sweep() {  // keys whose waiters all gave up
    for (auto it = waiting_.begin(); it != waiting_.end();) {
      std::erase_if(it->second, [](const auto& waiter) { return waiter.expired(); });
      it = it->second.empty() ? waiting_.erase(it) : std::next(it);
    }
  }
  std::unordered_map<std::string, std::vector<std::weak_ptr<rpc::Event>>> waiting_;
  std::size_t added_ = 0;
};

}  // namespace cairn::meta
