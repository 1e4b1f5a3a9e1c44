#include "fuse/requests.h"

#include <pthread.h>

#include <cerrno>
#include <charconv>
#include <csignal>
#include <fstream>
#include <iterator>
#include <string>
#include <utility>

#include "store/base/log.h"
#include "store/base/result.h"

namespace cairn::fuse {
namespace {

std::uint64_t signal_set(std::string_view status, std::string_view field) {
  const auto at = status.find(field);
  if (at == std::string_view::npos) return 0;
  auto rest = status.substr(at + field.size());
  rest.remove_prefix(std::min(rest.find_first_not_of(" \t"), rest.size()));
  std::uint64_t set = 0;
  std::from_chars(rest.data(), rest.data() + rest.size(), set, 16);
  return set;
}

constexpr std::uint64_t bit(int signal) {
  return std::uint64_t{1} << (signal - 1);
}

Waiter state_of_thread(pid_t thread) {
  if (thread == 0) return Waiter::kWaits;
  std::ifstream file("/proc/" + std::to_string(thread) + "/status");
  if (!file) return Waiter::kDying;  // gone already
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  return waiter_state(text);
}

}  // namespace

Waiter waiter_state(std::string_view status) {
  const std::uint64_t pending = signal_set(status, "\nSigPnd:") | signal_set(status, "\nShdPnd:");
  if (pending & bit(SIGKILL)) return Waiter::kDying;
  const std::uint64_t stop = bit(SIGINT) | bit(SIGTERM) | bit(SIGQUIT) | bit(SIGHUP) | bit(SIGABRT);
  const std::uint64_t asked =
      pending & stop & ~signal_set(status, "\nSigBlk:") & ~signal_set(status, "\nSigIgn:");
  if (asked == 0) return Waiter::kWaits;
  // Not caught: its default is death. (The kernel turns most into SIGKILL, but not those that dump core.)
  return asked & ~signal_set(status, "\nSigCgt:") ? Waiter::kDying : Waiter::kAskedToStop;
}

// --- Request ---

Request::Request(Requests& owner, fuse_req_t req, Kind kind, std::string_view name,
                 std::function<void()> stop)
    : owner_(owner),
      req_(req),
      kind_(kind),
      name_(name),
      thread_(fuse_req_ctx(req)->pid),
      start_(owner.clock_.now()),
      stop_(std::move(stop)) {}

Request::~Request() {
  if (claim()) fuse_reply_err(detach(), EIO);
  std::lock_guard lock(owner_.mutex_);
  if (--owner_.alive_ == 0) owner_.idle_.notify_all();
}

fuse_req_t Request::take() {
  return claim() ? detach() : nullptr;
}

fuse_req_t Request::detach() {
  {
    std::lock_guard lock(owner_.mutex_);
    if (listed_) owner_.waiting_.erase(place_);
    listed_ = false;
  }
  // Waits for an interrupt that is just being told to us, so that none comes after this.
  fuse_req_interrupt_func(req_, nullptr, nullptr);
  return req_;
}

void Request::abandon(int error) {
  if (!claim()) return;
  if (error == ETIMEDOUT) {
    log_error("request_stuck",
              "op={} waited_s={} what=\"the client did not end it by its deadline; ETIMEDOUT\"", name_,
              (owner_.clock_.now() - start_).count() / 1'000'000'000);
  }
  fuse_reply_err(detach(), error);
}

// On the watcher's thread.
void Request::look(TimePoint now, bool interrupted) {
  if (kind_ == Kind::kWait) {
    if (!interrupted) return;
    if (!std::exchange(stopped_, true)) {
      stopped_at_ = now;
      stop_();
    } else if (now - stopped_at_ >= owner_.options_.interrupt_max ||
               state_of_thread(thread_) == Waiter::kDying) {
      abandon(EINTR);
    }
    return;
  }
  const Waiter state = state_of_thread(thread_);
  if (state == Waiter::kDying || (state == Waiter::kAskedToStop && kind_ == Kind::kRead)) abandon(EINTR);
}

// --- Requests ---

Requests::Requests(const Clock& clock, Options options) : clock_(clock), options_(options) {
  watcher_ = std::thread([this] {
    pthread_setname_np(pthread_self(), "fuse-watch");
    watch();
  });
}

Requests::~Requests() {
  {
    std::lock_guard lock(mutex_);
    CHECK(alive_ == 0, "requests outlive their registry");
    stopping_ = true;
  }
  wake_.notify_all();
  watcher_.join();
}

std::shared_ptr<Request> Requests::begin(fuse_req_t req, Kind kind, std::string_view name) {
  return begin(std::make_shared<Request>(*this, req, kind, name, nullptr));
}

std::shared_ptr<Request> Requests::begin_wait(fuse_req_t req, std::string_view name,
                                              std::function<void()> stop) {
  return begin(std::make_shared<Request>(*this, req, Kind::kWait, name, std::move(stop)));
}

std::shared_ptr<Request> Requests::begin(std::shared_ptr<Request> request) {
  fuse_req_t req = request->req_;
  bool wake;
  {
    std::lock_guard lock(mutex_);
    ++alive_;
    request->place_ = waiting_.insert(waiting_.end(), request.get());
    request->listed_ = true;
    wake = dozing_;
    dozing_ = false;
  }
  if (wake) wake_.notify_one();
  fuse_req_interrupt_func(req, &Requests::on_interrupt, request.get());
  return request;
}

std::size_t Requests::waiting() const {
  std::lock_guard lock(mutex_);
  return waiting_.size();
}

bool Requests::wait_idle(Duration limit) {
  std::unique_lock lock(mutex_);
  return idle_.wait_for(lock, limit, [this] { return alive_ == 0; });
}

// On a FUSE thread, under libfuse's lock of this request: no reply from here. The request lives: it
// unregisters this function, which takes the same lock, before it goes.
void Requests::on_interrupt(fuse_req_t, void* request) {
  auto* self = static_cast<Request*>(request);
  if (auto alive = self->weak_from_this().lock()) self->owner_.interrupted(std::move(alive));
}

void Requests::interrupted(std::shared_ptr<Request> request) {
  {
    std::lock_guard lock(mutex_);
    interrupted_.push_back(request);
    dozing_ = false;
  }
  wake_.notify_one();
  // May be the last reference by now; its destructor takes mutex_, which is free again.
}

Duration Requests::deadline_of(Kind kind) const {
  return kind == Kind::kFlush ? options_.deadline * 10 : options_.deadline;
}

Requests::Due Requests::due(TimePoint now) {
  Due due;
  const bool look_at_all = now - looked_at_all_ >= options_.long_wait;
  if (look_at_all) looked_at_all_ = now;
  for (Request* request : waiting_) {  // oldest first: the rest waits for a shorter time
    const Duration waited = now - request->start_;
    if (waited < std::min(options_.deadline, options_.long_wait)) break;
    if (request->kind_ == Kind::kWait) continue;
    const bool late = waited >= deadline_of(request->kind_);
    if (!late && !look_at_all) continue;
    if (auto alive = request->weak_from_this().lock())
      (late ? due.late : due.look).push_back(std::move(alive));
  }
  std::erase_if(interrupted_, [&](const std::weak_ptr<Request>& weak) {
    auto request = weak.lock();
    if (!request) return true;
    // Into `due` even if it was answered meanwhile: this may be the last reference, and may not go under the
    // lock.
    const bool answered = request->claimed_;
    due.interrupted.push_back(std::move(request));
    return answered;
  });
  return due;
}

void Requests::watch() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    if (!interrupted_.empty()) {
      wake_.wait_for(lock, options_.signal_check);
    } else if (!waiting_.empty()) {
      wake_.wait_for(lock, std::min(options_.long_wait, options_.deadline));
    } else {
      dozing_ = true;
      wake_.wait(lock, [this] { return stopping_ || !dozing_; });
      dozing_ = false;
    }
    Due due = this->due(clock_.now());
    lock.unlock();
    for (auto& request : due.late) request->abandon(ETIMEDOUT);
    const TimePoint now = clock_.now();
    for (auto& request : due.look) request->look(now, false);
    for (auto& request : due.interrupted) request->look(now, true);
    due = {};  // may be last references: their destructor takes the lock
    lock.lock();
  }
}

}  // namespace cairn::fuse
