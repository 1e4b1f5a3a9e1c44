// DirectoryAdmin over the metadata server. Owner: the client.
#pragma once

#include <map>

#include "client/directory_admin.h"
#include "client/file_system_impl.h"

namespace cairn::client {

class DirectoryAdminImpl final : public DirectoryAdmin {
 public:
  DirectoryAdminImpl(rpc::Runtime& runtime, Session& session, FileSystemImpl& files,
                     const ClientOptions& options)
      : runtime_(runtime), session_(session), files_(files), options_(options) {}

  Result<> set_quota(std::string_view path, QuotaChange change) override;
  Result<Quota> quota(std::string_view path) override;
  Result<std::vector<Quota>> quotas(std::string_view path) override;
  Result<> set_retention(std::string_view path, std::int64_t nanoseconds) override;
  Result<Retention> retention(std::string_view path) override;
  Result<std::vector<TrashEntry>> trash(std::string_view path) override;
  Result<std::vector<TrashEntry>> versions(std::string_view path) override;
  Result<> undelete(const TrashEntry& entry, std::string_view to) override;
  Result<Restored> undelete_tree(std::string_view path, std::string_view to) override;
  Result<std::uint64_t> empty_trash(const std::vector<TrashEntry>& entries) override;

 private:
  Deadline deadline() const { return Deadline::after(runtime_.clock(), options_.timeout); }
  Result<InodeId> inode_of(std::string_view path);
  // Of directories, looked for from below: each step lists the directory above. What was found is kept in
  // `known`.
  Result<std::string> path_of(InodeId directory, std::map<InodeId, std::string>& known);
  struct QuotaItem;
  struct QuotaPage;
  Result<QuotaPage> quota_page(InodeId inode, InodeId after);
  // trash.cc
  struct TrashPage;
  Result<TrashPage> trash_page(InodeId parent, std::string_view name, std::string_view after);
  // Without paths; everything if there is no `parent`.
  Result<std::vector<TrashEntry>> listed(InodeId parent, std::string_view name);
  Result<InodeId> make_directory_again(std::string_view path, std::string_view original,
                                       const std::map<std::string, const TrashEntry*>& removed);

  rpc::Runtime& runtime_;
  Session& session_;
  FileSystemImpl& files_;
  const ClientOptions& options_;
};

}  // namespace cairn::client
