#include "store/disk/engine_rig.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

namespace cairn::disk {
namespace {

constexpr ClusterId kRigCluster{77};
constexpr PoolId kRigPool{3};

}  // namespace

EngineRig::EngineRig(std::uint64_t seed) : rng_(seed), disk_(seed * 31 + 7) {
  options_.background_interval = std::chrono::milliseconds(0);
  options_.reserve_bytes = 1 << 20;
  options_.cache_bytes = 1 << 20;
  EXPECT_TRUE(ChunkEngine::format(disk_, "t", kRigCluster, ServerId(1), Era(1), 4 << 20));
}

bool EngineRig::open() {
  auto engine = ChunkEngine::open(disk_, "t", kRigCluster, options_);
  if (!engine) {
    EXPECT_TRUE(disk_.crashed()) << engine.error().to_string();
    return false;
  }
  engine_ = std::move(*engine);
  return true;
}

bool EngineRig::reopen() {
  trace(std::nullopt, "reopen");
  engine_.reset();
  if (disk_.crashed()) return false;
  synced();
  return open();
}

std::string EngineRig::random_bytes(std::size_t size) {
  std::string bytes(size, '\0');
  for (std::size_t i = 0; i < size; i += 8) {
    std::uint64_t word = rng_.next();
    std::memcpy(bytes.data() + i, &word, std::min<std::size_t>(8, size - i));
  }
  return bytes;
}

EngineRig::Snapshot EngineRig::now(std::uint32_t chunk) const {
  auto found = model_.find(chunk);
  return found == model_.end() ? Snapshot{} : found->second.states.back();
}

std::uint32_t EngineRig::length(std::uint32_t chunk) const {
  return static_cast<std::uint32_t>(now(chunk).data.size());
}

bool EngineRig::present(std::uint32_t chunk) const {
  return now(chunk).exists && !now(chunk).absent;
}

EngineRig::Snapshot EngineRig::next_of(std::uint32_t chunk) {
  Snapshot next = now(chunk);
  next.exists = true;
  next.absent = false;
  next.version = {Epoch(1), ++counter_};
  return next;
}

WriteOptions EngineRig::options_for(const Snapshot& snapshot, bool durable) const {
  WriteOptions options;
  options.pool = kRigPool;
  options.version = snapshot.version;
  options.request = {SessionId(4), snapshot.version.counter};
  options.durable = durable;
  return options;
}

// The state is in the model before the call: it may be on the disk even if the call never returns.
template <class Call>
bool EngineRig::attempt(std::uint32_t chunk, Snapshot after, Call call) {
  History& history = model_[chunk];
  history.states.push_back(std::move(after));
  auto done = call();
  if (done) return true;
  if (disk_.crashed()) {
    history.in_doubt = true;
    return false;
  }
  history.states.pop_back();
  EXPECT_EQ(done.error().code(), allowed_) << done.error().to_string();
  return false;
}

bool EngineRig::write(std::uint32_t chunk, std::uint32_t offset, std::uint32_t size, bool durable) {
  trace(chunk, fmt::format("write [{}, {}){}", offset, offset + size, durable ? " durable" : ""));
  Snapshot next = next_of(chunk);
  std::string bytes = random_bytes(size);
  if (next.data.size() < offset + size) next.data.resize(offset + size);
  next.data.replace(offset, size, bytes);
  WriteOptions options = options_for(next, durable);
  bool done = attempt(chunk, std::move(next),
                      [&] { return engine_->write(id(chunk), offset, as_bytes(bytes), {}, options); });
  if (done && durable) synced();
  return done;
}

bool EngineRig::put(std::uint32_t chunk, std::uint32_t size, bool durable) {
  trace(chunk, fmt::format("put {}{}", size, durable ? " durable" : ""));
  Snapshot next = next_of(chunk);
  next.data = random_bytes(size);
  std::string bytes = next.data;
  WriteOptions options = options_for(next, durable);
  bool done = attempt(chunk, std::move(next), [&] {
    return engine_->put(id(chunk), as_bytes(bytes), {}, ChunkEngine::PutMode::kReplaceLower, options);
  });
  if (done && durable) synced();
  return done;
}

bool EngineRig::truncate(std::uint32_t chunk, std::uint32_t length) {
  trace(chunk, fmt::format("truncate {}", length));
  Snapshot next = next_of(chunk);
  next.data.resize(length);
  WriteOptions options = options_for(next, false);
  return attempt(chunk, std::move(next), [&] { return engine_->truncate(id(chunk), length, options); });
}

bool EngineRig::punch(std::uint32_t chunk, std::uint32_t offset, std::uint32_t length) {
  trace(chunk, fmt::format("punch [{}, {})", offset, offset + length));
  Snapshot next = next_of(chunk);
  for (std::size_t i = offset; i < std::min<std::size_t>(next.data.size(), std::size_t{offset} + length); ++i)
    next.data[i] = 0;
  WriteOptions options = options_for(next, false);
  return attempt(chunk, std::move(next), [&] { return engine_->punch(id(chunk), offset, length, options); });
}

bool EngineRig::make_absent(std::uint32_t chunk) {
  trace(chunk, "make_absent");
  Snapshot next = next_of(chunk);
  next.absent = true;
  next.data.clear();
  WriteOptions options = options_for(next, false);
  return attempt(chunk, std::move(next), [&] { return engine_->make_absent(id(chunk), options); });
}

bool EngineRig::reversion(std::uint32_t chunk) {
  trace(chunk, "reversion");
  if (!now(chunk).exists) return true;
  Snapshot next = next_of(chunk);
  next.absent = now(chunk).absent;
  WriteOptions options = options_for(next, false);
  return attempt(chunk, std::move(next), [&] { return engine_->reversion(id(chunk), options); });
}

bool EngineRig::purge(std::uint32_t chunk) {
  trace(chunk, "purge");
  return attempt(chunk, Snapshot{}, [&] { return engine_->purge(kRigPool, id(chunk)); });
}

void EngineRig::synced() {
  for (auto& [chunk, history] : model_) {
    history.states.erase(history.states.begin(), history.states.end() - 1);
    history.in_doubt = false;
  }
}

bool EngineRig::sync() {
  trace(std::nullopt, "sync");
  auto done = engine_->sync();
  if (done) synced();
  EXPECT_TRUE(done || disk_.crashed()) << done.error().to_string();
  return done.has_value();
}

bool EngineRig::maintain() {
  trace(std::nullopt, "maintain");
  auto done = engine().maintain();
  if (done) synced();
  EXPECT_TRUE(done || disk_.crashed()) << done.error().to_string();
  return done.has_value();
}

void EngineRig::trace(std::optional<std::uint32_t> chunk, std::string what) {
  what += fmt::format(" (version {}, operation {})", counter_ + 1, disk_.operations());
  trace_.emplace_back(chunk, std::move(what));
}

std::string EngineRig::story(std::uint32_t chunk) const {
  std::vector<std::string> lines;
  for (const auto& [of, what] : trace_)
    if (!of || of == chunk) lines.push_back(what);
  std::string text = "\nwhat happened to it:";
  for (std::size_t i = lines.size() - std::min<std::size_t>(lines.size(), 30); i < lines.size(); ++i)
    text += "\n  " + lines[i];
  return text;
}

void EngineRig::stop(CrashDisk::Loss loss) {
  trace(std::nullopt, fmt::format("crash, loss {}", static_cast<int>(loss)));
  disk_.crash();
  engine_.reset();
  disk_.restart(loss);
}

void EngineRig::crash(CrashDisk::Loss loss, int again) {
  stop(loss);
  for (int i = 0; i < again; ++i) {
    disk_.crash_at(1 + rng_.below(80));
    bool opened = open();
    disk_.crash();
    engine_.reset();
    if (rng_.one_in(2)) loss = CrashDisk::Loss::kSome;
    trace(std::nullopt, fmt::format("crash in recovery, opened {}, loss {}", opened, static_cast<int>(loss)));
    disk_.restart(loss);
    if (opened) break;
  }
  ASSERT_TRUE(open());
  compare(loss);
}

Result<EngineRig::Snapshot> EngineRig::actual(std::uint32_t chunk) {
  Snapshot snapshot;
  auto info = engine_->stat(kRigPool, id(chunk));
  if (!info) {
    if (info.error().code() == Code::kNotFound) return snapshot;
    return fail(info.error());
  }
  snapshot.exists = true;
  snapshot.version = info->version;
  snapshot.absent = info->state == ChunkState::kAbsent;
  if (snapshot.absent) return snapshot;
  TRY(auto read, engine_->read(kRigPool, id(chunk), 0, kChunkBytesMax));
  if (chunk_digest(info->length, read.checksums) != info->digest || read.data.size() != info->length)
    return fail(Code::kInternal, "record and content disagree");
  snapshot.data = std::move(read.data);
  return snapshot;
}

void EngineRig::compare(CrashDisk::Loss loss) {
  for (auto& [chunk, history] : model_) {
    SCOPED_TRACE(testing::Message() << "chunk " << chunk);
    auto found = actual(chunk);
    ASSERT_TRUE(found) << found.error().to_string() << story(chunk);
    const std::vector<Snapshot>& states = history.states;
    std::size_t first = 0;
    if (loss == CrashDisk::Loss::kNothing)
      first = states.size() - (history.in_doubt && states.size() > 1 ? 2 : 1);
    bool legal = std::find(states.begin() + static_cast<long>(first), states.end(), *found) != states.end();
    std::string known;
    for (const Snapshot& state : states)
      known +=
          state.exists ? " " + to_string(state.version) + "/" + std::to_string(state.data.size()) : " none";
    ASSERT_TRUE(legal) << "found " << (found->exists ? to_string(found->version) : "none") << " of "
                       << found->data.size() << " bytes, known:" << known << ", first allowed " << first
                       << (history.in_doubt ? ", last in doubt" : "") << story(chunk);
    history.states = {std::move(*found)};
    history.in_doubt = false;
  }
  check();
}

void EngineRig::check() {
  auto consistent = engine().check_consistency();
  EXPECT_TRUE(consistent) << consistent.error().to_string();
  if (consistent) synced();
}

}  // namespace cairn::disk
