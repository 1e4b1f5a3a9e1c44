#include "chunkserver/test_cluster.h"

#include <thread>

#include "chunkserver/wire.h"

namespace cairn::chunkserver {
namespace {

constexpr ClusterId kCluster{7};

void sleep_ms(int ms) {
  std::this_thread::sleep_for(std::chrono::milliseconds(ms));
}

rpc::Task<Result<rpc::InMessage>> call(std::shared_ptr<rpc::Channel> channel, std::uint16_t method,
                                       rpc::OutMessage message, Deadline deadline) {
  auto reply = co_await channel->call(method, std::move(message), deadline);
  co_return reply;
}

}  // namespace

bool eventually(const std::function<bool()>& done) {
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (std::chrono::steady_clock::now() < until) {
    if (done()) return true;
    sleep_ms(2);
  }
  return done();
}

std::string pattern(std::size_t size, std::uint64_t seed) {
  SeededRng rng(seed);
  std::string out(size, '\0');
  for (char& c : out) c = static_cast<char>(rng.next());
  return out;
}

TestClient::TestClient(rpc::Runtime& runtime, rpc::Transport& transport, FakeMeta& meta, SessionId session,
                       std::uint32_t slots)
    : runtime_(runtime), transport_(transport), meta_(meta), session_(session), slots_(slots) {
  identity_.cluster = [] { return kCluster; };
  identity_.id = [session] { return session.value(); };
  identity_.program = "test client";
}

TestClient::~TestClient() {
  for (auto& [address, channel] : channels_) channel->close();
}

std::shared_ptr<rpc::Channel> TestClient::channel(const std::string& address) {
  std::lock_guard lock(mutex_);
  auto& channel = channels_[address];
  if (!channel) channel = rpc::Channel::create(runtime_, transport_, address, identity_);
  return channel;
}

WriteSpec TestClient::spec(ChunkId chunk, WriteKind kind) {
  WriteSpec spec;
  spec.chunk = chunk;
  spec.pool = FakeMeta::kPool;
  spec.kind = kind;
  spec.request = {session_, ++sequence_};
  spec.owner = InodeId(77);
  return spec;
}

Result<TestClient::Written> TestClient::write_once(const WriteSpec& spec, const std::string& bytes,
                                                   Duration timeout, std::optional<TargetId> at) {
  const GroupConfig group = meta_.group(slot(spec.chunk));
  if (group.members.empty()) return fail(Code::kUnavailable, "no members");
  return send(rpc::method::Write::kNumber, spec, bytes, timeout, at.value_or(group.members.front().target));
}

Result<TestClient::Written> TestClient::hop(const WriteSpec& spec, const std::string& bytes, TargetId at) {
  return send(rpc::method::Forward::kNumber, spec, bytes, std::chrono::seconds(20), at);
}

Result<TestClient::Written> TestClient::send(std::uint16_t method, WriteSpec spec, const std::string& bytes,
                                             Duration timeout, TargetId at) {
  if (carries_bytes(spec.kind) && spec.offset % kBlockSize == 0 && spec.checksums.empty())
    spec.checksums = block_checksums(as_bytes(bytes));
  rpc::Buffer payload = bytes.empty() ? rpc::Buffer() : rpc::Buffer::copy(as_bytes(bytes));
  const TargetId addressee = method == rpc::method::Forward::kNumber ? at : TargetId();
  rpc::OutMessage message = forward_message(spec, meta_.group(slot(spec.chunk)).epoch, addressee, payload);
  auto reply = rpc::block_on(runtime_, call(channel(meta_.address_of(at)), method, std::move(message),
                                            Deadline::after(runtime_.clock(), timeout)));
  if (!reply) return fail(std::move(reply.error()));
  const WriteOutcome outcome = outcome_of(reply->body<schema::WriteReply>());
  return Written{outcome.version, outcome.digest, outcome.length};
}

Result<TestClient::Written> TestClient::write(WriteSpec spec, const std::string& bytes, Duration timeout) {
  const Deadline deadline = Deadline::after(runtime_.clock(), timeout);
  for (;;) {
    auto written = write_once(spec, bytes, std::chrono::seconds(2));
    if (written) return written;
    const Code code = written.error().code();
    const bool passes = code == Code::kWrongEpoch || code == Code::kNotServing ||
                        code == Code::kUnavailable || code == Code::kMaybeApplied || code == Code::kTimeout ||
                        code == Code::kDegraded || code == Code::kCancelled || code == Code::kOverloaded;
    if (!passes || deadline.passed(runtime_.clock())) return written;
    sleep_ms(5);
  }
}

Result<std::string> TestClient::read_once(ChunkId chunk, TargetId at, Duration timeout, std::uint32_t offset,
                                          std::uint32_t length) {
  const GroupConfig group = meta_.group(slot(chunk));
  rpc::OutMessage message;
  auto body = message.body<schema::ReadRequest>();
  auto context = body.initContext();
  set_chunk(context.initChunk(), chunk);
  context.setPool(FakeMeta::kPool.value());
  context.setEpoch(group.epoch.value());
  context.setSession(session_.value());
  body.setOffset(offset);
  body.setLength(length);
  auto reply = rpc::block_on(runtime_, call(channel(meta_.address_of(at)), rpc::method::Read::kNumber,
                                            std::move(message), Deadline::after(runtime_.clock(), timeout)));
  if (!reply) return fail(std::move(reply.error()));
  const auto read = reply->body<schema::ReadReply>();
  std::string data(as_text(reply->payload().bytes()));
  if (!data.empty() && first_bad_block(as_bytes(data), checksums_of(read.getChecksums())) >= 0)
    return fail(Code::kInternal, "the server answered bytes that do not match its checksums");
  const std::uint32_t skip =
      std::min<std::uint32_t>(offset - read.getAlignedOffset(), static_cast<std::uint32_t>(data.size()));
  return data.substr(skip, length);
}

Result<std::string> TestClient::read(ChunkId chunk, Duration timeout) {
  const Deadline deadline = Deadline::after(runtime_.clock(), timeout);
  for (std::uint64_t attempt = sequence_;; ++attempt) {
    const GroupConfig group = meta_.group(slot(chunk));
    std::vector<TargetId> serving;
    for (const auto& member : group.members)
      if (member.in_sync) serving.push_back(member.target);
    auto content = read_once(chunk, serving[attempt % serving.size()], std::chrono::seconds(2));
    if (content || content.error().code() == Code::kNotFound || content.error().code() == Code::kCorrupt ||
        content.error().code() == Code::kInternal)
      return content;
    if (deadline.passed(runtime_.clock())) return content;
    sleep_ms(2);
  }
}

Result<> TestClient::sync(ChunkId chunk, Version version, Duration timeout) {
  const Deadline deadline = Deadline::after(runtime_.clock(), timeout);
  for (;;) {
    const GroupConfig group = meta_.group(slot(chunk));
    rpc::OutMessage message;
    auto item = message.body<schema::SyncRequest>().initChunks(1)[0];
    set_chunk(item.initChunk(), chunk);
    item.setPool(FakeMeta::kPool.value());
    item.setEpoch(group.epoch.value());
    set_version(item.initVersion(), version);
    auto reply = rpc::block_on(
        runtime_, call(channel(meta_.address_of(group.members.front().target)), rpc::method::Sync::kNumber,
                       std::move(message), Deadline::after(runtime_.clock(), std::chrono::seconds(2))));
    Code code = reply ? code_from_number(reply->body<schema::SyncReply>().getResults()[0].getCode())
                      : reply.error().code();
    if (code == Code::kOk) return {};
    if (code == Code::kLostUnsynced || deadline.passed(runtime_.clock())) return fail(code, "sync");
    sleep_ms(5);
  }
}

TestCluster::TestCluster(const TestClusterOptions& options) : options_(options) {
  runtime_ = std::make_unique<rpc::Runtime>(clock_, 2, "test");
  meta_ = std::make_unique<FakeMeta>(*runtime_, kCluster, options.slots, options.min_replicas);
  auto listening = meta_->listen(transport_, "meta");
  CHECK(listening.has_value(), "fake meta does not listen");
  for (std::size_t i = 0; i < options.servers; ++i) {
    nodes_.push_back(
        {std::make_shared<MemoryDisk>(kCluster, id(i), target(i), options.capacity_bytes), nullptr});
    meta_->add_server(id(i), target(i));
  }
  for (std::uint32_t slot = 0; slot < options.slots; ++slot) {
    std::vector<TargetId> members;
    for (std::size_t r = 0; r < options.replicas; ++r)
      members.push_back(target((slot + r) % options.servers));
    meta_->set_group(slot, members);
  }
  for (std::size_t i = 0; i < options.servers; ++i) start(i);
}

TestCluster::~TestCluster() {
  for (Node& node : nodes_) node.server.reset();
  meta_->stop();
  runtime_->stop();
}

void TestCluster::start(std::size_t i) {
  ChunkserverConfig config;
  config.listen = address(i);
  config.meta = {"meta"};
  config.disk_threads = 2;
  config.sync_threads = 2;
  config.drain = std::chrono::milliseconds(500);
  std::vector<OpenedTarget> targets;
  targets.push_back({"/disk" + std::to_string(i), open_memory_engine(nodes_[i].disk)});
  auto server = Chunkserver::start(*runtime_, transport_, rng_, config, std::move(targets),
                                   [this, i](const Error& why) {
                                     std::lock_guard lock(mutex_);
                                     gave_up_.emplace(i, why);
                                   });
  CHECK(server.has_value(), server ? "" : server.error().to_string());
  nodes_[i].server = std::move(*server);
}

std::optional<Error> TestCluster::gave_up(std::size_t i) const {
  std::lock_guard lock(mutex_);
  auto at = gave_up_.find(i);
  return at == gave_up_.end() ? std::nullopt : std::optional(at->second);
}

void TestCluster::vanish(std::size_t i) {
  nodes_[i].server->stop_hard();
  nodes_[i].server.reset();
}

void TestCluster::crash(std::size_t i) {
  vanish(i);
  meta_->server_died(id(i));
}

bool TestCluster::wait_whole(std::size_t replicas) {
  return eventually([&] { return meta_->whole(replicas == 0 ? options_.replicas : replicas); });
}

std::unique_ptr<TestClient> TestCluster::client(std::uint64_t session) {
  return std::make_unique<TestClient>(*runtime_, transport_, *meta_, SessionId(session), options_.slots);
}

ChunkId TestCluster::chunk_in(std::uint32_t slot, std::uint32_t n) const {
  for (std::uint64_t data = 1;; ++data) {
    const ChunkId chunk{DataId(data), 0, 0};
    if (slot_of(placement_hash(chunk), options_.slots) == slot && n-- == 0) return chunk;
  }
}

}  // namespace cairn::chunkserver
