#include "store/disk/superblock.h"

#include <fmt/format.h>

#include <algorithm>

#include "store/base/checksum.h"
#include "store/disk/allocator.h"

namespace cairn::disk {
namespace {

constexpr std::string_view kMagic = "CAIRNDSK";
constexpr std::uint32_t kFormat = 1;
constexpr std::size_t kSizeMax = 4096;
constexpr std::string_view kName = "superblock";
constexpr std::string_view kNewName = "superblock.new";

std::string path_of(const std::string& dir, std::string_view name) {
  return fmt::format("{}/{}", dir, name);
}

}  // namespace

std::string encode_superblock(const Superblock& superblock) {
  std::string text(kMagic);
  ByteWriter out(text);
  out.u32(kFormat);
  out.u64(superblock.cluster.value());
  out.u64(superblock.server.value());
  out.u64(superblock.target.value());
  out.u16(superblock.era.value());
  out.u64(superblock.boot_count);
  out.u8(superblock.clean ? 1 : 0);
  out.u64(superblock.extent_file_bytes);
  out.text(superblock.machine_boot_id);
  out.u64(checksum64(as_bytes(text)));
  return text;
}

Result<Superblock> decode_superblock(std::string_view text) {
  ByteReader in(text);
  if (in.raw(kMagic.size()) != kMagic) return fail(Code::kCorrupt, "superblock: not a Cairn target");
  std::uint32_t format = in.u32();
  if (in.ok() && format != kFormat)
    return fail(Code::kVersionMismatch,
                fmt::format("superblock has format {}, this program reads {}", format, kFormat));
  Superblock superblock;
  superblock.cluster = ClusterId(in.u64());
  superblock.server = ServerId(in.u64());
  superblock.target = TargetId(in.u64());
  superblock.era = Era(in.u16());
  superblock.boot_count = in.u64();
  superblock.clean = in.u8() != 0;
  superblock.extent_file_bytes = in.u64();
  superblock.machine_boot_id = in.text();
  if (!in.ok() || in.left() != 8) return fail(Code::kCorrupt, "superblock: torn");
  if (in.u64() != checksum64(as_bytes(text.substr(0, text.size() - 8))))
    return fail(Code::kCorrupt, "superblock: checksum does not match");
  if (superblock.extent_file_bytes == 0 || superblock.extent_file_bytes % kUnitBytes != 0)
    return fail(Code::kCorrupt, "superblock: impossible size of extent files");
  return superblock;
}

Result<std::vector<std::string>> foreign_names(Disk& disk, const std::string& dir) {
  auto names = disk.list(dir);
  if (!names) {
    if (names.error().code() == Code::kNotFound) return std::vector<std::string>{};
    return fail(names.error());
  }
  std::erase_if(*names, [](const std::string& name) { return name == "lost+found" || name == kNewName; });
  return std::move(*names);
}

Result<Superblock> read_superblock(Disk& disk, const std::string& dir) {
  auto file = disk.open(path_of(dir, kName), Disk::Open::kRead);
  if (!file) {
    if (file.error().code() != Code::kNotFound) return fail(file.error());
    TRY(auto names, foreign_names(disk, dir));
    if (names.empty()) return fail(Code::kNotFound, fmt::format("{} is not formatted", dir));
    return fail(Code::kCorrupt,
                fmt::format("{} has no superblock but holds '{}': not a target, or a damaged one", dir,
                            names.front()));
  }
  std::string text(kSizeMax, '\0');
  TRY(std::size_t size, (*file)->pread(0, {reinterpret_cast<std::byte*>(text.data()), text.size()}));
  text.resize(size);
  auto superblock = decode_superblock(text);
  if (!superblock) return fail(superblock.error().with(dir));
  return superblock;
}

Result<> write_superblock(Disk& disk, const std::string& dir, const Superblock& superblock) {
  std::string path = path_of(dir, kNewName);
  {
    TRY(auto file, disk.open(path, Disk::Open::kEmpty));
    TRYV(file->pwrite(0, as_bytes(encode_superblock(superblock))));
    TRYV(file->sync());
  }
  TRYV(disk.rename(path, path_of(dir, kName)));
  return disk.sync_dir(dir);
}

}  // namespace cairn::disk
