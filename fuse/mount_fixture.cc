#include "fuse/mount_fixture.h"

#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "fuse/mount_table.h"
#include "fuse/session.h"
#include "store/base/log.h"

namespace cairn::fuse {
namespace {

void unmount_all_below(const std::string& folder) {
  std::ifstream file("/proc/self/mountinfo");
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  for (const auto& mounted : parse_mountinfo(text)) {
    if (mounted.mountpoint.starts_with(folder + "/")) (void)detach(mounted.mountpoint, Detach::kForce);
  }
  std::error_code ignored;
  std::filesystem::remove_all(folder, ignored);
}

// Sleeps until the parent is gone, then cleans up.
void start_cleaner(const std::string& folder) {
  const pid_t parent = ::getpid();
  if (::fork() != 0) return;
  ::setsid();
  sigset_t term;
  sigemptyset(&term);
  sigaddset(&term, SIGTERM);
  sigprocmask(SIG_BLOCK, &term, nullptr);
  ::prctl(PR_SET_PDEATHSIG, SIGTERM);
  for (int fd = 0; fd < 3; ++fd) ::close(fd);  // whoever reads the test's output does not wait for us
  int signal = 0;
  while (::getppid() == parent && sigwait(&term, &signal) == 0 && ::getppid() == parent) {
  }
  unmount_all_below(folder);
  ::_exit(0);
}

}  // namespace

const std::string& test_folder() {
  static const std::string folder = [] {
    std::string path = "/tmp/cairn-fuse-test-" + std::to_string(::getpid());
    std::filesystem::create_directories(path);
    ::chmod(path.c_str(), 0755);
    start_cleaner(path);
    return path;
  }();
  return folder;
}

bool eventually(const std::function<bool()>& condition) {
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > until) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return true;
}

Child::Child(const std::function<int()>& work) : pid_(::fork()) {
  if (pid_ == 0) ::_exit(work());
}

Child::~Child() {
  if (pid_ <= 0) return;
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
}

int Child::wait(std::chrono::seconds limit) {
  const auto until = std::chrono::steady_clock::now() + limit;
  int status = 0;
  while (::waitpid(pid_, &status, WNOHANG) == 0) {
    if (std::chrono::steady_clock::now() > until) return -1;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  pid_ = -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

void MountFixture::SetUp() {
  CAIRN_NEED_FUSE();
  log_set_level(LogLevel::kError);
  static int count = 0;
  mountpoint_ = test_folder() + "/mnt" + std::to_string(++count);
  std::filesystem::create_directories(mountpoint_);
  options_.mountpoint = mountpoint_;
  options_.allow_other = ::geteuid() == 0;
  options_.client.meta = {"memory:1"};
  options_.connect = [this](const ClientOptions&) -> Result<std::unique_ptr<Client>> {
    return std::make_unique<MemoryClient>([this](MemoryFileSystem* files) {
      std::lock_guard lock(files_mutex_);
      if (files != nullptr) {
        prepare_(*files);
      } else {
        synced_ = files_->synced();
        left_open_ = files_->open_handles();
      }
      files_ = files;
    });
  };
  if (!mounts_itself_) mount();
}

void MountFixture::mount() {
  auto serving = std::make_shared<std::promise<void>>();
  auto is_serving = serving->get_future();
  ended_ = std::async(std::launch::async,
                      [this, serving] { return run_mount(options_, [serving] { serving->set_value(); }); });
  while (is_serving.wait_for(std::chrono::milliseconds(5)) != std::future_status::ready) {
    if (ended_.wait_for(std::chrono::seconds(0)) == std::future_status::ready) {
      const auto result = ended_.get();
      FAIL() << (result ? "ended at once" : result.error().to_string());
    }
  }
}

Result<> MountFixture::join() {
  auto result = ended_.get();
  EXPECT_EQ(left_open_, 0) << "handles never released";
  return result;
}

void MountFixture::TearDown() {
  if (!ended_.valid()) return;
  {
    std::lock_guard lock(files_mutex_);  // a mount that was detached by the test may be ending just now
    if (files_ != nullptr) files_->release_hung();
  }
  if (auto gone = unmount(mountpoint_, Unmount::kWait); !gone && gone.error().code() != Code::kNotFound) {
    ADD_FAILURE() << gone.error().to_string();
    (void)detach(mountpoint_, Detach::kForce);
  }
  const auto result = join();
  EXPECT_TRUE(result) << result.error().to_string();
  EXPECT_TRUE(synced_);
}

void MountFixture::write_file(std::string_view name, std::string_view bytes) const {
  Fd fd(::open(at(name).c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644));
  ASSERT_TRUE(fd.ok()) << name << ": " << std::strerror(errno);
  ASSERT_EQ(::write(fd.get(), bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()))
      << std::strerror(errno);
}

std::string MountFixture::read_file(std::string_view name) const {
  Fd fd(::open(at(name).c_str(), O_RDONLY));
  EXPECT_TRUE(fd.ok()) << name << ": " << std::strerror(errno);
  std::string all, part(1 << 20, '\0');
  for (ssize_t n; (n = ::read(fd.get(), part.data(), part.size())) > 0;)
    all.append(part, 0, static_cast<std::size_t>(n));
  return all;
}

bool MountFixture::await_hanging(int count) const {
  return eventually([&] { return files_->hanging() >= count; });
}

}  // namespace cairn::fuse
