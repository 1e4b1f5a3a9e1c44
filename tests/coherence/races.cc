#include "races.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <barrier>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <functional>
#include <map>
#include <mutex>
#include <random>
#include <set>
#include <thread>

#include "history.h"

namespace coherence {
namespace {

std::int64_t now_ns() {
  timespec t{};
  ::clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1'000'000'000L + t.tv_nsec;
}

// One round of one workload. Workers report what is wrong with fail(), and go on until over().
class Round {
 public:
  Round(const RaceOptions& options, std::string folder, double seconds)
      : options_(options),
        folder_(std::move(folder)),
        end_(now_ns() + static_cast<std::int64_t>(seconds * 1e9)) {}

  int workers() const { return static_cast<int>(options_.mounts.size()) * options_.threads; }
  std::size_t mounts() const { return options_.mounts.size(); }
  // The round's folder as worker `w` sees it.
  std::string dir(int w) const {
    return options_.mounts[static_cast<std::size_t>(w) % options_.mounts.size()] + "/" + folder_;
  }
  std::string at(int w, const std::string& name) const { return dir(w) + "/" + name; }
  bool over() const { return failed_ || now_ns() >= end_; }
  bool may_fail() const { return options_.may_fail; }
  Order order() const { return options_.may_fail ? Order::kRegular : Order::kAtomic; }

  void fail(const std::string& what) {
    std::lock_guard lock(mutex_);
    if (failed_.exchange(true)) return;
    error_ = what;
  }
  // True: the call failed in a way that an outage explains. Any other failure fails the round.
  bool excused(const std::string& call, int w) {
    const int error = errno;
    const bool away = error == ETIMEDOUT || error == EHOSTUNREACH || error == EHOSTDOWN;
    if (options_.may_fail && (away || error == EIO)) return true;
    fail("mount " + std::to_string(static_cast<std::size_t>(w) % mounts()) + ": " + call + ": " +
         ::strerrorname_np(error));
    return false;
  }
  void run(const std::function<void(int, std::mt19937_64&)>& worker) {
    std::vector<std::thread> threads;
    for (int w = 0; w < workers(); ++w)
      threads.emplace_back([&, w] {
        std::mt19937_64 rng(options_.seed * 1000 + static_cast<std::uint64_t>(w));
        worker(w, rng);
      });
    for (std::thread& thread : threads) thread.join();
  }
  bool failed() const { return failed_; }
  std::string error() const { return error_; }
  std::atomic<std::uint64_t> calls{0};

 private:
  const RaceOptions& options_;
  const std::string folder_;
  const std::int64_t end_;
  std::atomic<bool> failed_{false};
  std::mutex mutex_;
  std::string error_;
};

class File {
 public:
  File(const std::string& path, int flags) : fd_(::open(path.c_str(), flags, 0644)) {}
  ~File() { close(); }
  File(const File&) = delete;
  bool ok() const { return fd_ >= 0; }
  int get() const { return fd_; }
  void reopen(const std::string& path, int flags) {
    close();
    fd_ = ::open(path.c_str(), flags, 0644);
  }
  void close() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }

 private:
  int fd_;
};

// Calls of all workers on a set of registers.
class Registers {
 public:
  Registers(Round& round, std::size_t count) : round_(round), calls_(count), next_(1) {}
  std::uint64_t fresh() { return next_.fetch_add(1); }
  void add(std::size_t which, const Call& call) {
    std::lock_guard lock(mutex_);
    calls_[which].push_back(call);
    ++round_.calls;
  }
  void check(const std::string& what) const {
    for (std::size_t i = 0; i < calls_.size(); ++i) {
      const std::string wrong = check_register(calls_[i], round_.order());
      if (!wrong.empty())
        return round_.fail(what + " " + std::to_string(i) + " of " + std::to_string(calls_[i].size()) +
                           " calls: " + wrong);
    }
  }
  std::size_t size() const { return calls_.size(); }

