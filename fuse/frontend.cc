#include "fuse/frontend.h"

#include <atomic>
#include <ctime>

#include "store/base/log.h"

namespace cairn::fuse {
namespace {

// A server that is gone fails thousands of requests a second alike; ten lines say it.
bool log_allowed() {
  static std::atomic<std::uint64_t> window{0};  // second << 8 | lines in it
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
  const auto second = static_cast<std::uint64_t>(now.tv_sec) << 8;
  std::uint64_t seen = window.load();
  for (;;) {
    const std::uint64_t lines = (seen & ~0xffULL) == second ? seen & 0xff : 0;
    if (lines >= 10) return false;
    if (window.compare_exchange_weak(seen, second | (lines + 1))) return true;
  }
}

}  // namespace

void reply_error(fuse_req_t req, const Where& where, const Error& error) {
  const bool stale = error.code() == Code::kNotFound && where.missing == Missing::kInode;
  const int number = stale ? ESTALE : to_errno(error.code(), where.range);
  if (!is_ordinary(error.code()) && log_allowed()) {
    log_warn("request_failed", "op={} inode={} errno={} error={}", where.op, to_string(where.inode), number,
             log_quote(error.to_string()));
  }
  fuse_reply_err(req, number);
}

void reply_entry(fuse_req_t req, const Entry& entry) {
  Frontend& f = frontend(req);
  const fuse_entry_param param = to_entry_param(entry, f.cache.attributes_max);
  if (fuse_reply_entry(req, &param) != 0) f.files.forget(entry.attr.inode, 1);
}

void reply_attr(fuse_req_t req, const Entry& entry) {
  const struct stat st = to_stat(entry.attr);
  fuse_reply_attr(req, &st, to_seconds(entry.valid, frontend(req).cache.attributes_max));
}

}  // namespace cairn::fuse
