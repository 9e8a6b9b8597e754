//! Our own plugins by name, for lists and plugins that use the reference's.

use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

/// Makes links to our executable under the names that it answers to
/// ([`crate::plugin::NAMES`]); the folder goes last in `CNI_PATH`, so that
/// an installed plugin is preferred.
pub fn lay_shims(dir: &Path, executable: &Path) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    for name in crate::plugin::NAMES {
        let link = dir.join(name);
        if std::fs::read_link(&link).is_ok_and(|to| to == executable) {
            continue;
        }
        let temporary = dir.join(".new");
        let _ = std::fs::remove_file(&temporary);
        symlink(executable, &temporary)?;
        std::fs::rename(&temporary, &link)?;
    }
    Ok(())
}
