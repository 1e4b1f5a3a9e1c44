// Listings. One from the first entry to the last, during which the directory stayed held and unchanged by us,
// makes its cache complete: names that do not exist are then known without asking.
//
// Fetching ahead: whoever looks up a few names of a directory one after the other, as `git status`, `rsync`
// and `stat *` do, soon asks for the others. So they are listed with their attributes in the background,
// twice as many each time as long as a good part of them is asked for.
#include "client/file_system_impl.h"

namespace cairn::client {

namespace {

constexpr std::uint32_t kFetchPage = 256;  // entries a request: the server does one thing at a time
constexpr unsigned kPatienceMax = 4096;
constexpr std::uint64_t kFetchMin = 512, kFetchMax = 8192;

}  // namespace

rpc::Task<Result<FileSystemImpl::Listed>> FileSystemImpl::list_page(InodeRef dir, std::uint64_t cookie,
                                                                    std::uint32_t limit, bool plus,
                                                                    Counted counted) {
  RequestMark mark(dir);
  Listed listed;
  bool quiet = false;
  {
    std::lock_guard lock(dir->mutex);
    Directory& entries = dir->directory();
    listed.changes = entries.changes;
    listed.lease_serial = dir->lease_serial;
    quiet = entries.changing.empty();
  }
  std::function<void(schema::ReadDirRequest::Builder, std::uint64_t)> fill =
      [&](schema::ReadDirRequest::Builder body, std::uint64_t session) {
        body.setSession(session);
        body.setInode(dir->id.value());
        body.setCookie(cookie);
        body.setLimit(limit);
        body.setPlus(plus);
      };
  const TimePoint sent = runtime_.clock().now();
  Stamp stamp;
  auto reply = co_await session_.query<rpc::method::ReadDir>(std::move(fill), context_.deadline(), &stamp);
  if (!reply) co_return fail(std::move(reply.error()));
  std::vector<std::optional<AttrRecord>> attrs;
  std::vector<Grant> grants;
  DirPage& page = listed.page;
  CO_TRYV(decoded("ReadDir", [&] {
    page.end = (*reply)->getEnd();
    page.parent = InodeId((*reply)->getParent());
    grants = decode((*reply)->getGrants());
    for (auto entry : (*reply)->getEntries()) {
      DirEntry& to = page.entries.emplace_back();
      to.name = std::string(rpc::text(entry.getName()));
      to.inode = InodeId(entry.getInode());
      to.type = entry.getType();
      to.cookie = entry.getCookie();
      attrs.emplace_back();
      if (plus && entry.getAttr().getInode() != 0) attrs.back() = decode(entry.getAttr());
    }
  }));
  inodes_.take_grants(stamp, grants);
  Duration valid{0};
  {
    std::lock_guard lock(dir->mutex);
    Directory& entries = dir->directory();
    listed.current =
        quiet && entries.changes == listed.changes && inodes_.holds(*dir, sent, granted(grants, dir->id));
    if (listed.current) {
      valid = inodes_.valid(*dir);
      for (const DirEntry& entry : page.entries) entries.entries.insert_or_assign(entry.name, entry.inode);
    }
    listed.current = listed.current && dir->lease_serial == listed.lease_serial;
  }
  for (std::size_t i = 0; plus && i < page.entries.size(); ++i) {
    if (attrs[i]) {
      auto entry = entry_from(inodes_.get(page.entries[i].inode), *attrs[i], sent, counted,
                              granted(grants, page.entries[i].inode));
      if (!entry) continue;  // looked up when it is wanted
      entry->valid = std::min(entry->valid, valid);
      page.entries[i].entry = std::move(*entry);
    } else if (auto known = try_getattr(page.entries[i].inode); known && *known) {
      if (InodeRef inode = inodes_.find(page.entries[i].inode)) {
        std::lock_guard lock(inode->mutex);
        page.entries[i].entry = entry_of(*inode, counted);
        page.entries[i].entry->valid = std::min(page.entries[i].entry->valid, valid);
      }
    }
  }
  co_return listed;
}

FileSystem::Task<DirPage> FileSystemImpl::readdir(InodeId id, std::uint64_t cookie, std::uint32_t limit,
                                                  bool plus) {
  InodeRef dir = inodes_.get(id);
  if (cookie == 0) {
    std::lock_guard lock(dir->mutex);
    Directory& entries = dir->directory();
    entries.listing = entries.changing.empty();
    entries.listing_next = 0;
    entries.listing_changes = entries.changes;
    entries.listing_lease = dir->lease_serial;
  }
  CO_TRY(auto listed, co_await list_page(dir, cookie, limit, plus, Counted::kYes));
  std::lock_guard lock(dir->mutex);
  Directory& entries = dir->directory();
  entries.listing = entries.listing && listed.current && entries.listing_next == cookie &&
                    entries.listing_changes == entries.changes && entries.listing_lease == dir->lease_serial;
  if (!listed.page.entries.empty()) entries.listing_next = listed.page.entries.back().cookie;
  if (entries.listing && listed.page.end) {
    entries.complete = true;
    entries.listing = false;
  }
  co_return std::move(listed.page);
}

void FileSystemImpl::note_miss(const InodeRef& dir) {
  std::uint64_t count = 0;
  {
    std::lock_guard lock(dir->mutex);
    Directory& entries = dir->directory();
    Directory::Ahead& ahead = entries.ahead;
    if (++ahead.misses < ahead.patience || ahead.running || ahead.done || entries.complete ||
        entries.listing || !inodes_.usable(*dir) || ahead.hits < ahead.fetched / 4)
      return;
    count = std::clamp(2 * ahead.fetched, kFetchMin, kFetchMax);
    ahead.running = true;
  }
  if (tasks_.spawn(runtime_.make_strand(), fetch_entries(dir, count))) return;
  std::lock_guard lock(dir->mutex);
  dir->directory().ahead.running = false;
}

rpc::Task<> FileSystemImpl::fetch_entries(InodeRef dir, std::uint64_t count) {
  std::uint64_t cookie = 0, serial = 0;
  {
    std::lock_guard lock(dir->mutex);
    Directory::Ahead& ahead = dir->directory().ahead;
    cookie = ahead.cookie;
    serial = dir->lease_serial;
    if (cookie == 0) ahead.hits = 0, ahead.changes = dir->dir->changes;
  }
  bool more = true;
  while (more) {
    auto listed = co_await list_page(dir, cookie, kFetchPage, true, Counted::kNo);
    std::lock_guard lock(dir->mutex);
    Directory& entries = dir->directory();
    if (!listed || !listed->current || dir->lease_serial != serial) {
      // Somebody changes it, perhaps we: the next attempt comes much later.
      entries.ahead = {.patience = std::min(8 * entries.ahead.patience, kPatienceMax)};
      co_return;
    }
    const std::uint64_t got = listed->page.entries.size();
    if (got > 0) cookie = listed->page.entries.back().cookie;
    entries.ahead.cookie = cookie;
    entries.ahead.fetched += got;
    entries.ahead.done = listed->page.end;
    more = !listed->page.end && got < count;
    count -= std::min(count, got);
    if (!more) entries.ahead.running = false;
    if (listed->page.end && entries.ahead.changes == entries.changes) entries.complete = true;
  }
}

}  // namespace cairn::client
