#include "store/base/rng.h"

#include <sys/random.h>

#include "store/base/result.h"

namespace cairn {

std::uint64_t Rng::below(std::uint64_t n) {
  CHECK(n > 0, "an empty range has no members");
  return static_cast<std::uint64_t>((static_cast<unsigned __int128>(next()) * n) >> 64);
}

std::uint64_t SystemRng::next() {
  std::uint64_t value = 0;
  CHECK(getrandom(&value, sizeof value, 0) == sizeof value, "the kernel gives random bytes");
  return value;
}

std::uint64_t SeededRng::next() {
  std::uint64_t z = (state_ += 0x9e3779b97f4a7c15ULL);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
  return z ^ (z >> 31);
}

}  // namespace cairn
