#include <algorithm>

#include "meta/keys.h"
#include "meta/ops/operations.h"

namespace cairn::meta::ops {

namespace {
constexpr std::uint32_t kQuotasMax = 1000;  // on one page
}

Result<> set_quota(Env& env, const SetQuotaArgs& args) {
  TRYV(load_directory_inode(env.txn, args.inode));
  TRY(auto record, load_directory(env.txn, args.inode));
  if (args.valid & SetQuotaArgs::kBytes) record.bytes_max = args.bytes;
  if (args.valid & SetQuotaArgs::kInodes) record.inodes_max = args.inodes;
  store_settings(env.txn, args.inode, record);
  return {};
}

Result<GetQuotasResult> get_quotas(Env& env, const GetQuotasArgs& args) {
  GetQuotasResult result;
  if (args.inode.valid()) {
    TRYV(load_directory_inode(env.txn, args.inode));
    TRY(auto record, load_directory(env.txn, args.inode));
    result.items.push_back({args.inode, record});
    result.end = true;
    return result;
  }
  const std::size_t limit = std::clamp<std::uint32_t>(args.limit, 1, kQuotasMax);
  std::vector<InodeId> found;
  result.end = true;
  TRYV(env.txn.scan(keys::prefix(KeyPrefix::kDirectorySetting),
                    keys::directory_setting(InodeId(args.after.value() + 1)),
                    [&](std::string_view key, std::string_view) {
                      result.end = found.size() < limit;
                      if (result.end) found.emplace_back(keys::part(key, 0));
                      return result.end;
                    }));
  for (const InodeId id : found) {
    TRY(auto record, load_directory(env.txn, id));
    result.items.push_back({id, record});
  }
  return result;
}

}  // namespace cairn::meta::ops
