// Reporter: tells the metadata server what happened to files held here: sizes, chunks written, times, closes,
// leases given back. Many files go into one request, and one request is under way at a time, so that reports
// of a file arrive in order.
//
// A report never claims bytes that are not stored: the size it names ends before the first dirty byte.
// What fails to get through stays to be reported. Thread-safe. Owner: the file system; runs until its task
// group closes.
#pragma once

#include <deque>

#include "client/file_context.h"

namespace cairn::client {

constexpr auto kIdleClose =
    std::chrono::seconds(1);  // between the last release of a file and its close at the server

class Reporter {
 public:
  explicit Reporter(FileContext& context)
      : context_(context), wake_(context.runtime), hurry_(context.runtime) {}

  // There may be something to report, soon.
  void add(InodeRef inode);
  // Reports now, and waits for the reply; durable: until the journal is synced. Success if there is nothing
  // to report.
  rpc::Task<Result<>> report(InodeRef inode, Durable durable, Deadline deadline);
  // Waits until no report about the inode is under way.
  rpc::Task<Result<>> quiet(InodeRef inode, Deadline deadline);
  rpc::Task<> run();
  // `gone`: an inode without names went with its last open, and what is dirty need not be stored. Under its
  // mutex.
  void on_gone(std::function<void(Inode&)> gone) { gone_ = std::move(gone); }  // before run()

 private:
  struct Waiter {
    explicit Waiter(rpc::Runtime& runtime) : done(runtime) {}
    rpc::Event done;
    Result<> result;
  };
  struct Entry {
    InodeRef inode;
    std::shared_ptr<Waiter> waiter;  // may be null
    bool durable = false;
  };
  struct Item;
  std::optional<Item> build(const InodeRef& inode) const;
  void done(const Item& item, Code code) const;
  void restore(const Item& item) const;
  rpc::Task<> round(std::vector<Entry> entries);

  static constexpr std::size_t kItemsMax = 1024;

  FileContext& context_;
  std::size_t items_max_ = kItemsMax;  // in one request; of run()
  std::function<void(Inode&)> gone_;
  rpc::Event wake_;
  rpc::Event hurry_;  // as urgent_
  std::mutex mutex_;
  std::deque<Entry> entries_;  // guarded by mutex_
  bool urgent_ = false;        // guarded by mutex_
};

}  // namespace cairn::client
