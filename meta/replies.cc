#include "meta/replies.h"

#include <algorithm>

#include "meta/keys.h"

namespace cairn::meta {

namespace {
constexpr char kReplyVersion = 1;
constexpr std::size_t kTrimMax = 64;  // rows forgotten with one mutation
}  // namespace

Result<std::optional<std::string>> ReplyTable::begin(Txn& txn, const MutationId& id) {
  Session& session = sessions_[id.session];
  session.awaited = std::max(session.awaited, id.awaited);
  if (id.sequence < session.awaited) {
    return fail(Code::kInvalidArgument, "request " + std::to_string(id.sequence) + " of session " +
                                            to_string(id.session) +
                                            " comes after the client said that it waits for it no more");
  }
  if (session.stored.contains(id.sequence)) {
    TRY(auto row, txn.get(keys::reply(id.session, id.sequence)));
    if (!row || !row->starts_with(kReplyVersion)) {
      return fail(Code::kCorrupt, "stored reply of session " + to_string(id.session) + " does not decode");
    }
    return row->substr(1);
  }
  if (session.stored.size() >= kPerSessionMax && *session.stored.begin() >= session.awaited) {
    return fail(Code::kOverloaded, "session " + to_string(id.session) + " waits for too many answers");
  }
  return std::nullopt;
}

void ReplyTable::store(Txn& txn, const MutationId& id, std::string_view reply) {
  Session& session = sessions_[id.session];
  for (std::size_t n = 0;
       n < kTrimMax && !session.stored.empty() && *session.stored.begin() < session.awaited; ++n) {
    txn.erase(keys::reply(id.session, *session.stored.begin()));
    session.stored.erase(session.stored.begin());
  }
  std::string row(1, kReplyVersion);
  row.append(reply);
  txn.put(keys::reply(id.session, id.sequence), row);
  session.stored.insert(id.sequence);
}

void ReplyTable::load(SessionId session, std::uint64_t sequence) {
  sessions_[session].stored.insert(sequence);
}

}  // namespace cairn::meta
