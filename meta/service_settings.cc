// The handlers of what is set on directories, and of the trash. None is a coroutine that takes the request,
// as those of service_namespace.cc.
#include "meta/service.h"

namespace cairn::meta {

namespace {
std::uint64_t unsigned_total(std::int64_t total) {
  return static_cast<std::uint64_t>(std::max<std::int64_t>(total, 0));
}

constexpr unsigned kEmptyMax = 500;  // in one request

TrashId trash_id_of(schema::TrashId::Reader from) {
  return {InodeId(from.getInode()), InodeId(from.getParent()), text_of(from.getName()), from.getDeleted()};
}

void fill_entry(schema::TrashEntry::Builder to, const ops::ListTrashResult::Item& item) {
  const TrashEntry& entry = item.entry;
  to.setInode(entry.id.inode.value());
  to.setParent(entry.id.parent.value());
  to.setName(rpc::data(entry.id.name));
  to.setDeleted(entry.id.deleted);
  to.setExpires(entry.expires);
  InodeRecord attributes;  // of a directory, what is left of it
  attributes.mode = entry.record.mode;
  attributes.uid = entry.record.uid;
  attributes.gid = entry.record.gid;
  fill(to.initAttr(), entry.id.inode, item.inode.value_or(attributes));
  to.setBy(entry.record.by);
  to.setClient(rpc::data(entry.record.client));
}
}  // namespace

std::optional<rpc::Task<MetaService::Reply>> MetaService::dispatch_settings(const rpc::Request& request) {
  switch (request.method) {
    case rpc::method::SetQuota::kNumber:
      return set_quota(request);
    case rpc::method::GetQuotas::kNumber:
      return get_quotas(request);
    case rpc::method::SetRetention::kNumber:
      return set_retention(request);
    case rpc::method::GetRetention::kNumber:
      return get_retention(request);
    case rpc::method::ListTrash::kNumber:
      return list_trash(request);
    case rpc::method::Undelete::kNumber:
      return undelete(request);
    case rpc::method::EmptyTrash::kNumber:
      return empty_trash(request);
    case rpc::method::Reclaim::kNumber: {
      auto body = request.body<rpc::method::Reclaim>();
      return reclaim(SessionId(body.getSession()), body.getBytes(), request.deadline);
    }
    default:
      return std::nullopt;
  }
}

rpc::Task<MetaService::Reply> MetaService::set_quota(const rpc::Request& request) {
  auto body = request.body<rpc::method::SetQuota>();
  const ops::SetQuotaArgs args{InodeId(body.getInode()), body.getValid(), body.getBytes(), body.getInodes()};
  return mutate<rpc::method::SetQuota>(
      request, body.getMutation(),
      [args](ops::Env& env, OpGate&, schema::Empty::Builder) { return ops::set_quota(env, args); },
      Durability::kSynced);
}

rpc::Task<MetaService::Reply> MetaService::get_quotas(const rpc::Request& request) {
  auto body = request.body<rpc::method::GetQuotas>();
  const ops::GetQuotasArgs args{InodeId(body.getInode()), InodeId(body.getAfter()), body.getLimit()};
  return query<rpc::method::GetQuotas>(
      request, body.getSession(),
      [args](ops::Env& env, OpGate&, schema::GetQuotasReply::Builder out) -> Result<> {
        TRY(auto quotas, ops::get_quotas(env, args));
        auto items = out.initItems(static_cast<unsigned>(quotas.items.size()));
        for (unsigned i = 0; i < quotas.items.size(); ++i) {
          const DirectoryRecord& from = quotas.items[i].record;
          items[i].setInode(quotas.items[i].inode.value());
          items[i].setBytesMax(from.bytes_max);
          items[i].setInodesMax(from.inodes_max);
          items[i].setBytes(unsigned_total(from.bytes));
          items[i].setInodes(unsigned_total(from.inodes));
        }
        out.setEnd(quotas.end);
        return {};
      });
}

rpc::Task<MetaService::Reply> MetaService::set_retention(const rpc::Request& request) {
  auto body = request.body<rpc::method::SetRetention>();
  return mutate<rpc::method::SetRetention>(
      request, body.getMutation(),
      [inode = InodeId(body.getInode()), time = body.getNanoseconds()](
          ops::Env& env, OpGate&, schema::Empty::Builder) { return ops::set_retention(env, inode, time); },
      Durability::kSynced);
}

rpc::Task<MetaService::Reply> MetaService::get_retention(const rpc::Request& request) {
  auto body = request.body<rpc::method::GetRetention>();
  return query<rpc::method::GetRetention>(
      request, body.getSession(),
      [inode = InodeId(body.getInode())](ops::Env& env, OpGate&,
                                         schema::GetRetentionReply::Builder out) -> Result<> {
        TRY(const auto retention, ops::get_retention(env, inode));
        out.setOwn(retention.own);
        out.setInForce(retention.in_force);
        return {};
      });
}

rpc::Task<MetaService::Reply> MetaService::list_trash(const rpc::Request& request) {
  auto body = request.body<rpc::method::ListTrash>();
  ops::ListTrashArgs args{InodeId(body.getParent()), text_of(body.getName()), text_of(body.getAfter()),
                          body.getLimit()};
  return query<rpc::method::ListTrash>(
      request, body.getSession(),
      [args = std::move(args)](ops::Env& env, OpGate&, schema::ListTrashReply::Builder out) -> Result<> {
        TRY(const auto listed, ops::list_trash(env, args));
        auto items = out.initItems(static_cast<unsigned>(listed.items.size()));
        for (unsigned i = 0; i < listed.items.size(); ++i) fill_entry(items[i], listed.items[i]);
        out.setNext(rpc::data(listed.next));
        out.setEnd(listed.end);
        TRY(const Counters counters, load_counters(env.txn));
        out.setFiles(counters.trash_files);
        out.setBytes(counters.trash_bytes);
        return {};
      });
}

rpc::Task<MetaService::Reply> MetaService::undelete(const rpc::Request& request) {
  auto body = request.body<rpc::method::Undelete>();
  ops::UndeleteArgs args{trash_id_of(body.getId()), InodeId(body.getParent()), text_of(body.getName())};
  return mutate<rpc::method::Undelete>(
      request, body.getMutation(),
      [args = std::move(args)](ops::Env& env, OpGate& gate, schema::AttrReply::Builder out) -> Result<> {
        TRY(const auto linked, ops::undelete(env, args));
        gate.grant_shared(linked.inode.id);
        fill(out.initAttr(), linked.inode.id, linked.inode.record);
        fill(out.initParentAttr(), args.parent, linked.parent);
        fill_grants(out, gate);
        return {};
      },
      Durability::kSynced);
}

rpc::Task<MetaService::Reply> MetaService::empty_trash(const rpc::Request& request) {
  auto body = request.body<rpc::method::EmptyTrash>();
  std::vector<TrashId> ids;
  for (const auto id : body.getIds()) ids.push_back(trash_id_of(id));
  return mutate<rpc::method::EmptyTrash>(
      request, body.getMutation(),
      [ids = std::move(ids)](ops::Env& env, OpGate&, schema::EmptyTrashReply::Builder out) -> Result<> {
        if (ids.size() > kEmptyMax)
          return fail(Code::kInvalidArgument,
                      "one request may name at most 500 entries of the trash: split it");
        TRY(const std::uint32_t removed, ops::empty_trash(env, ids));
        out.setRemoved(removed);
        return {};
      });
}

rpc::Task<MetaService::Reply> MetaService::reclaim(SessionId session, std::uint64_t bytes,
                                                   Deadline deadline) {
  CO_TRYV(p_.sessions.touch(session));
  if (!p_.trash) co_return fail(Code::kUnimplemented, "this server has no trash");
  auto freed = co_await p_.trash->reclaim(bytes, deadline);
  if (!freed) co_return std::unexpected(std::move(freed.error()));
  rpc::OutMessage out;
  out.body<schema::ReclaimReply>().setFreed(*freed);
  co_return out;
}

}  // namespace cairn::meta
