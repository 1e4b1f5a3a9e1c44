#include "client/directory_admin.h"

#include <algorithm>

#include "client/directory_admin_impl.h"
#include "client/path_names.h"

namespace cairn::client {
namespace {

constexpr std::uint32_t kPage = 1000;

}  // namespace

struct DirectoryAdminImpl::QuotaItem {
  InodeId inode;
  Quota quota;
};
struct DirectoryAdminImpl::QuotaPage {
  std::vector<QuotaItem> items;
  bool end = false;
};

Result<InodeId> DirectoryAdminImpl::inode_of(std::string_view path) {
  TRY(const Entry entry, files_.stat(path));
  return entry.attr.inode;
}

Result<std::string> DirectoryAdminImpl::path_of(InodeId directory, std::map<InodeId, std::string>& known) {
  if (directory == kRootInode) return std::string("/");
  if (auto it = known.find(directory); it != known.end()) return it->second;
  TRY(const DirPage self, files_.block_on<DirPage>(files_.readdir(directory, 0, 1, false)));
  TRY(std::string above, path_of(self.parent, known));
  std::uint64_t cookie = 0;
  for (bool end = false; !end;) {
    TRY(const DirPage page, files_.block_on<DirPage>(files_.readdir(self.parent, cookie, kPage, false)));
    for (const DirEntry& entry : page.entries) {
      cookie = entry.cookie;
      if (entry.inode != directory) continue;
      std::string path = (above == "/" ? above : above + "/") + entry.name;
      known.emplace(directory, path);
      return path;
    }
    end = page.end || page.entries.empty();
  }
  return fail(Code::kNotFound, "directory " + to_string(directory) + " was moved or removed meanwhile");
}

Result<> DirectoryAdminImpl::set_quota(std::string_view path, QuotaChange change) {
  TRY(const InodeId inode, inode_of(path));
  std::function<void(schema::SetQuotaRequest::Builder)> fill =
      [inode, change](schema::SetQuotaRequest::Builder body) {
        body.setInode(inode.value());
        body.setValid((change.bytes ? 1 : 0) | (change.inodes ? 2 : 0));
        body.setBytes(change.bytes.value_or(0));
        body.setInodes(change.inodes.value_or(0));
      };
  auto reply = rpc::block_on(runtime_, session_.mutate<rpc::method::SetQuota>(std::move(fill), deadline()));
  if (!reply) return fail(reply.error().with(path));
  return {};
}

Result<DirectoryAdminImpl::QuotaPage> DirectoryAdminImpl::quota_page(InodeId inode, InodeId after) {
  std::function<void(schema::GetQuotasRequest::Builder, std::uint64_t)> fill =
      [=](schema::GetQuotasRequest::Builder body, std::uint64_t session) {
        body.setSession(session);
        body.setInode(inode.value());
        body.setAfter(after.value());
        body.setLimit(kPage);
      };
  TRY(auto reply,
      rpc::block_on(runtime_, session_.query<rpc::method::GetQuotas>(std::move(fill), deadline())));
  return decoded("GetQuotas", [&] {
    QuotaPage page;
    for (const auto item : reply->getItems()) {
      page.items.push_back(
          {InodeId(item.getInode()),
           {{}, item.getBytesMax(), item.getInodesMax(), item.getBytes(), item.getInodes()}});
    }
    page.end = reply->getEnd() || page.items.empty();
    return page;
  });
}

Result<Quota> DirectoryAdminImpl::quota(std::string_view path) {
  TRY(const InodeId inode, inode_of(path));
  auto page = quota_page(inode, {});
  if (!page) return fail(page.error().with(path));
  if (page->items.empty()) return fail(Code::kProtocol, "GetQuotas: no answer about " + std::string(path));
  Quota quota = std::move(page->items.front().quota);
  quota.path = normalized(path);
  return quota;
}

Result<std::vector<Quota>> DirectoryAdminImpl::quotas(std::string_view path) {
  TRYV(inode_of(path));
  const std::string above = normalized(path);
  std::vector<Quota> out;
  std::map<InodeId, std::string> known;
  InodeId after;
  for (bool end = false; !end;) {
    TRY(QuotaPage page, quota_page({}, after));
    end = page.end;
    for (QuotaItem& item : page.items) {
      after = item.inode;
      if (item.quota.bytes_max == 0 && item.quota.inodes_max == 0) continue;
      auto found = path_of(item.inode, known);
      if (!found && found.error().code() == Code::kNotFound) continue;  // removed meanwhile
      if (!found) return fail(std::move(found.error()));
      item.quota.path = std::move(*found);
      if (at_or_below(item.quota.path, above)) out.push_back(std::move(item.quota));
    }
  }
  std::ranges::sort(out, {}, &Quota::path);
  return out;
}

}  // namespace cairn::client
