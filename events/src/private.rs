//! Files and folders for their owner alone: whatever holds what was said, or leads to it.
//!
//! Only what is made gets the mode. A folder that was there before keeps its own: whoever made it
//! may have meant it.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};

/// Mode of a folder.
pub const DIR_MODE: u32 = 0o700;

/// Mode of a file.
pub const FILE_MODE: u32 = 0o600;

/// Makes a folder; one that is there is an error.
///
/// # Errors
/// As the file system says.
pub fn create_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(DIR_MODE).create(path)
}

/// Makes a folder and those above it, where they are missing.
///
/// # Errors
/// As the file system says.
pub fn create_dir_all(path: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(DIR_MODE).create(path)
}

/// Options that give a file that is made the mode.
pub fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(FILE_MODE);
    options
}

/// Opens a file for writing, empty, as [`File::create`] does.
///
/// # Errors
/// As the file system says.
pub fn create(path: &Path) -> io::Result<File> {
    options().write(true).create(true).truncate(true).open(path)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn what_is_made_is_for_its_owner_alone_and_what_was_there_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (outer, inner) = (dir.path().join("outer"), dir.path().join("outer/inner"));
        create_dir_all(&inner).unwrap();
        create(&inner.join("file")).unwrap();
        assert_eq!([mode(&outer), mode(&inner)], [DIR_MODE; 2]);
        assert_eq!(mode(&inner.join("file")), FILE_MODE);
        fs::set_permissions(&outer, fs::Permissions::from_mode(0o750)).unwrap();
        create_dir_all(&inner).unwrap();
        assert_eq!(mode(&outer), 0o750);
        assert!(create_dir(&inner).is_err());
    }
}
