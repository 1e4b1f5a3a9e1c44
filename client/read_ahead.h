// ReadAhead: pieces of one file fetched before they are asked for, and kept until the reader has passed them.
//
// Why pieces of their own: a sequential reader asks for 128 KiB at a time and waits for each; fetching whole
// pieces from several chunks (so from several servers) at once turns that into streaming. A piece is dropped
// when a write touches it or when a flush of its chunk ends, so it never shows older bytes than the chunk
// has. Guarded by the inode's mutex; a Fetch completes under its own.
#pragma once

#include <map>
#include <memory>
#include <optional>

#include "client/budget.h"
#include "store/rpc/message.h"

namespace cairn::client {

constexpr std::uint64_t kPieceSize = 1 << 20;  // divides the chunk size, or is one chunk if that is smaller

struct Fetch {
  Fetch(rpc::Runtime& runtime, std::uint64_t from, std::uint64_t length, Budget::Hold memory)
      : done(runtime), from(from), length(length), memory(std::move(memory)) {}
  rpc::Event done;
  const std::uint64_t from;    // offset in the file
  const std::uint64_t length;  // asked; what a short chunk lacks is zeros
  Budget::Hold memory;
  std::mutex mutex;
  std::optional<Result<rpc::Buffer>> result;  // guarded by mutex; set before done
};

class ReadAhead {
 public:
  std::shared_ptr<Fetch> find(std::uint64_t offset, std::uint64_t piece_size) const {
    auto it = pieces_.find(offset / piece_size * piece_size);
    return it == pieces_.end() ? nullptr : it->second;
  }
  void insert(std::shared_ptr<Fetch> fetch) { pieces_[fetch->from] = std::move(fetch); }
  void drop(const std::shared_ptr<Fetch>& fetch) {
    auto it = pieces_.find(fetch->from);
    if (it != pieces_.end() && it->second == fetch) pieces_.erase(it);
  }
  // Pieces that overlap [from, to).
  void drop(std::uint64_t from, std::uint64_t to) {
    auto it = pieces_.upper_bound(from);
    if (it != pieces_.begin()) --it;
    while (it != pieces_.end() && it->first < to) {
      it = it->first + it->second->length > from ? pieces_.erase(it) : std::next(it);
    }
  }
  void drop_before(std::uint64_t offset) {
    while (!pieces_.empty() && pieces_.begin()->first + pieces_.begin()->second->length <= offset)
      pieces_.erase(pieces_.begin());
  }
  void clear() { pieces_.clear(); }
  bool empty() const { return pieces_.empty(); }

 private:
  std::map<std::uint64_t, std::shared_ptr<Fetch>> pieces_;  // by offset
};

}  // namespace cairn::client
