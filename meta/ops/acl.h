// Access control lists of inodes: rows of extended attributes, kept in step with the mode. The inode's flags
// say whether there are any, so that who has none pays nothing.
#pragma once

#include "meta/ops/env.h"

namespace cairn::meta::ops {

// `value` becomes the list (kAccessAcl or kDefaultAcl) of the inode; an empty list removes it. The access
// list also sets the permission bits of `record`, and is no row when it says no more than they do. The caller
// stores the record. kInvalidArgument; kPermission: a default list of something else than a directory;
// kUnimplemented: of a symbolic link.
Result<> set_acl(Env& env, InodeId inode, InodeRecord& record, const std::string& name,
                 std::string_view value);
// None of that name any more (nor maybe before).
void remove_acl(Env& env, InodeId inode, InodeRecord& record, const std::string& name);
// After record.mode changed.
Result<> mode_to_acl(Env& env, InodeId inode, const InodeRecord& record);
// `record` is being made in `parent`, asked for with `mode` before any umask: it gets what the directory's
// default list says. Call only if the parent's flags say that there is one.
Result<> inherit_acl(Env& env, InodeId parent, InodeId inode, InodeRecord& record, std::uint32_t mode);

}  // namespace cairn::meta::ops
