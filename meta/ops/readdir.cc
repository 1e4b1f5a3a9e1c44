#include <algorithm>

#include "meta/keys.h"
#include "meta/ops/operations.h"

namespace cairn::meta::ops {

namespace {
constexpr std::uint32_t kEntriesMax = 4096;  // a reply stays well below the largest message
}

Result<ReadDirResult> readdir(Env& env, const ReadDirArgs& args) {
  env.gate.reads(args.inode);
  TRYV(env.gate.settle());
  TRY(auto directory, load_inode(env.txn, args.inode));
  if (!directory.is_directory())
    return fail(Code::kNotDirectory, "inode " + to_string(args.inode) + " is not a directory");
  ReadDirResult result;
  result.parent = directory.parent.valid() ? directory.parent : args.inode;
  result.end = true;
  if (args.cookie == UINT64_MAX) return result;
  const std::size_t limit = std::clamp<std::uint32_t>(args.limit, 1, kEntriesMax);
  std::optional<Error> bad;
  TRYV(env.txn.scan(keys::cookies(args.inode), keys::cookie(args.inode, args.cookie + 1),
                    [&](std::string_view key, std::string_view value) {
                      if (result.entries.size() == limit) {
                        result.end = false;
                        return false;
                      }
                      auto record = CookieRecord::decode(value);
                      if (!record) {
                        bad = record.error().with("directory " + to_string(args.inode));
                        return false;
                      }
                      result.entries.push_back(
                          {std::move(record->name), record->inode, record->type, keys::part(key, 1), {}});
                      return true;
                    }));
  if (bad) return fail(*bad);
  if (!args.plus) return result;
  for (ReadDirEntry& entry : result.entries) {
    if (env.gate.held_elsewhere(entry.inode))
      continue;  // asked for by name, it is recalled; a listing does not wait
    TRY(entry.record, find_inode(env.txn, entry.inode));
  }
  return result;
}

}  // namespace cairn::meta::ops
