// Randomness enters as an input. Own `below` and `shuffle`: std::*_distribution and std::shuffle differ
// between libraries, and a placement that depends on them could not be reproduced. Not thread-safe unless
// stated.
#pragma once

#include <cstdint>
#include <utility>

namespace cairn {

class Rng {
 public:
  virtual ~Rng() = default;
  virtual std::uint64_t next() = 0;
  std::uint64_t below(std::uint64_t n);  // uniform in [0, n); n > 0
  bool one_in(std::uint64_t n) { return below(n) == 0; }
  template <class Container>
  void shuffle(Container& items) {
    for (std::size_t i = items.size(); i > 1; --i) std::swap(items[i - 1], items[below(i)]);
  }
};

class SystemRng final : public Rng {  // the kernel's generator: for ids that must not collide; thread-safe
 public:
  std::uint64_t next() override;
};

class SeededRng final : public Rng {  // splitmix64: the same sequence on every machine
 public:
  explicit SeededRng(std::uint64_t seed) : state_(seed) {}
  std::uint64_t next() override;

 private:
  std::uint64_t state_;
};

}  // namespace cairn
