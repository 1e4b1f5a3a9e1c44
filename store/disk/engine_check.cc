// Whether index and extents agree exactly: used by tests after every crash, and by fsck.
#include <fmt/format.h>

#include <set>

#include "store/disk/engine.h"

namespace cairn::disk {
namespace {

Result<std::set<std::string>> keys_of(Index& index, Table table) {
  std::set<std::string> keys;
  std::string end = table_end(table);
  rocksdb::Slice upper = slice(end);
  auto rows = index.iterate(&upper, false);
  for (rows->Seek(slice(named_key(table, ""))); rows->Valid(); rows->Next())
    keys.insert(rows->key().ToString());
  TRYV(Index::check(*rows));
  return keys;
}

std::unexpected<Error> disagree(const Chunk& chunk, std::string_view what) {
  return fail(Code::kInternal, fmt::format("chunk {}: {}", to_string(chunk.key.chunk()), what));
}

}  // namespace

Result<> Engine::check_consistency() {
  TRYV(maintain());
  TRY(auto inline_rows, keys_of(*index_, Table::kInline));
  TRY(auto sum_rows, keys_of(*index_, Table::kChecksums));
  TRY(auto redo_rows, keys_of(*index_, Table::kRedo));
  std::uint64_t used = 0;
  std::int64_t present = 0;
  std::string end = table_end(Table::kRecord);
  rocksdb::Slice upper = slice(end);
  auto rows = index_->iterate(&upper, false);
  for (rows->Seek(slice(named_key(Table::kRecord, ""))); rows->Valid(); rows->Next()) {
    Chunk chunk;
    parse_chunk_key(view(rows->key()), chunk.key);
    TRYV(decode_record(view(rows->value()), chunk));
    TRYV(load_sums(chunk, 0, chunk.now.blocks()));
    if (chunk.now.digest != chunk_digest(chunk.now.length, chunk.sums))
      return disagree(chunk, "wrong digest");
    if (!is_settled(chunk.now)) return disagree(chunk, "not settled after a sync");
    const Content& content = chunk.now.content;
    if (content.place == Place::kInline &&
        inline_rows.erase(std::string(IndexKey(Table::kInline, chunk.key).content(content.id).view())) != 1)
      return disagree(chunk, "its inline bytes are missing");
    if (chunk.now.blocks() > kSumsInRecord)
      for (std::uint32_t row = 0; row * kSumsPerRow < chunk.now.blocks(); ++row)
        sum_rows.erase(std::string(IndexKey(Table::kChecksums, chunk.key)
                                       .content(content.id)
                                       .row(static_cast<std::uint16_t>(row))
                                       .view()));
    if (content.place == Place::kExtent) {
      used += content.extent.bytes();
      if (content.extent.size_class != class_for(chunk.now.length))
        return disagree(chunk, "extent of another class");
      if (extents_->is_free(content.extent)) return disagree(chunk, "its extent is free");
    }
    if (chunk.present()) ++present;
  }
  TRYV(Index::check(*rows));
  for (const auto* left : {&inline_rows, &sum_rows, &redo_rows})
    if (!left->empty())
      return fail(Code::kInternal, fmt::format("{} rows of table '{}' belong to no chunk", left->size(),
                                               left->begin()->front()));
  if (used != extents_->used_bytes())
    return fail(Code::kInternal, fmt::format("chunks use {} bytes of extents, {} are allocated", used,
                                             extents_->used_bytes()));
  if (present != chunks_)
    return fail(Code::kInternal, fmt::format("{} chunks, counted {}", present, chunks_.load()));
  return {};
}

}  // namespace cairn::disk
