// The namespace's handlers. None is a coroutine: each reads its message at once and hands what it needs to
// run().
#include <algorithm>

#include "meta/service.h"

namespace cairn::meta {

namespace {
constexpr unsigned kReportItemsMax = 1024;

Result<> fill_allowance(ops::Env& env, schema::Layout::Builder to, const ops::InodeView& inode) {
  TRY(const Allowance allowed, allowance(env.txn, inode.id, inode.record));
  to.setLimited(allowed.limited);
  to.setBytesMax(allowed.bytes_max);
  return {};
}
}  // namespace

std::optional<rpc::Task<MetaService::Reply>> MetaService::dispatch_namespace(const rpc::Request& request) {
  switch (request.method) {
    case rpc::method::Lookup::kNumber:
      return lookup(request);
    case rpc::method::GetAttr::kNumber:
      return getattr(request);
    case rpc::method::SetAttr::kNumber:
      return setattr(request);
    case rpc::method::Make::kNumber:
      return make(request);
    case rpc::method::Open::kNumber:
      return open(request);
    case rpc::method::Report::kNumber:
      return report(request);
    case rpc::method::ExtendBound::kNumber:
      return extend_bound(request);
    case rpc::method::ShareChunks::kNumber:
      return share_chunks(request);
    case rpc::method::Remove::kNumber:
      return remove(request);
    case rpc::method::Rename::kNumber:
      return rename(request);
    case rpc::method::Link::kNumber:
      return link(request);
    case rpc::method::ReadLink::kNumber:
      return readlink(request);
    case rpc::method::ReadDir::kNumber:
      return readdir(request);
    case rpc::method::GetXattr::kNumber:
      return getxattr(request);
    case rpc::method::SetXattr::kNumber:
      return setxattr(request);
    case rpc::method::ListXattr::kNumber:
      return listxattr(request);
    case rpc::method::RemoveXattr::kNumber:
      return removexattr(request);
    case rpc::method::StatFs::kNumber:
      return statfs(request);
    default:
      return std::nullopt;
  }
}

rpc::Task<MetaService::Reply> MetaService::lookup(const rpc::Request& request) {
  auto body = request.body<rpc::method::Lookup>();
  ops::LookupArgs args{InodeId(body.getParent()), text_of(body.getName())};
  return query<rpc::method::Lookup>(
      request, body.getSession(),
      [args = std::move(args)](ops::Env& env, OpGate& gate, schema::LookupReply::Builder out) -> Result<> {
        TRY(auto found, ops::lookup(env, args));
        gate.grant_shared(args.parent);
        if (found.inode) {
          gate.grant_shared(found.inode->id);
          fill(out.initAttr(), found.inode->id, found.inode->record);
        }
        fill_grants(out, gate);
        return {};
      });
}

rpc::Task<MetaService::Reply> MetaService::getattr(const rpc::Request& request) {
  auto body = request.body<rpc::method::GetAttr>();
  return query<rpc::method::GetAttr>(
      request, body.getSession(),
      [inode = InodeId(body.getInode())](ops::Env& env, OpGate& gate,
                                         schema::AttrReply::Builder out) -> Result<> {
        TRY(auto found, ops::getattr(env, inode));
        gate.grant_shared(inode, OpGate::Limit::kNo);
        fill(out.initAttr(), inode, found.record);
        fill(out.initLayout(), found.record);
        fill_grants(out, gate);
        return {};
      });
}

rpc::Task<MetaService::Reply> MetaService::setattr(const rpc::Request& request) {
  auto body = request.body<rpc::method::SetAttr>();
  auto attr = body.getAttr();
  ops::SetAttrArgs args;
  args.inode = InodeId(body.getInode());
  args.valid = body.getValid();
  args.mode = attr.getMode();
  args.uid = attr.getUid();
  args.gid = attr.getGid();
  args.size = attr.getSize();
  args.atime = attr.getAtime();
  args.mtime = attr.getMtime();
  args.ctime = attr.getCtime();
  args.generation = LeaseGeneration(body.getGeneration());
  args.shrinks = body.getShrinks();
  return mutate<rpc::method::SetAttr>(
      request, body.getMutation(),
      [args](ops::Env& env, OpGate&, schema::SetAttrReply::Builder out) -> Result<> {
        TRY(auto inode, ops::setattr(env, args));
        fill(out.initAttr(), inode.id, inode.record);
        fill(out.initLayout(), inode.record);
        return fill_allowance(env, out.getLayout(), inode);
      });
}

rpc::Task<MetaService::Reply> MetaService::make(const rpc::Request& request) {
  auto body = request.body<rpc::method::Make>();
  ops::MakeArgs args;
  args.parent = InodeId(body.getParent());
  args.name = text_of(body.getName());
  args.mode = body.getMode();
  args.uid = body.getUid();
  args.gid = body.getGid();
  args.rdev = body.getRdev();
  args.target = text_of(body.getTarget());
  args.exclusive = body.getExclusive();
  args.open = body.getOpen();
  args.full_mode = body.getFullMode();
  return mutate<rpc::method::Make>(
      request, body.getMutation(),
      [args = std::move(args)](ops::Env& env, OpGate& gate, schema::MakeReply::Builder out) -> Result<> {
        TRY(auto made, ops::make(env, args));
        fill(out.initAttr(), made.inode.id, made.inode.record);
        fill(out.initLayout(), made.inode.record);
        if (made.exclusive) {
          gate.grant_exclusive(made.inode.id, *made.exclusive);
          TRYV(fill_allowance(env, out.getLayout(), made.inode));
        } else {
          gate.grant_shared(made.inode.id);
        }
        fill(out.initParentAttr(), args.parent, made.parent);
        out.setCreated(made.created);
        fill_grants(out, gate);
        return {};
      });
}

rpc::Task<MetaService::Reply> MetaService::open(const rpc::Request& request) {
  auto body = request.body<rpc::method::Open>();
  const ops::OpenArgs args{InodeId(body.getInode()), body.getWrite(), body.getTruncate()};
  return mutate<rpc::method::Open>(
      request, body.getMutation(),
      [args](ops::Env& env, OpGate& gate, schema::OpenReply::Builder out) -> Result<> {
        TRY(auto opened, ops::open(env, args));
        fill(out.initAttr(), args.inode, opened.inode.record);
        fill(out.initLayout(), opened.inode.record);
        if (opened.exclusive) {
          gate.grant_exclusive(args.inode, *opened.exclusive);
          TRYV(fill_allowance(env, out.getLayout(), opened.inode));
        } else {
          gate.grant_shared(args.inode, OpGate::Limit::kNo);
        }
        fill_grants(out, gate);
        return {};
      });
}

namespace {

// What the reporting session holds afterwards, in the table: as the operation did with the rows.
void lower_reported(OpGate& gate, const LeaseTable& table, SessionId session, const ops::ReportItem& item,
                    Code code) {
  if (item.keep == LeaseKind::kExclusive) return;
  const LeaseHolder* holder = table.find(item.inode, session);
  if (!holder) return;
  const bool named = !item.generation.valid() || item.generation >= holder->generation;
  if (!named) return;
  if (holder->kind == LeaseKind::kExclusive) {
    const bool dropped =
        code == Code::kOk && (!item.generation.valid() || item.generation == holder->generation);
    if (dropped) gate.lower(item.inode, item.keep);
  } else if (code == Code::kOk || code == Code::kLeaseLost || code == Code::kNotFound) {
    gate.lower(item.inode, item.keep);
  }
}

}  // namespace

rpc::Task<MetaService::Reply> MetaService::report(const rpc::Request& request) {
  auto body = request.body<rpc::method::Report>();
  std::vector<ops::ReportItem> items;
  for (const auto from : body.getItems()) {
    ops::ReportItem item;
    item.inode = InodeId(from.getInode());
    item.generation = LeaseGeneration(from.getGeneration());
    item.has_size = from.getHasSize();
    item.size = from.getSize();
    item.written = ranges_of(from.getWritten());
    item.punched = ranges_of(from.getPunched());
    item.bytes = from.getBytes();
    item.trim_done = from.getTrimDone();
    item.atime = from.getAtime();
    item.mtime = from.getMtime();
    if (from.getHasMode()) item.mode = from.getMode();
    if (from.getHasBytesMax()) item.bytes_max = from.getBytesMax();
    item.closed = from.getClosed();
    item.keep = lease_kind_of(from.getKeep());
    item.ctime = from.getCtime();
    item.if_last = from.getIfLast();
    items.push_back(std::move(item));
  }
  return mutate<rpc::method::Report>(
      request, body.getMutation(),
      [this, items = std::move(items), durable = body.getDurable()](
          ops::Env& env, OpGate& gate, schema::ReportReply::Builder out) -> Result<> {
        if (items.size() > kReportItemsMax) {
          return fail(Code::kInvalidArgument, "a report may have at most 1024 items: split it");
        }
        TRY(auto codes, ops::report(env, items, durable));
        auto list = out.initCodes(static_cast<unsigned>(codes.size()));
        for (unsigned i = 0; i < codes.size(); ++i) {
          list.set(i, static_cast<std::uint16_t>(codes[i]));
          lower_reported(gate, p_.arbiter.table(), env.session, items[i], codes[i]);
        }
        return {};
      },
      body.getDurable() ? Durability::kSynced : Durability::kAccepted);
}

rpc::Task<MetaService::Reply> MetaService::extend_bound(const rpc::Request& request) {
  auto body = request.body<rpc::method::ExtendBound>();
  const ops::ExtendBoundArgs args{InodeId(body.getInode()), LeaseGeneration(body.getGeneration()),
                                  body.getBound(), body.getBytes(), body.getNeeded()};
  return mutate<rpc::method::ExtendBound>(
      request, body.getMutation(),
      [args](ops::Env& env, OpGate&, schema::ExtendBoundReply::Builder out) -> Result<> {
        TRY(const auto extended, ops::extend_bound(env, args));
        out.setBound(extended.bound);
        out.setLimited(extended.allowed.limited);
        out.setBytesMax(extended.allowed.bytes_max);
        return {};
      });
}

rpc::Task<MetaService::Reply> MetaService::share_chunks(const rpc::Request& request) {
  auto body = request.body<rpc::method::ShareChunks>();
  ops::ShareArgs args;
  args.source = InodeId(body.getSource());
  args.source_generation = LeaseGeneration(body.getSourceGeneration());
  args.target = InodeId(body.getTarget());
  args.generation = LeaseGeneration(body.getGeneration());
  args.from = body.getFrom();
  args.to = body.getTo();
  args.count = body.getCount();
  args.bytes = body.getBytes();
  return mutate<rpc::method::ShareChunks>(
      request, body.getMutation(),
      [args](ops::Env& env, OpGate&, schema::ShareChunksReply::Builder out) -> Result<> {
        TRY(auto shared, ops::share_chunks(env, args));
        fill(out.initAttr(), args.target, shared.target.record);
        fill(out.initLayout(), shared.target.record);
        fill(out.initSourceLayout(), shared.source.record);
        return fill_allowance(env, out.getLayout(), shared.target);
      });
}

rpc::Task<MetaService::Reply> MetaService::remove(const rpc::Request& request) {
  auto body = request.body<rpc::method::Remove>();
  ops::RemoveArgs args{InodeId(body.getParent()), text_of(body.getName()), body.getDirectory(), body.getUid(),
                       body.getSize()};
  return mutate<rpc::method::Remove>(
      request, body.getMutation(),
      [args = std::move(args)](ops::Env& env, OpGate&, schema::DirsReply::Builder out) -> Result<> {
        TRY(auto done, ops::remove(env, args));
        fill(out.initParent(), args.parent, done.parent);
        out.setKept(done.kept);
        return {};
      });
}

rpc::Task<MetaService::Reply> MetaService::rename(const rpc::Request& request) {
  auto body = request.body<rpc::method::Rename>();
  ops::RenameArgs args{InodeId(body.getParent()),
                       text_of(body.getName()),
                       InodeId(body.getNewParent()),
                       text_of(body.getNewName()),
                       body.getFlags(),
                       body.getUid(),
                       body.getGid(),
                       body.getSize()};
  return mutate<rpc::method::Rename>(
      request, body.getMutation(),
      [args = std::move(args)](ops::Env& env, OpGate&, schema::DirsReply::Builder out) -> Result<> {
        TRY(auto done, ops::rename(env, args));
        fill(out.initParent(), args.parent, done.parent);
        fill(out.initNewParent(), args.new_parent, done.new_parent);
        out.setKept(done.kept);
        return {};
      });
}

rpc::Task<MetaService::Reply> MetaService::link(const rpc::Request& request) {
  auto body = request.body<rpc::method::Link>();
  ops::LinkArgs args{InodeId(body.getInode()), InodeId(body.getParent()), text_of(body.getName())};
  return mutate<rpc::method::Link>(
      request, body.getMutation(),
      [args = std::move(args)](ops::Env& env, OpGate& gate, schema::AttrReply::Builder out) -> Result<> {
        TRY(auto linked, ops::link(env, args));
        gate.grant_shared(args.inode);
        fill(out.initAttr(), args.inode, linked.inode.record);
        fill(out.initParentAttr(), args.parent, linked.parent);
        fill_grants(out, gate);
        return {};
      });
}

rpc::Task<MetaService::Reply> MetaService::readlink(const rpc::Request& request) {
  auto body = request.body<rpc::method::ReadLink>();
  return query<rpc::method::ReadLink>(
      request, body.getSession(),
      [inode = InodeId(body.getInode())](ops::Env& env, OpGate&,
                                         schema::ReadLinkReply::Builder out) -> Result<> {
        TRY(auto target, ops::readlink(env, inode));
        out.setTarget(rpc::data(target));
        return {};
      });
}

rpc::Task<MetaService::Reply> MetaService::readdir(const rpc::Request& request) {
  auto body = request.body<rpc::method::ReadDir>();
  const ops::ReadDirArgs args{InodeId(body.getInode()), body.getCookie(), body.getLimit(), body.getPlus()};
  return query<rpc::method::ReadDir>(
      request, body.getSession(),
      [args](ops::Env& env, OpGate& gate, schema::ReadDirReply::Builder out) -> Result<> {
        TRY(auto listed, ops::readdir(env, args));
        gate.grant_shared(args.inode);
        auto entries = out.initEntries(static_cast<unsigned>(listed.entries.size()));
        for (unsigned i = 0; i < listed.entries.size(); ++i) {
          const ops::ReadDirEntry& entry = listed.entries[i];
          entries[i].setName(rpc::data(entry.name));
          entries[i].setInode(entry.inode.value());
          entries[i].setType(entry.type);
          entries[i].setCookie(entry.cookie);
          if (!entry.record) continue;
          fill(entries[i].initAttr(), entry.inode, *entry.record);
          gate.grant_shared(entry.inode);
        }
        out.setEnd(listed.end);
        out.setParent(listed.parent.value());
        fill_grants(out, gate);
        return {};
      });
}

rpc::Task<MetaService::Reply> MetaService::getxattr(const rpc::Request& request) {
  auto body = request.body<rpc::method::GetXattr>();
  return query<rpc::method::GetXattr>(
      request, body.getSession(),
      [inode = InodeId(body.getInode()), name = text_of(body.getName())](
          ops::Env& env, OpGate&, schema::GetXattrReply::Builder out) -> Result<> {
        TRY(auto value, ops::getxattr(env, inode, name));
        out.setValue(rpc::data(value));
        return {};
      });
}

rpc::Task<MetaService::Reply> MetaService::setxattr(const rpc::Request& request) {
  auto body = request.body<rpc::method::SetXattr>();
  ops::SetXattrArgs args{InodeId(body.getInode()), text_of(body.getName()), text_of(body.getValue()),
                         body.getFlags()};
  return mutate<rpc::method::SetXattr>(
      request, body.getMutation(), [args = std::move(args)](ops::Env& env, OpGate&, schema::Empty::Builder) {
        return ops::setxattr(env, args);
      });
}

rpc::Task<MetaService::Reply> MetaService::listxattr(const rpc::Request& request) {
  auto body = request.body<rpc::method::ListXattr>();
  return query<rpc::method::ListXattr>(
      request, body.getSession(),
      [inode = InodeId(body.getInode())](ops::Env& env, OpGate&,
                                         schema::ListXattrReply::Builder out) -> Result<> {
        TRY(auto names, ops::listxattr(env, inode));
        auto list = out.initNames(static_cast<unsigned>(names.size()));
        for (unsigned i = 0; i < names.size(); ++i) list.set(i, rpc::data(names[i]));
        return {};
      });
}

rpc::Task<MetaService::Reply> MetaService::removexattr(const rpc::Request& request) {
  auto body = request.body<rpc::method::RemoveXattr>();
  return mutate<rpc::method::RemoveXattr>(
      request, body.getMutation(),
      [inode = InodeId(body.getInode()), name = text_of(body.getName())](
          ops::Env& env, OpGate&, schema::Empty::Builder) { return ops::removexattr(env, inode, name); });
}

rpc::Task<MetaService::Reply> MetaService::statfs(const rpc::Request& request) {
  const InodeId inode(request.body<rpc::method::StatFs>().getInode());
  return query<rpc::method::StatFs>(
      request, 0, [inode](ops::Env& env, OpGate&, schema::StatFsReply::Builder out) -> Result<> {
        TRY(auto stat, ops::statfs(env, inode));
        out.setTotal(stat.total);
        out.setAvailable(stat.available);
        out.setFiles(stat.files);
        out.setFilesMax(stat.files_max);
        return {};
      });
}

}  // namespace cairn::meta
