#include "client/fake_cluster.h"

#include <capnp/serialize.h>
#include <sys/stat.h>

#include <cstring>

#include "client/fake_locks.h"

namespace cairn::client {
namespace {

using namespace rpc;

// A reply kept to answer a retry.
std::string frozen(OutMessage& message) {
  auto words = capnp::messageToFlatArray(message.builder());
  return {reinterpret_cast<const char*>(words.asBytes().begin()), words.asBytes().size()};
}
OutMessage thawed(const std::string& bytes) {
  kj::Array<capnp::word> words = kj::heapArray<capnp::word>(bytes.size() / sizeof(capnp::word));
  std::memcpy(words.begin(), bytes.data(), bytes.size());
  capnp::FlatArrayMessageReader reader(words);
  OutMessage message;
  message.builder().setRoot(capnp::AnyPointer::Reader(reader.getRoot<capnp::AnyPointer>()));
  return message;
}

struct FakeLayer {  // frozen
  DataId data;
  RangeSet chunks;
  std::int64_t shift = 0;
};

struct FakeInode {
  std::uint64_t allowed = 0;  // bytes that its holder may let it have, if there is a quota
  Attr attr;
  std::uint64_t change = 1;
  InodeId parent;
  std::map<std::string, InodeId> entries;
  std::string target;
  DataId data;
  std::vector<FakeLayer> frozen;
  RangeSet holes;
  Range trim;
  std::uint64_t bound = 0;
  struct Holder {
    Lease kind = Lease::kNone;
    std::uint64_t generation = 0;
  };
  std::map<SessionId, Holder> holders;
  std::map<SessionId, unsigned> opens;
  std::map<std::string, std::string> xattrs;
  const FakeLayer* frozen_layer_of(std::uint64_t index) const {
    for (const auto& layer : frozen) {
      if (layer.chunks.contains(index)) return &layer;
    }
    return nullptr;
  }
  ChunkId chunk(std::uint64_t index) const {
    const FakeLayer* layer = frozen_layer_of(index);
    const std::uint64_t shift = layer ? static_cast<std::uint64_t>(layer->shift) : 0;
    return {layer ? layer->data : data, static_cast<std::uint32_t>(index + shift), 0};
  }
  unsigned open_count() const {
    unsigned count = 0;
    for (const auto& [session, opened] : opens) count += opened;
    return count;
  }
};

struct FakeObject {
  DataId data;
  std::uint64_t size = 0;
  Digest digest;
};

struct FakeSession {
  std::shared_ptr<Peer> peer;
  std::map<std::uint64_t, std::string> replies;
};

struct FakeChunk {
  std::string bytes;
  Version version;
  RequestId last;
  bool synced = false;
  std::optional<std::string> synced_bytes;  // what a power cut would leave
  Version synced_version;
  std::uint64_t generation = 0;
};

Grant grant_of(InodeId inode, const FakeInode::Holder& holder) {
  return {inode, holder.kind, holder.generation};
}

void put_grants(capnp::List<schema::Grant>::Builder to, const std::vector<Grant>& grants) {
  for (unsigned i = 0; i < grants.size(); ++i) {
    to[i].setInode(grants[i].inode.value());
    to[i].setKind(encode(grants[i].kind));
    to[i].setGeneration(grants[i].generation);
  }
}

}  // namespace

struct FakeCluster::State {
  explicit State(FakeCluster& owner, Options options) : options(options), owner(owner) {}
  const Options options;
  FakeCluster& owner;
  std::mutex mutex;
  // guarded by mutex, all below
  std::function<Fault(int, std::uint16_t)> decide;
  std::map<std::uint16_t, unsigned> counts;
  std::uint64_t next_id = 100;
  std::uint64_t quota_bytes = 0;  // of all files together; 0: none
  std::uint64_t next_generation = 1;
  std::uint64_t epoch = 1;
  std::uint64_t routing_version = 1;
  std::set<unsigned> lost_servers;
  std::map<InodeId, FakeInode> inodes;
  std::map<std::string, FakeObject> objects;
  std::map<SessionId, FakeSession> sessions;
  std::set<SessionId> ended;
  FakeLocks locks;
  std::map<std::pair<unsigned, ChunkId>, FakeChunk> chunks;  // by (server, chunk)
  std::map<ChunkId, std::uint64_t> reconciled;               // epochs below it lost what was unsynced

  struct MetaService : Service {
    explicit MetaService(State& state) : state(state) {}
    State& state;
    Task<Result<OutMessage>> handle(Request request) override;
  };
  struct ChunkService : Service {
    ChunkService(State& state, unsigned index) : state(state), index(index) {}
    State& state;
    const unsigned index;
    Task<Result<OutMessage>> handle(Request request) override;
    Result<OutMessage> serve(const Request& request);
  };
  Identity meta_identity, chunk_identity;
  MetaService meta{*this};
  std::vector<std::unique_ptr<ChunkService>> servers;
  std::unique_ptr<Server> meta_listener;
  std::vector<std::unique_ptr<Server>> listeners;

  Fault count(int server, std::uint16_t method) {
    std::function<Fault(int, std::uint16_t)> ask;
    {
      std::lock_guard lock(mutex);
      ++counts[method];
      ask = decide;
    }
    return ask ? ask(server, method) : Fault::kNone;
  }

  // --- groups: 8 slots; slot s has servers s, s+1, ... mod n ---
  static constexpr std::uint32_t kSlots = 8;
  std::vector<unsigned> members_of(std::uint32_t slot) const {
    std::vector<unsigned> members;
    for (unsigned r = 0; r < options.replicas; ++r) {
      const unsigned server = (slot + r) % options.servers;
      if (!lost_servers.contains(server)) members.push_back(server);
    }
    return members;
  }
  std::vector<unsigned> members_of(const ChunkId& chunk) const {
    return members_of(slot_of(placement_hash(chunk), kSlots));
  }

  void put_attr(const FakeInode& inode, schema::Attr::Builder to) const {
    encode(inode.attr, to);
    to.setChange(inode.change);
    to.setNoXattrs(inode.xattrs.empty());
  }
  void put_layout(const FakeInode& inode, schema::Layout::Builder to) const {
    if (!S_ISREG(inode.attr.mode)) return;
    auto layers = to.initLayers(static_cast<unsigned>(1 + inode.frozen.size()));
    for (unsigned i = 0; i < layers.size(); ++i) {
      layers[i].setData((i == 0 ? inode.data : inode.frozen[i - 1].data).value());
      layers[i].setPool(1);
      layers[i].setChunkSize(options.chunk_size);
      if (i == 0) continue;
      layers[i].setFrozen(true);
      layers[i].setShift(inode.frozen[i - 1].shift);
      const auto chunks = inode.frozen[i - 1].chunks.list();
      auto ranges = layers[i].initChunks(static_cast<unsigned>(chunks.size()));
      for (unsigned c = 0; c < chunks.size(); ++c) {
        ranges[c].setFrom(chunks[c].from);
        ranges[c].setTo(chunks[c].to);
      }
    }
    const auto holes = inode.holes.list();
    auto list = to.initHoles(static_cast<unsigned>(holes.size()));
    for (unsigned i = 0; i < holes.size(); ++i) {
      list[i].setFrom(holes[i].from);
      list[i].setTo(holes[i].to);
    }
    to.getTrim().setFrom(inode.trim.from);
    to.getTrim().setTo(inode.trim.to);
    to.setBound(inode.bound);
    to.setLimited(quota_bytes != 0);
    to.setBytesMax(inode.allowed);
  }
  Grant take(InodeId id, SessionId session, Lease kind) {
    auto& holder = inodes.at(id).holders[session];
    if (holder.kind < kind) holder = {kind, next_generation++};
    if (kind == Lease::kExclusive) {
      FakeInode& inode = inodes.at(id);
      inode.bound =
          std::max(inode.bound, chunks_of(inode.attr.size, options.chunk_size) + options.initial_bound);
    }
    return grant_of(id, holder);
  }
  std::int64_t now() const { return owner.clock_.wall_ns(); }
  void touch(FakeInode& inode, bool entries) {
    ++inode.change;
    inode.attr.ctime_ns = now();
    if (entries) inode.attr.mtime_ns = inode.attr.ctime_ns;
  }
  FakeInode& make_inode(std::uint32_t mode) {
    const InodeId id(next_id++);
    FakeInode& inode = inodes[id];
    inode.attr.inode = id;
    inode.attr.mode = mode;
    inode.attr.nlink = S_ISDIR(mode) ? 2 : 1;
    inode.attr.mtime_ns = inode.attr.ctime_ns = inode.attr.atime_ns = inode.attr.btime_ns = now();
    inode.data = DataId(next_id++);
    return inode;
  }

