#include "chunkserver/session_fence.h"

#include <algorithm>

#include "store/base/bytes.h"

namespace cairn::chunkserver {

// value = version u8 (1) | sequence u64 | below u64 | count u32 | count * session u64
namespace {
constexpr std::uint8_t kFenceFormat = 1;
}

bool SessionFence::ended_locked(SessionId session) const {
  return session.valid() && (session < below_ || ended_.contains(session));
}

bool SessionFence::calm_locked() const {
  return std::ranges::none_of(in_use_, [&](const auto& use) { return ended_locked(use.first); });
}

bool SessionFence::ended(SessionId session) const {
  std::lock_guard lock(mutex_);
  return ended_locked(session);
}

Result<SessionFence::Use> SessionFence::admit(SessionId session) {
  std::lock_guard lock(mutex_);
  if (ended_locked(session))
    return fail(Code::kSessionEnded, "session " + to_string(session) + " has ended: open a new one");
  ++in_use_[session];
  return Use(this, session);
}

SessionFence::Use SessionFence::hop(SessionId session) {
  std::lock_guard lock(mutex_);
  ++in_use_[session];
  if (ended_locked(session)) calm_.reset();
  return Use(this, session);
}

void SessionFence::leave(SessionId session) {
  std::lock_guard lock(mutex_);
  auto at = in_use_.find(session);
  if (--at->second > 0) return;
  in_use_.erase(at);
  if (!calm_.is_set() && calm_locked()) calm_.set();
}

void SessionFence::end(const std::vector<SessionId>& sessions, SessionId below) {
  std::lock_guard lock(mutex_);
  below_ = std::max(below_, below);
  ended_.insert(sessions.begin(), sessions.end());
  ended_.erase(ended_.begin(), ended_.lower_bound(below_));
  if (calm_locked())
    calm_.set();
  else
    calm_.reset();
}

rpc::Task<Result<>> SessionFence::drained(Deadline deadline) {
  {
    std::lock_guard lock(mutex_);
    if (calm_locked()) co_return Result<>();
  }
  co_return co_await calm_.wait(deadline);
}

std::string SessionFence::encode(std::uint64_t sequence) const {
  std::lock_guard lock(mutex_);
  std::string out;
  ByteWriter writer(out);
  writer.u8(kFenceFormat);
  writer.u64(sequence);
  writer.u64(below_.value());
  writer.u32(static_cast<std::uint32_t>(ended_.size()));
  for (SessionId session : ended_) writer.u64(session.value());
  return out;
}

Result<std::uint64_t> SessionFence::restore(std::string_view bytes) {
  ByteReader reader(bytes);
  const std::uint8_t format = reader.u8();
  const std::uint64_t sequence = reader.u64();
  const SessionId below(reader.u64());
  const std::uint32_t count = reader.u32();
  std::vector<SessionId> sessions;
  for (std::uint32_t i = 0; i < count && reader.ok(); ++i) sessions.emplace_back(reader.u64());
  if (format != kFenceFormat || !reader.done())
    return fail(Code::kCorrupt, "the list of ended sessions does not decode");
  end(sessions, below);
  return sequence;
}

}  // namespace cairn::chunkserver
