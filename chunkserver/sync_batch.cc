#include "chunkserver/sync_batch.h"

#include <map>

#include "chunkserver/wire.h"
#include "store/base/log.h"

namespace cairn::chunkserver {

SyncBatch::SyncBatch(GroupEnv& env, const GroupTable& groups, std::vector<SyncItem> items, SessionId session,
                     Deadline deadline)
    : env_(env), session_(session), deadline_(deadline) {
  for (const SyncItem& asked : items) {
    Item item;
    item.asked = asked;
    auto group = groups.find(asked.pool, asked.chunk, asked.target, GroupTable::Prefer::kHead);
    if (group)
      item.group = std::move(*group);
    else
      item.code = group.error().code();
    items_.push_back(std::move(item));
  }
}

rpc::Task<std::vector<SyncResult>> SyncBatch::run(std::shared_ptr<SyncBatch> self) {
  std::map<Target*, std::shared_ptr<Leg>> here;
  std::map<ServerId, std::shared_ptr<Leg>> behind;
  for (std::size_t i = 0; i < self->items_.size(); ++i) {
    Item& item = self->items_[i];
    if (!item.group) continue;
    auto ready = co_await item.group->prepare_sync(item.asked.chunk, item.asked.epoch, self->deadline_);
    const GroupView view = item.group->view();
    item.epoch = view.epoch;
    if (!ready) {
      item.code = ready.error().code();
      continue;
    }
    auto& own = here[&item.group->target()];
    if (!own) own = std::make_shared<Leg>(self->env_.runtime);
    own->items.push_back(i);
    item.successor = view.place.successor;
    if (!item.successor) continue;
    item.successor_may_lack = !item.successor->in_sync && view.place.in_sync >= view.min_replicas;
    auto& rest = behind[item.successor->server];
    if (!rest) rest = std::make_shared<Leg>(self->env_.runtime);
    rest->items.push_back(i);
  }
  for (auto& [target, leg] : here)
    if (!self->env_.tasks.spawn(self->env_.runtime.executor(), sync_here(self, target, leg)))
      self->not_run(*leg, &Item::code);
  for (auto& [server, leg] : behind)
    if (!self->env_.tasks.spawn(self->env_.runtime.executor(), ask_successor(self, server, leg)))
      self->not_run(*leg, &Item::rest);
  std::vector<SyncResult> results(self->items_.size());
  bool in_time = true;
  for (auto& [target, leg] : here) {
    auto waited = co_await leg->done.wait(self->deadline_);
    in_time = in_time && waited.has_value();
  }
  for (auto& [server, leg] : behind) {
    auto waited = co_await leg->done.wait(self->deadline_);
    in_time = in_time && waited.has_value();
  }
  for (std::size_t i = 0; i < results.size(); ++i) {
    if (!in_time) {
      results[i] = {Code::kTimeout, Epoch()};
      continue;
    }
    const Item& item = self->items_[i];
    Code rest = item.rest;
    if (rest == Code::kNotHere && item.successor_may_lack) rest = Code::kOk;
    results[i] = {item.code != Code::kOk ? item.code : rest, item.epoch};
  }
  co_return results;
}

// The server stops.
void SyncBatch::not_run(Leg& leg, Code Item::*outcome) {
  for (std::size_t i : leg.items) items_[i].*outcome = Code::kUnavailable;
  leg.done.set();
}

rpc::Task<> SyncBatch::sync_here(std::shared_ptr<SyncBatch> self, Target* target, std::shared_ptr<Leg> leg) {
  Target::Work<void> work = [self, leg](disk::ChunkEngine& engine) -> Result<> {
    TRYV(engine.sync());
    for (std::size_t i : leg->items) {
      Item& item = self->items_[i];
      auto synced = item.group->synced(engine, item.asked.chunk, item.asked.epoch, item.asked.version);
      if (!synced) item.code = synced.error().code();
    }
    return {};
  };
  auto done = co_await target->run_durable<void>(std::move(work));
  if (!done)
    for (std::size_t i : leg->items) self->items_[i].code = done.error().code();
  leg->done.set();
}

rpc::Task<> SyncBatch::ask_successor(std::shared_ptr<SyncBatch> self, ServerId server,
                                     std::shared_ptr<Leg> leg) {
  rpc::OutMessage request;
  auto body = request.body<schema::SyncRequest>();
  body.setSession(self->session_.value());
  auto chunks = body.initChunks(static_cast<unsigned>(leg->items.size()));
  for (unsigned n = 0; n < leg->items.size(); ++n) {
    const Item& item = self->items_[leg->items[n]];
    auto to = chunks[n];
    set_chunk(to.initChunk(), item.asked.chunk);
    to.setPool(item.asked.pool.value());
    to.setEpoch(item.asked.epoch.value());
    set_version(to.initVersion(), item.asked.version);
    to.setTarget(item.successor->target.value());
  }
  auto reply = co_await self->env_.peers.call<rpc::method::Sync>(server, Peers::Link::kChain,
                                                                 std::move(request), self->deadline_);
  Code problem = reply ? Code::kProtocol : reply.error().code();
  if (reply) {
    try {
      auto results = (*reply)->getResults();
      if (results.size() == leg->items.size()) {
        for (unsigned n = 0; n < leg->items.size(); ++n)
          self->items_[leg->items[n]].rest = code_from_number(results[n].getCode());
        problem = Code::kOk;
      }
    } catch (const kj::Exception&) {
      problem = Code::kProtocol;
    }
  }
  if (problem != Code::kOk)
    for (std::size_t i : leg->items) self->items_[i].rest = problem;
  leg->done.set();
}

}  // namespace cairn::chunkserver
