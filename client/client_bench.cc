// Speed of the client library against a running cluster, without a mount in between.
//   client_bench [MEGABYTES=512] [FILES=2000]      CAIRN_META names the metadata server
// Prints one line a measure. Leaves nothing behind.
#include <fcntl.h>

#include <cstdio>
#include <cstdlib>

#include "client/file_system.h"
#include "client/objects.h"
#include "store/base/rng.h"

namespace {

using namespace cairn;

class Timer {
 public:
  explicit Timer(const Clock& clock) : clock_(clock), from_(clock.now()) {}
  double seconds() const { return static_cast<double>((clock_.now() - from_).count()) / 1e9; }

 private:
  const Clock& clock_;
  TimePoint from_;
};

template <class T>
T must(Result<T> result, const char* what) {
  if (!result) {
    std::fprintf(stderr, "%s: %s\n", what, result.error().to_string().c_str());
    std::exit(1);
  }
  if constexpr (!std::is_void_v<T>) return std::move(*result);
}

void write_all(FileSystem& files, const Handle& handle, std::uint64_t offset, Bytes piece) {
  auto done = files.try_write(handle, offset, piece);
  auto wrote = done ? std::move(*done)
                    : files.block_on<std::uint32_t>(files.write(handle, offset, rpc::Buffer::copy(piece)));
  must(std::move(wrote), "write");
}

void sequential(Client& client, std::uint64_t megabytes) {
  FileSystem& files = client.files();
  std::string piece(1 << 20, '\0');
  SeededRng rng(1);
  for (auto& c : piece) c = static_cast<char>(rng.next());
  const std::string name = "bench-" + to_string(client.session());
  {
    auto opened = must(files.block_on<Opened>(files.create(kRootInode, name, 0644, O_RDWR | O_CREAT, {0, 0})),
                       "create");
    Timer timer(client.clock());
    for (std::uint64_t i = 0; i < megabytes; ++i) write_all(files, opened.handle, i << 20, as_bytes(piece));
    const double buffered = timer.seconds();
    must(files.block_on<void>(files.fsync(opened.handle, false)), "fsync");
    const double all = timer.seconds();
    std::printf("file_write_mb_per_s %.0f (with fsync %.0f)\n", static_cast<double>(megabytes) / buffered,
                static_cast<double>(megabytes) / all);
    files.release_now(opened.handle);
  }
  for (int round = 0; round < 2; ++round) {
    auto entry = must(files.block_on<Entry>(files.lookup(kRootInode, name)), "lookup");
    auto opened = must(files.block_on<Opened>(files.open(entry.attr.inode, O_RDONLY)), "open");
    Timer timer(client.clock());
    constexpr std::uint32_t kStep = 128 << 10;
    for (std::uint64_t at = 0; at < megabytes << 20; at += kStep) {
      auto known = files.try_read(opened.handle, at, kStep);
      auto payload =
          must(known ? std::move(*known) : files.block_on<rpc::Payload>(files.read(opened.handle, at, kStep)),
               "read");
      if (payload.size() != kStep || as_text(payload.pieces.front().bytes().first(64)) !=
                                         std::string_view(piece).substr(at % piece.size(), 64)) {
        std::fprintf(stderr, "wrong bytes at %llu\n", static_cast<unsigned long long>(at));
        std::exit(1);
      }
    }
    std::printf("file_read_mb_per_s %.0f\n", static_cast<double>(megabytes) / timer.seconds());
    files.release_now(opened.handle);
  }
  must(files.block_on<void>(files.unlink(kRootInode, name)), "unlink");
}

void small_files(Client& client, unsigned count) {
  FileSystem& files = client.files();
  const std::string name = "small-" + to_string(client.session()), data(4096, 's');
  auto dir = must(files.block_on<Entry>(files.mkdir(kRootInode, name, 0755, {0, 0})), "mkdir");
  {
    Timer timer(client.clock());
    for (unsigned i = 0; i < count; ++i) {
      const std::string file = "f" + std::to_string(i);
      if (!files.try_lookup(dir.attr.inode, file))
        must(Result<>(fail(Code::kInternal, "the directory is not known to be empty")), "lookup");
      auto opened = must(files.block_on<Opened>(
                             files.create(dir.attr.inode, file, 0644, O_WRONLY | O_CREAT | O_EXCL, {0, 0})),
                         "create");
      write_all(files, opened.handle, 0, as_bytes(data));
      files.release_now(opened.handle);
    }
    const double made = timer.seconds();
    must(files.block_on<void>(files.sync()), "sync");
    std::printf("create_4k_per_s %.0f (with sync %.0f)\n", count / made, count / timer.seconds());
  }
  {
    Timer timer(client.clock());
    for (unsigned i = 0; i < count; ++i)
      must(files.block_on<void>(files.unlink(dir.attr.inode, "f" + std::to_string(i))), "unlink");
    std::printf("unlink_per_s %.0f\n", count / timer.seconds());
  }
  must(files.block_on<void>(files.rmdir(kRootInode, name)), "rmdir");
}

void objects(Client& client, std::uint64_t megabytes) {
  const std::string bytes(megabytes << 20, 'o'), id = "bench/" + to_string(client.session());
  {
    Timer timer(client.clock());
    must(client.objects().put(id, as_bytes(bytes)), "put");
    std::printf("object_put_mb_per_s %.0f\n", static_cast<double>(megabytes) / timer.seconds());
  }
  {
    Timer timer(client.clock());
    std::uint64_t got = 0;
    must(client.objects().get(id,
                              [&](Bytes piece) -> Result<> {
                                got += piece.size();
                                return {};
                              }),
         "get");
    std::printf("object_get_mb_per_s %.0f\n", static_cast<double>(got >> 20) / timer.seconds());
  }
  must(client.objects().remove(id), "remove");
}

}  // namespace

int main(int argc, char** argv) {
  const std::uint64_t megabytes = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 512;
  const auto count = static_cast<unsigned>(argc > 2 ? std::strtoul(argv[2], nullptr, 10) : 2000);
  auto client = must(Client::connect(must(client_options_from_environment(), "CAIRN_META")), "connect");
  small_files(*client, count);
  sequential(*client, megabytes);
  objects(*client, megabytes / 2);
  must(client->close(), "close");
  return 0;
}
