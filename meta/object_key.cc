#include "meta/object_key.h"

#include "meta/keys.h"
#include "store/base/log.h"

namespace cairn::meta {

namespace {

constexpr char kEscape = '\x00';
constexpr char kEscapedNul = '\xff';
constexpr char kEnd = '\x01';

void append_escaped(std::string& to, std::string_view text) {
  for (const char c : text) {
    to.push_back(c);
    if (c == kEscape) to.push_back(kEscapedNul);
  }
}
void append_end(std::string& to) {
  to.push_back(kEscape);
  to.push_back(kEnd);
}
bool take_escaped(std::string_view& from, std::string& to) {
  while (from.size() >= 2) {
    if (from[0] != kEscape) {
      to.push_back(from[0]);
      from.remove_prefix(1);
      continue;
    }
    const char kind = from[1];
    from.remove_prefix(2);
    if (kind == kEnd) return true;
    if (kind != kEscapedNul) return false;
    to.push_back(kEscape);
  }
  return false;
}

}  // namespace

Result<> check_object_key(const ObjectKey& key) {
  if (key.id.empty() || key.id.size() > kObjectIdMax) {
    return fail(Code::kInvalidArgument,
                "an object id has 1 to 1024 bytes, not " + std::to_string(key.id.size()));
  }
  if (key.name_space.size() > kNamespaceMax) {
    return fail(Code::kInvalidArgument, "a namespace has at most 255 bytes");
  }
  return {};
}

std::string object_prefix(std::string_view name_space, std::string_view id_prefix) {
  std::string key = keys::prefix(KeyPrefix::kObject);
  append_escaped(key, name_space);
  append_end(key);
  append_escaped(key, id_prefix);
  return key;
}

std::string encode_object_key(const ObjectKey& key) {
  std::string out = object_prefix(key.name_space, key.id);
  append_end(out);
  keys::append64(out, key.version);
  return out;
}

std::string after_object(std::string_view name_space, std::string_view id) {
  std::string key = object_prefix(name_space, id);
  key.push_back(kEscape);
  key.push_back(kEnd + 1);  // sorts after every version, before an id that goes on with NUL
  return key;
}

Result<ObjectKey> decode_object_key(std::string_view key) {
  const auto corrupt = [] { return fail(Code::kCorrupt, "an object's key does not decode"); };
  if (key.empty() || key[0] != static_cast<char>(KeyPrefix::kObject)) return corrupt();
  key.remove_prefix(1);
  ObjectKey out;
  if (!take_escaped(key, out.name_space) || !take_escaped(key, out.id) || key.size() != 8) return corrupt();
  out.version = ByteReader(key).be64();
  return out;
}

std::string to_string(const ObjectKey& key) {
  std::string out;
  if (!key.name_space.empty()) out.append(log_quote(key.name_space)).append("/");
  out.append(log_quote(key.id));
  if (key.version != 0) out.append("@").append(std::to_string(key.version));
  return out;
}

}  // namespace cairn::meta
