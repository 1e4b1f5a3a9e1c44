// The handlers of file locks.
#include "meta/service.h"

namespace cairn::meta {

namespace {

FileLock lock_of(schema::FileLock::Reader from, SessionId session) {
  FileLock lock;
  lock.inode = InodeId(from.getInode());
  lock.kind = from.getKind() == schema::LockKind::FLOCK ? LockKind::kFlock : LockKind::kRecord;
  switch (from.getType()) {
    case schema::LockType::READ:
      lock.type = LockType::kRead;
      break;
    case schema::LockType::WRITE:
      lock.type = LockType::kWrite;
      break;
    default:
      lock.type = LockType::kNone;
  }
  lock.owner = {session, from.getOwner()};
  lock.range = {from.getFirst(), from.getLast()};
  lock.pid = from.getPid();
  return lock;
}

void fill(schema::FileLock::Builder to, const FileLock& lock) {
  to.setInode(lock.inode.value());
  to.setKind(static_cast<schema::LockKind>(lock.kind));
  to.setType(static_cast<schema::LockType>(lock.type));
  to.setOwner(lock.owner.id);
  to.setFirst(lock.range.first);
  to.setLast(lock.range.last);
  to.setPid(lock.pid);
}

Result<> check(const FileLock& lock) {
  if (lock.range.first <= lock.range.last && lock.inode.valid()) return {};
  return fail(Code::kInvalidArgument,
              "a file lock needs an inode, and a range that does not end before it begins");
}

}  // namespace

std::optional<rpc::Task<MetaService::Reply>> MetaService::dispatch_locks(const rpc::Request& request) {
  switch (request.method) {
    case rpc::method::Lock::kNumber: {
      auto body = request.body<rpc::method::Lock>();
      return lock(lock_of(body.getLock(), SessionId(body.getSession())), body.getEpoch(), body.getTicket());
    }
    case rpc::method::CancelLock::kNumber: {
      auto body = request.body<rpc::method::CancelLock>();
      return cancel_lock(SessionId(body.getSession()), body.getEpoch(), body.getTicket());
    }
    case rpc::method::TestLock::kNumber: {
      auto body = request.body<rpc::method::TestLock>();
      return test_lock(lock_of(body.getLock(), SessionId(body.getSession())));
    }
    case rpc::method::NameLocks::kNumber: {
      auto body = request.body<rpc::method::NameLocks>();
      const SessionId session(body.getSession());
      std::vector<FileLock> locks;
      locks.reserve(body.getLocks().size());
      for (const auto one : body.getLocks()) locks.push_back(lock_of(one, session));
      return name_locks(session, body.getEpoch(), std::move(locks));
    }
    default:
      return std::nullopt;
  }
}

rpc::Task<MetaService::Reply> MetaService::lock(FileLock wanted, std::uint64_t epoch, std::uint64_t ticket) {
  CO_TRYV(p_.sessions.touch(wanted.owner.session));
  CO_TRYV(check(wanted));
  auto answer = co_await p_.keeper.locks().ask(wanted, epoch, ticket);
  if (!answer) co_return std::unexpected(std::move(answer.error()));
  rpc::OutMessage out;
  auto reply = out.body<schema::LockReply>();
  reply.setOutcome(static_cast<schema::LockOutcome>(answer->outcome));
  reply.setChange(answer->change);
  co_return out;
}

rpc::Task<MetaService::Reply> MetaService::cancel_lock(SessionId session, std::uint64_t epoch,
                                                       std::uint64_t ticket) {
  CO_TRYV(p_.sessions.touch(session));
  auto removed = co_await p_.keeper.locks().cancel(session, epoch, ticket);
  if (!removed) co_return std::unexpected(std::move(removed.error()));
  rpc::OutMessage out;
  out.body<schema::CancelLockReply>().setRemoved(*removed);
  co_return out;
}

rpc::Task<MetaService::Reply> MetaService::test_lock(FileLock wanted) {
  CO_TRYV(p_.sessions.touch(wanted.owner.session));
  CO_TRYV(check(wanted));
  auto found = co_await p_.keeper.locks().test(wanted);
  if (!found) co_return std::unexpected(std::move(found.error()));
  rpc::OutMessage out;
  auto reply = out.body<schema::TestLockReply>();
  if (*found) {
    reply.setConflict(true);
    fill(reply.initLock(), **found);
    reply.setSession((*found)->owner.session.value());
  }
  co_return out;
}

rpc::Task<MetaService::Reply> MetaService::name_locks(SessionId session, std::uint64_t epoch,
                                                      std::vector<FileLock> locks) {
  CO_TRYV(p_.sessions.touch(session));
  for (const FileLock& one : locks) CO_TRYV(check(one));
  auto noted = co_await p_.keeper.name_locks(session, epoch, std::move(locks));
  if (!noted) co_return std::unexpected(std::move(noted.error()));
  rpc::OutMessage out;
  out.body<schema::Empty>();
  co_return out;
}

}  // namespace cairn::meta
