#include "store/disk/extent_store.h"

#include <fmt/format.h>

#include <algorithm>

#include "store/base/log.h"

namespace cairn::disk {
namespace {

constexpr std::uint64_t kZeroWriteMax = 64 << 10;  // shorter ranges are written, longer ones punched
constexpr std::uint64_t kPage = 4096;

std::string file_name(std::uint32_t number) {
  return fmt::format("{:08}", number);
}

Result<> write_zeros(File& file, std::uint64_t offset, std::uint64_t length) {
  static const std::string zeros(kZeroWriteMax, '\0');
  while (length > 0) {
    std::uint64_t part = std::min<std::uint64_t>(length, zeros.size());
    TRYV(file.pwrite(offset, as_bytes(std::string_view(zeros).substr(0, part))));
    offset += part;
    length -= part;
  }
  return {};
}

}  // namespace

Result<std::unique_ptr<ExtentStore>> ExtentStore::open(Disk& disk, const std::string& dir,
                                                       std::uint64_t file_bytes) {
  std::unique_ptr<ExtentStore> store(new ExtentStore(disk, dir, file_bytes));
  TRYV(disk.make_dir(dir));
  TRY(auto names, disk.list(dir));
  std::uint32_t count = 0;
  while (std::binary_search(names.begin(), names.end(), file_name(count))) ++count;
  if (count != names.size())
    return fail(Code::kCorrupt, fmt::format("{} holds '{}' where extent file {} was expected", dir,
                                            names[std::min<std::size_t>(count, names.size() - 1)], count));
  for (std::uint32_t i = 0; i < count; ++i) TRYV(store->open_file(i));
  // The process that made the last file may have died before it synced size and name: a power cut could still
  // take them.
  if (count > 0) TRYV(store->files_.back()->file->sync());
  TRYV(disk.sync_dir(dir));
  return store;
}

Result<> ExtentStore::open_file(std::uint32_t number) {
  std::string path = fmt::format("{}/{}", dir_, file_name(number));
  auto entry = std::make_unique<ExtentFile>();
  TRY(entry->file, disk_.open(path, Disk::Open::kBulk));
  TRY(std::uint64_t size, entry->file->size());
  if (size < file_bytes_) {  // new, or a power cut came between making it and this
    TRYV(entry->file->truncate(file_bytes_));
    TRYV(entry->file->sync());
    TRYV(disk_.sync_dir(dir_));
  }
  std::unique_lock lock(files_mutex_);
  files_.push_back(std::move(entry));
  return {};
}

Result<> ExtentStore::rebuild(std::vector<Extent> used) {
  std::lock_guard lock(mutex_);
  TRYV(allocator_.rebuild(std::move(used)));
  if (allocator_.files() > files_.size())
    return fail(Code::kCorrupt, fmt::format("{}: the index refers to extent file {}, which is missing", dir_,
                                            file_name(allocator_.files() - 1)));
  while (allocator_.files() < files_.size()) allocator_.add_file();
  return {};
}

void ExtentStore::punch_free_space() {
  std::lock_guard lock(mutex_);
  std::uint64_t per_file = allocator_.units_per_file();
  for (std::uint64_t begin = 0; begin < files_.size() * per_file; begin += per_file) {
    std::uint64_t from = begin;
    for (std::uint64_t unit = begin; unit <= begin + per_file; ++unit) {
      if (unit < begin + per_file && allocator_.is_free({unit, 0})) continue;
      if (unit > from) {
        Extent first{from, 0};
        auto punched = file_of(first).file->punch(offset_in_file(first), (unit - from) * kUnitBytes);
        if (!punched) return;  // only keeps blocks longer
      }
      from = unit + 1;
    }
  }
}

Result<Extent> ExtentStore::allocate(int size_class, int room_class) {
  std::lock_guard lock(mutex_);
  if (auto extent = allocator_.allocate(size_class, room_class)) return *extent;
  TRYV(open_file(allocator_.files()));
  allocator_.add_file();
  auto extent = allocator_.allocate(size_class, room_class);
  if (!extent) return fail(Code::kInvalidArgument, "a chunk larger than an extent file");
  return *extent;
}

bool ExtentStore::grow(Extent& extent, int size_class) {
  std::lock_guard lock(mutex_);
  return allocator_.grow(extent, size_class);
}

void ExtentStore::shrink(Extent& extent, int size_class) {
  std::lock_guard lock(mutex_);
  allocator_.shrink(extent, size_class);
}

void ExtentStore::drop_room(const Extent& extent) {
  std::lock_guard lock(mutex_);
  allocator_.drop_room(extent);
}

void ExtentStore::release(const Extent& extent) {
  std::lock_guard lock(mutex_);
  allocator_.release(extent);
}

void ExtentStore::free_after(const Extent& extent, std::uint64_t generation) {
  std::lock_guard lock(mutex_);
  freed_.push_back({extent, generation});
  freed_count_.store(freed_.size(), std::memory_order_relaxed);
}

void ExtentStore::settle(std::uint64_t synced_generation) {
  std::vector<Extent> ready;
  {
    std::lock_guard lock(mutex_);
    std::erase_if(freed_, [&](const Freed& freed) {
      if (freed.generation > synced_generation) return false;
      ready.push_back(freed.extent);
      return true;
    });
    freed_count_.store(freed_.size(), std::memory_order_relaxed);
  }
  for (const Extent& extent : ready) {
    // Failure only means that the file system gets the blocks back when the extent is used again.
    auto punched = file_of(extent).file->punch(offset_in_file(extent), extent.bytes());
    if (!punched && punched.error().code() != Code::kUnimplemented)
      log_warn("extent_punch_failed", "error={}", log_quote(punched.error().message()));
    std::lock_guard lock(mutex_);
    allocator_.release(extent);
  }
}

std::uint64_t ExtentStore::used_bytes() const {
  std::lock_guard lock(mutex_);
  return allocator_.used_bytes();
}

bool ExtentStore::is_free(const Extent& extent) const {
  std::lock_guard lock(mutex_);
  return allocator_.is_free(extent);
}

bool ExtentStore::has_file_of(const Extent& extent) const {
  std::shared_lock lock(files_mutex_);
  return extent.unit / allocator_.units_per_file() < files_.size();
}

ExtentStore::ExtentFile& ExtentStore::file_of(const Extent& extent) {
  std::shared_lock lock(files_mutex_);
  return *files_[extent.unit / allocator_.units_per_file()];
}

std::uint64_t ExtentStore::offset_in_file(const Extent& extent) const {
  return extent.unit % allocator_.units_per_file() * kUnitBytes;
}

Result<> ExtentStore::read(const Extent& extent, std::uint64_t offset, MutableBytes to) {
  auto got = file_of(extent).file->pread(offset_in_file(extent) + offset, to);
  if (!got) return fail(Code::kCorrupt, got.error().message());
  if (*got != to.size())
    return fail(Code::kCorrupt, fmt::format("extent at unit {} is cut off in its file", extent.unit));
  return {};
}

Result<> ExtentStore::write(const Extent& extent, std::uint64_t offset, Bytes from, Cover cover) {
  ExtentFile& file = file_of(extent);
  auto done = file.file->pwrite(offset_in_file(extent) + offset, from);
  file.dirty[static_cast<std::size_t>(cover)].store(true);
  return done;
}

Result<> ExtentStore::zero(const Extent& extent, std::uint64_t offset, std::uint64_t length, Cover cover) {
  ExtentFile& file = file_of(extent);
  std::uint64_t begin = offset_in_file(extent) + offset;
  std::uint64_t end = begin + length;
  file.dirty[static_cast<std::size_t>(cover)].store(true);
  std::uint64_t first_page = (begin + kPage - 1) / kPage * kPage;
  std::uint64_t last_page = end / kPage * kPage;
  Result<> done;
  if (length <= kZeroWriteMax) {
    done = write_zeros(*file.file, begin, length);
  } else {
    auto punched = file.file->punch(first_page, last_page - first_page);
    if (punched) {
      done = write_zeros(*file.file, begin, first_page - begin);
      if (done) done = write_zeros(*file.file, last_page, end - last_page);
    } else {
      done =
          punched.error().code() == Code::kUnimplemented ? write_zeros(*file.file, begin, length) : punched;
    }
  }
  file.dirty[static_cast<std::size_t>(cover)].store(true);
  return done;
}

Result<> ExtentStore::sync(Cover cover) {
  std::size_t count;
  {
    std::shared_lock lock(files_mutex_);
    count = files_.size();
  }
  for (std::size_t i = 0; i < count; ++i) {
    ExtentFile* file;
    {
      std::shared_lock lock(files_mutex_);
      file = files_[i].get();
    }
    if (file->dirty[static_cast<std::size_t>(cover)].exchange(false)) TRYV(file->file->sync());
  }
  return {};
}

}  // namespace cairn::disk
