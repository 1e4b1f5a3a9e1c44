#include "client/leases.h"

#include "client/truncate.h"

namespace cairn::client {

bool Leases::held(const Inode& inode, Lease lease) const {
  return context_.inodes.usable(inode, lease) && !inode.recalling && inode.have_layout && inode.file &&
         inode.file->server_opens != 0;
}

void Leases::adopt(Inode& inode, FileData& file, const AttrRecord& attr, const Layout& layout) {
  inode.attr = attr;
  inode.layout = layout;
  ++inode.layout_changes;
  inode.have_attr = inode.have_layout = layout.valid();
  file.holes = layout.holes;
  if (layout.valid()) file.holes.add(chunks_of(attr.attr.size, layout.chunk_size()), kNoChunk);
  file.reported_size = attr.attr.size;
  file.report_size = file.report_times = file.report_atime = file.report_mode = file.trim_done = false;
  file.written.clear();
  file.punched.clear();
  file.ahead.clear();
}

rpc::Task<Result<>> Leases::ensure(InodeRef inode, Lease lease, Deadline deadline) {
  Duration wait = std::chrono::milliseconds(1);
  for (;;) {
    std::shared_ptr<rpc::Event> settled;
    bool silent = false;
    {
      std::lock_guard lock(inode->mutex);
      FileData& file = file_of(context_, *inode);
      silent = !context_.session.alive() && inode->lease >= lease && inode->session == context_.session.id();
      if (held(*inode, lease)) {
        if (lease != Lease::kExclusive || inode->layout.trim.empty()) co_return Result<>{};
      } else if (inode->recalling) {
        settled = file.settled.next(context_.runtime);
      }
    }
    if (settled) {
      auto over = co_await settled->wait(deadline);
      if (!over) co_return fail(over.error().with("waiting for a recalled lease"));
      continue;
    }
    if (silent) {
      // Held, but the metadata server was not heard of for a lease time: find out whether the session still
      // lives.
      CO_TRYV(co_await context_.session.touch(deadline));
      continue;
    }
    {
      auto turn = co_await inode->file->acquiring.take(1, deadline);
      if (!turn) co_return fail(turn.error().with("waiting for the lease of inode " + to_string(inode->id)));
      bool have = false, counted = false;
      Lease wanted = lease;
      {
        std::lock_guard lock(inode->mutex);
        have = held(*inode, lease);
        // Held exclusively, and only the layout is missing: it must be one to write with.
        if (!inode->have_layout && inode->session == context_.session.id())
          wanted = std::max(lease, inode->lease);
        counted = inode->file->server_opens != 0 && inode->session == context_.session.id();
        if (inode->recalling) continue;
      }
      if (!have && counted && wanted == Lease::kShared) {
        CO_TRYV(co_await ask_shared(inode, deadline));
      } else if (!have) {
        CO_TRYV(co_await open_at_server(inode, wanted, Truncate::kNo, deadline));
      }
      if (lease == Lease::kExclusive) CO_TRYV(co_await finish_trim(context_, inode, RangeSet(), deadline));
    }
    {
      std::lock_guard lock(inode->mutex);
      if (held(*inode, lease)) co_return Result<>{};
    }
    // The grant was recalled before it was used, or came with the reply of an earlier connection.
    if (deadline.passed(context_.runtime.clock())) {
      co_return fail(Code::kTimeout, "the lease of inode " + to_string(inode->id) +
                                         " was taken back each time it was granted");
    }
    CO_TRYV(co_await rpc::sleep_for(context_.runtime, wait));
    wait = std::min<Duration>(wait * 2, std::chrono::milliseconds(100));
  }
}

rpc::Task<Result<>> Leases::open_at_server(InodeRef inode, Lease lease, Truncate truncate,
                                           Deadline deadline) {
  bool mode_first = false;  // permission bits that only we know: the answer would be taken over them
  {
    std::lock_guard lock(inode->mutex);
    mode_first = inode->file->report_mode;
  }
  if (mode_first) CO_TRYV(co_await reporter_.report(inode, Durable::kNo, deadline));
  CO_TRYV(co_await reporter_.quiet(inode, deadline));
  RequestMark mark(inode);
  std::uint64_t serial = 0;
  bool ours = false;  // size and layout here are newer than the server's
  {
    std::lock_guard lock(inode->mutex);
    serial = inode->lease_serial;
    ours = inode->lease == Lease::kExclusive && inode->session == context_.session.id() &&
           inode->have_layout && truncate == Truncate::kNo;
  }
  const bool write = lease == Lease::kExclusive;
  std::function<void(schema::OpenRequest::Builder)> fill =
      [=, id = inode->id](schema::OpenRequest::Builder body) {
        body.setInode(id.value());
        body.setWrite(write);
        body.setTruncate(truncate == Truncate::kYes);
      };
  Stamp stamp;
  auto reply = co_await context_.session.mutate<rpc::method::Open>(std::move(fill), deadline, &stamp);
  if (!reply) co_return fail(std::move(reply.error()));
  struct Answer {
    AttrRecord attr;
    Layout layout;
    std::vector<Grant> grants;
  };
  CO_TRY(auto answer, decoded("Open", [&] {
           return Answer{decode((*reply)->getAttr()), decode((*reply)->getLayout()),
                         decode((*reply)->getGrants())};
         }));
  const bool granted = context_.inodes.take_grants(stamp, answer.grants, inode->id);
  std::lock_guard lock(inode->mutex);
  FileData& file = *inode->file;
  if (stamp.session != context_.session.id()) co_return Result<>{};
  if (inode->lease == Lease::kNone) inode->session = stamp.session;
  ++file.server_opens;  // counted there with or without a grant
  file.meta_dirty = file.meta_dirty || truncate == Truncate::kYes;
  if (inode->lease == Lease::kNone || inode->session != stamp.session) co_return Result<>{};
  if (ours && inode->lease_serial == serial) co_return Result<>{};
  // Held thanks to another reply, which may be newer. (A truncated file has no other layout than this one.)
  if (!granted && truncate == Truncate::kNo) co_return Result<>{};
  if (!answer.layout.valid())
    co_return fail(Code::kProtocol, "Open: inode " + to_string(inode->id) + " has no layout");
  adopt(*inode, file, answer.attr, answer.layout);
  co_return Result<>{};
}

// The shared lease of a file that is open here already: nothing to be journaled.
rpc::Task<Result<>> Leases::ask_shared(InodeRef inode, Deadline deadline) {
  CO_TRYV(co_await reporter_.quiet(inode, deadline));
  RequestMark mark(inode);
  std::function<void(schema::GetAttrRequest::Builder, std::uint64_t)> fill =
      [id = inode->id](schema::GetAttrRequest::Builder body, std::uint64_t session) {
        body.setSession(session);
        body.setInode(id.value());
      };
  Stamp stamp;
  auto reply = co_await context_.session.query<rpc::method::GetAttr>(std::move(fill), deadline, &stamp);
  if (!reply) co_return fail(std::move(reply.error()));
  struct Answer {
    AttrRecord attr;
    Layout layout;
    std::vector<Grant> grants;
  };
  CO_TRY(auto answer, decoded("GetAttr", [&] {
           return Answer{decode((*reply)->getAttr()), decode((*reply)->getLayout()),
                         decode((*reply)->getGrants())};
         }));
  const bool granted = context_.inodes.take_grants(stamp, answer.grants, inode->id);
  std::lock_guard lock(inode->mutex);
  if (!granted || inode->session != stamp.session || inode->lease != Lease::kShared) co_return Result<>{};
  if (!answer.layout.valid())
    co_return fail(Code::kProtocol, "GetAttr: inode " + to_string(inode->id) + " has no layout");
  adopt(*inode, *inode->file, answer.attr, answer.layout);
  co_return Result<>{};
}

rpc::Task<Result<>> Leases::open_truncated(InodeRef inode, Deadline deadline) {
  {
    std::lock_guard lock(inode->mutex);
    file_of(context_, *inode);
  }
  auto turn = co_await inode->file->changing.take(1, deadline);
  if (!turn) co_return fail(turn.error().with("waiting for another change of the file"));
  {
    Blocked blocked(inode);
    Truncating truncating(inode);
    auto settled = co_await write_back_.settle(inode, deadline);
    (void)settled;  // bytes that are going away
    auto acquiring = co_await inode->file->acquiring.take(1, deadline);
    if (!acquiring)
      co_return fail(acquiring.error().with("waiting for the lease of inode " + to_string(inode->id)));
    CO_TRYV(co_await open_at_server(inode, Lease::kExclusive, Truncate::kYes, deadline));
    std::lock_guard lock(inode->mutex);
    if (inode->lease == Lease::kExclusive) write_back_.discard(*inode);
  }
  co_return Result<>{};
}

}  // namespace cairn::client
