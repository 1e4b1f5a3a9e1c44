// Names of objects as keys of the store: namespace and id may hold any bytes and must sort as they are, so a
// NUL inside them is written 00 FF, and each ends with 00 01. Then the version, BE64.
#pragma once

#include <string>
#include <string_view>

#include "store/base/result.h"

namespace cairn::meta {

struct ObjectKey {
  std::string name_space;
  std::string id;
  std::uint64_t version = 0;
  bool operator==(const ObjectKey&) const = default;
};

constexpr std::size_t kObjectIdMax = 1024;
constexpr std::size_t kNamespaceMax = 255;

Result<> check_object_key(const ObjectKey& key);  // kInvalidArgument
std::string encode_object_key(const ObjectKey& key);
Result<ObjectKey> decode_object_key(std::string_view key);  // kCorrupt
// Keys of all objects of the namespace whose id begins with `id_prefix`.
std::string object_prefix(std::string_view name_space, std::string_view id_prefix);
// The first key after all versions of `id`.
std::string after_object(std::string_view name_space, std::string_view id);
std::string to_string(const ObjectKey& key);  // "namespace/id", with "@version" unless 0

}  // namespace cairn::meta
