//! A process that dies while it writes: what the next one finds.

use std::{
    fs,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use super::{
    driver::{Driver, assert_unshipped},
    model::{Model, Open},
    stored,
};
use crate::{outbox::incarnation::adopt_abandoned, subject::Lane};

/// The segment files of an incarnation, in order.
pub(super) fn segment_files(home: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(home)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "segment"))
        .collect();
    files.sort();
    files
}

/// A copy of an incarnation that nobody holds, made to be torn.
pub(super) struct Wreck {
    dir: TempDir,
    home: PathBuf,
    /// The last segment as it was before the crash, and all others.
    last: (PathBuf, Vec<u8>),
    others: Vec<(PathBuf, Vec<u8>)>,
}

impl Wreck {
    pub(super) fn of(driver: &Driver) -> Self {
        let dir = TempDir::new().unwrap();
        let home = dir.path().join(driver.outbox.id().to_string());
        fs::create_dir(&home).unwrap();
        let mut files: Vec<(PathBuf, Vec<u8>)> = segment_files(&driver.home())
            .into_iter()
            .map(|path| {
                let copy = home.join(path.file_name().unwrap());
                fs::copy(&path, &copy).unwrap();
                (copy, fs::read(path).unwrap())
            })
            .collect();
        let last = files.pop().unwrap();
        Self {
            dir,
            home,
            last,
            others: files,
        }
    }

    /// Size of the last segment, with what a failed write may have left behind it.
    pub(super) fn last_bytes(&self) -> u64 {
        self.last.1.len() as u64
    }

    /// The crash came when the last segment had this size; `model` is what was appended before it.
    pub(super) fn assert_recovers(&self, cut: u64, model: &Model) {
        let (last, bytes) = &self.last;
        let kept = usize::try_from(cut).unwrap();
        fs::write(last, &bytes[..kept]).unwrap();
        let expected = model.crashed(cut);
        // Once more, because who adopts may die as well.
        for _ in 0..2 {
            self.assert_adopted(&expected, cut);
        }
    }

    fn assert_adopted(&self, expected: &Model, cut: u64) {
        let adopted = adopt_abandoned(self.dir.path(), &std::sync::Arc::default()).unwrap();
        let [adopted] = &adopted[..] else {
            panic!("{} incarnations", adopted.len());
        };
        let open: Open = adopted.open_requests().into_iter().collect();
        assert_eq!(open, expected.open, "open requests, cut at {cut}");
        let positions = Lane::ALL.map(|lane| adopted.store().last_position(lane));
        assert_eq!(positions, expected.positions, "positions, cut at {cut}");
        assert_eq!(adopted.bytes(), expected.used(), "size, cut at {cut}");

        let records = expected
            .segments
            .iter()
            .flat_map(|segment| &segment.records);
        let records: Vec<_> = records
            .map(|record| (record.lane, record.position, record.id))
            .collect();
        assert_eq!(stored(&self.home), records, "records, cut at {cut}");
        // The torn tail is cut, and nothing else.
        let (last, before) = &self.last;
        let end = usize::try_from(expected.segments.back().unwrap().bytes()).unwrap();
        assert_eq!(fs::read(last).unwrap(), before[..end], "cut at {cut}");
        for (path, before) in &self.others {
            assert_eq!(&fs::read(path).unwrap(), before, "{}", path.display());
        }
        assert_unshipped(adopted.store(), expected, 7);
    }
}
