// Listing directories.
#include <dirent.h>
#include <fcntl.h>

#include <atomic>
#include <cstring>
#include <map>
#include <memory>
#include <thread>
#include <vector>

#include "scratch.h"

namespace posix {
namespace {

class Directories : public Posix {
 protected:
  using Dir = std::unique_ptr<DIR, int (*)(DIR*)>;
  static Dir open_dir(const std::string& path) { return {::opendir(path.c_str()), ::closedir}; }
  void fill(const std::string& name, int count) {
    ASSERT_OK(::mkdir(at(name).c_str(), 0755));
    for (int i = 0; i < count; ++i) open_file(name + "/" + std::to_string(i));
  }
};

TEST_F(Directories, DotsAndTypes) {
  ASSERT_OK(::mkdir(at("d").c_str(), 0755));
  write_file("f", "x");
  ASSERT_OK(::symlink("f", at("l").c_str()));
  std::map<std::string, dirent> seen;
  Dir open = open_dir(dir());
  ASSERT_TRUE(open);
  while (const dirent* entry = ::readdir(open.get())) seen[entry->d_name] = *entry;
  ASSERT_EQ(seen.size(), 5u);
  EXPECT_EQ(seen.at(".").d_ino, stat_of("").st_ino);
  EXPECT_EQ(seen.at("..").d_ino, stat_of("..").st_ino);
  for (const char* name : {"d", "f", "l"}) EXPECT_EQ(seen.at(name).d_ino, stat_of(name).st_ino) << name;
  auto is = [&](const char* name, int type) {
    return seen.at(name).d_type == type || seen.at(name).d_type == DT_UNKNOWN;
  };
  EXPECT_TRUE(is(".", DT_DIR) && is("..", DT_DIR) && is("d", DT_DIR) && is("f", DT_REG) && is("l", DT_LNK));
}

TEST_F(Directories, Empty) {
  ASSERT_OK(::mkdir(at("d").c_str(), 0755));
  EXPECT_TRUE(names_in(at("d")).empty());
}

TEST_F(Directories, LargeOneIsComplete) {
  fill("big", 5000);
  EXPECT_EQ(names_in(at("big")).size(), 5000u);
}

// Entries that stay are listed exactly once, whatever else goes or comes meanwhile.
TEST_F(Directories, ListingWhileDeleting) {
  fill("big", 5000);
  std::atomic<bool> begun{false};
  std::thread remover([&] {
    while (!begun) std::this_thread::yield();
    for (int i = 0; i < 5000; i += 2) ::unlink(at("big/" + std::to_string(i)).c_str());
  });
  std::map<std::string, int> seen;
  Dir open = open_dir(at("big"));
  ASSERT_TRUE(open);
  while (const dirent* entry = ::readdir(open.get())) {
    ++seen[entry->d_name];
    begun = true;
  }
  remover.join();
  for (int i = 1; i < 5000; i += 2) EXPECT_EQ(seen[std::to_string(i)], 1) << i;
  for (const auto& [name, times] : seen) EXPECT_LE(times, 1) << name;
  EXPECT_EQ(names_in(at("big")).size(), 2500u);
}

// What `rm -r` does: list and delete with one open directory.
TEST_F(Directories, DeletingWhatIsListed) {
  fill("big", 3000);
  Dir open = open_dir(at("big"));
  ASSERT_TRUE(open);
  while (const dirent* entry = ::readdir(open.get())) {
    const std::string name = entry->d_name;
    if (name == "." || name == "..") continue;
    EXPECT_OK(::unlinkat(::dirfd(open.get()), name.c_str(), 0));
  }
  EXPECT_OK(::rmdir(at("big").c_str()));
}

TEST_F(Directories, TelldirSeekdir) {
  fill("d", 500);
  Dir open = open_dir(at("d"));
  ASSERT_TRUE(open);
  std::vector<std::pair<long, std::string>> places;  // position before the entry, and its name
  for (;;) {
    const long place = ::telldir(open.get());
    const dirent* entry = ::readdir(open.get());
    if (entry == nullptr) break;
    places.emplace_back(place, entry->d_name);
  }
  ASSERT_EQ(places.size(), 502u);
  for (std::size_t i : {501UL, 0UL, 250UL, 1UL, 2UL, 499UL, 100UL}) {
    ::seekdir(open.get(), places[i].first);
    for (std::size_t j = i; j < i + 3 && j < places.size(); ++j) {
      const dirent* entry = ::readdir(open.get());
      ASSERT_NE(entry, nullptr);
      EXPECT_EQ(entry->d_name, places[j].second) << i;
    }
  }
  // Deleting what lies before a position does not move what comes after it.
  for (int k = 2; k < 200; ++k) EXPECT_OK(::unlinkat(::dirfd(open.get()), places[k].second.c_str(), 0));
  ::seekdir(open.get(), places[300].first);
  const dirent* entry = ::readdir(open.get());
  ASSERT_NE(entry, nullptr);
  EXPECT_EQ(entry->d_name, places[300].second);
}

TEST_F(Directories, RewindSeesWhatIsNew) {
  fill("d", 10);
  Dir open = open_dir(at("d"));
  auto count = [&] {
    int n = 0;
    while (::readdir(open.get()) != nullptr) ++n;
    return n;
  };
  EXPECT_EQ(count(), 12);
  write_file("d/new", "");
  ASSERT_OK(::unlink(at("d/0").c_str()));
  ASSERT_OK(::unlink(at("d/1").c_str()));
  ::rewinddir(open.get());
  EXPECT_EQ(count(), 11);
}

TEST_F(Directories, ChangesShowInANewListing) {
  ASSERT_OK(::mkdir(at("d").c_str(), 0755));
  for (int i = 0; i < 50; ++i) {
    write_file("d/" + std::to_string(i), "");
    EXPECT_EQ(names_in(at("d")).size(), static_cast<std::size_t>(i + 1));
  }
  for (int i = 0; i < 50; ++i) {
    ASSERT_OK(::rename(at("d/" + std::to_string(i)).c_str(), at("d/x" + std::to_string(i)).c_str()));
    EXPECT_EQ(names_in(at("d")).contains(std::to_string(i)), false);
  }
}

TEST_F(Directories, LongNamesFit) {
  ASSERT_OK(::mkdir(at("d").c_str(), 0755));
  for (int i = 0; i < 300; ++i) {
    std::string name = std::to_string(1000 + i);
    name.resize(255, 'n');
    open_file("d/" + name);
  }
  EXPECT_EQ(names_in(at("d")).size(), 300u);
}

TEST_F(Directories, ManyThreadsInOneDirectory) {
  ASSERT_OK(::mkdir(at("d").c_str(), 0755));
  std::atomic<int> bad{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 200; ++i) {
        const std::string name = at("d/" + std::to_string(t) + "-" + std::to_string(i));
        const Fd fd(::open(name.c_str(), O_RDWR | O_CREAT | O_EXCL, 0644));
        if (!fd.ok() || ::write(fd.get(), "x", 1) != 1) ++bad;
        if (i % 3 == 0 && ::unlink(name.c_str()) != 0) ++bad;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(bad, 0);
  EXPECT_EQ(names_in(at("d")).size(), 4u * (200 - 67));
}

}  // namespace
}  // namespace posix
