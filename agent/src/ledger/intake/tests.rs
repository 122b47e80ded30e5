//! Records that come by an intake are in the trail, each once, whatever ends when.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use proptest::prelude::*;
use tempfile::TempDir;
use weir_core::audit::Kind;

use super::super::tests::{config, record};
use super::super::{Ledger, catch_up, config as settings, moved, store::Store};
use super::*;

/// `rows` of the records of the workload, in the order of the trail.
fn trail(dir: &Path) -> Vec<u64> {
    let mut rows = Vec::new();
    Store::read(dir)
        .unwrap()
        .walk::<rusqlite::Error>(0, |row| {
            let raw: serde_json::Value = serde_json::from_str(&row.raw).unwrap();
            if raw["workload"] == "payments" {
                rows.push(raw["rows"].as_u64().unwrap());
            }
            Ok(())
        })
        .unwrap();
    rows
}

fn intake(ledger: &Ledger) -> (Intake, mpsc::Receiver<Want>) {
    let (tell, wants) = mpsc::channel();
    let file = ledger.intake(1).unwrap();
    (
        Intake::new(file, move |want| {
            let _ = tell.send(want);
        })
        .unwrap(),
        wants,
    )
}

fn the_intake(dir: &Path) -> PathBuf {
    moved::intakes(dir).unwrap().pop().unwrap()
}

#[test]
fn records_of_a_writer_reach_the_trail_in_order_and_its_files_go_with_it() {
    let dir = TempDir::new().unwrap();
    let ledger = Ledger::open(&config(dir.path()), "web-1").unwrap();
    let (writer, wants) = intake(&ledger);
    assert_eq!(wants.recv().unwrap(), Want::Spare, "for when this one is full");
    for rows in 1..=500 {
        let durability = if rows % 100 == 0 { Durability::Strict } else { Durability::Fast };
        let kind = if rows % 3 == 0 { Kind::Outcome } else { Kind::Verdict };
        match writer.append(&Record { durability, kind, ..record(rows) }) {
            Appending::Done(_) => assert_eq!(durability, Durability::Fast),
            Appending::Waiting(pending) => drop(pending.wait().unwrap()),
            Appending::Refused(why) => panic!("{why}"),
        }
    }
    drop(writer);
    catch_up(dir.path(), Duration::from_secs(10)).unwrap();
    assert_eq!(trail(dir.path()), (1..=500).collect::<Vec<_>>());
    ledger.close_intakes(1);
    drop(ledger);
    assert!(moved::intakes(dir.path()).unwrap().is_empty(), "all of it is in the journal");
}

#[test]
fn a_writer_can_only_append() {
    let dir = TempDir::new().unwrap();
    let ledger = Ledger::open(&config(dir.path()), "web-1").unwrap();
    let file = ledger.intake(1).unwrap();
    assert!(file.read_at(&mut [0], 0).is_err(), "not even read it");
    let before = std::fs::read(the_intake(dir.path())).unwrap();
    (&file).write_all(&[7]).unwrap();
    // pwrite(2) on a descriptor that appends, appends.
    file.write_at(&[8], 0).unwrap();
    let after = std::fs::read(the_intake(dir.path())).unwrap();
    assert_eq!(after, [&before[..], &[7, 8]].concat());
}

#[test]
fn a_record_that_was_being_moved_when_the_agent_died_is_taken_once() {
    let dir = TempDir::new().unwrap();
    let ledger = Ledger::open(&config(dir.path()), "web-1").unwrap();
    let (writer, _wants) = intake(&ledger);
    for rows in 1..=50 {
        assert!(matches!(writer.append(&record(rows)), Appending::Done(_)));
    }
    catch_up(dir.path(), Duration::from_secs(10)).unwrap();
    let path = the_intake(dir.path());
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!(moved::drained(&path).unwrap(), bytes.len() as u64);
    drop((writer, ledger));
    // As if it had died before it wrote down what it had moved, and before ten more.
    let mut more = bytes.clone();
    for rows in 51..=60 {
        let mut raw = Vec::new();
        chain::encode(&record(rows), &mut raw).unwrap();
        frame(&mut more, &raw, false);
    }
    std::fs::write(&path, &more).unwrap();
    moved::set_drained(&path, front_of(&bytes)).unwrap();
    let _ledger = Ledger::open(&config(dir.path()), "web-1").unwrap();
    assert_eq!(trail(dir.path()), (1..=60).collect::<Vec<_>>());
    assert!(moved::intakes(dir.path()).unwrap().is_empty());
}

/// Where the first record begins.
fn front_of(bytes: &[u8]) -> u64 {
    super::super::journal::Header::parse(bytes).unwrap().1 as u64
}

