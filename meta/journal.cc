#include "meta/journal.h"

#include <mutex>

#include "meta/key_prefixes.h"
#include "store/base/bytes.h"
#include "store/base/checksum.h"

namespace cairn::meta {

std::size_t entry_bytes(const KvWrite& write) {
  return write.key.size() + (write.value ? write.value->size() : 0) + 8;
}

std::string applied_key() {
  return std::string(1, static_cast<char>(KeyPrefix::kApplied));
}

std::string AppliedRecord::encode() const {
  std::string out;
  ByteWriter w(out);
  w.u8(1);
  w.u16(position.era.value());
  w.u64(position.term);
  w.u64(position.index);
  w.u64(checksum);
  return out;
}

Result<AppliedRecord> last_applied(const KvStore& kv) {
  TRY(auto stored, kv.get(applied_key()));
  if (!stored) return AppliedRecord{};
  return AppliedRecord::decode(*stored);
}

Result<AppliedRecord> AppliedRecord::decode(std::string_view bytes) {
  ByteReader r(bytes);
  const auto version = r.u8();
  AppliedRecord record;
  record.position.era = Era(r.u16());
  record.position.term = r.u64();
  record.position.index = r.u64();
  record.checksum = r.u64();
  if (version != 1 || !r.done()) return fail(Code::kCorrupt, "journal position does not decode");
  return record;
}

namespace {

class LocalJournal final : public Journal {
 public:
  LocalJournal(KvStore& kv, AppliedRecord last) : kv_(kv), last_(last) {}

  Result<JournalPosition> append(KvBatch batch) override {
    AppliedRecord next = last_;
    ++next.position.index;
    next.checksum = checksum_of(next, batch);
    batch.push_back({applied_key(), next.encode()});
    TRYV(kv_.write(batch));
    std::lock_guard lock(mutex_);
    last_ = next;
    return next.position;
  }

  Result<JournalPosition> sync() override {
    const JournalPosition reached = accepted();
    TRYV(kv_.sync());
    return reached;
  }

  JournalPosition accepted() const override {
    std::lock_guard lock(mutex_);
    return last_.position;
  }

 private:
  // Over position, the checksum before (still in `next`), and the writes in order.
  std::uint64_t checksum_of(const AppliedRecord& next, const KvBatch& batch) {
    scratch_ = next.encode();
    ByteWriter w(scratch_);
    for (const KvWrite& write : batch) {
      w.text(write.key);
      w.u8(write.value ? 1 : 0);
      if (write.value) w.text(*write.value);
    }
    return checksum64(as_bytes(scratch_));
  }

  KvStore& kv_;
  mutable std::mutex mutex_;
  AppliedRecord last_;   // written by the executor under mutex_
  std::string scratch_;  // executor only
};

}  // namespace

Result<std::unique_ptr<Journal>> open_local_journal(KvStore& kv, Era era) {
  TRY(AppliedRecord last, last_applied(kv));
  if (era < last.position.era) return fail(Code::kCorrupt, "era is below that of the last journal entry");
  last.position.era = era;
  return std::make_unique<LocalJournal>(kv, last);
}

}  // namespace cairn::meta
