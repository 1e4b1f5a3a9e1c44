// When reading changes a file's time of access: the rules of relatime, as every Linux mount has them by
// default.
//
// It changes only if it is not later than the last change of the file, or a day old, so most reads cost
// nothing. The new time is kept here and goes to the metadata server with the next report about the file (at
// the latest a second after its last close): no request is made for it, a crash of the host forgets it, and
// other hosts may see the old one for as long as they hold the file's attributes. What somebody sets with
// utimensat is never overtaken by it.
#pragma once

#include "client/file_context.h"

namespace cairn::client {

// The file was read now. True if the time changed. Under inode.mutex.
bool note_access(const FileContext& context, Inode& inode);

}  // namespace cairn::client
