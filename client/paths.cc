// Blocking calls by path, for programs.
#include <fcntl.h>
#include <sys/stat.h>

#include "client/file_system_impl.h"

namespace cairn::client {
namespace {

constexpr std::uint32_t kStep = 1 << 20;

std::vector<std::string> components(std::string_view path) {
  std::vector<std::string> out;
  while (!path.empty()) {
    const auto slash = path.find('/');
    const auto name = path.substr(0, slash);
    if (!name.empty() && name != ".") out.emplace_back(name);
    if (slash == std::string_view::npos) break;
    path.remove_prefix(slash + 1);
  }
  return out;
}

template <class T>
Result<T> named(Result<T> result, std::string_view path) {
  if (!result) return fail(result.error().with(path));
  return result;
}

}  // namespace

// The inode of `path`; with `parent` and `last`: of everything but the last name, which need not exist.
Result<InodeId> FileSystemImpl::resolve(std::string_view path, std::string* last, InodeId* parent) {
  auto names = components(path);
  if (last != nullptr) {
    if (names.empty()) return fail(Code::kInvalidArgument, "'" + std::string(path) + "' names no entry");
    *last = names.back();
    names.pop_back();
  }
  InodeId at = kRootInode;
  for (const auto& name : names) {
    auto entry = try_lookup(at, name, nullptr);
    Result<Entry> found = entry ? std::move(*entry) : block_on<Entry>(lookup(at, name, nullptr));
    if (!found) return fail(found.error().with(path));
    at = found->attr.inode;
  }
  if (parent != nullptr) *parent = at;
  return at;
}

Result<Entry> FileSystemImpl::stat(std::string_view path) {
  TRY(const InodeId inode, resolve(path, nullptr, nullptr));
  return named(block_on<Entry>(getattr(inode)), path);
}

Result<std::string> FileSystemImpl::read_file(std::string_view path) {
  TRY(const InodeId inode, resolve(path, nullptr, nullptr));
  TRY(auto opened, named(block_on<Opened>(open(inode, O_RDONLY)), path));
  std::string out;
  Result<> outcome;
  for (;;) {
    auto piece = block_on<rpc::Payload>(read(opened.handle, out.size(), kStep));
    if (!piece) {
      outcome = fail(piece.error().with(path));
      break;
    }
    if (piece->size() == 0) break;
    for (const auto& buffer : piece->pieces) out.append(as_text(buffer.bytes()));
  }
  release_now(opened.handle);
  if (!outcome) return fail(outcome.error());
  return out;
}

Result<> FileSystemImpl::write_file(std::string_view path, Bytes bytes, std::uint32_t mode) {
  std::string name;
  InodeId parent;
  TRYV(resolve(path, &name, &parent));
  TRY(auto opened, named(block_on<Opened>(create(parent, name, mode, O_WRONLY | O_CREAT | O_TRUNC,
                                                 {geteuid(), getegid()})),
                         path));
  Result<> outcome;
  for (std::uint64_t at = 0; at < bytes.size() && outcome;) {
    const Bytes piece = bytes.subspan(at, std::min<std::size_t>(kStep, bytes.size() - at));
    auto done = try_write(opened.handle, at, piece);
    Result<std::uint32_t> wrote =
        done ? std::move(*done) : block_on<std::uint32_t>(write(opened.handle, at, rpc::Buffer::copy(piece)));
    if (wrote) {
      at += *wrote;
    } else {
      outcome = fail(wrote.error().with(path));
    }
  }
  if (outcome) outcome = named(block_on<void>(fsync(opened.handle, false)), path);
  release_now(opened.handle);
  return outcome;
}

Result<> FileSystemImpl::make_directories(std::string_view path, std::uint32_t mode) {
  InodeId at = kRootInode;
  for (const auto& name : components(path)) {
    auto found = block_on<Entry>(lookup(at, name, nullptr));
    if (!found && found.error().code() == Code::kNotFound) {
      found = block_on<Entry>(mkdir(at, name, mode, {geteuid(), getegid()}));
      if (!found && found.error().code() == Code::kExists) found = block_on<Entry>(lookup(at, name, nullptr));
    }
    if (!found) return fail(found.error().with(path));
    if (!S_ISDIR(found->attr.mode))
      return fail(Code::kNotDirectory, std::string(path) + ": '" + name + "' is no directory");
    at = found->attr.inode;
  }
  return {};
}

Result<> FileSystemImpl::remove(std::string_view path) {
  std::string name;
  InodeId parent;
  TRYV(resolve(path, &name, &parent));
  auto found = block_on<Entry>(lookup(parent, name, nullptr));
  if (!found) return fail(found.error().with(path));
  return named(S_ISDIR(found->attr.mode) ? block_on<void>(rmdir(parent, name))
                                         : block_on<void>(unlink(parent, name, {geteuid(), getegid()})),
               path);
}

}  // namespace cairn::client
