//! Any damage to a segment is noticed; nothing damaged is read as a record.

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

/// A segment of `raws`; returns its path and the offsets at which a record ends.
fn write(dir: &TempDir, raws: &[Vec<u8>]) -> (PathBuf, Vec<u64>) {
    let header = Header { node: "web-1".into(), epoch: 7, first: 11, prev: [9; 32] };
    let (file, path, mut offset) = create(dir.path(), &header).unwrap();
    let (mut prev, mut bytes, mut ends) = (header.prev, Vec::new(), vec![offset]);
    for (seq, raw) in (11..).zip(raws) {
        let hash = chain::link("web-1", 7, seq, &prev, raw);
        bytes.clear();
        frame(&mut bytes, seq, &hash, raw);
        file.write_all_at(&bytes, offset).unwrap();
        offset += bytes.len() as u64;
        ends.push(offset);
        prev = hash;
    }
    (path, ends)
}

/// What a reader gets, and whether the end was clean.
fn read(path: &Path) -> (Vec<Vec<u8>>, bool) {
    let Some(mut cursor) = Cursor::open(path).unwrap() else { return (Vec::new(), false) };
    let limit = cursor.length().unwrap();
    let mut got = Vec::new();
    loop {
        match cursor.step(limit).unwrap() {
            Step::Entry(entry) => got.push(entry.raw.to_vec()),
            Step::End => return (got, true),
            Step::Torn => return (got, false),
        }
    }
}

fn raws() -> impl Strategy<Value = Vec<Vec<u8>>> {
    prop::collection::vec(prop::collection::vec(any::<u8>(), 0..400), 1..12)
}

/// What a crash can do to the end of a file.
#[derive(Debug, Clone)]
enum Crash {
    Truncated,
    Zeroed,
    Garbage(u8),
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn any_crash_point_leaves_a_prefix(
        raws in raws(),
        at in any::<prop::sample::Index>(),
        crash in prop_oneof![Just(Crash::Truncated), Just(Crash::Zeroed), (1..=255_u8).prop_map(Crash::Garbage)],
    ) {
        let dir = TempDir::new().unwrap();
        let (path, ends) = write(&dir, &raws);
        let mut bytes = std::fs::read(&path).unwrap();
        let at = at.index(bytes.len() + 1);
        match crash {
            Crash::Truncated => bytes.truncate(at),
            Crash::Zeroed => bytes[at..].fill(0),
            Crash::Garbage(mask) => bytes[at..].iter_mut().for_each(|byte| *byte ^= mask),
        }
        std::fs::write(&path, &bytes).unwrap();
        let whole = ends.iter().skip(1).filter(|end| **end <= at as u64).count();
        let (got, clean) = read(&path);
        // Zeroes may happen to be what was there; otherwise exactly the whole records before the crash point remain.
        prop_assert!(got.len() >= whole && raws.starts_with(&got));
        if matches!(crash, Crash::Truncated | Crash::Garbage(_)) {
            prop_assert_eq!(got.len(), whole);
        }
        prop_assert_eq!(clean, bytes.len() as u64 == *ends.get(got.len()).unwrap() && at as u64 >= ends[0]);
    }

    #[test]
    fn a_flipped_bit_ends_the_reading_before_it(raws in raws(), at in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let dir = TempDir::new().unwrap();
        let (path, ends) = write(&dir, &raws);
        let mut bytes = std::fs::read(&path).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        std::fs::write(&path, &bytes).unwrap();
        let (got, clean) = read(&path);
        let before = ends.iter().skip(1).filter(|end| **end <= at as u64).count();
        prop_assert!(!clean);
        prop_assert_eq!(got, &raws[..before]);
    }
}

#[test]
fn records_larger_than_one_read_come_whole() {
    let dir = TempDir::new().unwrap();
    let raws = vec![vec![1; 3], vec![2; RECORD_BYTES], vec![3; 300_000], vec![4; 5]];
    let (path, _) = write(&dir, &raws);
    let (got, clean) = read(&path);
    assert!(clean);
    assert!(got == raws);
}

#[test]
fn segments_come_in_order() {
    let dir = TempDir::new().unwrap();
    for (first, epoch) in [(30, 5), (2, 1), (2, 10), (2, 9)] {
        create(dir.path(), &Header { node: "n".into(), epoch, first, prev: [0; 32] }).unwrap();
    }
    std::fs::write(dir.path().join("audit.sqlite"), b"").unwrap();
    let order: Vec<_> = segments(dir.path()).unwrap().iter().map(|path| super::order(path)).collect();
    assert_eq!(order, [(2, 1), (2, 9), (2, 10), (30, 5)]);
}