  struct Held {
    SessionId session;
    InodeId inode;
    std::uint64_t generation = 0;
  };
  // What others than `asker` hold of `wanted` beyond `keep`. Under mutex.
  std::vector<Held> in_the_way(SessionId asker, const std::vector<InodeId>& wanted, Lease keep) const {
    std::vector<Held> held;
    for (InodeId id : wanted) {
      auto it = inodes.find(id);
      if (it == inodes.end()) continue;
      for (const auto& [session, holder] : it->second.holders) {
        if (session != asker && holder.kind > keep) held.push_back({session, id, holder.generation});
      }
    }
    return held;
  }
  // Takes `held` back down to `keep`. An error: the asker went away meanwhile, and it is not known whether
  // its holder gave it up.
  Task<Result<>> recall(Held held, Lease keep);
  Task<Result<OutMessage>> serve_meta(Request& request, SessionId session);
  Result<OutMessage> answer(const Request& request, SessionId session, bool mutation, std::uint64_t sequence);
  Result<OutMessage> change(const Request& request, SessionId session);
  Result<OutMessage> query(const Request& request, SessionId session);
  std::vector<InodeId> touched(const Request& request, Lease& keep);
  OutMessage routing();
  void collect(InodeId id) {
    auto it = inodes.find(id);
    if (it == inodes.end() || it->second.attr.nlink != 0 || it->second.open_count() != 0) return;
    std::erase_if(chunks, [&](const auto& entry) { return entry.first.second.data == it->second.data; });
    give_up(it->second, 0, kNoChunk);
    inodes.erase(it);
  }
  // No frozen layer of the inode holds these chunks any more; what nobody refers to goes at once.
  void give_up(FakeInode& inode, std::uint64_t from, std::uint64_t to) {
    for (auto& layer : inode.frozen) layer.chunks.remove(from, to);
    std::vector<DataId> dropped;
    std::erase_if(inode.frozen, [&](const FakeLayer& layer) {
      if (layer.chunks.empty()) dropped.push_back(layer.data);
      return layer.chunks.empty();
    });
    for (DataId data : dropped) {
      const bool referred = std::any_of(inodes.begin(), inodes.end(), [&](const auto& entry) {
        const auto& layers = entry.second.frozen;
        return std::any_of(layers.begin(), layers.end(),
                           [&](const auto& layer) { return layer.data == data; });
      });
      if (!referred)
        std::erase_if(chunks, [&](const auto& entry) { return entry.first.second.data == data; });
    }
  }
  std::uint64_t others_allowed(const FakeInode& inode) const {
    std::uint64_t others = 0;
    for (const auto& [id, other] : inodes) others += &other == &inode ? 0 : other.allowed;
    return others;
  }
  Result<OutMessage> share_chunks(const Request& request, SessionId session);
  void end(SessionId session) {
    locks.drop(session);
    tell_settled();
    std::vector<InodeId> closed;
    ended.insert(session);
    sessions.erase(session);
    for (auto& [id, inode] : inodes) {
      if (auto it = inode.holders.find(session); it != inode.holders.end()) {
        if (it->second.kind == Lease::kExclusive)
          inode.trim = {inode.attr.size, inode.bound * options.chunk_size};
        inode.holders.erase(it);
      }
      if (inode.opens.erase(session) != 0) closed.push_back(id);
    }
    for (InodeId id : closed) collect(id);
  }
  // Under mutex.
  void tell_settled() {
    for (const FakeLocks::Settled& settled : locks.take_settled()) {
      auto it = sessions.find(settled.session);
      if (it == sessions.end() || !it->second.peer) continue;
      asio::co_spawn(owner.runtime_->executor(), tell(it->second.peer, settled, owner.clock_),
                     asio::detached);
    }
  }
  static Task<> tell(std::shared_ptr<Peer> peer, FakeLocks::Settled settled, const Clock& clock) {
    OutMessage message;
    auto body = message.body<schema::LocksSettledRequest>();
    body.setEpoch(settled.epoch);
    auto item = body.initItems(1)[0];
    item.setTicket(settled.lock.ticket);
    item.setOutcome(schema::LockOutcome::GRANTED);
    item.setChange(settled.lock.change);
    auto told = co_await peer->call<method::LocksSettled>(std::move(message),
                                                          Deadline::after(clock, std::chrono::seconds(10)));
    (void)told;  // the client names its locks on its next connection
  }
};

// --- the metadata server ---

Task<Result<>> FakeCluster::State::recall(Held held, Lease keep) {
  // Until it is answered: the connection may break, and the session comes back on another one.
  for (;;) {
    std::shared_ptr<Peer> peer;
    {
      std::lock_guard lock(mutex);
      auto session = sessions.find(held.session);
      if (session == sessions.end()) break;
      peer = session->second.peer;
    }
    OutMessage message;
    auto item = message.body<schema::RecallRequest>().initRecalls(1)[0];
    item.setInode(held.inode.value());
    item.setKeep(encode(keep));
    item.setGeneration(held.generation);
    const Deadline deadline = Deadline::after(owner.clock_, std::chrono::seconds(10));
    auto reply = co_await peer->call<method::Recall>(std::move(message), deadline);
    if (reply) break;
    auto slept = co_await sleep_for(*owner.runtime_, std::chrono::milliseconds(5));
    if (!slept) co_return slept;
  }
  std::lock_guard lock(mutex);
  auto it = inodes.find(held.inode);
  if (it == inodes.end()) co_return Result<>{};
  auto holder = it->second.holders.find(held.session);
  // Another generation: granted anew meanwhile.
  if (holder == it->second.holders.end() || holder->second.generation != held.generation)
    co_return Result<>{};
  if (keep == Lease::kNone)
    it->second.holders.erase(holder);
  else
    holder->second.kind = std::min(holder->second.kind, keep);
  co_return Result<>{};
}

// Which inodes a request needs, and what others may keep of them.
std::vector<InodeId> FakeCluster::State::touched(const Request& request, Lease& keep) {
  keep = Lease::kNone;
  std::lock_guard lock(mutex);
  const auto child = [&](InodeId parent, std::string_view name) {
    auto it = inodes.find(parent);
    if (it == inodes.end()) return InodeId{};
    auto entry = it->second.entries.find(std::string(name));
    return entry == it->second.entries.end() ? InodeId{} : entry->second;
  };
  switch (request.method) {
    case method::Lookup::kNumber: {
      keep = Lease::kShared;
      auto body = request.body<method::Lookup>();
      return {InodeId(body.getParent()), child(InodeId(body.getParent()), text(body.getName()))};
    }
    case method::GetAttr::kNumber:
      keep = Lease::kShared;
      return {InodeId(request.body<method::GetAttr>().getInode())};
    case method::SetAttr::kNumber:
      return {InodeId(request.body<method::SetAttr>().getInode())};
    case method::Make::kNumber: {
      auto body = request.body<method::Make>();
      return {InodeId(body.getParent()), child(InodeId(body.getParent()), text(body.getName()))};
    }
    case method::Open::kNumber: {
      auto body = request.body<method::Open>();
      keep = body.getWrite() || body.getTruncate() ? Lease::kNone : Lease::kShared;
      return {InodeId(body.getInode())};
    }
    case method::Remove::kNumber: {
      auto body = request.body<method::Remove>();
      return {InodeId(body.getParent()), child(InodeId(body.getParent()), text(body.getName()))};
    }
    case method::Rename::kNumber: {
      auto body = request.body<method::Rename>();
      return {InodeId(body.getParent()), InodeId(body.getNewParent()),
              child(InodeId(body.getParent()), text(body.getName())),
              child(InodeId(body.getNewParent()), text(body.getNewName()))};
    }
    case method::Link::kNumber: {
      auto body = request.body<method::Link>();
      return {InodeId(body.getInode()), InodeId(body.getParent())};
    }
    default:
      return {};
  }
}

OutMessage FakeCluster::State::routing() {
  OutMessage reply;
  auto body = reply.body<schema::Routing>();
  body.setVersion(routing_version);
  body.setFull(true);
  auto pool = body.initPools(1)[0];
  pool.setId(1);
  pool.setSlots(kSlots);
  pool.setReplicas(static_cast<std::uint8_t>(options.replicas));
  pool.setMinReplicas(static_cast<std::uint8_t>(
      options.replicas - lost_servers.size() > 0 && lost_servers.empty() ? options.replicas : 1));
  pool.setChunkSize(options.chunk_size);
  auto list = body.initServers(options.servers);
  for (unsigned i = 0; i < options.servers; ++i) {
    list[i].setId(i + 1);
    list[i].setAddress(owner.server_address(i));
  }
  auto groups = body.initGroups(kSlots);
  for (unsigned slot = 0; slot < kSlots; ++slot) {
    groups[slot].getId().setPool(1);
    groups[slot].getId().setSlot(slot);
    groups[slot].setEpoch(epoch);
    const auto members = members_of(slot);
    auto to = groups[slot].initMembers(static_cast<unsigned>(members.size()));
    for (unsigned m = 0; m < members.size(); ++m) {
      to[m].setServer(members[m] + 1);
      to[m].setTarget(members[m] + 1);
      to[m].setInSync(true);
    }
  }
  return reply;
}

Task<Result<OutMessage>> FakeCluster::State::MetaService::handle(Request request) {
  const Fault fault = state.count(-1, request.method);
  if (fault == Fault::kUnavailable) co_return fail(Code::kUnavailable, "told to refuse");
  if (fault == Fault::kNoSpace) co_return fail(Code::kNoSpace, "told to be full");
  if (fault == Fault::kRange) co_return fail(Code::kRange, "told to refuse");
  if (fault == Fault::kLoseRequest) {
    request.peer->close("told to lose the request");
    co_return fail(Code::kUnavailable, "lost");
  }
  auto reply = co_await state.serve_meta(request, SessionId{});
  if (fault == Fault::kTimeout) co_return fail(Code::kTimeout, "told to take too long");
  if (fault == Fault::kLoseReply) {
    request.peer->close("told to lose the reply");
    co_return fail(Code::kUnavailable, "lost");
  }
  co_return reply;
}

template <class M>
bool session_in(const Request& request, SessionId& session, std::uint64_t& sequence) {
  if (request.method != M::kNumber) return false;
  auto mutation = request.body<M>().getMutation();
  session = SessionId(mutation.getSession());
  sequence = mutation.getSequence();
  return true;
}

Task<Result<OutMessage>> FakeCluster::State::serve_meta(Request& request, SessionId) {
  if (request.method == method::OpenSession::kNumber) {
    std::lock_guard lock(mutex);
    const SessionId resume(request.body<method::OpenSession>().getResume());
    const bool resumed = resume.valid() && sessions.contains(resume);
    const SessionId id = resumed ? resume : SessionId(next_id++);
    sessions[id].peer = request.peer;
    OutMessage reply;
    auto body = reply.body<schema::OpenSessionReply>();
    body.setSession(id.value());
    body.setCluster(7);
    body.setLeaseMs(options.lease_ms);
    body.setResumed(resumed);
    body.setRoutingVersion(routing_version);
    co_return reply;
  }
  SessionId session;
  std::uint64_t sequence = 0;
  const bool mutation = session_in<method::SetAttr>(request, session, sequence) ||
                        session_in<method::Make>(request, session, sequence) ||
                        session_in<method::Open>(request, session, sequence) ||
                        session_in<method::Report>(request, session, sequence) ||
                        session_in<method::ExtendBound>(request, session, sequence) ||
                        session_in<method::ShareChunks>(request, session, sequence) ||
                        session_in<method::Remove>(request, session, sequence) ||
                        session_in<method::Rename>(request, session, sequence) ||
                        session_in<method::Link>(request, session, sequence) ||
                        session_in<method::SetXattr>(request, session, sequence) ||
                        session_in<method::RemoveXattr>(request, session, sequence) ||
                        session_in<method::CreateObject>(request, session, sequence) ||
                        session_in<method::Seal>(request, session, sequence) ||
                        session_in<method::AbortObject>(request, session, sequence) ||
                        session_in<method::DeleteObject>(request, session, sequence);
  if (!mutation) {
    switch (request.method) {
      case method::KeepAlive::kNumber:
        session = SessionId(request.body<method::KeepAlive>().getSession());
        break;
      case method::Reassert::kNumber:
        session = SessionId(request.body<method::Reassert>().getSession());
        break;
      case method::Lock::kNumber:
        session = SessionId(request.body<method::Lock>().getSession());
        break;
      case method::CancelLock::kNumber:
        session = SessionId(request.body<method::CancelLock>().getSession());
        break;
      case method::TestLock::kNumber:
        session = SessionId(request.body<method::TestLock>().getSession());
        break;
      case method::NameLocks::kNumber:
        session = SessionId(request.body<method::NameLocks>().getSession());
        break;
      case method::Lookup::kNumber:
        session = SessionId(request.body<method::Lookup>().getSession());
        break;
      case method::GetAttr::kNumber:
        session = SessionId(request.body<method::GetAttr>().getSession());
        break;
      case method::ReadDir::kNumber:
        session = SessionId(request.body<method::ReadDir>().getSession());
        break;
      case method::GetXattr::kNumber:
        session = SessionId(request.body<method::GetXattr>().getSession());
        break;
      default:
        break;
    }
  }
  if (session.valid()) {
    std::lock_guard lock(mutex);
    if (!sessions.contains(session)) co_return fail(Code::kSessionEnded, "no such session");
    if (mutation) {
      auto& replies = sessions[session].replies;
      if (auto it = replies.find(sequence); it != replies.end()) co_return thawed(it->second);
    }
  }
  Lease keep = Lease::kNone;
  auto wanted = touched(request, keep);
  for (;;) {
    std::vector<Held> held;
    {
      std::lock_guard lock(mutex);
      held = in_the_way(session, wanted, keep);
      if (held.empty()) co_return answer(request, session, mutation, sequence);
    }
    for (Held& one : held) {
      auto recalled = co_await recall(one, keep);
      if (!recalled) co_return fail(recalled.error());
    }
    // A name may lead elsewhere by now. An inode does not change, and each reading of a request counts
    // against its traversal limit.
    if (request.method == method::Open::kNumber) continue;
    keep = Lease::kNone;
    wanted = touched(request, keep);
  }
}

// Under mutex: nothing is in the way.
Result<OutMessage> FakeCluster::State::answer(const Request& request, SessionId session, bool mutation,
                                              std::uint64_t sequence) {
  if (session.valid() && !sessions.contains(session)) return fail(Code::kSessionEnded, "no such session");
  if (!mutation) return query(request, session);
  auto& replies = sessions[session].replies;
  // An earlier try may have come this far while this one waited for a recall.
  if (auto it = replies.find(sequence); it != replies.end()) return thawed(it->second);
  auto reply = change(request, session);
  if (reply) replies[sequence] = frozen(*reply);
  return reply;
}

Result<OutMessage> FakeCluster::State::query(const Request& request, SessionId session) {
  OutMessage reply;
  switch (request.method) {
    case method::KeepAlive::kNumber: {
      auto body = reply.body<schema::KeepAliveReply>();
      body.setLeaseMs(options.lease_ms);
      body.setRoutingVersion(routing_version);
      return reply;
    }
    case method::Reassert::kNumber: {
      auto body = request.body<method::Reassert>();
      std::set<std::uint64_t> exclusive, shared, open;
      for (auto id : body.getExclusive()) exclusive.insert(id);
      for (auto id : body.getShared()) shared.insert(id);
      for (auto id : body.getOpen()) open.insert(id);
      for (auto& [id, inode] : inodes) {
        auto it = inode.holders.find(session);
        if (it != inode.holders.end() && !exclusive.contains(id.value())) inode.holders.erase(it);
        if (shared.contains(id.value())) inode.holders[session] = {Lease::kShared, next_generation++};
        if (!open.contains(id.value())) inode.opens.erase(session);
      }
      reply.body<schema::Empty>();
      return reply;
    }
    case method::Lock::kNumber: {
      auto answered = locks.lock(request.body<method::Lock>());
      tell_settled();
      return answered;
    }
    case method::CancelLock::kNumber:
      return locks.cancel(request.body<method::CancelLock>());
    case method::TestLock::kNumber:
      return locks.test(request.body<method::TestLock>());
    case method::NameLocks::kNumber: {
      auto answered = locks.name(request.body<method::NameLocks>());
      tell_settled();
      return answered;
    }
    case method::CloseSession::kNumber: {
      const SessionId closing(request.body<method::CloseSession>().getSession());
      end(closing);
      reply.body<schema::Empty>();
      return reply;
    }
    case method::GetRouting::kNumber:
      return routing();
    case method::SyncMeta::kNumber:
      reply.body<schema::Empty>();
      return reply;
    case method::StatFs::kNumber: {
      auto body = reply.body<schema::StatFsReply>();
      body.setFiles(inodes.size());
      body.setTotal(1ULL << 40);
      body.setAvailable(1ULL << 40);
      return reply;
    }
    case method::Lookup::kNumber: {
      auto body = request.body<method::Lookup>();
      const InodeId parent(body.getParent());
      if (!inodes.contains(parent)) return fail(Code::kNotFound, "no parent");
      auto& dir = inodes.at(parent);
      auto it = dir.entries.find(std::string(text(body.getName())));
      std::vector<Grant> grants{take(parent, session, Lease::kShared)};
      auto out = reply.body<schema::LookupReply>();
      if (it != dir.entries.end()) {
        grants.push_back(take(it->second, session, Lease::kShared));
        put_attr(inodes.at(it->second), out.initAttr());
      }
      put_grants(out.initGrants(static_cast<unsigned>(grants.size())), grants);
      return reply;
    }
    case method::GetAttr::kNumber: {
      const InodeId id(request.body<method::GetAttr>().getInode());
      if (!inodes.contains(id)) return fail(Code::kNotFound, "no inode");
      auto out = reply.body<schema::AttrReply>();
      const std::vector<Grant> grants{take(id, session, Lease::kShared)};
      put_attr(inodes.at(id), out.initAttr());
      put_layout(inodes.at(id), out.initLayout());
      put_grants(out.initGrants(1), grants);
      return reply;
    }
    case method::ReadLink::kNumber:
      reply.body<schema::ReadLinkReply>().setTarget(
          rpc::data(inodes.at(InodeId(request.body<method::ReadLink>().getInode())).target));
      return reply;
    case method::ReadDir::kNumber: {
      auto body = request.body<method::ReadDir>();
      const InodeId id(body.getInode());
      FakeInode& dir = inodes.at(id);
      std::vector<std::pair<std::string, InodeId>> all(dir.entries.begin(), dir.entries.end());
      const std::size_t from = body.getCookie(),
                        to = std::min<std::size_t>(all.size(), from + body.getLimit());
      auto out = reply.body<schema::ReadDirReply>();
      auto entries = out.initEntries(static_cast<unsigned>(to - from));
      std::vector<Grant> grants{take(id, session, Lease::kShared)};
      for (std::size_t i = from; i < to; ++i) {
        auto entry = entries[static_cast<unsigned>(i - from)];
        entry.setName(rpc::data(all[i].first));
        entry.setInode(all[i].second.value());
        entry.setType(inodes.at(all[i].second).attr.mode);
        entry.setCookie(i + 1);
        if (body.getPlus()) {
          grants.push_back(take(all[i].second, session, Lease::kShared));
          put_attr(inodes.at(all[i].second), entry.initAttr());
        }
      }
      out.setEnd(to == all.size());
      out.setParent(dir.parent.value());
      put_grants(out.initGrants(static_cast<unsigned>(grants.size())), grants);
      return reply;
    }
    case method::GetXattr::kNumber: {
      auto body = request.body<method::GetXattr>();
      auto& xattrs = inodes.at(InodeId(body.getInode())).xattrs;
      auto it = xattrs.find(std::string(text(body.getName())));
      if (it == xattrs.end()) return fail(Code::kNoAttribute, "no such attribute");
      reply.body<schema::GetXattrReply>().setValue(rpc::data(it->second));
      return reply;
    }
    case method::GetObjects::kNumber: {
      auto body = request.body<method::GetObjects>();
      const auto keys = body.getKeys();
      auto results = reply.body<schema::GetObjectsReply>().initResults(keys.size());
      for (unsigned i = 0; i < results.size(); ++i) {
        const std::string id(text(keys[i].getId()));
        auto it = objects.find(id);
        if (it == objects.end()) {
          results[i].setCode(static_cast<std::uint16_t>(Code::kNotFound));
          continue;
        }
        auto record = results[i].getRecord();
        record.initKey().setId(rpc::data(id));
        record.setState(schema::ObjectState::SEALED);
        record.setSize(it->second.size);
        record.getDigest().setHigh(it->second.digest.high);
        record.getDigest().setLow(it->second.digest.low);
        auto layer = record.initLayout().initLayers(1)[0];
        layer.setData(it->second.data.value());
        layer.setPool(1);
        layer.setChunkSize(options.chunk_size);
      }
      return reply;
    }
    case method::ListObjects::kNumber: {
      auto body = request.body<method::ListObjects>();
      std::vector<std::string> found;
      for (auto& [id, object] : objects) {
        if (id.starts_with(text(body.getPrefix())) && id > text(body.getAfter())) found.push_back(id);
      }
      auto out = reply.body<schema::ListObjectsReply>();
      const std::size_t n = std::min<std::size_t>(found.size(), body.getLimit());
      auto records = out.initRecords(static_cast<unsigned>(n));
      for (unsigned i = 0; i < n; ++i) {
        records[i].initKey().setId(rpc::data(found[i]));
        records[i].setState(schema::ObjectState::SEALED);
        records[i].setSize(objects[found[i]].size);
      }
      out.setDone(n == found.size());
      return reply;
    }
    default:
      return fail(Code::kUnimplemented, std::string(method_name(request.method)));
  }
}

Result<OutMessage> FakeCluster::State::change(const Request& request, SessionId session) {
  OutMessage reply;
  const auto inode_of = [&](std::uint64_t id) -> Result<FakeInode*> {
    auto it = inodes.find(InodeId(id));
    if (it == inodes.end()) return fail(Code::kNotFound, "no inode " + std::to_string(id));
    return &it->second;
  };
  const auto holds = [&](const FakeInode& inode, std::uint64_t generation) {
    auto it = inode.holders.find(session);
    return it != inode.holders.end() && it->second.kind == Lease::kExclusive &&
           it->second.generation == generation;
  };
  switch (request.method) {
    case method::Make::kNumber: {
      auto body = request.body<method::Make>();
      const InodeId parent(body.getParent());
      TRY(FakeInode * dir, inode_of(parent.value()));
      const std::string name(text(body.getName()));
      auto out = reply.body<schema::MakeReply>();
      std::vector<Grant> grants;
      InodeId id;
      if (auto it = dir->entries.find(name); it != dir->entries.end()) {
        if (body.getExclusive()) return fail(Code::kExists, name + " exists");
        id = it->second;
      } else {
        FakeInode& made = make_inode(body.getMode());
        id = made.attr.inode;
        made.attr.uid = body.getUid();
        made.attr.gid = body.getGid();
        made.target = std::string(text(body.getTarget()));
        made.parent = parent;
        dir->entries[name] = id;
        if (S_ISDIR(body.getMode())) ++dir->attr.nlink;
        touch(*dir, true);
        out.setCreated(true);
      }
      grants.push_back(take(parent, session, Lease::kShared));
      grants.push_back(take(id, session, body.getOpen() ? Lease::kExclusive : Lease::kShared));
      FakeInode& inode = inodes.at(id);
      if (body.getOpen()) ++inode.opens[session];
      put_attr(inode, out.initAttr());
      put_attr(*dir, out.initParentAttr());
      put_layout(inode, out.initLayout());
      put_grants(out.initGrants(2), grants);
      return reply;
    }
    case method::Open::kNumber: {
      auto body = request.body<method::Open>();
      TRY(FakeInode * inode, inode_of(body.getInode()));
      if (body.getTruncate()) {
        inode->attr.size = 0;
        inode->data = DataId(next_id++);
        give_up(*inode, 0, kNoChunk);
        inode->holes.clear();
        inode->trim = {};
        inode->bound = options.initial_bound;
        touch(*inode, true);
      }
      ++inode->opens[session];
      auto out = reply.body<schema::OpenReply>();
      const std::vector<Grant> grants{
          take(InodeId(body.getInode()), session, body.getWrite() ? Lease::kExclusive : Lease::kShared)};
      put_attr(*inode, out.initAttr());
      put_layout(*inode, out.initLayout());
      put_grants(out.initGrants(1), grants);
      return reply;
    }
    case method::SetAttr::kNumber: {
      auto body = request.body<method::SetAttr>();
      TRY(FakeInode * inode, inode_of(body.getInode()));
      const auto valid = body.getValid();
      if (valid & kSetSize) {
        if (!holds(*inode, body.getGeneration())) return fail(Code::kLeaseLost, "not held");
        const std::uint64_t size = body.getAttr().getSize(), old = inode->attr.size;
        if (size < old || body.getShrinks()) {
          CHECK(size >= old || size % options.chunk_size == 0 ||
                    !inode->frozen_layer_of(size / options.chunk_size),
                "a file was cut within a chunk that it shares");
          give_up(*inode, chunks_of(size, options.chunk_size), kNoChunk);
          inode->holes.add(chunks_of(old, options.chunk_size), chunks_of(size, options.chunk_size));
          inode->trim = {size, std::max({inode->trim.to, old, size, inode->bound * options.chunk_size})};
          inode->holes.remove(chunks_of(size, options.chunk_size), kNoChunk);
        } else {
          CHECK(inode->trim.empty() || size <= inode->trim.from, "a file grew past a pending trim");
          inode->holes.add(chunks_of(old, options.chunk_size), chunks_of(size, options.chunk_size));
        }
        inode->attr.size = size;
        inode->attr.mtime_ns = now();
      }
      if (valid & kSetUid) {
        inode->attr.uid = body.getAttr().getUid();
        inode->attr.mode &= ~static_cast<std::uint32_t>(S_ISUID | S_ISGID);
      }
      if (valid & kSetMode)
        inode->attr.mode = (inode->attr.mode & S_IFMT) | (body.getAttr().getMode() & 07777);
      if (valid & kSetMtime) inode->attr.mtime_ns = body.getAttr().getMtime();
      if (valid & kSetAtime) inode->attr.atime_ns = body.getAttr().getAtime();
      touch(*inode, false);
      auto out = reply.body<schema::SetAttrReply>();
      put_attr(*inode, out.initAttr());
      put_layout(*inode, out.initLayout());
      return reply;
    }
    case method::Report::kNumber: {
      auto body = request.body<method::Report>();
      const auto items = body.getItems();
      auto codes = reply.body<schema::ReportReply>().initCodes(items.size());
      for (unsigned i = 0; i < items.size(); ++i) {
        auto item = items[i];
        auto it = inodes.find(InodeId(item.getInode()));
        if (it == inodes.end()) {
          codes.set(i, static_cast<std::uint16_t>(Code::kNotFound));
          continue;
        }
        FakeInode& inode = it->second;
        if (item.getIfLast()) {
          std::uint64_t others = 0;
          for (const auto& [of, count] : inode.opens) others += of == session ? 0 : count;
          if (inode.attr.nlink != 0 || others != 0) {
            codes.set(i, static_cast<std::uint16_t>(Code::kExists));
            continue;
          }
        }
        const bool held = holds(inode, item.getGeneration());
        if ((item.getHasSize() || item.getMtime() != 0 || item.getHasMode()) && !held)
          codes.set(i, static_cast<std::uint16_t>(Code::kLeaseLost));
        if (item.getHasSize() && held) {
          if (item.getTrimDone()) inode.trim = {};
          CHECK(inode.trim.empty() || item.getSize() <= inode.trim.from,
                "a report grew a file past a pending trim");
          const std::uint64_t old = chunks_of(inode.attr.size, options.chunk_size);
          CHECK(item.getSize() <= inode.attr.size ||
                    chunks_of(item.getSize(), options.chunk_size) <= inode.bound,
                "a report grew a file past its bound");
          inode.attr.size = std::max(inode.attr.size, item.getSize());
          inode.holes.add(old, chunks_of(inode.attr.size, options.chunk_size));
          for (auto range : item.getWritten()) {
            CHECK(range.getTo() <= inode.bound, "a chunk beyond the bound was written");
            inode.holes.remove(range.getFrom(), range.getTo());
            give_up(inode, range.getFrom(), range.getTo());
          }
          for (auto range : item.getPunched()) {
            inode.holes.add(range.getFrom(), range.getTo());
            give_up(inode, range.getFrom(), range.getTo());
          }
          CHECK(quota_bytes == 0 || item.getBytes() <= inode.allowed, "a file has more than it was allowed");
          if (item.getHasBytesMax()) inode.allowed = std::min(inode.allowed, item.getBytesMax());
          // Bytes below the size and outside the holes exist.
          for (std::uint64_t index = 0; index < chunks_of(inode.attr.size, options.chunk_size); ++index) {
            const ChunkId chunk = inode.chunk(index);
            CHECK(inode.holes.contains(index) || chunks.contains({members_of(chunk).front(), chunk}),
                  "a report claims a chunk that is not stored");
          }
        }
        if (held && item.getMtime() != 0) inode.attr.mtime_ns = item.getMtime();
        if (item.getAtime() != 0) inode.attr.atime_ns = item.getAtime();
        if (held && item.getHasMode()) inode.attr.mode = (inode.attr.mode & S_IFMT) | item.getMode();
        if (held) {
          const std::int64_t before = inode.attr.ctime_ns;
          touch(inode, false);
          if (item.getCtime() != 0) inode.attr.ctime_ns = std::max(before, item.getCtime());
        }
        auto& opens = inode.opens[session];
        opens -= std::min(opens, item.getClosed());
        if (held) inode.holders[session].kind = std::min(Lease::kExclusive, decode(item.getKeep()));
        collect(it->first);
      }
      return reply;
    }
    case method::ShareChunks::kNumber:
      return share_chunks(request, session);
    case method::ExtendBound::kNumber: {
      auto body = request.body<method::ExtendBound>();
      TRY(FakeInode * inode, inode_of(body.getInode()));
      if (!holds(*inode, body.getGeneration())) return fail(Code::kLeaseLost, "not held");
      inode->bound = std::max(inode->bound, body.getBound());
      auto out = reply.body<schema::ExtendBoundReply>();
      out.setBound(inode->bound);
      if (quota_bytes == 0) return reply;
      if (body.getBytes() > inode->allowed) {
        const std::uint64_t others = others_allowed(*inode);
        if (others + body.getBytes() > quota_bytes) return fail(Code::kQuotaExceeded, "told to have a quota");
        // All that is left, ahead.
        inode->allowed = quota_bytes - others;
      }
      out.setLimited(true);
      out.setBytesMax(inode->allowed);
      return reply;
    }
    case method::Remove::kNumber: {
      auto body = request.body<method::Remove>();
      TRY(FakeInode * dir, inode_of(body.getParent()));
      auto it = dir->entries.find(std::string(text(body.getName())));
      if (it == dir->entries.end()) return fail(Code::kNotFound, "no such name");
      const InodeId removed = it->second;
      FakeInode& inode = inodes.at(removed);
      if (body.getDirectory() && !inode.entries.empty()) return fail(Code::kNotEmpty, "not empty");
      if (body.getDirectory()) --dir->attr.nlink;
      inode.attr.nlink = body.getDirectory() ? 0 : inode.attr.nlink - 1;
      touch(inode, false);
      dir->entries.erase(it);
      collect(removed);
      touch(*dir, true);
      put_attr(*dir, reply.body<schema::DirsReply>().initParent());
      return reply;
    }
    case method::Rename::kNumber: {
      auto body = request.body<method::Rename>();
      TRY(FakeInode * from, inode_of(body.getParent()));
      TRY(FakeInode * to, inode_of(body.getNewParent()));
      auto it = from->entries.find(std::string(text(body.getName())));
      if (it == from->entries.end()) return fail(Code::kNotFound, "no such name");
      const InodeId moved = it->second;
      from->entries.erase(it);
      const std::string new_name(text(body.getNewName()));
      if (auto old = to->entries.find(new_name); old != to->entries.end()) {
        const InodeId replaced = old->second;
        --inodes.at(replaced).attr.nlink;
        collect(replaced);
      }
      to->entries[new_name] = moved;
      touch(*from, true);
      touch(*to, true);
      auto out = reply.body<schema::DirsReply>();
      put_attr(*from, out.initParent());
      put_attr(*to, out.initNewParent());
      return reply;
    }
    case method::Link::kNumber: {
      auto body = request.body<method::Link>();
      TRY(FakeInode * dir, inode_of(body.getParent()));
      TRY(FakeInode * inode, inode_of(body.getInode()));
      dir->entries[std::string(text(body.getName()))] = InodeId(body.getInode());
      ++inode->attr.nlink;
      touch(*inode, false);
      touch(*dir, true);
      auto out = reply.body<schema::AttrReply>();
      const std::vector<Grant> grants{take(InodeId(body.getInode()), session, Lease::kShared)};
      put_attr(*inode, out.initAttr());
      put_attr(*dir, out.initParentAttr());
      put_grants(out.initGrants(1), grants);
      return reply;
    }
    case method::SetXattr::kNumber: {
      auto body = request.body<method::SetXattr>();
      TRY(FakeInode * inode, inode_of(body.getInode()));
      inode->xattrs[std::string(text(body.getName()))] = std::string(text(body.getValue()));
      touch(*inode, false);
      reply.body<schema::Empty>();
      return reply;
    }
    case method::CreateObject::kNumber: {
      auto out = reply.body<schema::CreateObjectReply>();
      out.setData(next_id++);
      out.setPool(1);
      out.setChunkSize(options.chunk_size);
      return reply;
    }
    case method::Seal::kNumber: {
      auto body = request.body<method::Seal>();
      const std::string id(text(body.getKey().getId()));
      const Digest digest{body.getDigest().getHigh(), body.getDigest().getLow()};
      if (body.getReceipts().size() != chunks_of(body.getSize(), options.chunk_size))
        return fail(Code::kInvalidArgument, "a receipt per chunk");
      auto it = objects.find(id);
      if (it != objects.end() && it->second.digest != digest) {
        return fail(Code::kConflict,
                    "sealed as " + to_string(it->second.digest) + ", not " + to_string(digest));
      }
      auto out = reply.body<schema::SealReply>();
      out.setExisted(it != objects.end());
      if (it == objects.end())
        it = objects.emplace(id, FakeObject{DataId(body.getData()), body.getSize(), digest}).first;
      auto record = out.getRecord();
      record.initKey().setId(rpc::data(id));
      record.setState(schema::ObjectState::SEALED);
      record.setSize(it->second.size);
      record.getDigest().setHigh(digest.high);
      record.getDigest().setLow(digest.low);
      return reply;
    }
    case method::AbortObject::kNumber:
      reply.body<schema::Empty>();
      return reply;
    case method::DeleteObject::kNumber:
      if (objects.erase(std::string(text(request.body<method::DeleteObject>().getKey().getId()))) == 0)
        return fail(Code::kNotFound, "no object");
      reply.body<schema::Empty>();
      return reply;
    default:
      return fail(Code::kUnimplemented, std::string(method_name(request.method)));
  }
}

Result<OutMessage> FakeCluster::State::share_chunks(const Request& request, SessionId session) {
  auto body = request.body<method::ShareChunks>();
  const InodeId source_id(body.getSource()), target_id(body.getTarget());
  if (!inodes.contains(source_id) || !inodes.contains(target_id)) return fail(Code::kNotFound, "no inode");
  FakeInode& source = inodes.at(source_id);
  FakeInode& target = inodes.at(target_id);
  const auto holds = [&](const FakeInode& inode, std::uint64_t generation) {
    auto it = inode.holders.find(session);
    return it != inode.holders.end() && it->second.kind == Lease::kExclusive &&
           it->second.generation == generation;
  };
  const std::uint64_t chunk_size = options.chunk_size;
  const std::uint64_t from = body.getFrom(), to = body.getTo(), count = body.getCount();
  const std::uint64_t old_chunks = chunks_of(source.attr.size, options.chunk_size);
  if (count == 0 || from + count > old_chunks) return fail(Code::kInvalidArgument, "no such chunks");
  if (!holds(target, body.getGeneration()) || !target.trim.empty())
    return fail(Code::kLeaseLost, "the target is not held");
  const std::uint64_t end =
      to * chunk_size + std::min(count * chunk_size, source.attr.size - from * chunk_size);
  if (body.getBytes() != end - to * chunk_size)
    return fail(Code::kInvalidArgument, "the source has more or fewer bytes there");
  if (end % chunk_size != 0 && target.attr.size > end)
    return fail(Code::kInvalidArgument, "bytes of the target would be lost");
  std::uint64_t allocated = 0;  // chunks of the target afterwards
  for (std::uint64_t index = 0; index * chunk_size < std::max(target.attr.size, end); ++index) {
    const bool placed = index >= to && index < to + count;
    const bool hole = placed ? source.holes.contains(index - to + from)
                             : target.holes.contains(index) || index * chunk_size >= target.attr.size;
    if (!hole) ++allocated;
  }
  const std::uint64_t bytes = std::min(std::max(target.attr.size, end), allocated * chunk_size);
  if (quota_bytes != 0 && bytes > target.allowed) {
    if (others_allowed(target) + bytes > quota_bytes)
      return fail(Code::kQuotaExceeded, "told to have a quota");
    target.allowed = bytes;
  }
  FakeLayer whole{source.data, {}, 0};
  bool own = false;
  for (std::uint64_t index = 0; index < old_chunks; ++index) {
    if (source.holes.contains(index) || source.frozen_layer_of(index)) continue;
    whole.chunks.add(index, index + 1);
    own = own || (index >= from && index < from + count);
  }
  if (own) {
    if (!holds(source, body.getSourceGeneration()) || !source.trim.empty())
      return fail(Code::kLeaseLost, "the source is not held");
    for (const auto& [key, chunk] : chunks) {
      CHECK(key.second.data != source.data || chunk.synced || !whole.chunks.contains(key.second.index),
            "a chunk is frozen that is not synced");
    }
    source.data = DataId(next_id++);
    source.frozen.push_back(std::move(whole));
  }
  std::vector<FakeLayer> pieces;
  for (const FakeLayer& layer : source.frozen) {
    FakeLayer piece{
        layer.data, {}, layer.shift + static_cast<std::int64_t>(from) - static_cast<std::int64_t>(to)};
    for (std::uint64_t i = 0; i < count; ++i) {
      if (layer.chunks.contains(from + i)) piece.chunks.add(to + i, to + i + 1);
    }
    if (!piece.chunks.empty()) pieces.push_back(std::move(piece));
  }
  RangeSet holes;
  for (std::uint64_t i = 0; i < count; ++i) {
    if (source.holes.contains(from + i)) holes.add(to + i, to + i + 1);
  }
  const std::uint64_t size = std::max(target.attr.size, end);
  target.holes.add(chunks_of(target.attr.size, options.chunk_size), chunks_of(size, options.chunk_size));
  target.holes.remove(to, to + count);
  for (const Range& hole : holes.list()) target.holes.add(hole.from, hole.to);
  // The new pieces come first: what they refer to must not go with what they replace.
  std::vector<FakeLayer> before = std::move(target.frozen);
  target.frozen = std::move(pieces);
  for (FakeLayer& layer : before) {
    FakeLayer kept = layer;
    kept.chunks.remove(to, to + count);
    if (!kept.chunks.empty()) target.frozen.push_back(std::move(kept));
  }
  for (FakeLayer& layer : before) {  // looks for references, as for any other
    FakeInode none;
    none.frozen.push_back(std::move(layer));
    give_up(none, 0, kNoChunk);
  }
  target.attr.size = size;
  touch(target, true);
  OutMessage reply;
  auto out = reply.body<schema::ShareChunksReply>();
  put_attr(target, out.initAttr());
  put_layout(target, out.initLayout());
  put_layout(source, out.initSourceLayout());
  return reply;
}

// --- chunkservers: the head applies a write to all members at once ---

Task<Result<OutMessage>> FakeCluster::State::ChunkService::handle(Request request) {
  const Fault fault = state.count(static_cast<int>(index), request.method);
  if (fault == Fault::kUnavailable) co_return fail(Code::kUnavailable, "told to refuse");
  if (fault == Fault::kNoSpace) co_return fail(Code::kNoSpace, "told to be full");
  if (fault == Fault::kLoseRequest) {
    request.peer->close("told to lose the request");
    co_return fail(Code::kUnavailable, "lost");
  }
  auto reply = serve(request);
  if (fault == Fault::kLoseReply) {
    request.peer->close("told to lose the reply");
    co_return fail(Code::kUnavailable, "lost");
  }
  co_return reply;
}

Result<OutMessage> FakeCluster::State::ChunkService::serve(const Request& request) {
  using Kind = schema::WriteRequest::Kind;
  std::lock_guard lock(state.mutex);
  OutMessage reply;
  const auto chunk_of = [](auto from) {
    return ChunkId{DataId(from.getData()), from.getIndex(), from.getShard()};
  };
  if (request.method == method::Sync::kNumber) {
    auto body = request.body<method::Sync>();
    const auto asked = body.getChunks();  // once: each access counts against the traversal limit
    auto results = reply.body<schema::SyncReply>().initResults(asked.size());
    for (unsigned i = 0; i < results.size(); ++i) {
      auto item = asked[i];
      const ChunkId chunk = chunk_of(item.getChunk());
      Code code = Code::kOk;
      const auto members = state.members_of(chunk);
      if (item.getEpoch() != state.epoch || members.front() != index) code = Code::kWrongEpoch;
      auto reconciled = state.reconciled.find(chunk);
      auto stored = state.chunks.find({index, chunk});
      const Version version{Epoch(item.getVersion().getEpoch()), item.getVersion().getCounter()};
      const bool as_it_was = stored != state.chunks.end() && stored->second.version == version;
      if (reconciled != state.reconciled.end() && version.epoch.value() < reconciled->second && !as_it_was)
        code = Code::kLostUnsynced;
      for (unsigned member : members) {
        auto it = state.chunks.find({member, chunk});
        if (code != Code::kOk) break;
        if (it == state.chunks.end()) {
          code = Code::kLostUnsynced;
        } else {
          it->second.synced = true;
          it->second.synced_bytes = it->second.bytes;
          it->second.synced_version = it->second.version;
        }
      }
      results[i].setCode(static_cast<std::uint16_t>(code));
      results[i].setEpoch(state.epoch);
    }
    return reply;
  }
  if (request.method == method::Read::kNumber) {
    auto body = request.body<method::Read>();
    auto context = body.getContext();
    const ChunkId chunk = chunk_of(context.getChunk());
    if (context.getEpoch() != state.epoch) return fail(Code::kWrongEpoch, "another epoch");
    const auto members = state.members_of(chunk);
    if (std::find(members.begin(), members.end(), index) == members.end())
      return fail(Code::kNotServing, "no member");
    auto it = state.chunks.find({index, chunk});
    if (it == state.chunks.end()) return fail(Code::kNotFound, "absent");
    const std::string& bytes = it->second.bytes;
    const std::uint64_t from =
        std::min<std::uint64_t>(body.getOffset() / kBlockSize * kBlockSize, bytes.size());
    const std::uint64_t to = std::min<std::uint64_t>(
        (std::uint64_t{body.getOffset()} + body.getLength() + kBlockSize - 1) / kBlockSize * kBlockSize,
        bytes.size());
    auto out = reply.body<schema::ReadReply>();
    out.setAlignedOffset(static_cast<std::uint32_t>(body.getOffset() / kBlockSize * kBlockSize));
    out.setChunkLength(static_cast<std::uint32_t>(bytes.size()));
    std::string payload = to > from ? bytes.substr(from, to - from) : std::string();
    auto sums = block_checksums(as_bytes(payload));
    if (it->second.generation == UINT64_MAX && !payload.empty())
      payload[0] = static_cast<char>(payload[0] ^ 1);  // corrupt()
    out.setChecksums(kj::ArrayPtr<const std::uint64_t>(sums.data(), sums.size()));
    reply.payload.pieces.push_back(Buffer::take(std::move(payload)));
    reply.payload.self_checked = true;
    return reply;
  }
  if (request.method != method::Write::kNumber) return fail(Code::kUnimplemented, "no such method");
  auto body = request.body<method::Write>();
  auto context = body.getContext();
  const ChunkId chunk = chunk_of(context.getChunk());
  const SessionId session(context.getSession());
  if (context.getEpoch() != state.epoch) return fail(Code::kWrongEpoch, "another epoch");
  const auto members = state.members_of(chunk);
  if (members.empty() || members.front() != index) return fail(Code::kNotServing, "not the head");
  if (state.ended.contains(session)) return fail(Code::kSessionEnded, "fenced");
  const Bytes payload = request.message.payload().bytes();
  const std::uint32_t offset = body.getOffset();
  FakeChunk& head = state.chunks[{index, chunk}];
  const RequestId id{session, context.getSequence()};
  Version base;
  if (head.last == id) {
    // A retry: answered, not done again.
  } else {
    CHECK(head.last.session != session || head.last.sequence < id.sequence,
          "writes of a chunk came out of order");
    std::string bytes = head.bytes;
    const Kind kind = body.getKind();
    if (kind == Kind::FRESH) bytes.clear();
    if (kind == Kind::PUT && !bytes.empty() && bytes != as_text(payload))
      return fail(Code::kExists, "another object");
    if (kind == Kind::WRITE || kind == Kind::FRESH || kind == Kind::PUT) {
      const std::uint64_t end = offset + payload.size();
      CHECK(end <= state.options.chunk_size, "a write past the chunk");
      if (body.getChecksums().size() != 0) {
        CHECK(offset % kBlockSize == 0 && (end % kBlockSize == 0 || end >= bytes.size()),
              "checksums of partial blocks");
        std::vector<BlockChecksum> sums;
        for (auto sum : body.getChecksums()) sums.push_back(sum);
        if (sums.size() != blocks_in(payload.size()) || first_bad_block(payload, sums) >= 0)
          return fail(Code::kCorrupt, "checksums do not match");
      }
      if (bytes.size() < end) bytes.resize(end, '\0');
      std::memcpy(bytes.data() + offset, payload.data(), payload.size());
    } else if (kind == Kind::TRUNCATE) {
      if (bytes.size() > body.getLength()) bytes.resize(body.getLength());
    }
    static std::uint64_t counter = 0;
    const Version version{Epoch(state.epoch), ++counter};
    base = head.version;
    for (unsigned member : members) {
      if (kind == Kind::REMOVE) {
        state.chunks.erase({member, chunk});
        continue;
      }
      FakeChunk& copy = state.chunks[{member, chunk}];
      copy.bytes = bytes;
      copy.version = version;
      copy.last = id;
      copy.generation = 0;
      copy.synced = body.getDurable();
      if (copy.synced) {
        copy.synced_bytes = bytes;
        copy.synced_version = version;
      }
    }
    if (kind == Kind::REMOVE) {
      reply.body<schema::WriteReply>().getVersion().setEpoch(state.epoch);
      return reply;
    }
  }
  auto out = reply.body<schema::WriteReply>();
  FakeChunk& now = state.chunks[{index, chunk}];
  out.getVersion().setEpoch(now.version.epoch.value());
  out.getVersion().setCounter(now.version.counter);
  out.getBase().setEpoch(base.epoch.value());
  out.getBase().setCounter(base.counter);
  out.setLength(static_cast<std::uint32_t>(now.bytes.size()));
  return reply;
}

// --- the cluster ---

FakeCluster::FakeCluster() : FakeCluster(Options()) {}
FakeCluster::FakeCluster(Options options)
    : runtime_(std::make_unique<Runtime>(clock_, 2, "fake")),
      state_(std::make_unique<State>(*this, options)) {
  FakeInode& root = state_->inodes[kRootInode];
  root.attr.inode = kRootInode;
  root.attr.mode = S_IFDIR | 0755;
  root.attr.nlink = 2;
  root.parent = kRootInode;
  state_->meta_identity.role = Role::kMeta;
  state_->chunk_identity.role = Role::kChunkserver;
  for (auto* identity : {&state_->meta_identity, &state_->chunk_identity}) {
    identity->cluster = [] { return ClusterId(7); };
    identity->id = [] { return std::uint64_t{1}; };
    identity->program = "fake";
  }
  auto meta = Server::start(*runtime_, transport_, meta_address(), state_->meta, state_->meta_identity);
  CHECK(meta.has_value(), "the fake metadata server listens");
  state_->meta_listener = std::move(*meta);
  for (unsigned i = 0; i < options.servers; ++i) {
    state_->servers.push_back(std::make_unique<State::ChunkService>(*state_, i));
    auto server =
        Server::start(*runtime_, transport_, server_address(i), *state_->servers[i], state_->chunk_identity);
    CHECK(server.has_value(), "a fake chunkserver listens");
    state_->listeners.push_back(std::move(*server));
  }
}

FakeCluster::~FakeCluster() {
  const Deadline now = Deadline::after(clock_, std::chrono::milliseconds(100));
  state_->meta_listener->stop(now);
  for (auto& listener : state_->listeners) listener->stop(now);
  runtime_->stop();
}

std::unique_ptr<ClientImpl> FakeCluster::connect(std::uint64_t memory_bytes, AccessTimes access_times) {
  ClientOptions options;
  options.meta = {meta_address()};
  options.timeout = std::chrono::seconds(20);
  options.memory_bytes = memory_bytes;
  options.access_times = access_times;
  options.name = "test";
  auto client = ClientImpl::connect(options, transport_, clock_);
  CHECK(client.has_value(), client ? "" : client.error().to_string());
  return std::move(*client);
}

void FakeCluster::on_request(std::function<Fault(int, std::uint16_t)> decide) {
  std::lock_guard lock(state_->mutex);
  state_->decide = std::move(decide);
}
unsigned FakeCluster::requests(std::uint16_t method) const {
  std::lock_guard lock(state_->mutex);
  auto it = state_->counts.find(method);
  return it == state_->counts.end() ? 0 : it->second;
}
void FakeCluster::reset_counts() {
  std::lock_guard lock(state_->mutex);
  state_->counts.clear();
}

void FakeCluster::set_quota(std::uint64_t bytes) {
  std::lock_guard lock(state_->mutex);
  state_->quota_bytes = bytes;
}

void FakeCluster::end_session(SessionId session) {
  std::lock_guard lock(state_->mutex);
  state_->end(session);
}
std::size_t FakeCluster::locks_held() const {
  std::lock_guard lock(state_->mutex);
  return state_->locks.held();
}
std::size_t FakeCluster::locks_waiting() const {
  std::lock_guard lock(state_->mutex);
  return state_->locks.waiting();
}
void FakeCluster::restart_meta() {
  {
    std::lock_guard lock(state_->mutex);
    std::set<SessionId> known;
    for (const auto& [session, record] : state_->sessions) known.insert(session);
    state_->locks.restart(std::move(known));
    for (auto& [id, inode] : state_->inodes) {
      std::erase_if(inode.holders, [](const auto& holder) { return holder.second.kind == Lease::kShared; });
    }
  }
  transport_.cut(meta_address());
  transport_.heal(meta_address());
}
void FakeCluster::new_epoch(unsigned without_server) {
  std::lock_guard lock(state_->mutex);
  state_->lost_servers.insert(without_server);
  ++state_->epoch;
  ++state_->routing_version;
}
void FakeCluster::corrupt(unsigned server) {
  std::lock_guard lock(state_->mutex);
  for (auto& [key, chunk] : state_->chunks) {
    if (key.first == server) chunk.generation = UINT64_MAX;
  }
}
void FakeCluster::wipe(unsigned server) {
  std::lock_guard lock(state_->mutex);
  std::erase_if(state_->chunks, [&](const auto& entry) { return entry.first.first == server; });
}
void FakeCluster::restart_servers() {
  std::lock_guard lock(state_->mutex);
  ++state_->epoch;
  ++state_->routing_version;
  for (const auto& [key, chunk] : state_->chunks) state_->reconciled[key.second] = state_->epoch;
}
void FakeCluster::lose_unsynced() {
  std::lock_guard lock(state_->mutex);
  ++state_->epoch;
  ++state_->routing_version;
  for (auto it = state_->chunks.begin(); it != state_->chunks.end();) {
    FakeChunk& chunk = it->second;
    if (chunk.synced) {
      ++it;
      continue;
    }
    state_->reconciled[it->first.second] = state_->epoch;
    if (!chunk.synced_bytes) {
      it = state_->chunks.erase(it);
      continue;
    }
    chunk.bytes = *chunk.synced_bytes;
    chunk.version = chunk.synced_version;
    chunk.synced = true;
    chunk.last = {};
    ++it;
  }
}
void FakeCluster::resize(InodeId inode, std::uint64_t size) {
  std::lock_guard lock(state_->mutex);
  state_->inodes.at(inode).attr.size = size;
}
std::size_t FakeCluster::chunks_on(unsigned server) const {
  std::lock_guard lock(state_->mutex);
  return static_cast<std::size_t>(
      std::count_if(state_->chunks.begin(), state_->chunks.end(),
                    [&](const auto& entry) { return entry.first.first == server; }));
}
std::size_t FakeCluster::unsynced_chunks() const {
  std::lock_guard lock(state_->mutex);
  return static_cast<std::size_t>(std::count_if(state_->chunks.begin(), state_->chunks.end(),
                                                [](const auto& entry) { return !entry.second.synced; }));
}
Lease FakeCluster::lease_of(InodeId inode, SessionId session) const {
  std::lock_guard lock(state_->mutex);
  auto it = state_->inodes.find(inode);
  if (it == state_->inodes.end()) return Lease::kNone;
  auto holder = it->second.holders.find(session);
  return holder == it->second.holders.end() ? Lease::kNone : holder->second.kind;
}
unsigned FakeCluster::opens_of(InodeId inode) const {
  std::lock_guard lock(state_->mutex);
  auto it = state_->inodes.find(inode);
  return it == state_->inodes.end() ? 0 : it->second.open_count();
}
bool FakeCluster::exists(InodeId inode) const {
  std::lock_guard lock(state_->mutex);
  return state_->inodes.contains(inode);
}
std::uint64_t FakeCluster::server_size(InodeId inode) const {
  std::lock_guard lock(state_->mutex);
  return state_->inodes.at(inode).attr.size;
}

}  // namespace cairn::client
