// Fixed-width integers in records and keys. Keys are big-endian (so that they sort); records are
// little-endian. ByteReader never reads past its input: after a short read every value is 0 and ok() is
// false, so a decoder checks once, at the end. Bytes from disk or network are decoded only through it.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

namespace cairn {

using Bytes = std::span<const std::byte>;
using MutableBytes = std::span<std::byte>;

inline Bytes as_bytes(std::string_view text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}
inline std::string_view as_text(Bytes bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

static_assert(std::endian::native == std::endian::little, "Cairn runs on little-endian machines");
inline void store_be64(void* to, std::uint64_t v) {
  v = __builtin_bswap64(v);
  std::memcpy(to, &v, 8);
}
inline void store_be32(void* to, std::uint32_t v) {
  v = __builtin_bswap32(v);
  std::memcpy(to, &v, 4);
}
inline void store_be16(void* to, std::uint16_t v) {
  v = __builtin_bswap16(v);
  std::memcpy(to, &v, 2);
}

class ByteWriter {
 public:
  explicit ByteWriter(std::string& to) : to_(to) {}
  void u8(std::uint8_t v) { to_.push_back(static_cast<char>(v)); }
  void u16(std::uint16_t v) { raw(&v, 2); }
  void u32(std::uint32_t v) { raw(&v, 4); }
  void u64(std::uint64_t v) { raw(&v, 8); }
  void be16(std::uint16_t v) { u16(__builtin_bswap16(v)); }
  void be32(std::uint32_t v) { u32(__builtin_bswap32(v)); }
  void be64(std::uint64_t v) { u64(__builtin_bswap64(v)); }
  void raw(const void* data, std::size_t size) { to_.append(static_cast<const char*>(data), size); }
  void text(std::string_view v) {
    u32(static_cast<std::uint32_t>(v.size()));
    raw(v.data(), v.size());
  }

 private:
  std::string& to_;
};

class ByteReader {
 public:
  explicit ByteReader(std::string_view from) : from_(from) {}
  std::uint8_t u8() { return get<std::uint8_t>(); }
  std::uint16_t u16() { return get<std::uint16_t>(); }
  std::uint32_t u32() { return get<std::uint32_t>(); }
  std::uint64_t u64() { return get<std::uint64_t>(); }
  std::uint16_t be16() { return __builtin_bswap16(u16()); }
  std::uint32_t be32() { return __builtin_bswap32(u32()); }
  std::uint64_t be64() { return __builtin_bswap64(u64()); }
  std::string_view raw(std::size_t size) {
    if (size > from_.size()) {
      ok_ = false;
      from_ = {};
      return {};
    }
    std::string_view piece = from_.substr(0, size);
    from_.remove_prefix(size);
    return piece;
  }
  std::string_view text() { return raw(u32()); }
  std::size_t left() const { return from_.size(); }
  bool ok() const { return ok_; }
  bool done() const { return ok_ && from_.empty(); }

 private:
  template <class T>
  T get() {
    T v{};
    std::string_view piece = raw(sizeof v);
    if (piece.size() == sizeof v) std::memcpy(&v, piece.data(), sizeof v);
    return v;
  }
  std::string_view from_;
  bool ok_ = true;
};

}  // namespace cairn