 private:
  Round& round_;
  std::vector<std::vector<Call>> calls_;
  std::atomic<std::uint64_t> next_;
  std::mutex mutex_;
};

// Words of one file: in one page, in several, at both sides of the end of a chunk.
void blocks(Round& round) {
  constexpr std::array<off_t, 8> kAt = {
      0, 8, 4088, 4096, 100'000, (4 << 20) - 8, 4 << 20, (4 << 20) + 70'000};
  Registers registers(round, kAt.size());
  {
    File file(round.at(0, "f"), O_RDWR | O_CREAT);
    if (::ftruncate(file.get(), (4 << 20) + 80'000) != 0) return round.fail("ftruncate");
  }
  const int flags = O_RDWR | (round.may_fail() ? O_DSYNC : 0);
  round.run([&](int w, std::mt19937_64& rng) {
    File file(round.at(w, "f"), flags);
    while (!round.over()) {
      if (!file.ok() || rng() % 40 == 0) {
        file.reopen(round.at(w, "f"), flags);
        if (!file.ok() && !round.excused("open", w)) return;
        if (!file.ok()) continue;
      }
      const std::size_t which = rng() % kAt.size();
      Call call;
      call.write = rng() % 3 == 0;
      // The kernel puts the bytes of a write(2) into its pages before it asks the file system: who reads
      // beside the writer may see them early.
      call.host = static_cast<int>(static_cast<std::size_t>(w) % round.mounts());
      if (call.write) call.value = registers.fresh();
      call.begin = now_ns();
      const ssize_t n = call.write ? ::pwrite(file.get(), &call.value, 8, kAt[which])
                                   : ::pread(file.get(), &call.value, 8, kAt[which]);
      call.end = now_ns();
      if (n < 0) {
        if (!round.excused(call.write ? "pwrite" : "pread", w)) return;
        file.close();
        if (!call.write) continue;
        call.unknown = true;
      } else if (n != 8) {
        return round.fail("a read or write of 8 bytes gave " + std::to_string(n));
      }
      registers.add(which, call);
      if (rng() % 50 == 0 && !round.may_fail() && ::fsync(file.get()) != 0) round.excused("fsync", w);
    }
  });
  registers.check("word");
}

// mtime, size, an extended attribute of one file, the mode of another.
void attributes(Round& round) {
  Registers registers(round, 4);
  File(round.at(0, "f"), O_RDWR | O_CREAT);
  File(round.at(0, "sized"), O_RDWR | O_CREAT);
  const timespec zero[2] = {{0, 0}, {0, 0}};
  ::utimensat(AT_FDCWD, round.at(0, "f").c_str(), zero, 0);
  const std::uint64_t none = 0;
  ::setxattr(round.at(0, "f").c_str(), "user.r", &none, 8, 0);
  ::chmod(round.at(0, "f").c_str(), 0);
  std::atomic<std::uint64_t> modes{0};
  round.run([&](int w, std::mt19937_64& rng) {
    const std::string path = round.at(w, "f"), sized = round.at(w, "sized");
    File file(sized, O_RDWR);
    while (!round.over()) {
      const std::size_t which = rng() % 4;
      Call call;
      call.write = rng() % 3 == 0;
      call.host = static_cast<int>(static_cast<std::size_t>(w) % round.mounts());  // as in blocks()
      if (call.write) call.value = registers.fresh();
      if (which == 3) {  // permission bits are few: written once each
        if (call.write) call.value = modes.fetch_add(1) + 1;
        if (call.value > 0777) call.write = false;
      }
      struct stat st {};
      long result = 0;
      call.begin = now_ns();
      if (which == 2) {
        result = call.write ? ::setxattr(path.c_str(), "user.r", &call.value, 8, 0)
                            : ::getxattr(path.c_str(), "user.r", &call.value, 8);
      } else if (!call.write) {
        result = which == 1 && file.ok() && rng() % 2 ? ::fstat(file.get(), &st)
                                                      : ::stat((which == 1 ? sized : path).c_str(), &st);
        call.value = which == 0   ? static_cast<std::uint64_t>(st.st_mtim.tv_sec)
                     : which == 1 ? static_cast<std::uint64_t>(st.st_size)
                                  : st.st_mode & 07777;
      } else if (which == 0) {
        const timespec times[2] = {{0, UTIME_OMIT}, {static_cast<time_t>(call.value), 0}};
        result = ::utimensat(AT_FDCWD, path.c_str(), times, 0);
      } else if (which == 1) {
        result = ::truncate(sized.c_str(), static_cast<off_t>(call.value));
      } else {
        result = ::chmod(path.c_str(), static_cast<mode_t>(call.value));
      }
      call.end = now_ns();
      if (result < 0) {
        if (!round.excused("attribute " + std::to_string(which) + (call.write ? " set" : " get"), w)) return;
        if (!call.write) continue;
        call.unknown = true;
      }
      registers.add(which, call);
    }
  });
  registers.check("attribute (mtime, size, xattr, mode)");
}

// Names whose files are replaced by rename: what is there under the name is the register.
void names(Round& round) {
  constexpr std::size_t kNames = 3;
  Registers registers(round, kNames);
  for (std::size_t i = 0; i < kNames; ++i) {
    File file(round.at(0, "n" + std::to_string(i)), O_WRONLY | O_CREAT);
    const std::uint64_t none = 0;
    if (::write(file.get(), &none, 8) != 8) return round.fail("write");
  }
  round.run([&](int w, std::mt19937_64& rng) {
    const std::string mine = round.at(w, "tmp" + std::to_string(w));
    while (!round.over()) {
      const std::size_t which = rng() % kNames;
      const std::string name = round.at(w, "n" + std::to_string(which));
      Call call;
      call.write = rng() % 3 == 0;
      if (call.write) {
        call.value = registers.fresh();
        File file(mine, O_WRONLY | O_CREAT | O_TRUNC);
        if (!file.ok() || ::write(file.get(), &call.value, 8) != 8 ||
            (round.may_fail() && ::fsync(file.get()) != 0)) {
          if (!round.excused("write of a file to be moved", w)) return;
          continue;
        }
        file.close();
        call.begin = now_ns();
        const int result = ::rename(mine.c_str(), name.c_str());
        call.end = now_ns();
        if (result != 0) {
          if (!round.excused("rename", w)) return;
          call.unknown = true;
        }
      } else {
        call.begin = now_ns();
        File file(name, O_RDONLY);
        const ssize_t n = file.ok() ? ::read(file.get(), &call.value, 8) : -1;
        call.end = now_ns();
        if (n < 0) {
          if (!round.excused(file.ok() ? "read under a name" : "open of a name", w)) return;
          continue;
        }
        if (n != 8) return round.fail("the file under a name has " + std::to_string(n) + " bytes, not 8");
      }
      registers.add(which, call);
    }
  });
  registers.check("name");
}

struct Record {
  std::uint32_t worker = 0, number = 0, length = 0, check = 0;
};

// Records appended from everywhere; followers see the file only grow, and never change.
void appends(Round& round) {
  File(round.at(0, "log"), O_RDWR | O_CREAT);
  std::vector<std::map<std::uint32_t, bool>> written(static_cast<std::size_t>(round.workers()));  // known?
  round.run([&](int w, std::mt19937_64& rng) {
    const std::string path = round.at(w, "log");
    if (w % 3 == 2) {
      std::string seen;
      while (!round.over()) {
        File file(path, O_RDONLY);
        struct stat st {};
        if (!file.ok() || ::fstat(file.get(), &st) != 0) {
          if (!round.excused("open or fstat", w)) return;
          continue;
        }
        if (!round.may_fail() && static_cast<std::size_t>(st.st_size) < seen.size())
          return round.fail("the size went back from " + std::to_string(seen.size()) + " to " +
                            std::to_string(st.st_size));
        std::string got(static_cast<std::size_t>(st.st_size), '\0');
        const std::size_t from = seen.size() > 200'000 ? seen.size() - 200'000 : 0;
        // Linux drops the answer to a GETATTR that races with an invalidation: then read(2) ends at the size
        // that the kernel knew before, and is to be repeated.
        ssize_t n = -1;
        for (int tries = 0; tries < 20 && n != static_cast<ssize_t>(got.size() - from); ++tries) {
          n = ::pread(file.get(), got.data() + from, got.size() - from, static_cast<off_t>(from));
          if (n < 0) break;
        }
        if (n < 0) {
          if (!round.excused("pread", w)) return;
          continue;
        }
        if (!round.may_fail()) {
          if (static_cast<std::size_t>(n) != got.size() - from)
            return round.fail("a read within the size was short: " + std::to_string(n) + " of " +
                              std::to_string(got.size() - from) + " bytes at " + std::to_string(from));
          for (std::size_t i = from; i < seen.size(); ++i)
            if (got[i] != seen[i])
              return round.fail("byte " + std::to_string(i) + " of the log changed after it was read");
          seen.replace(from, seen.npos, got, from, got.npos);
        }
        ++round.calls;
      }
      return;
    }
    auto& mine = written[static_cast<std::size_t>(w)];
    File file(path, O_WRONLY | O_APPEND);
    for (std::uint32_t number = 0; !round.over(); ++number) {
      if (!file.ok() || rng() % 20 == 0) file.reopen(path, O_WRONLY | O_APPEND);
      if (!file.ok()) {
        if (!round.excused("open", w)) return;
        continue;
      }
      Record record{static_cast<std::uint32_t>(w), number,
                    static_cast<std::uint32_t>(sizeof(Record) + rng() % 3000), 0};
      record.check = record.worker * 7919 + record.number * 31 + record.length;
      std::string bytes(record.length, static_cast<char>('a' + w));
      std::memcpy(bytes.data(), &record, sizeof record);
      const ssize_t n = ::write(file.get(), bytes.data(), bytes.size());
      bool known = n == static_cast<ssize_t>(bytes.size());
      if (n >= 0 && !known) return round.fail("a short append");
      if (n < 0 && !round.excused("append", w)) return;
      if (round.may_fail() && known && ::fsync(file.get()) != 0) {
        if (!round.excused("fsync", w)) return;
        known = false;
      }
      mine[number] = known;
      if (!known) file.close();
      ++round.calls;
    }
  });
  if (round.failed()) return;
  std::string first;
  for (int w = 0; w < static_cast<int>(round.mounts()); ++w) {
    File file(round.at(w, "log"), O_RDONLY);
    struct stat st {};
    if (!file.ok() || ::fstat(file.get(), &st) != 0) return round.fail("the log can't be opened");
    std::string all(static_cast<std::size_t>(st.st_size), '\0');
    std::size_t size = 0;
    for (ssize_t n; size < all.size() && (n = ::read(file.get(), all.data() + size, all.size() - size)) > 0;)
      size += static_cast<std::size_t>(n);
    if (size != all.size()) return round.fail("the log can't be read to its end");
    if (w == 0) first = all;
    if (all != first) return round.fail("mount " + std::to_string(w) + " reads another log than mount 0");
  }
  std::vector<std::set<std::uint32_t>> found(written.size());
  for (std::size_t place = 0; place < first.size();) {
    Record record;
    if (first.size() - place < sizeof record) return round.fail("a torn record ends the log");
    std::memcpy(&record, first.data() + place, sizeof record);
    // After a lost write that was never synced others may have appended behind it: zeros.
    if (round.may_fail() && record.length == 0 && record.check == 0) {
      ++place;
      continue;
    }
    const bool sane = record.worker < written.size() && record.length >= sizeof record &&
                      record.length <= first.size() - place &&
                      record.check == record.worker * 7919 + record.number * 31 + record.length;
    if (!sane) return round.fail("a torn record at " + std::to_string(place));
    for (std::size_t i = sizeof record; i < record.length; ++i)
      if (first[place + i] != static_cast<char>('a' + record.worker))
        return round.fail("a torn record at " + std::to_string(place));
    if (!found[record.worker].insert(record.number).second)
      return round.fail("record " + std::to_string(record.number) + " of worker " +
                        std::to_string(record.worker) + " is there twice");
    place += record.length;
  }
  for (std::size_t w = 0; w < written.size(); ++w)
    for (const auto& [number, known] : written[w])
      if (known && !found[w].contains(number))
        return round.fail("record " + std::to_string(number) + " of worker " + std::to_string(w) +
                          " is lost");
}

// All at once try what only one can do.
void winners(Round& round) {
  const int workers = round.workers();
  std::vector<int> results(static_cast<std::size_t>(workers));
  std::atomic<bool> stop{false};
  std::barrier sync(workers);
  int number = 0;
  round.run([&](int w, std::mt19937_64&) {
    auto result = [&](int wanted_error, int outcome) {
      results[static_cast<std::size_t>(w)] = outcome == 0 ? 1 : errno == wanted_error ? 0 : -errno;
      ++round.calls;
      sync.arrive_and_wait();
      if (w == 0) {
        int won = 0;
        for (int r : results) {
          if (r < 0) round.fail("try " + std::to_string(number) + ": " + ::strerrorname_np(-r));
          won += r > 0 ? 1 : 0;
        }
        if (won != 1)
          round.fail("try " + std::to_string(number) + ": " + std::to_string(won) + " winners, not 1 (" +
                     ::strerrorname_np(wanted_error) + " for the others)");
        ++number;
        stop = round.over();
      }
      sync.arrive_and_wait();
    };
    for (int n = 0; !stop; ++n) {
      const std::string name = round.at(w, "x" + std::to_string(n % 5));
      const std::string mine = round.at(w, "w" + std::to_string(w));
      const int fd = ::open(name.c_str(), O_CREAT | O_EXCL | O_RDWR, 0644);
      const int error = errno;
      if (fd >= 0) ::close(fd);
      errno = error;
      result(EEXIST, fd < 0 ? -1 : 0);
      if (stop) return;
      result(ENOENT, ::unlink(name.c_str()));
      if (stop) return;
      result(EEXIST, ::mkdir(name.c_str(), 0755));
      if (stop) return;
      result(ENOENT, ::rename(name.c_str(), mine.c_str()));
      if (stop) return;
      ::rmdir(mine.c_str());
      File file(mine, O_CREAT | O_RDWR);
      sync.arrive_and_wait();
      result(EEXIST, ::link(mine.c_str(), name.c_str()));
      if (stop) return;
      result(ENOENT, ::unlink(name.c_str()));
      if (stop) return;
      result(EEXIST, ::renameat2(AT_FDCWD, mine.c_str(), AT_FDCWD, name.c_str(), 1));
      if (stop) return;
      result(ENOENT, ::unlink(name.c_str()));
      if (stop) return;
      ::unlink(mine.c_str());
      sync.arrive_and_wait();
    }
  });
}

// A number in a file, made larger under locks of several kinds.
void counters(Round& round) {
  constexpr int kKinds = 4;  // flock, OFD lock, a lock file made exclusively, a directory
  std::array<std::atomic<std::uint64_t>, kKinds> sums{};
  for (int kind = 0; kind < kKinds; ++kind) {
    File file(round.at(0, "c" + std::to_string(kind)), O_RDWR | O_CREAT);
    const std::uint64_t zero = 0;
    if (::pwrite(file.get(), &zero, 8, 0) != 8) return round.fail("pwrite");
  }
  round.run([&](int w, std::mt19937_64& rng) {
    std::array<std::unique_ptr<File>, kKinds> files;
    while (!round.over()) {
      const int kind = static_cast<int>(rng() % kKinds);
      auto& file = files[static_cast<std::size_t>(kind)];
      const std::string path = round.at(w, "c" + std::to_string(kind)), lock = path + ".lock";
      if (!file || rng() % 10 == 0) file = std::make_unique<File>(path, O_RDWR);
      if (!file->ok()) return (void)round.excused("open", w);
      struct flock range {};
      range.l_type = F_WRLCK;
      int taken = 0;
      if (kind == 0) taken = ::flock(file->get(), LOCK_EX);
      if (kind == 1) taken = ::fcntl(file->get(), F_OFD_SETLKW, &range);
      while (kind >= 2) {
        const int made =
            kind == 2 ? ::open(lock.c_str(), O_CREAT | O_EXCL | O_WRONLY, 0644) : ::mkdir(lock.c_str(), 0755);
        if (kind == 2 && made >= 0) ::close(made);
        if (made >= 0) break;
        if (errno != EEXIST) return (void)round.excused("making a lock", w);
        if (round.over()) return;
      }
      if (taken != 0) return (void)round.excused("lock", w);
      std::uint64_t value = 0;
      if (::pread(file->get(), &value, 8, 0) != 8) return (void)round.excused("pread", w);
      ++value;
      if (::pwrite(file->get(), &value, 8, 0) != 8) return (void)round.excused("pwrite", w);
      ++sums[static_cast<std::size_t>(kind)];
      range.l_type = F_UNLCK;
      if (kind == 0) taken = ::flock(file->get(), LOCK_UN);
      if (kind == 1) taken = ::fcntl(file->get(), F_OFD_SETLK, &range);
      if (kind == 2) taken = ::unlink(lock.c_str());
      if (kind == 3) taken = ::rmdir(lock.c_str());
      if (taken != 0) return (void)round.excused("unlock", w);
      ++round.calls;
    }
  });
  if (round.failed()) return;
  const char* kinds[] = {"flock", "OFD lock", "lock file", "lock directory"};
  for (int kind = 0; kind < kKinds; ++kind)
    for (int w = 0; w < static_cast<int>(round.mounts()); ++w) {
      std::uint64_t value = 0;
      File file(round.at(w, "c" + std::to_string(kind)), O_RDONLY);
      if (::pread(file.get(), &value, 8, 0) != 8) return (void)round.excused("pread", w);
      const std::uint64_t sum = sums[static_cast<std::size_t>(kind)];
      if (value != sum)
        return round.fail("the counter under a " + std::string(kinds[kind]) + " is " + std::to_string(value) +
                          " on mount " + std::to_string(w) + " after " + std::to_string(sum) + " increments");
    }
}

// A name between its creation and its removal.
struct Life {
  std::string name;
  std::int64_t create_begin = 0, create_end = 0, remove_begin = 0, remove_end = 0;
};
struct Look {  // a listing, or (one name) a stat
  std::int64_t begin = 0, end = 0;
  std::set<std::string> names;
  std::string only;
};

// Listings and lookups while names come and go.
void listings(Round& round) {
  constexpr int kStay = 30;
  constexpr std::int64_t kEver = INT64_MAX;
  for (int i = 0; i < kStay; ++i) File(round.at(i, "stay" + std::to_string(i)), O_RDWR | O_CREAT);
  std::mutex mutex;
  std::vector<Life> lives;
  std::vector<Look> looks;
  const int workers = round.workers();
  round.run([&](int w, std::mt19937_64& rng) {
    if (w % 2 == 0) {
      while (!round.over()) {
        Life life;
        const std::string name = "c" + std::to_string(w) + "-" + std::to_string(rng() % 8);
        const std::string path = round.at(w, name);
        const bool dir = rng() % 3 == 0, rename = rng() % 3 == 0;
        life.name = name;
        const std::string hidden = round.at(w, ".h" + std::to_string(w));
        if (rename) File(hidden, O_RDWR | O_CREAT);
        life.create_begin = now_ns();
        int made = rename ? ::rename(hidden.c_str(), path.c_str())
                   : dir  ? ::mkdir(path.c_str(), 0755)
                          : ::open(path.c_str(), O_CREAT | O_EXCL | O_RDWR, 0644);
        life.create_end = now_ns();
        if (made < 0) return (void)round.excused("making " + name, w);
        if (!rename && !dir) ::close(made);
        if (rng() % 2) std::this_thread::sleep_for(std::chrono::milliseconds(rng() % 5));
        life.remove_begin = now_ns();
        made = dir && !rename ? ::rmdir(path.c_str()) : ::unlink(path.c_str());
        life.remove_end = now_ns();
        if (made < 0) return (void)round.excused("removing " + name, w);
        ++round.calls;
        std::lock_guard lock(mutex);
        lives.push_back(life);
      }
      return;
    }
    while (!round.over()) {
      Look look;
      if (rng() % 2) {
        look.only = rng() % 8 == 0 ? "stay" + std::to_string(rng() % kStay)
                                   : "c" + std::to_string(rng() % static_cast<unsigned>(workers) / 2 * 2) +
                                         "-" + std::to_string(rng() % 8);
        struct stat st {};
        look.begin = now_ns();
        const int there = ::stat(round.at(w, look.only).c_str(), &st);
        look.end = now_ns();
        if (there == 0) look.names.insert(look.only);
        if (there != 0 && errno != ENOENT) return (void)round.excused("stat", w);
      } else {
        look.begin = now_ns();
        DIR* stream = ::opendir(round.dir(w).c_str());
        if (stream == nullptr) return (void)round.excused("opendir", w);
        errno = 0;
        while (const dirent* entry = ::readdir(stream)) {
          if (!look.names.insert(entry->d_name).second && entry->d_name[0] == 's')
            round.fail(std::string(entry->d_name) + " is listed twice");
        }
        if (errno != 0) return (void)round.excused("readdir", w);
        ::closedir(stream);
        look.end = now_ns();
      }
      ++round.calls;
      std::lock_guard lock(mutex);
      looks.push_back(std::move(look));
    }
  });
  if (round.failed()) return;
  for (int i = 0; i < kStay; ++i) lives.push_back({"stay" + std::to_string(i), 0, 0, kEver, kEver});
  std::map<std::string, std::vector<const Life*>> by_name;
  for (const Life& life : lives) by_name[life.name].push_back(&life);
  for (const Look& look : looks) {
    for (const auto& [name, all] : by_name) {
      if (!look.only.empty() && look.only != name) continue;
      const bool seen = look.names.contains(name);
      const bool sure = std::ranges::any_of(all, [&](const Life* life) {
        return life->create_end < look.begin && life->remove_begin > look.end;
      });
      const bool possible = std::ranges::any_of(all, [&](const Life* life) {
        return life->create_begin < look.end && life->remove_end > look.begin;
      });
      const std::string kind = look.only.empty() ? "a listing" : "a stat";
      if (sure && !seen) return round.fail(kind + " missed " + name + ", which was there all the time");
      if (seen && !possible) return round.fail(kind + " shows " + name + ", which was not there at any time");
    }
  }
}

// Anything at once on few names; afterwards all mounts show the same tree.
void tangle(Round& round) {
  std::set<int> usual = {0, ENOENT, EEXIST, ENOTDIR, EISDIR, ENOTEMPTY, EINVAL, EPERM, ELOOP, EBUSY, EMLINK};
  // Linux walks a path that another host changed once more, and then gives up.
  if (round.mounts() > 1) usual.insert(ESTALE);
  const std::vector<std::string> pool = {"a", "b", "c", "d"};
  round.run([&](int w, std::mt19937_64& rng) {
    auto path = [&] {
      std::string text = round.dir(w);
      do {
        text += "/" + pool[rng() % pool.size()];
      } while (rng() % 3 == 0);
      return text;
    };
    while (!round.over()) {
      const std::string from = path(), to = path();
      struct stat st {};
      errno = 0;
      const auto op = rng() % 12;
      switch (op) {
        case 0:
          ::mkdir(from.c_str(), 0755);
          break;
        case 1:
          ::rmdir(from.c_str());
          break;
        case 2:
          ::unlink(from.c_str());
          break;
        case 3:
          ::link(from.c_str(), to.c_str());
          break;
        case 4:
          ::rename(from.c_str(), to.c_str());
          break;
        case 5:
          ::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), 1 + static_cast<unsigned>(rng() % 2));
          break;
        case 6:
          ::stat(from.c_str(), &st);
          break;
        case 7:
          ::symlink(pool[rng() % pool.size()].c_str(), from.c_str());
          break;
        case 8:
          ::truncate(from.c_str(), static_cast<off_t>(rng() % 10'000));
          break;
        default: {
          File file(from, O_RDWR | O_CREAT);
          if (!file.ok()) break;
          const std::string bytes(rng() % 5000, static_cast<char>('A' + w));
          if (::pwrite(file.get(), bytes.data(), bytes.size(), static_cast<off_t>(rng() % 5000)) < 0) break;
          errno = 0;
        }
      }
      if (!usual.contains(errno)) return (void)round.excused("call " + std::to_string(op), w);
      ++round.calls;
    }
  });
  if (round.failed()) return;
  // `ls -lR` and all bytes, as one text.
  std::function<void(const std::string&, const std::string&, std::string&)> tell =
      [&](const std::string& dir, const std::string& path, std::string& out) {
        std::set<std::string> names;
        DIR* stream = ::opendir(dir.c_str());
        if (stream == nullptr) {
          out += "opendir " + path + ": " + ::strerrorname_np(errno) + "\n";
          return;
        }
        while (const dirent* entry = ::readdir(stream)) names.insert(entry->d_name);
        ::closedir(stream);
        for (const std::string& name : names) {
          if (name == "." || name == "..") continue;
          struct stat st {};
          const std::string below = dir + "/" + name;
          if (::lstat(below.c_str(), &st) != 0) {
            out += path + "/" + name + ": " + ::strerrorname_np(errno) + "\n";
            continue;
          }
          out += path + "/" + name + " ino=" + std::to_string(st.st_ino) +
                 " mode=" + std::to_string(st.st_mode) + " nlink=" + std::to_string(st.st_nlink) +
                 " mtime=" + std::to_string(st.st_mtim.tv_sec) + "." + std::to_string(st.st_mtim.tv_nsec) +
                 " ctime=" + std::to_string(st.st_ctim.tv_sec) + "." + std::to_string(st.st_ctim.tv_nsec);
          if (S_ISREG(st.st_mode)) {
            std::string bytes(static_cast<std::size_t>(st.st_size) + 1, '\0');
            File file(below, O_RDONLY);
            const ssize_t n = ::read(file.get(), bytes.data(), bytes.size());
            out += " size=" + std::to_string(st.st_size) + " read=" + std::to_string(n) + " hash=" +
                   std::to_string(std::hash<std::string>()(
                       bytes.substr(0, static_cast<std::size_t>(std::max<ssize_t>(n, 0)))));
          }
          out += "\n";
          if (S_ISDIR(st.st_mode)) tell(below, path + "/" + name, out);
        }
      };
  std::string first;
  for (int w = 0; w < static_cast<int>(round.mounts()); ++w) {
    std::string all;
    tell(round.dir(w), "", all);
    if (w == 0) first = all;
    if (all != first)
      return round.fail("mount " + std::to_string(w) + " shows another tree:\n" + all + "than mount 0:\n" +
                        first);
  }
}

struct Workload {
  const char* name;
  void (*run)(Round&);
  bool may_fail;  // can tell right from wrong with calls whose outcome is not known
};
constexpr Workload kWorkloads[] = {
    {"blocks", blocks, true},      {"attributes", attributes, true}, {"names", names, true},
    {"appends", appends, true},    {"winners", winners, false},      {"counters", counters, false},
    {"listings", listings, false}, {"tangle", tangle, false},
};

}  // namespace

int run_races(const RaceOptions& options) {
  ::umask(022);
  std::vector<Workload> chosen;
  for (const Workload& workload : kWorkloads) {
    if (options.may_fail && !workload.may_fail) continue;
    if (options.only.empty() || std::ranges::find(options.only, workload.name) != options.only.end())
      chosen.push_back(workload);
  }
  if (chosen.empty()) return 2;
  RaceOptions mine = options;
  for (const Workload& workload : chosen) {
    const std::string folder = std::string("race-") + workload.name + "-" + std::to_string(options.seed) +
                               "-" + std::to_string(::getpid());
    std::error_code error;
    std::filesystem::create_directory(options.mounts[0] + "/" + folder, error);
    if (error) {
      std::printf("WRONG %s: mkdir: %s\n", workload.name, error.message().c_str());
      return 1;
    }
    Round round(mine, folder, options.seconds / static_cast<double>(chosen.size()));
    workload.run(round);
    if (round.failed()) {
      std::printf("WRONG %s seed=%lu: %s\n", workload.name, static_cast<unsigned long>(options.seed),
                  round.error().c_str());
      return 1;
    }
    std::printf("%s seed=%lu: %lu calls right\n", workload.name, static_cast<unsigned long>(options.seed),
                static_cast<unsigned long>(round.calls.load()));
    std::fflush(stdout);
    std::filesystem::remove_all(options.mounts[0] + "/" + folder, error);
  }
  return 0;
}

}  // namespace coherence
