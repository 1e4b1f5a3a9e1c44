// The trash, by path: the part of DirectoryAdmin that lists and restores.
#include <unistd.h>

#include <algorithm>
#include <tuple>

#include "client/directory_admin_impl.h"
#include "client/path_names.h"

namespace cairn::client {
namespace {

constexpr std::uint32_t kTrashPage = 500;

void fill_id(schema::TrashId::Builder to, const TrashEntry& entry) {
  to.setInode(entry.inode.value());
  to.setParent(entry.parent.value());
  to.setName(rpc::data(entry.name));
  to.setDeleted(entry.deleted_ns);
}

}  // namespace

struct DirectoryAdminImpl::TrashPage {
  std::vector<TrashEntry> items;
  std::string next;
  bool end = false;
};

Result<> DirectoryAdminImpl::set_retention(std::string_view path, std::int64_t nanoseconds) {
  TRY(const InodeId inode, inode_of(path));
  std::function<void(schema::SetRetentionRequest::Builder)> fill =
      [inode, nanoseconds](schema::SetRetentionRequest::Builder body) {
        body.setInode(inode.value());
        body.setNanoseconds(nanoseconds);
      };
  auto reply =
      rpc::block_on(runtime_, session_.mutate<rpc::method::SetRetention>(std::move(fill), deadline()));
  if (!reply) return fail(reply.error().with(path));
  return {};
}

Result<Retention> DirectoryAdminImpl::retention(std::string_view path) {
  TRY(const InodeId inode, inode_of(path));
  std::function<void(schema::InodeRequest::Builder, std::uint64_t)> fill =
      [inode](schema::InodeRequest::Builder body, std::uint64_t session) {
        body.setSession(session);
        body.setInode(inode.value());
      };
  auto reply =
      rpc::block_on(runtime_, session_.query<rpc::method::GetRetention>(std::move(fill), deadline()));
  if (!reply) return fail(reply.error().with(path));
  return Retention{(*reply)->getOwn(), (*reply)->getInForce()};
}

Result<DirectoryAdminImpl::TrashPage> DirectoryAdminImpl::trash_page(InodeId parent, std::string_view name,
                                                                     std::string_view after) {
  std::function<void(schema::ListTrashRequest::Builder, std::uint64_t)> fill =
      [&](schema::ListTrashRequest::Builder body, std::uint64_t session) {
        body.setSession(session);
        body.setParent(parent.value());
        body.setName(rpc::data(name));
        body.setAfter(rpc::data(after));
        body.setLimit(kTrashPage);
      };
  TRY(auto reply,
      rpc::block_on(runtime_, session_.query<rpc::method::ListTrash>(std::move(fill), deadline())));
  return decoded("ListTrash", [&] {
    TrashPage page;
    for (const auto item : reply->getItems()) {
      TrashEntry& entry = page.items.emplace_back();
      entry.inode = InodeId(item.getInode());
      entry.parent = InodeId(item.getParent());
      entry.name = std::string(rpc::text(item.getName()));
      entry.deleted_ns = item.getDeleted();
      entry.expires_ns = item.getExpires();
      entry.attr = decode(item.getAttr()).attr;
      entry.by = item.getBy();
      entry.client = std::string(rpc::text(item.getClient()));
    }
    page.next = std::string(rpc::text(reply->getNext()));
    page.end = reply->getEnd() || page.items.empty();
    return page;
  });
}

Result<std::vector<TrashEntry>> DirectoryAdminImpl::listed(InodeId parent, std::string_view name) {
  std::vector<TrashEntry> all;
  std::string after;
  for (bool end = false; !end;) {
    TRY(TrashPage page, trash_page(parent, name, after));
    std::ranges::move(page.items, std::back_inserter(all));
    after = std::move(page.next);
    end = page.end;
  }
  return all;
}

Result<std::vector<TrashEntry>> DirectoryAdminImpl::trash(std::string_view path) {
  const std::string above = normalized(path);
  TRY(auto all, listed({}, {}));
  std::map<InodeId, const TrashEntry*> removed;  // directories
  for (const TrashEntry& entry : all)
    if (entry.is_directory()) removed[entry.inode] = &entry;
  std::map<InodeId, std::string> known;
  // The path of a directory that lives or was removed; empty: not known any more.
  const std::function<Result<std::string>(InodeId, int)> place = [&](InodeId directory,
                                                                     int depth) -> Result<std::string> {
    if (auto it = known.find(directory); it != known.end()) return it->second;
    std::string found;
    if (auto it = removed.find(directory); it != removed.end() && depth < 4096) {
      TRY(const std::string parent, place(it->second->parent, depth + 1));
      if (!parent.empty()) found = joined(parent, it->second->name);
    } else {
      auto path = path_of(directory, known);
      if (!path && path.error().code() != Code::kNotFound) return path;
      if (path) found = std::move(*path);
    }
    known[directory] = found;
    return found;
  };
  std::vector<TrashEntry> out;
  for (TrashEntry& entry : all) {
    TRY(const std::string parent, place(entry.parent, 0));
    if (parent.empty() && above != "/") continue;
    if (!parent.empty()) entry.path = joined(parent, entry.name);
    if (parent.empty() || at_or_below(entry.path, above)) out.push_back(entry);
  }
  std::ranges::sort(out, [](const TrashEntry& a, const TrashEntry& b) {
    return std::tie(a.path, a.deleted_ns, a.inode) < std::tie(b.path, b.deleted_ns, b.inode);
  });
  return out;
}

Result<std::vector<TrashEntry>> DirectoryAdminImpl::versions(std::string_view path) {
  const std::string whole = normalized(path);
  if (whole == "/") return fail(Code::kInvalidArgument, "'/' is never deleted");
  std::vector<TrashEntry> found;
  auto parent = inode_of(directory_of(whole));
  if (parent) {
    TRY(found, listed(*parent, name_of_path(whole)));
    for (TrashEntry& entry : found) entry.path = whole;
  } else if (parent.error().code() != Code::kNotFound) {
    return fail(std::move(parent.error()));
  }
  if (found.empty()) {  // its directory was removed too, perhaps
    TRY(found, trash(whole));
    std::erase_if(found, [&](const TrashEntry& entry) { return entry.path != whole; });
  }
  return found;
}

Result<> DirectoryAdminImpl::undelete(const TrashEntry& entry, std::string_view to) {
  const std::string whole = normalized(to);
  auto parent = inode_of(directory_of(whole));
  if (!parent) return fail(parent.error().with(whole));
  std::function<void(schema::UndeleteRequest::Builder)> fill = [&](schema::UndeleteRequest::Builder body) {
    fill_id(body.initId(), entry);
    body.setParent(parent->value());
    body.setName(rpc::data(name_of_path(whole)));
  };
  auto reply = rpc::block_on(runtime_, session_.mutate<rpc::method::Undelete>(std::move(fill), deadline()));
  if (!reply) return fail(reply.error().with(whole));
  return {};
}

// `original`: what path the directory had when it was removed.
Result<InodeId> DirectoryAdminImpl::make_directory_again(
    std::string_view path, std::string_view original,
    const std::map<std::string, const TrashEntry*>& removed) {
  auto there = inode_of(path);
  if (there || there.error().code() != Code::kNotFound) return there;
  TRY(const InodeId parent, make_directory_again(directory_of(path), directory_of(original), removed));
  std::uint32_t mode = 0755;
  Owner owner{geteuid(), getegid()};
  if (auto it = removed.find(std::string(original)); it != removed.end()) {
    mode = it->second->attr.mode & 07777;
    owner = {it->second->attr.uid, it->second->attr.gid};
  }
  auto made = files_.block_on<Entry>(files_.mkdir(parent, std::string(name_of_path(path)), mode, owner));
  if (!made && made.error().code() == Code::kExists) return inode_of(path);
  if (!made) return fail(made.error().with(path));
  return made->attr.inode;
}

Result<DirectoryAdmin::Restored> DirectoryAdminImpl::undelete_tree(std::string_view path,
                                                                   std::string_view to) {
  const std::string from = normalized(path), target = normalized(to);
  TRY(const auto entries, trash(from));
  // Of each path the newest: they come oldest first.
  std::map<std::string, const TrashEntry*> files, removed;
  for (const TrashEntry& entry : entries) {
    if (!entry.path.empty()) (entry.is_directory() ? removed : files)[entry.path] = &entry;
  }
  Restored out;
  for (const auto& [was, entry] : files) {
    const std::string rest = was.substr(from == "/" ? 0 : from.size());
    const std::string whole = normalized(target + rest);
    auto parent = make_directory_again(directory_of(whole), directory_of(was), removed);
    Result<> done = parent ? undelete(*entry, whole) : Result<>(fail(std::move(parent.error())));
    if (done) {
      out.paths.push_back(whole);
    } else {
      out.refused.push_back(std::move(done.error()));
    }
  }
  return out;
}

Result<std::uint64_t> DirectoryAdminImpl::empty_trash(const std::vector<TrashEntry>& entries) {
  std::uint64_t removed = 0;
  for (std::size_t from = 0; from < entries.size(); from += kTrashPage) {
    const std::size_t count = std::min<std::size_t>(kTrashPage, entries.size() - from);
    std::function<void(schema::EmptyTrashRequest::Builder)> fill =
        [&](schema::EmptyTrashRequest::Builder body) {
          auto ids = body.initIds(static_cast<unsigned>(count));
          for (unsigned i = 0; i < count; ++i) fill_id(ids[i], entries[from + i]);
        };
    TRY(auto reply,
        rpc::block_on(runtime_, session_.mutate<rpc::method::EmptyTrash>(std::move(fill), deadline())));
    removed += reply->getRemoved();
  }
  return removed;
}

}  // namespace cairn::client
