#include "store/disk/rocks_fs.h"

#include <fmt/format.h>
#include <rocksdb/system_clock.h>

#include <array>
#include <atomic>
#include <cstdarg>
#include <cstdio>

#include "store/base/log.h"

namespace cairn::disk {
namespace {

using rocksdb::FileOptions;
using rocksdb::IODebugContext;
using rocksdb::IOOptions;
using rocksdb::IOStatus;
using rocksdb::Slice;

template <class T>
IOStatus status_of(const Result<T>& result) {
  return result ? IOStatus::OK() : to_io_status(result.error());
}

Bytes bytes_of(const Slice& slice) {
  return as_bytes({slice.data(), slice.size()});
}
MutableBytes scratch_bytes(char* scratch, std::size_t size) {
  return {reinterpret_cast<std::byte*>(scratch), size};
}

class SequentialFile final : public rocksdb::FSSequentialFile {
 public:
  explicit SequentialFile(std::unique_ptr<File> file) : file_(std::move(file)) {}
  IOStatus Read(std::size_t n, const IOOptions&, Slice* result, char* scratch, IODebugContext*) override {
    auto got = file_->pread(offset_, scratch_bytes(scratch, n));
    if (!got) return to_io_status(got.error());
    offset_ += *got;
    *result = Slice(scratch, *got);
    return IOStatus::OK();
  }
  IOStatus Skip(std::uint64_t n) override {
    offset_ += n;
    return IOStatus::OK();
  }

 private:
  std::unique_ptr<File> file_;
  std::uint64_t offset_ = 0;
};

class RandomFile final : public rocksdb::FSRandomAccessFile {
 public:
  explicit RandomFile(std::unique_ptr<File> file) : file_(std::move(file)) {}
  IOStatus Read(std::uint64_t offset, std::size_t n, const IOOptions&, Slice* result, char* scratch,
                IODebugContext*) const override {
    auto got = file_->pread(offset, scratch_bytes(scratch, n));
    if (!got) return to_io_status(got.error());
    *result = Slice(scratch, *got);
    return IOStatus::OK();
  }

 private:
  std::unique_ptr<File> file_;
};

class WritableFile final : public rocksdb::FSWritableFile {
 public:
  WritableFile(std::unique_ptr<File> file, std::uint64_t size, Ballast& ballast)
      : file_(std::move(file)), size_(size), ballast_(ballast) {}
  using FSWritableFile::Append;
  IOStatus Append(const Slice& data, const IOOptions&, IODebugContext*) override {
    auto done = file_->pwrite(size_, bytes_of(data));
    if (!done && done.error().code() == Code::kNoSpace) {
      (void)ballast_.give();  // or another thread just did
      done = file_->pwrite(size_, bytes_of(data));
    }
    if (done) size_ += data.size();
    return status_of(done);
  }
  IOStatus Truncate(std::uint64_t size, const IOOptions&, IODebugContext*) override {
    auto done = file_->truncate(size);
    if (done) size_ = size;
    return status_of(done);
  }
  IOStatus Close(const IOOptions&, IODebugContext*) override {
    file_.reset();
    return IOStatus::OK();
  }
  IOStatus Flush(const IOOptions&, IODebugContext*) override { return IOStatus::OK(); }
  IOStatus Sync(const IOOptions&, IODebugContext*) override { return status_of(file_->sync()); }
  bool IsSyncThreadSafe() const override { return true; }
  std::uint64_t GetFileSize(const IOOptions&, IODebugContext*) override { return size_; }

 private:
  std::unique_ptr<File> file_;
  std::atomic<std::uint64_t> size_;
  Ballast& ballast_;
};

class Directory final : public rocksdb::FSDirectory {
 public:
  Directory(Disk& disk, std::string path) : disk_(disk), path_(std::move(path)) {}
  IOStatus Fsync(const IOOptions&, IODebugContext*) override { return status_of(disk_.sync_dir(path_)); }
  IOStatus Close(const IOOptions&, IODebugContext*) override { return IOStatus::OK(); }

