// cairn put, get, stat, ls, rm, wait.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstring>
#include <nlohmann/json.hpp>

#include "client/objects.h"
#include "tools/cli/context.h"
#include "tools/cli/progress.h"

namespace cairn::cli {
namespace {

std::string_view state_name(ObjectState state) {
  switch (state) {
    case ObjectState::kPending:
      return "pending";
    case ObjectState::kSealedMemory:
      return "sealed_memory";
    case ObjectState::kSealed:
      return "sealed";
    case ObjectState::kDeleted:
      return "deleted";
    case ObjectState::kLost:
      return "lost";
  }
  return "unknown";
}

std::string time_text(std::int64_t ns) {
  if (ns == 0) return "-";
  std::time_t seconds = ns / 1'000'000'000;
  std::tm parts{};
  ::gmtime_r(&seconds, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

// Ids are bytes: what is not UTF-8 shows as replacement characters in JSON.
nlohmann::json to_json(const ObjectInfo& info) {
  return {{"id", info.id},
          {"state", state_name(info.state)},
          {"size", info.size},
          {"digest", to_string(info.digest)},
          {"created", time_text(info.created_ns)},
          {"sealed", time_text(info.sealed_ns)}};
}
std::string dump(const nlohmann::json& json) {
  return json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

void show(const Context& context, const ObjectInfo& info) {
  if (context.json)
    fmt::print("{}\n", dump(to_json(info)));
  else
    fmt::print("{}  {}  {} bytes  digest {}\n", info.id, state_name(info.state), info.size,
               to_string(info.digest));
}

class File {
 public:
  File() = default;
  File(int fd, bool owned) : fd_(fd), owned_(owned) {}
  File(File&& other) noexcept : fd_(std::exchange(other.fd_, -1)), owned_(other.owned_) {}
  File& operator=(File&&) = delete;
  ~File() {
    if (owned_ && fd_ >= 0) ::close(fd_);
  }
  int fd() const { return fd_; }

 private:
  int fd_ = -1;
  bool owned_ = false;
};

Error file_error(const std::string& path, std::string_view what) {
  return Error(Code::kIo, fmt::format("{}: {}: {}", path, what, std::strerror(errno)));
}

Result<> write_fully(int fd, Bytes bytes, const std::string& path) {
  while (!bytes.empty()) {
    ssize_t n = ::write(fd, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail(file_error(path, "cannot be written"));
    bytes = bytes.subspan(static_cast<std::size_t>(n));
  }
  return {};
}

Result<> put(const Context& context, const std::string& path, std::string id) {
  bool standard_input = path == "-";
  if (standard_input && id.empty())
    return fail(Code::kConfig, "put: name the object with --id when reading from '-'");
  if (id.empty()) id = path.substr(path.find_last_of('/') + 1);
  File file(standard_input ? STDIN_FILENO : ::open(path.c_str(), O_RDONLY | O_CLOEXEC), !standard_input);
  if (file.fd() < 0) return fail(file_error(path, "cannot be read"));
  struct stat status {};
  if (::fstat(file.fd(), &status) != 0) return fail(file_error(path, "cannot be read"));
  if (S_ISDIR(status.st_mode))
    return fail(Code::kInvalidArgument,
                fmt::format("{}: is a directory; an object is one file's bytes", path));
  std::uint64_t size = S_ISREG(status.st_mode) ? static_cast<std::uint64_t>(status.st_size) : 0;

  TRY(auto client, context.connect());
  Progress progress("put " + id);
  Source source = [&](MutableBytes into) -> Result<std::size_t> {
    for (;;) {
      ssize_t n = ::read(file.fd(), into.data(), into.size());
      if (n >= 0) return static_cast<std::size_t>(n);
      if (errno != EINTR) return fail(file_error(path, "cannot be read"));
    }
  };
  PutOptions options;
  options.progress = [&](std::uint64_t done, std::uint64_t total) { progress.update(done, total); };
  TRY(ObjectInfo info, client->objects().put(id, source, size, options));
  progress.finish();
  show(context, info);
  return {};
}

// Writes beside the target and renames, so that a failed get leaves no half file under the name asked for.
Result<> get(const Context& context, const std::string& id, std::string path) {
  if (path.empty()) path = id.substr(id.find_last_of('/') + 1);
  TRY(auto client, context.connect());
  Progress progress("get " + id);
  Progress* shown = &progress;
  if (path == "-") {
    Sink sink = [&](Bytes piece) { return write_fully(STDOUT_FILENO, piece, "standard output"); };
    TRYV(client->objects().get(id, sink, [shown](std::uint64_t d, std::uint64_t t) { shown->update(d, t); }));
    return {};
  }
  std::string part = path + ".cairn-part";
  File file(::open(part.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666), true);
  if (file.fd() < 0) return fail(file_error(part, "cannot be written"));
  Sink sink = [&](Bytes piece) { return write_fully(file.fd(), piece, part); };
  auto info =
      client->objects().get(id, sink, [shown](std::uint64_t d, std::uint64_t t) { shown->update(d, t); });
  if (!info) {
    ::unlink(part.c_str());
    return fail(std::move(info.error()));
  }
  if (::fsync(file.fd()) != 0 || ::rename(part.c_str(), path.c_str()) != 0) {
    Error error = file_error(path, "cannot be written");
    ::unlink(part.c_str());
    return fail(std::move(error));
  }
  progress.finish();
  if (context.json) fmt::print("{}\n", dump(to_json(*info)));
  return {};
}

Result<> stat(const Context& context, const std::string& id) {
  TRY(auto client, context.connect());
  TRY(ObjectInfo info, client->objects().stat(id));
  if (context.json)
    fmt::print("{}\n", dump(to_json(info)));
  else
    fmt::print("id       {}\nstate    {}\nsize     {} ({})\ndigest   {}\ncreated  {}\nsealed   {}\n", info.id,
               state_name(info.state), info.size, human_bytes(info.size), to_string(info.digest),
               time_text(info.created_ns), time_text(info.sealed_ns));
  return {};
}

Result<> list(const Context& context, const std::string& prefix) {
  TRY(auto client, context.connect());
  std::string after;
  nlohmann::json all = nlohmann::json::array();
  for (bool done = false; !done;) {
    TRY(Objects::Page page, client->objects().list(prefix, after, 1000));
    for (const ObjectInfo& info : page.objects) {
      if (context.json)
        all.push_back(to_json(info));
      else
        fmt::print("{:>12}  {}  {}\n", info.size, time_text(info.sealed_ns), info.id);
    }
    if (!page.objects.empty()) after = page.objects.back().id;
    done = page.done || page.objects.empty();
  }
  if (context.json) fmt::print("{}\n", dump(all));
  return {};
}

Result<> remove(const Context& context, const std::vector<std::string>& ids) {
  TRY(auto client, context.connect());
  Result<> outcome;
  for (const std::string& id : ids) {
    Result<> removed = client->objects().remove(id);
    if (removed) continue;
    if (!outcome) fmt::print(stderr, "cairn: {}\n", outcome.error().message());
    outcome = fail(removed.error());
  }
  return outcome;
}

Result<> wait(const Context& context, const std::vector<std::string>& ids, std::size_t count) {
  TRY(auto client, context.connect());
  TRY(auto ready, client->objects().wait(ids, count, std::chrono::seconds(context.timeout_s)));
  nlohmann::json all = nlohmann::json::array();
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (context.json)
      all.push_back({{"id", ids[i]}, {"ready", static_cast<bool>(ready[i])}});
    else if (ready[i])
      fmt::print("{}\n", ids[i]);
  }
  if (context.json) fmt::print("{}\n", dump(all));
  return {};
}

}  // namespace

void add_object_commands(CLI::App& app, Context& context) {
  struct Options {
    std::string path, id, prefix;
    std::vector<std::string> ids;
    std::size_t count = 0;
  };
  auto options = std::make_shared<Options>();

  CLI::App* put_command =
      app.add_subcommand("put", "Store a file as an immutable object; durable when it returns");
  put_command->add_option("FILE", options->path, "file to store; '-' is standard input")->required();
  put_command->add_option("--id", options->id, "the object's id (default: the file's name)");
  put_command->callback([&context, options] {
    context.run = [&context, options] { return put(context, options->path, options->id); };
  });

  CLI::App* get_command = app.add_subcommand("get", "Read an object into a file");
  get_command->add_option("ID", options->id, "the object's id")->required();
  get_command->add_option("FILE", options->path,
                          "where to; '-' is standard output (default: the id's last part)");
  get_command->callback([&context, options] {
    context.run = [&context, options] { return get(context, options->id, options->path); };
  });

  CLI::App* stat_command = app.add_subcommand("stat", "Show an object's size, digest and times");
  stat_command->add_option("ID", options->id, "the object's id")->required();
  stat_command->callback(
      [&context, options] { context.run = [&context, options] { return stat(context, options->id); }; });

  CLI::App* list_command = app.add_subcommand("ls", "List objects in order of their ids");
  list_command->add_option("PREFIX", options->prefix, "only ids that begin so");
  list_command->callback(
      [&context, options] { context.run = [&context, options] { return list(context, options->prefix); }; });

  CLI::App* remove_command = app.add_subcommand("rm", "Delete objects");
  remove_command->add_option("ID", options->ids, "ids to delete")->required();
  remove_command->callback(
      [&context, options] { context.run = [&context, options] { return remove(context, options->ids); }; });

  CLI::App* wait_command = app.add_subcommand("wait", "Wait until objects are sealed (see --timeout)");
  wait_command->add_option("ID", options->ids, "ids to wait for")->required();
  wait_command->add_option("--count", options->count, "how many suffice (default: all)");
  wait_command->callback([&context, options] {
    context.run = [&context, options] { return wait(context, options->ids, options->count); };
  });
}

}  // namespace cairn::cli
