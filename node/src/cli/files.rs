//! Whether files can be written that a node needs, without changing them.

use std::path::Path;

/// Why the file at `path` could not be written, if so: one that exists is opened, for one that does
/// not exist another is made in its place and taken away again. `setting` names it.
pub(super) fn unwritable(setting: &str, path: &Path) -> Option<String> {
    let error = probe(path).err()?;
    Some(format!("{setting}: {} cannot be written: {error}", path.display()))
}

fn probe(path: &Path) -> std::io::Result<()> {
    match std::fs::File::options().read(true).write(true).open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        opened => return opened.map(drop),
    }
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    tempfile::Builder::new().prefix(".fragcast-check").tempfile_in(dir).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_written_is_named_and_nothing_is_left_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("chain.redb");
        assert_eq!(unwritable("execution.db", &path), None);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        std::fs::write(&path, "kept").unwrap();
        assert_eq!(unwritable("execution.db", &path), None);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "kept");
        let nowhere = dir.path().join("no/such/directory");
        let told = unwritable("execution.db", &nowhere).unwrap();
        assert!(told.starts_with("execution.db: ") && told.contains("no/such"), "{told}");
        assert!(unwritable("leader.journal", dir.path()).is_some(), "a directory");
    }
}
