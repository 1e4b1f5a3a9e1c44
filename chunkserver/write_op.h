// One version of one chunk on its way down the chain, from admission (head) or arrival (others) until the
// rest of the chain has acknowledged it. Shared by the task that carries it, the request that waits for it,
// and the job that applies it; the task alone changes it, except `local`, which the job sets before
// `applied`.
#pragma once

#include <atomic>

#include "chunkserver/apply.h"
#include "chunkserver/session_fence.h"
#include "chunkserver/write_spec.h"
#include "store/rpc/message.h"
#include "store/rpc/task.h"

namespace cairn::chunkserver {

struct WriteOp {
  WriteOp(rpc::Runtime& runtime, WriteSpec s, rpc::Buffer p)
      : spec(std::move(s)), payload(std::move(p)), applied(runtime), done(runtime) {}

  WriteSpec spec;
  rpc::Buffer payload;  // shared with every attempt to forward it
  Onto onto = Onto::kStored;
  Deadline deadline;      // head: the client's; it is not begun after that
  SessionFence::Use use;  // until the version is committed or dropped

  Result<disk::ChunkInfo> local = fail(Code::kInternal, "not applied");
  rpc::Event applied;
  WriteOutcome rest;  // what the successor answered

  enum class Fate : std::uint8_t {
    kWaiting,    // nothing was done yet
    kBegun,      // it has a version: it may be applied somewhere
    kAbandoned,  // its client was told that nothing was done: must not begin
  };
  std::atomic<Fate> fate{Fate::kWaiting};
  bool applying = false;                                                // applied here, or about to be
  bool sent = false;                                                    // a successor may have it
  Result<WriteOutcome> result = fail(Code::kInternal, "not finished");  // readable once `done`
  rpc::Event done;
};

}  // namespace cairn::chunkserver
