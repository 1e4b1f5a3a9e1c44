#include "client/reporter.h"

#include "client/allocate.h"
#include "store/base/log.h"

namespace cairn::client {
namespace {

constexpr auto kGather = std::chrono::milliseconds(20);  // what is not urgent waits so long for company

}  // namespace

struct Reporter::Item {
  InodeRef inode;
  std::uint64_t generation = 0;
  bool has_size = false;
  std::uint64_t size = 0;
  std::vector<Range> written;
  std::vector<Range> punched;
  std::uint64_t bytes = 0;
  std::optional<std::uint64_t> bytes_max;
  bool trim_done = false;
  std::int64_t atime = 0;
  bool accessed = false;  // atime is a reader's
  std::int64_t mtime = 0;
  std::optional<std::uint32_t> mode;
  std::uint32_t closed = 0;
  Lease keep = Lease::kNone;
  std::int64_t ctime = 0;
  bool if_last = false;
  SessionId session;

  // It says something about the file that only we know.
  bool tells() const { return has_size || mtime != 0 || atime != 0 || mode; }
};

void Reporter::add(InodeRef inode) {
  std::lock_guard lock(mutex_);
  entries_.push_back({std::move(inode), nullptr, false});
  if (entries_.size() == 1) wake_.set();
}

rpc::Task<Result<>> Reporter::report(InodeRef inode, Durable durable, Deadline deadline) {
  auto waiter = std::make_shared<Waiter>(context_.runtime);
  {
    std::lock_guard lock(mutex_);
    entries_.push_back({std::move(inode), waiter, durable == Durable::kYes});
    urgent_ = true;
    hurry_.set();
  }
  wake_.set();
  auto woken = co_await waiter->done.wait(deadline);
  if (!woken) co_return fail(woken.error().with("reporting to the metadata server"));
  co_return waiter->result;
}

rpc::Task<Result<>> Reporter::quiet(InodeRef inode, Deadline deadline) {
  for (;;) {
    std::shared_ptr<rpc::Event> settled;
    {
      std::lock_guard lock(inode->mutex);
      if (!inode->file || !inode->file->reporting) co_return Result<>{};
      settled = inode->file->settled.next(context_.runtime);
    }
    CO_TRYV(co_await settled->wait(deadline));
  }
}

std::optional<Reporter::Item> Reporter::build(const InodeRef& ref) const {
  Inode& inode = *ref;
  std::lock_guard lock(inode.mutex);
  if (!inode.file || inode.session != context_.session.id()) return std::nullopt;
  FileData& file = *inode.file;
  Item item;
  item.inode = ref;
  item.session = inode.session;
  item.generation = inode.generation;
  item.keep = std::min(inode.lease, file.keep);
  const bool idle = context_.runtime.clock().now() >= file.idle_since + kIdleClose;
  const bool over = file.unlinked ? inode.unreachable() : idle;
  if (inode.unreachable() && !file.read_elsewhere && !file.dirty.empty() && file.server_opens != 0 &&
      file.dirty.flushing_chunks().empty() && inode.lease == Lease::kExclusive &&
      file.keep == Lease::kExclusive) {
    item.if_last = true;
    item.closed = file.server_opens;
    file.reporting_from = inode.lease;
    file.server_opens = 0;
    file.reporting = true;
    return item;
  }
  if (file.handles == 0 && file.dirty.empty() && file.server_opens != 0 &&
      (over || file.keep != Lease::kExclusive)) {
    item.closed = file.server_opens;
    item.keep = std::min(item.keep, Lease::kShared);
  }
  if (inode.lease == Lease::kExclusive && inode.have_layout) {
    const std::uint32_t chunk_size = inode.layout.chunk_size();
    const bool return_room = std::exchange(file.return_room, false) && !file.extending;
    if (file.report_size || file.trim_done || return_room) {
      item.size = std::min(inode.size(), file.report_max);
      // Bytes that are not stored yet, and what lies behind them, are not claimed.
      if (!file.dirty.empty())
        item.size = std::max(file.reported_size, std::min(item.size, file.dirty.first_offset()));
      // Nor is a hole in front of them that reaches past the chunks which may be written so far.
      item.size = std::max(file.reported_size, std::min(item.size, inode.layout.bound * chunk_size));
      const std::uint64_t chunks = chunks_of(item.size, chunk_size);
      for (const Range& range : file.written.list()) {
        if (range.from < chunks) item.written.push_back({range.from, std::min(range.to, chunks)});
      }
      for (const Range& range : file.punched.list()) {
        if (range.from < chunks) item.punched.push_back({range.from, std::min(range.to, chunks)});
      }
      item.trim_done = file.trim_done;
      item.has_size = item.size != file.reported_size || !item.written.empty() || !item.punched.empty() ||
                      item.trim_done || return_room;
      const std::uint64_t holes = file.holes.count_below(chunks);
      item.bytes = std::min(item.size, (chunks - holes) * chunk_size);
      if (item.has_size) {
        for (const Range& range : item.written) file.written.remove(range.from, range.to);
        for (const Range& range : item.punched) file.punched.remove(range.from, range.to);
        file.trim_done = false;
        // A writer that goes on keeps what it was allowed ahead.
        if (inode.layout.limited && !file.extending && (return_room || file.dirty.empty())) {
          inode.layout.bytes_max = std::min(inode.layout.bytes_max, allocated_with(inode, 0, 0));
          item.bytes_max = inode.layout.bytes_max;
        }
      }
      file.report_size = !file.dirty.empty() || item.size != inode.size();
    }
    item.ctime = inode.attr.attr.ctime_ns;
    if (file.report_times) item.mtime = inode.attr.attr.mtime_ns;
    if (file.report_atime) item.atime = inode.attr.attr.atime_ns;
    if (file.report_mode) item.mode = inode.attr.attr.mode & 07777;
    file.report_times = file.report_atime = file.report_mode = false;
    // With bytes still to come, the lease stays.
    if (!file.clean()) item.keep = Lease::kExclusive;
  }
  if (std::exchange(file.accessed, false) && item.atime == 0 && inode.have_attr) {
    item.atime = inode.attr.attr.atime_ns;
    item.accessed = true;
  }
  if (!item.tells() && item.closed == 0 && item.keep == inode.lease) return std::nullopt;
  // From here on nothing new is written under a lease that is given back; who needs it again waits for this
  // report.
  file.reporting_from = inode.lease;
  inode.lease = item.keep;
  file.server_opens -= item.closed;
  file.reporting = true;
  file.reporting_mode = item.mode.has_value();
  file.reporting_times = item.mtime != 0;
  return item;
}

void Reporter::restore(const Item& item) const {
  std::lock_guard lock(item.inode->mutex);
  FileData& file = *item.inode->file;
  file.reporting = file.reporting_mode = file.reporting_times = false;
  file.reporting_from = Lease::kNone;
  file.settled.notify();
  if (item.inode->session != item.session || item.session != context_.session.id())
    return;  // it ended meanwhile
  // What happened to a chunk since then is newer.
  const auto again = [](const std::vector<Range>& ranges, const RangeSet& newer, RangeSet& into) {
    RangeSet old;
    for (const Range& range : ranges) old.add(range.from, range.to);
    for (const Range& range : newer.list()) old.remove(range.from, range.to);
    for (const Range& range : old.list()) into.add(range.from, range.to);
  };
  const RangeSet written = file.written;
  again(item.written, file.punched, file.written);
  again(item.punched, written, file.punched);
  if (item.has_size) file.report_size = true;
  if (item.trim_done) file.trim_done = true;
  if (item.mtime != 0) file.report_times = true;
  if (item.atime != 0) (item.accessed ? file.accessed : file.report_atime) = true;
  if (item.mode) file.report_mode = true;
  file.server_opens += item.closed;
  if (item.keep < Lease::kExclusive && item.tells()) {
    item.inode->lease = Lease::kExclusive;  // not given back yet
  }
}

void Reporter::done(const Item& item, Code code) const {
  std::lock_guard lock(item.inode->mutex);
  FileData& file = *item.inode->file;
  file.reporting = file.reporting_mode = file.reporting_times = false;
  file.reporting_from = Lease::kNone;
  if (item.tells()) file.told_at = context_.runtime.clock().now();
  file.settled.notify();
  if (item.if_last && item.inode->session == item.session) {
    if (code == Code::kOk || code == Code::kNotFound) {
      file.gone = true;
      gone_(*item.inode);
      InodeCache::drop(*item.inode);
    } else {
      file.server_opens += item.closed;
      file.read_elsewhere = true;
    }
  }
  if (item.if_last) return;
  if (code == Code::kOk) {
    if (item.has_size) {
      file.reported_size = item.size;
      item.inode->attr.attr.bytes = item.bytes;
    }
    return;
  }
  if (code == Code::kNotFound) return;  // removed, and this was its last close
  log_warn("report_refused", "inode={} code={}", to_string(item.inode->id), code_name(code));
  if (item.has_size || item.mtime != 0 || item.mode) {
    file.write_error.emplace(code == Code::kLeaseLost ? Code::kSessionEnded : code,
                             "the metadata server refused the report of inode " + to_string(item.inode->id) +
                                 ": " + std::string(code_name(code)));
    ++file.errors;
  }
  if (code == Code::kLeaseLost) InodeCache::drop(*item.inode);
}

rpc::Task<> Reporter::run() {
  for (;;) {
    auto woken = co_await wake_.wait(Deadline::never());
    if (!woken) co_return;
    auto hurried = co_await hurry_.wait(Deadline::after(context_.runtime.clock(), kGather));
    if (!hurried && hurried.error().code() == Code::kCancelled) co_return;
    std::vector<Entry> entries;
    {
      std::lock_guard lock(mutex_);
      const std::size_t n = std::min(items_max_, entries_.size());
      entries.assign(std::make_move_iterator(entries_.begin()),
                     std::make_move_iterator(entries_.begin() + static_cast<long>(n)));
      entries_.erase(entries_.begin(), entries_.begin() + static_cast<long>(n));
      urgent_ = false;
      for (const Entry& entry : entries_) urgent_ = urgent_ || entry.waiter != nullptr;
      if (!urgent_) hurry_.reset();
      if (entries_.empty()) wake_.reset();
    }
    co_await round(std::move(entries));
    if (context_.session.closed()) {
      std::lock_guard lock(mutex_);
      for (Entry& entry : entries_) {
        if (!entry.waiter) continue;
        entry.waiter->result = fail(Code::kCancelled, "the client is closed");
        entry.waiter->done.set();
      }
      entries_.clear();
    }
  }
}

rpc::Task<> Reporter::round(std::vector<Entry> entries) {
  auto items = std::make_shared<std::vector<Item>>();
  std::unordered_map<const Inode*, std::size_t> index_of;
  bool durable = false;
  for (const Entry& entry : entries) {
    durable = durable || entry.durable;
    if (index_of.contains(entry.inode.get())) continue;
    if (auto item = build(entry.inode)) {
      index_of[entry.inode.get()] = items->size();
      items->push_back(std::move(*item));
    }
  }
  Result<> outcome;
  std::vector<Code> codes(items->size(), Code::kOk);
  if (!items->empty() || durable) {
    const SessionId session = items->empty() ? SessionId{} : items->front().session;
    std::function<void(schema::ReportRequest::Builder)> fill =
        [items, durable](schema::ReportRequest::Builder body) {
          body.setDurable(durable);
          auto list = body.initItems(static_cast<unsigned>(items->size()));
          for (unsigned i = 0; i < items->size(); ++i) {
            const Item& from = (*items)[i];
            auto to = list[i];
            to.setInode(from.inode->id.value());
            to.setGeneration(from.generation);
            to.setHasSize(from.has_size);
            to.setSize(from.size);
            auto written = to.initWritten(static_cast<unsigned>(from.written.size()));
            for (unsigned w = 0; w < from.written.size(); ++w) {
              written[w].setFrom(from.written[w].from);
              written[w].setTo(from.written[w].to);
            }
            auto punched = to.initPunched(static_cast<unsigned>(from.punched.size()));
            for (unsigned p = 0; p < from.punched.size(); ++p) {
              punched[p].setFrom(from.punched[p].from);
              punched[p].setTo(from.punched[p].to);
            }
            to.setBytes(from.bytes);
            to.setHasBytesMax(from.bytes_max.has_value());
            to.setBytesMax(from.bytes_max.value_or(0));
            to.setTrimDone(from.trim_done);
            to.setAtime(from.atime);
            to.setMtime(from.mtime);
            to.setHasMode(from.mode.has_value());
            to.setMode(from.mode.value_or(0));
            to.setClosed(from.closed);
            to.setKeep(encode(from.keep));
            to.setCtime(from.ctime);
            to.setIfLast(from.if_last);
          }
        };
    auto reply = co_await context_.session.mutate<rpc::method::Report>(std::move(fill), context_.deadline(),
                                                                       nullptr, session);
    if (reply) {
      auto read = decoded("Report", [&] {
        const auto list = (*reply)->getCodes();
        for (unsigned i = 0; i < codes.size() && i < list.size(); ++i) codes[i] = code_from_number(list[i]);
      });
      if (!read) outcome = fail(read.error());
    } else {
      outcome = fail(reply.error());
    }
  }
  const bool too_much = !outcome && outcome.error().code() == Code::kInvalidArgument && items->size() > 1;
  items_max_ = outcome ? kItemsMax : too_much ? items->size() / 2 : items_max_;
  const auto again = [&](std::size_t item) {
    return too_much || (outcome && codes[item] == Code::kOverloaded);
  };
  for (std::size_t i = 0; i < items->size(); ++i) {
    if (outcome && !again(i)) {
      done((*items)[i], codes[i]);
    } else {
      restore((*items)[i]);
    }
  }
  // The rest goes with the next requests: a server takes only so much at once.
  {
    std::lock_guard lock(mutex_);
    for (Entry& entry : entries) {
      auto found = index_of.find(entry.inode.get());
      if (found == index_of.end() || !again(found->second)) continue;
      urgent_ = urgent_ || entry.waiter != nullptr;
      entries_.push_back(std::exchange(entry, {}));
    }
    if (!entries_.empty()) wake_.set();
    if (urgent_) hurry_.set();
  }
  if (!outcome && !too_much) {
    log_warn("report_failed", "files={} error={}", items->size(), log_quote(outcome.error().to_string()));
    // What nobody waits for is tried again, unless its session is over (then there is nothing left to
    // report).
    if (outcome.error().code() != Code::kCancelled) {
      for (const Item& item : *items) add(item.inode);
      auto slept = co_await rpc::sleep_for(context_.runtime, std::chrono::milliseconds(200));
      (void)slept;
    }
  }
  for (Entry& entry : entries) {
    if (!entry.waiter) continue;
    auto found = index_of.find(entry.inode.get());
    if (!outcome) {
      entry.waiter->result = fail(outcome.error());
    } else if (found != index_of.end() && codes[found->second] != Code::kOk) {
      entry.waiter->result = fail(codes[found->second], "report of inode " + to_string(entry.inode->id));
    }
    entry.waiter->done.set();
  }
}

}  // namespace cairn::client