#[test]
fn what_is_torn_is_set_aside_and_named() {
    let dir = TempDir::new().unwrap();
    let ledger = Ledger::open(&config(dir.path()), "web-1").unwrap();
    let (writer, _wants) = intake(&ledger);
    assert!(matches!(writer.append(&record(1)), Appending::Done(_)));
    drop(writer);
    let path = the_intake(dir.path());
    let file = File::options().append(true).open(&path).unwrap();
    (&file).write_all(&[0, 0, 0, 9, 0, 1, 2, 3, 4, b'h', b'a', b'l', b'f']).unwrap();
    ledger.close_intakes(1);
    drop(ledger);
    assert_eq!(trail(dir.path()), [1]);
    let losses: u64 = Store::read(dir.path())
        .unwrap()
        .connection()
        .query_row("SELECT count(*) FROM audit WHERE reason LIKE '13 bytes of an intake%'", [], |row| {
            row.get(0)
        })
        .unwrap();
    assert_eq!(losses, 1);
    let aside = std::fs::read_dir(dir.path()).unwrap().flatten();
    assert_eq!(aside.filter(|entry| entry.file_name().to_string_lossy().contains(".torn-")).count(), 1);
}

#[test]
fn what_is_no_record_of_the_writers_is_not_taken_and_the_writer_is_told_of() {
    for forged in [
        &[0xff, 0xff][..],
        b"{}x",
        b"{\"ts\":1,\"kind\":\"verdict\",\"uid\":0,\"decision\":\"allowed\",\"durability\":\"fast\",\"no_field\":1}",
        b"{\"ts\":1,\"kind\":\"admin\",\"uid\":0,\"method\":\"detach\",\"decision\":\"allowed\",\"durability\":\"fast\"}",
    ] {
        let dir = TempDir::new().unwrap();
        let ledger = Ledger::open(&config(dir.path()), "web-1").unwrap();
        let mut forgers = ledger.forgers().unwrap();
        let file = ledger.intake(7).unwrap();
        let mut frames = Vec::new();
        let mut raw = Vec::new();
        for (rows, forged) in [(1, None), (2, Some(forged)), (3, None)] {
            chain::encode(&record(rows), &mut raw).unwrap();
            frame(&mut frames, forged.unwrap_or(&raw), false);
        }
        (&file).write_all(&frames).unwrap();
        ledger.look();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(forgers.changed()).unwrap();
        assert_eq!(*forgers.borrow(), 7);
        ledger.close_intakes(7);
        drop((ledger, file));
        // What was written before is kept, nothing after it is believed; the next agent starts.
        assert_eq!(trail(dir.path()), [1], "{}", String::from_utf8_lossy(forged));
        Ledger::open(&config(dir.path()), "web-1").unwrap();
        assert_eq!(trail(dir.path()), [1]);
        let aside = std::fs::read_dir(dir.path()).unwrap().flatten();
        assert_eq!(aside.filter(|entry| entry.file_name().to_string_lossy().contains(".torn-")).count(), 1);
    }
}

#[test]
fn a_keeper_that_cannot_go_on_stops_its_writer() {
    let dir = TempDir::new().unwrap();
    let small = settings::Audit { max_bytes: 400_000, ..config(dir.path()) };
    let ledger = Ledger::open(&small, "web-1").unwrap();
    let (writer, _wants) = intake(&ledger);
    let mut faults = ledger.faults().unwrap();
    let long = Record { statement: "x".repeat(2_000), ..record(1) };
    let mut refused = None;
    for _ in 0..100_000 {
        if faults.has_changed().unwrap() {
            writer.fault(faults.borrow_and_update().clone());
        }
        if let Appending::Refused(why) = writer.append(&long) {
            refused = Some(why);
            break;
        }
        std::thread::yield_now();
    }
    assert!(refused.unwrap().starts_with("audit_full: the ledger takes"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    /// Whatever part of the frames reached the file, those that are whole are read, and nothing else is.
    #[test]
    fn any_prefix_holds_its_whole_frames(
        raws in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..12),
        end in any::<prop::sample::Index>(),
    ) {
        let mut bytes = Vec::new();
        let ends: Vec<usize> = raws.iter().map(|raw| { frame(&mut bytes, raw, false); bytes.len() }).collect();
        let end = end.index(bytes.len() + 1);
        let whole = whole_frames(&bytes, end);
        prop_assert_eq!(whole, ends.iter().copied().filter(|one| *one <= end).max().unwrap_or(0));
        let (mut rest, mut read) = (&bytes[..end], 0);
        while let Front::Frame { raw, .. } = front(rest) {
            prop_assert_eq!(raw, &raws[read][..]);
            rest = &rest[FRAME_HEAD + raw.len()..];
            read += 1;
        }
        prop_assert_eq!(front(rest), Front::Short);
        prop_assert_eq!(read, ends.iter().filter(|one| **one <= end).count());
    }

    #[test]
    fn a_flipped_bit_is_no_record(raw in prop::collection::vec(any::<u8>(), 1..300), at in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let mut bytes = Vec::new();
        frame(&mut bytes, &raw, true);
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        // Only the flag has no sum of its own; any value but 0 and 1 is damage, and strict is no less than fast.
        if at != 4 {
            let is_frame = matches!(front(&bytes), Front::Frame { .. });
            prop_assert!(!is_frame);
        }
    }
}
