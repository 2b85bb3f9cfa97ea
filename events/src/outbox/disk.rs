//! Writing to a segment and cutting it: where a full or broken disk shows itself.
//!
//! The tests fill the disk here: half a record is written, and the rest is refused.

use std::{fs::File, io, os::unix::fs::FileExt};

/// Writes all the bytes at a place of the file; after an error some of them may be there.
pub(super) fn write_all_at(file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
    #[cfg(test)]
    faults::write(file, bytes, at)?;
    file.write_all_at(bytes, at)
}

/// Cuts the file at a place.
pub(super) fn cut(file: &File, at: u64) -> io::Result<()> {
    #[cfg(test)]
    faults::cut()?;
    file.set_len(at)
}

/// What is wrong with the disk of the thread that runs a test.
#[cfg(test)]
pub(super) mod faults {
    use std::{cell::Cell, fs::File, io, os::unix::fs::FileExt};

    /// A disk that fails.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Faults {
        /// So many bytes more are written, and not one beyond.
        pub(crate) room: usize,
        /// Whether files cannot be cut either.
        pub(crate) cuts_fail: bool,
    }

    thread_local! {
        static FAULTS: Cell<Option<Faults>> = const { Cell::new(None) };
    }

    /// Sets what is wrong from now on, or that nothing is.
    pub(crate) fn set(faults: Option<Faults>) {
        FAULTS.set(faults);
    }

    pub(super) fn write(file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
        let Some(faults) = FAULTS.get() else {
            return Ok(());
        };
        if let Some(room) = faults.room.checked_sub(bytes.len()) {
            FAULTS.set(Some(Faults { room, ..faults }));
            return Ok(());
        }
        FAULTS.set(Some(Faults { room: 0, ..faults }));
        file.write_all_at(&bytes[..faults.room], at)?;
        Err(io::ErrorKind::StorageFull.into())
    }

    pub(super) fn cut() -> io::Result<()> {
        match FAULTS.get() {
            Some(faults) if faults.cuts_fail => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    }
}
