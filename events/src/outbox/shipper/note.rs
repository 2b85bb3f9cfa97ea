//! The lane's note: how far it has been shipped, kept beside the segments.
//!
//! The cursor in the stream is the truth, but it can go: it expires when its
//! outbox is away for longer than the streams keep anything, and the events
//! that it covered with it. The note then says what need not be sent again. It
//! is written after each acknowledged batch, so it is never ahead of the
//! stream, and a killed process is behind by one batch at most; what it misses
//! is looked up in the stream.
//!
//! It is begun before the first batch goes out, and that is forced to the disk:
//! a lane without a note has sent nothing. Afterwards it is not. A note that
//! cannot be written holds nothing up: a full disk gets room by shipping only.

use std::{
    error::Error,
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt,
    path::PathBuf,
};

use crate::{
    outbox::{Store, segments::sync_dir},
    private,
    subject::Lane,
};

/// A note has 83 bytes.
const BYTES_MAX: u64 = 100;

/// How far a lane has been shipped into which stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Noted {
    /// When the stream was created, nanoseconds since 1970: another stream holds other events.
    pub(super) stream_created_ns: i128,
    /// The last position that it acknowledged.
    pub(super) position: u64,
    /// Sequence of the cursor that covered it: a stream that ends before that has lost it again.
    pub(super) sequence: u64,
}

impl Noted {
    /// Nothing has been acknowledged.
    const fn nothing(stream_created_ns: i128) -> Self {
        Self {
            stream_created_ns,
            position: 0,
            sequence: 0,
        }
    }
}

/// The file of a lane's note.
#[derive(Debug)]
pub(super) struct Note {
    path: PathBuf,
    file: Option<File>,
}

impl Note {
    pub(super) fn of(store: &Store, lane: Lane) -> Self {
        Self {
            path: store.dir().join(format!("shipped-{lane}")),
            file: None,
        }
    }

    /// What it says; `None` when the lane has never sent anything.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(super) fn read(&self) -> io::Result<Option<Noted>> {
        let mut text = String::new();
        match File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?.take(BYTES_MAX).read_to_string(&mut text)?,
        };
        // One that was torn by a power loss says nothing but that something was sent.
        Ok(Some(parse(&text).unwrap_or(Noted::nothing(0))))
    }

    /// Begins it, before the lane sends anything.
    pub(super) fn begin(&mut self, stream_created_ns: i128) {
        if self.file.is_some() {
            return;
        }
        let begun = self.read().and_then(|noted| match noted {
            Some(_) => self.open(),
            None => self.create(stream_created_ns),
        });
        self.tell(begun);
    }

    /// Notes what was acknowledged.
    pub(super) fn write(&mut self, noted: Noted) {
        self.begin(noted.stream_created_ns);
        let written = match &self.file {
            Some(file) => file.write_all_at(render(noted).as_bytes(), 0),
            None => Ok(()),
        };
        self.tell(written);
    }

    fn open(&mut self) -> io::Result<()> {
        self.file = Some(File::options().write(true).open(&self.path)?);
        Ok(())
    }

    fn create(&mut self, stream_created_ns: i128) -> io::Result<()> {
        let file = private::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&self.path)?;
        let nothing = Noted::nothing(stream_created_ns);
        file.write_all_at(render(nothing).as_bytes(), 0)?;
        file.sync_all()?;
        self.path.parent().map_or(Ok(()), sync_dir)?;
        self.file = Some(file);
        Ok(())
    }

    fn tell(&self, done: io::Result<()>) {
        if let Err(error) = done {
            let path = self.path.display();
            tracing::debug!(%path, error = &error as &dyn Error, "a shipped position was not noted");
        }
    }
}

/// Of one length, so that a new note covers the old one with one write.
fn render(noted: Noted) -> String {
    let Noted {
        stream_created_ns,
        position,
        sequence,
    } = noted;
    format!("{stream_created_ns:>40} {position:>20} {sequence:>20}\n")
}

fn parse(text: &str) -> Option<Noted> {
    let mut words = text.strip_suffix('\n')?.split_whitespace();
    let noted = Noted {
        stream_created_ns: words.next()?.parse().ok()?,
        position: words.next()?.parse().ok()?,
        sequence: words.next()?.parse().ok()?,
    };
    words.next().is_none().then_some(noted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_says_what_was_written_last_and_a_torn_one_that_something_was_sent() {
        let dir = tempfile::tempdir().unwrap();
        let note = || Note {
            path: dir.path().join("shipped-audit"),
            file: None,
        };
        assert_eq!(note().read().unwrap(), None, "nothing was sent");
        note().begin(7);
        let noted = |stream_created_ns, position| Noted {
            stream_created_ns,
            position,
            sequence: position,
        };
        assert_eq!(note().read().unwrap(), Some(noted(7, 0)));
        let mut writer = note();
        for position in [1, 20, u64::MAX] {
            writer.write(noted(i128::MAX, position));
            writer.begin(7);
            assert_eq!(note().read().unwrap(), Some(noted(i128::MAX, position)));
        }
        note().begin(8);
        writer.write(noted(9, 3));
        assert_eq!(note().read().unwrap(), Some(noted(9, 3)));
        std::fs::write(note().path, " 9").unwrap();
        assert_eq!(note().read().unwrap(), Some(noted(0, 0)));
    }
}