 private:
  Disk& disk_;
  std::string path_;
};

class DiskFileSystem final : public rocksdb::FileSystem {
 public:
  DiskFileSystem(Disk& disk, Ballast& ballast) : disk_(disk), ballast_(ballast) {}
  const char* Name() const override { return "CairnDisk"; }

  IOStatus NewSequentialFile(const std::string& name, const FileOptions&,
                             std::unique_ptr<rocksdb::FSSequentialFile>* result, IODebugContext*) override {
    return open_as<SequentialFile>(name, result);
  }
  IOStatus NewRandomAccessFile(const std::string& name, const FileOptions&,
                               std::unique_ptr<rocksdb::FSRandomAccessFile>* result,
                               IODebugContext*) override {
    return open_as<RandomFile>(name, result);
  }
  IOStatus NewWritableFile(const std::string& name, const FileOptions&,
                           std::unique_ptr<rocksdb::FSWritableFile>* result, IODebugContext*) override {
    auto file = disk_.open(name, Disk::Open::kEmpty);
    if (!file) return to_io_status(file.error());
    result->reset(new WritableFile(std::move(*file), 0, ballast_));
    return IOStatus::OK();
  }
  IOStatus ReopenWritableFile(const std::string& name, const FileOptions&,
                              std::unique_ptr<rocksdb::FSWritableFile>* result, IODebugContext*) override {
    auto file = disk_.open(name, Disk::Open::kUpdate);
    if (!file) return to_io_status(file.error());
    auto size = (*file)->size();
    if (!size) return to_io_status(size.error());
    result->reset(new WritableFile(std::move(*file), *size, ballast_));
    return IOStatus::OK();
  }
  IOStatus ReuseWritableFile(const std::string& name, const std::string& old_name, const FileOptions& options,
                             std::unique_ptr<rocksdb::FSWritableFile>* result, IODebugContext* dbg) override {
    auto done = disk_.rename(old_name, name);
    return done ? NewWritableFile(name, options, result, dbg) : to_io_status(done.error());
  }
  IOStatus NewDirectory(const std::string& name, const IOOptions&,
                        std::unique_ptr<rocksdb::FSDirectory>* result, IODebugContext*) override {
    result->reset(new Directory(disk_, name));
    return IOStatus::OK();
  }
  IOStatus FileExists(const std::string& name, const IOOptions&, IODebugContext*) override {
    auto info = disk_.stat(name);
    if (!info && info.error().code() == Code::kNotFound)
      return IOStatus::NotFound(name);  // RocksDB tests for it
    return status_of(info);
  }
  IOStatus GetChildren(const std::string& dir, const IOOptions&, std::vector<std::string>* result,
                       IODebugContext*) override {
    auto names = disk_.list(dir);
    if (names) *result = std::move(*names);
    return status_of(names);
  }
  IOStatus DeleteFile(const std::string& name, const IOOptions&, IODebugContext*) override {
    return status_of(disk_.unlink(name));
  }
  IOStatus CreateDir(const std::string& name, const IOOptions&, IODebugContext*) override {
    return status_of(disk_.make_dir(name));
  }
  IOStatus CreateDirIfMissing(const std::string& name, const IOOptions&, IODebugContext*) override {
    return status_of(disk_.make_dir(name));
  }
  IOStatus DeleteDir(const std::string& name, const IOOptions&, IODebugContext*) override {
    return status_of(disk_.remove_dir(name));
  }
  IOStatus GetFileSize(const std::string& name, const IOOptions&, std::uint64_t* size,
                       IODebugContext*) override {
    auto info = disk_.stat(name);
    if (info) *size = info->size;
    return status_of(info);
  }
  IOStatus GetFileModificationTime(const std::string& name, const IOOptions&, std::uint64_t* time,
                                   IODebugContext*) override {
    auto info = disk_.stat(name);
    if (info) *time = info->modified_s;
    return status_of(info);
  }
  IOStatus RenameFile(const std::string& from, const std::string& to, const IOOptions&,
                      IODebugContext*) override {
    return status_of(disk_.rename(from, to));
  }
  IOStatus LockFile(const std::string&, const IOOptions&, rocksdb::FileLock** lock,
                    IODebugContext*) override {
    *lock = new rocksdb::FileLock();
    return IOStatus::OK();
  }
  IOStatus UnlockFile(rocksdb::FileLock* lock, const IOOptions&, IODebugContext*) override {
    delete lock;
    return IOStatus::OK();
  }
  IOStatus GetTestDirectory(const IOOptions&, std::string*, IODebugContext*) override {
    return IOStatus::NotSupported("test directory");
  }
  IOStatus GetAbsolutePath(const std::string& path, const IOOptions&, std::string* result,
                           IODebugContext*) override {
    *result = path;
    return IOStatus::OK();
  }
  IOStatus IsDirectory(const std::string& path, const IOOptions&, bool* is_dir, IODebugContext*) override {
    auto info = disk_.stat(path);
    if (info) *is_dir = info->directory;
    return status_of(info);
  }
  IOStatus GetFreeSpace(const std::string& path, const IOOptions&, std::uint64_t* free,
                        IODebugContext*) override {
    auto space = disk_.space(path);
    if (space) *free = space->available_bytes;
    return status_of(space);
  }

