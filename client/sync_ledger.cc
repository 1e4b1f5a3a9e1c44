#include "client/sync_ledger.h"

#include <algorithm>

#include "store/base/log.h"

namespace cairn::client {
namespace {

constexpr auto kSweepAge = std::chrono::seconds(5);
constexpr std::size_t kSweepFiles = 2048;  // of one round

}  // namespace

void SyncLedger::acknowledged(const InodeRef& inode, const ChunkTarget& target,
                              const std::vector<Acknowledged>& versions,
                              std::shared_ptr<const ChunkBytes> bytes, Durable synced) {
  FileData& file = *inode->file;
  auto& entries = file.unsynced[target.chunk.index];
  if (!entries.empty() && entries.back().version == versions.front().base &&
      entries.back().data == target.chunk.data) {
    // What was acknowledged under an earlier epoch is there, below these bytes.
    const Epoch earlier = versions.front().base.epoch;
    for (auto& entry : entries) {
      if (entry.version.epoch == earlier && entry.data == target.chunk.data)
        entry.version = versions.front().version;
    }
  }
  if (synced == Durable::kYes) {
    // A durable write covers what its epoch acknowledged before it.
    std::vector<Unsynced> covered, older;
    for (auto& entry : entries) {
      (entry.version.epoch == versions.back().version.epoch ? covered : older).push_back(std::move(entry));
    }
    release(covered);
    entries = std::move(older);
    if (entries.empty()) {
      file.unsynced.erase(target.chunk.index);
      context_.dirty_memory.give(bytes->memory());
      return;
    }
  }
  const std::uint64_t memory = bytes->memory();
  const bool room = kept_bytes_.load() + memory <= context_.dirty_memory.capacity() / 4;
  {
    std::lock_guard lock(mutex_);
    if (room) kept_.push_back({inode, target.chunk.index, bytes});
    if (!std::exchange(file.sweep_queued, true)) due_.push_back({inode, context_.runtime.clock().now()});
  }
  if (room) {
    kept_bytes_ += memory;
  } else {
    context_.dirty_memory.give(memory);
  }
  for (const auto& [base, version] : versions) {
    // Without bytes to tell apart, the newest version of an epoch stands for the earlier ones.
    if (!room && !entries.empty() && !entries.back().bytes && entries.back().version.epoch == version.epoch &&
        entries.back().data == target.chunk.data) {
      entries.back().version = version;
    } else {
      entries.push_back({target.chunk.data, target.pool, version, room ? bytes : nullptr, false});
    }
  }
  entries.back().counted = room;
}

std::vector<ChunkVersion> SyncLedger::ask(const Inode& inode) const {
  std::vector<ChunkVersion> asked;
  if (!inode.file) return asked;
  for (const auto& [index, entries] : inode.file->unsynced) {
    Epoch epoch;
    for (auto it = entries.rbegin(); it != entries.rend(); ++it) {
      if (it->version.epoch == epoch) continue;
      epoch = it->version.epoch;
      asked.push_back({{it->data, static_cast<std::uint32_t>(index), 0}, it->pool, it->version});
    }
  }
  return asked;
}

Result<SyncLedger::Outcome> SyncLedger::answered(Inode& inode, std::span<const ChunkVersion> asked,
                                                 std::span<const Code> codes) {
  FileData& file = *inode.file;
  Outcome outcome = Outcome::kSynced;
  std::optional<Error> error;
  // First what was lost: such a chunk is written again as a whole, newer bytes over the lost ones.
  for (std::size_t i = 0; i < asked.size(); ++i) {
    auto it = file.unsynced.find(asked[i].chunk.index);
    if (codes[i] != Code::kLostUnsynced || it == file.unsynced.end()) continue;
    auto& entries = it->second;
    const bool still = std::any_of(entries.begin(), entries.end(), [&](const Unsynced& entry) {
      return entry.version.epoch == asked[i].version.epoch && entry.data == asked[i].chunk.data;
    });
    if (!still) {
      if (outcome == Outcome::kSynced) outcome = Outcome::kAskAgain;
      continue;
    }
    // The file may have got other data since (it was truncated): then these bytes are no part of it.
    const bool current = inode.have_layout && inode.layout.layers.front().data == asked[i].chunk.data;
    const bool all =
        std::all_of(entries.begin(), entries.end(), [](const Unsynced& e) { return e.bytes != nullptr; });
    if (current && all && inode.lease == Lease::kExclusive) {
      outcome = Outcome::kWriteAgain;
      for (auto entry = entries.rbegin(); entry != entries.rend(); ++entry) {
        context_.dirty_memory.force(file.dirty.restore(it->first, *entry->bytes));
      }
    } else if (current) {
      error.emplace(Code::kLostUnsynced,
                    "chunk " + to_string(asked[i].chunk) + " of inode " + to_string(inode.id) +
                        ": the servers lost bytes before they were synced, and they are no "
                        "longer in memory");
    }
    release(entries);
    file.unsynced.erase(it);
  }
  for (std::size_t i = 0; i < asked.size(); ++i) {
    auto it = file.unsynced.find(asked[i].chunk.index);
    if (it == file.unsynced.end() || codes[i] == Code::kLostUnsynced) continue;
    if (codes[i] == Code::kOk) {
      std::vector<Unsynced> synced, rest;
      for (auto& entry : it->second) {
        const bool covered =
            entry.version.epoch == asked[i].version.epoch && entry.version <= asked[i].version;
        (covered ? synced : rest).push_back(std::move(entry));
      }
      release(synced);
      it->second = std::move(rest);
      if (it->second.empty()) file.unsynced.erase(it);
    } else if (!error) {
      error.emplace(codes[i], "chunk " + to_string(asked[i].chunk) +
                                  " can't be synced: " + std::string(code_name(codes[i])));
    }
  }
  if (error) return fail(std::move(*error));
  return outcome;
}

rpc::Task<Result<>> SyncLedger::forget_removed(InodeRef inode, std::vector<Code> codes, Deadline deadline) {
  if (std::find(codes.begin(), codes.end(), Code::kLostUnsynced) == codes.end()) co_return Result<>{};
  {
    std::lock_guard lock(inode->mutex);
    if (inode->file->unsynced.empty()) co_return Result<>{};  // forgotten meanwhile
  }
  std::function<void(schema::GetAttrRequest::Builder, std::uint64_t)> fill =
      [id = inode->id](schema::GetAttrRequest::Builder body, std::uint64_t session) {
        body.setSession(session);
        body.setInode(id.value());
      };
  auto reply = co_await context_.session.query<rpc::method::GetAttr>(std::move(fill), deadline);
  if (reply) co_return Result<>{};
  if (reply.error().code() != Code::kNotFound) co_return fail(std::move(reply.error()));
  std::lock_guard lock(inode->mutex);
  inode->file->unlinked = true;
  forget_from(*inode, 0);
  co_return Result<>{};
}

void SyncLedger::release(std::vector<Unsynced>& entries) {
  for (auto& entry : entries) {
    if (std::exchange(entry.counted, false)) {
      kept_bytes_ -= entry.bytes->memory();
      context_.dirty_memory.give(entry.bytes->memory());
    }
    entry.bytes.reset();
  }
}

void SyncLedger::forget_from(Inode& inode, std::uint64_t index) {
  auto& unsynced = inode.file->unsynced;
  for (auto it = unsynced.lower_bound(index); it != unsynced.end(); it = unsynced.erase(it))
    release(it->second);
}

void SyncLedger::make_room(std::uint64_t wanted) {
  for (std::uint64_t given = 0; given < wanted;) {
    Kept oldest;
    {
      std::lock_guard lock(mutex_);
      if (kept_.empty()) return;
      oldest = std::move(kept_.front());
      kept_.pop_front();
    }
    auto inode = oldest.inode.lock();
    auto bytes = oldest.bytes.lock();
    if (!inode || !bytes) continue;
    std::lock_guard lock(inode->mutex);
    auto it = inode->file->unsynced.find(oldest.index);
    if (it == inode->file->unsynced.end()) continue;
    for (auto& entry : it->second) {
      if (entry.bytes != bytes) continue;
      if (std::exchange(entry.counted, false)) {
        kept_bytes_ -= bytes->memory();
        context_.dirty_memory.give(bytes->memory());
        given += bytes->memory();
      }
      entry.bytes.reset();
    }
  }
}

rpc::Task<std::vector<InodeRef>> SyncLedger::sweep(Deadline deadline) {
  struct Part {
    InodeRef inode;
    std::size_t from = 0;
    std::size_t count = 0;
  };
  std::vector<Part> parts;
  {
    const TimePoint old = context_.runtime.clock().now() - kSweepAge;
    std::lock_guard lock(mutex_);
    while (!kept_.empty() && kept_.front().bytes.expired()) kept_.pop_front();
    while (!due_.empty() && due_.front().since <= old && parts.size() < kSweepFiles) {
      if (auto inode = due_.front().inode.lock()) parts.push_back({std::move(inode), 0, 0});
      due_.pop_front();
    }
  }
  std::vector<ChunkVersion> asked;
  for (Part& part : parts) {
    std::lock_guard lock(part.inode->mutex);
    part.inode->file->sweep_queued = false;
    auto of_file = ask(*part.inode);
    part.from = asked.size();
    part.count = of_file.size();
    asked.insert(asked.end(), of_file.begin(), of_file.end());
  }
  std::vector<InodeRef> again;
  if (asked.empty()) co_return again;
  auto codes = co_await context_.chunks.sync(asked, deadline);
  for (const Part& part : parts) {
    bool later = !codes;
    if (codes) {
      std::vector<Code> of_file(codes->begin() + static_cast<long>(part.from),
                                codes->begin() + static_cast<long>(part.from + part.count));
      auto known = co_await forget_removed(part.inode, std::move(of_file), deadline);
      later = !known;  // it can't be told now whether what was lost is missed
    }
    std::lock_guard lock(part.inode->mutex);
    if (!later) {
      auto outcome = answered(*part.inode, std::span(asked).subspan(part.from, part.count),
                              std::span(*codes).subspan(part.from, part.count));
      if (outcome && *outcome == Outcome::kWriteAgain) again.push_back(part.inode);
      if (!outcome && outcome.error().code() == Code::kLostUnsynced) {
        FileData& file = *part.inode->file;
        file.write_error.emplace(outcome.error());
        ++file.errors;
        log_error("unsynced_bytes_lost", "inode={} error={}", to_string(part.inode->id),
                  log_quote(outcome.error().message()));
      }
    }
    later = later || !part.inode->file->unsynced.empty();
    if (later && !std::exchange(part.inode->file->sweep_queued, true)) {
      std::lock_guard own(mutex_);
      due_.push_back({part.inode, context_.runtime.clock().now()});
    }
  }
  co_return again;
}

}  // namespace cairn::client
