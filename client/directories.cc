// readdir. A listing from the first entry to the last, during which the directory stayed held and unchanged
// by us, makes its cache complete: names that do not exist are then known without asking.
#include "client/file_system_impl.h"

namespace cairn::client {

FileSystem::Task<DirPage> FileSystemImpl::readdir(InodeId id, std::uint64_t cookie, std::uint32_t limit,
                                                  bool plus) {
  InodeRef dir = inodes_.get(id);
  RequestMark mark(dir);
  std::uint64_t changes = 0;
  bool quiet = false;
  {
    std::lock_guard lock(dir->mutex);
    Directory& entries = dir->directory();
    changes = entries.changes;
    quiet = entries.changing.empty();
    if (cookie == 0) {
      entries.listing = quiet;
      entries.listing_next = 0;
      entries.listing_changes = changes;
      entries.listing_lease = dir->lease_serial;
    }
  }
  std::function<void(schema::ReadDirRequest::Builder, std::uint64_t)> fill =
      [&](schema::ReadDirRequest::Builder body, std::uint64_t session) {
        body.setSession(session);
        body.setInode(id.value());
        body.setCookie(cookie);
        body.setLimit(limit);
        body.setPlus(plus);
      };
  Stamp stamp;
  auto reply = co_await session_.query<rpc::method::ReadDir>(std::move(fill), context_.deadline(), &stamp);
  if (!reply) co_return fail(std::move(reply.error()));
  std::vector<std::optional<AttrRecord>> attrs;
  std::vector<Grant> grants;
  CO_TRY(auto page, decoded("ReadDir", [&] {
           DirPage out;
           out.end = (*reply)->getEnd();
           out.parent = InodeId((*reply)->getParent());
           grants = decode((*reply)->getGrants());
           for (auto entry : (*reply)->getEntries()) {
             DirEntry& to = out.entries.emplace_back();
             to.name = std::string(rpc::text(entry.getName()));
             to.inode = InodeId(entry.getInode());
             to.type = entry.getType();
             to.cookie = entry.getCookie();
             attrs.emplace_back();
             if (plus && entry.getAttr().getInode() != 0) attrs.back() = decode(entry.getAttr());
           }
           return out;
         }));
  inodes_.take_grants(stamp, grants);
  Duration valid{0};
  {
    std::lock_guard lock(dir->mutex);
    Directory& entries = dir->directory();
    const bool current = quiet && entries.changes == changes && inodes_.usable(*dir);
    if (current) {
      valid = inodes_.valid(*dir);
      for (const DirEntry& entry : page.entries) entries.entries.insert_or_assign(entry.name, entry.inode);
    }
    entries.listing = entries.listing && current && entries.listing_next == cookie &&
                      entries.listing_changes == changes && entries.listing_lease == dir->lease_serial;
    if (!page.entries.empty()) entries.listing_next = page.entries.back().cookie;
    if (entries.listing && page.end) {
      entries.complete = true;
      entries.listing = false;
    }
  }
  for (std::size_t i = 0; plus && i < page.entries.size(); ++i) {
    if (attrs[i]) {
      Entry entry = entry_from(inodes_.get(page.entries[i].inode), *attrs[i], Counted::kYes);
      entry.valid = std::min(entry.valid, valid);
      page.entries[i].entry = entry;
    } else if (auto known = try_getattr(page.entries[i].inode); known && *known) {
      if (InodeRef inode = inodes_.find(page.entries[i].inode)) {
        std::lock_guard lock(inode->mutex);
        page.entries[i].entry = entry_of(*inode, Counted::kYes);
      }
    }
  }
  co_return page;
}

}  // namespace cairn::client