 private:
  template <class Wrapper, class Base>
  IOStatus open_as(const std::string& name, std::unique_ptr<Base>* result) {
    auto file = disk_.open(name, Disk::Open::kRead);
    if (!file) return to_io_status(file.error());
    result->reset(new Wrapper(std::move(*file)));
    return IOStatus::OK();
  }

  Disk& disk_;
  Ballast& ballast_;
};

class DiskClock final : public rocksdb::SystemClockWrapper {
 public:
  DiskClock(const std::shared_ptr<rocksdb::SystemClock>& base, Disk& disk)
      : SystemClockWrapper(base), disk_(disk) {}
  const char* Name() const override { return "CairnDiskClock"; }
  void SleepForMicroseconds(int micros) override { disk_.pause(std::chrono::microseconds(micros)); }

 private:
  Disk& disk_;
};

class DiskEnv final : public rocksdb::EnvWrapper {
 public:
  DiskEnv(Disk& disk, Ballast& ballast)
      : EnvWrapper(rocksdb::NewCompositeEnv(std::make_shared<DiskFileSystem>(disk, ballast))) {
    system_clock_ = std::make_shared<DiskClock>(system_clock_, disk);
  }
};

class ForwardingLogger final : public rocksdb::Logger {
 public:
  ForwardingLogger() : Logger(rocksdb::InfoLogLevel::WARN_LEVEL) {}
  using Logger::Logv;
  void Logv(const rocksdb::InfoLogLevel level, const char* format, va_list arguments) override {
    if (level < rocksdb::InfoLogLevel::WARN_LEVEL || level == rocksdb::InfoLogLevel::HEADER_LEVEL) return;
    std::array<char, 1024> text;
    std::vsnprintf(text.data(), text.size(), format, arguments);
    // Never `error`: whatever matters comes back as a status, and is logged where it is handled.
    log_warn("rocksdb", "text={}", log_quote(text.data()));
  }
  void Logv(const char*, va_list) override {}
  void LogHeader(const char*, va_list) override {}
};

}  // namespace

IOStatus to_io_status(const Error& error) {
  switch (error.code()) {
    case Code::kNotFound:
      return IOStatus::PathNotFound(error.message());
    case Code::kNoSpace:
      return IOStatus::NoSpace(error.message());
    case Code::kCorrupt:
      return IOStatus::Corruption(error.message());
    default:
      return IOStatus::IOError(error.message());
  }
}

Error from_rocks(const rocksdb::Status& status, std::string_view what) {
  Code code = Code::kIo;
  if (status.IsNoSpace()) code = Code::kNoSpace;
  if (status.IsNotFound()) code = Code::kNotFound;
  if (status.IsCorruption()) code = Code::kCorrupt;
  return Error(code, fmt::format("index: {}: {}", what, status.ToString()));
}

std::unique_ptr<rocksdb::Env> make_rocks_env(Disk& disk, Ballast& ballast) {
  return std::make_unique<DiskEnv>(disk, ballast);
}

std::shared_ptr<rocksdb::Logger> make_rocks_logger() {
  return std::make_shared<ForwardingLogger>();
}

}  // namespace cairn::disk
