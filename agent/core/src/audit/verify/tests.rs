//! Every single change of a trail is found, and named by its place.

use alloc::string::String;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone, PartialEq)]
struct Kept {
    node: String,
    epoch: u64,
    seq: u64,
    prev: Digest,
    hash: Digest,
    raw: Vec<u8>,
}

impl Kept {
    fn entry(&self) -> Entry<'_> {
        let Kept { node, epoch, seq, prev, hash, raw } = self;
        Entry { node, epoch: *epoch, seq: *seq, prev: *prev, hash: *hash, raw }
    }
}

/// Epochs of the given lengths, each with its boot record in front.
fn trail(epochs: &[usize]) -> Vec<Kept> {
    let mut head = Head::GENESIS;
    let mut kept = Vec::new();
    for (index, length) in epochs.iter().enumerate() {
        let epoch = 100 + index as u64;
        for n in 0..=*length {
            let record = match n {
                0 => chain::boot(n as u64, &head),
                n => Record { ts: n as u64, rows: n as u64, ..Record::default() },
            };
            let raw = encoded(&record);
            let (seq, prev) = (head.seq + 1, head.hash);
            let hash = chain::link("web-1", epoch, seq, &prev, &raw);
            head = Head { epoch, seq, hash };
            kept.push(Kept { node: "web-1".into(), epoch, seq, prev, hash, raw });
        }
    }
    kept
}

fn walk(kept: &[Kept], mut checker: Checker) -> Result<Proof, Break> {
    for entry in kept {
        checker.check(&entry.entry())?;
    }
    checker.finish()
}

fn prove(kept: &[Kept]) -> Result<Proof, Break> {
    walk(kept, Checker::after(Head::GENESIS))
}

#[test]
fn a_whole_trail_holds() {
    let proof = prove(&trail(&[3, 0, 5])).unwrap();
    assert_eq!((proof.records, proof.epochs, proof.first_seq), (11, 3, 1));
    assert_eq!(proof.head.unwrap().seq, 11);
}

#[test]
fn the_rest_holds_after_an_anchor() {
    let kept = trail(&[3, 4]);
    let cut = &kept[2];
    let anchor = Head { epoch: cut.epoch, seq: cut.seq, hash: cut.hash };
    assert_eq!(walk(&kept[3..], Checker::after(anchor)).unwrap().records, 6);
    let wrong = Head { hash: [1; 32], ..anchor };
    assert_eq!(walk(&kept[3..], Checker::after(wrong)).unwrap_err().flaw, Flaw::Unlinked);
}

#[test]
fn a_cut_head_shows() {
    let flaw = prove(&trail(&[5])[2..]).unwrap_err();
    assert_eq!((flaw.seq, flaw.flaw), (1, Flaw::Missing { before: 3 }));
}

#[test]
fn a_cut_tail_shows_against_a_checkpoint() {
    let kept = trail(&[5]);
    let last = kept.last().unwrap();
    let point = Head { epoch: last.epoch, seq: last.seq, hash: last.hash };
    let checker = || Checker::after(Head::GENESIS).with_checkpoint(point);
    assert!(walk(&kept, checker()).is_ok());
    let flaw = walk(&kept[..4], checker()).unwrap_err();
    assert_eq!((flaw.seq, flaw.flaw), (6, Flaw::CutTail));
}

#[test]
fn an_epoch_that_names_nothing_shows() {
    let mut kept = trail(&[2, 2]);
    let boot = &mut kept[3];
    boot.raw = encoded(&Record::default());
    boot.hash = chain::link(&boot.node, boot.epoch, boot.seq, &boot.prev, &boot.raw);
    let flaw = prove(&kept).unwrap_err();
    assert_eq!((flaw.epoch, flaw.seq, flaw.flaw), (101, 4, Flaw::Unannounced));
}

#[test]
fn a_loss_that_the_ledger_reports_is_counted() {
    let record = Record {
        kind: Kind::Admin,
        decision: Decision::Failed,
        effects: alloc::vec![LEDGER.into()],
        ..Record::default()
    };
    assert!(reports_loss(&record));
    assert!(!reports_loss(&Record::default()));
}

/// One edit by someone who can write the file but not compute a new chain to its end.
#[derive(Debug, Clone)]
enum Edit {
    Flip(usize, usize, u8),
    FlipHash(usize, usize, u8),
    FlipPrev(usize, usize, u8),
    Delete(usize),
    Twice(usize),
    Swap(usize, usize),
    Splice(usize),
    Relabel(usize),
}

fn edits() -> impl Strategy<Value = Edit> {
    let at = 0..200_usize;
    prop_oneof![
        (at.clone(), at.clone(), 0..8_u8).prop_map(|(a, b, c)| Edit::Flip(a, b, c)),
        (at.clone(), at.clone(), 0..8_u8).prop_map(|(a, b, c)| Edit::FlipHash(a, b, c)),
        (at.clone(), at.clone(), 0..8_u8).prop_map(|(a, b, c)| Edit::FlipPrev(a, b, c)),
        at.clone().prop_map(Edit::Delete),
        at.clone().prop_map(Edit::Twice),
        (at.clone(), at.clone()).prop_map(|(a, b)| Edit::Swap(a, b)),
        at.clone().prop_map(Edit::Splice),
        at.prop_map(Edit::Relabel),
    ]
}

/// Applies the edit; returns the seq that must be named, at the latest.
fn tamper(kept: &mut Vec<Kept>, edit: &Edit) -> Option<u64> {
    let count = kept.len();
    let seq = |at: usize| at as u64 + 1;
    match *edit {
        Edit::Flip(at, byte, bit) => {
            let at = at % count;
            let raw = &mut kept[at].raw;
            let byte = byte % raw.len();
            raw[byte] ^= 1 << bit;
            Some(seq(at))
        }
        Edit::FlipHash(at, byte, bit) => {
            kept[at % count].hash[byte % 32] ^= 1 << bit;
            Some(seq(at % count))
        }
        Edit::FlipPrev(at, byte, bit) => {
            kept[at % count].prev[byte % 32] ^= 1 << bit;
            Some(seq(at % count))
        }
        Edit::Delete(at) => {
            let at = at % count;
            kept.remove(at);
            (at + 1 < count).then(|| seq(at))
        }
        Edit::Twice(at) => {
            let at = at % count;
            let copy = kept[at].clone();
            kept.insert(at, copy);
            Some(seq(at))
        }
        Edit::Swap(a, b) => {
            let (a, b) = (a % count, b % count);
            kept.swap(a, b);
            (a != b).then(|| seq(a.min(b)))
        }
        Edit::Splice(at) => {
            let at = at % count;
            let foreign = kept[at].clone();
            let hash = chain::link("web-2", foreign.epoch, foreign.seq, &foreign.prev, &foreign.raw);
            kept[at] = Kept { node: "web-2".into(), hash, ..foreign };
            (at + 1 < count).then(|| seq(at + 1))
        }
        Edit::Relabel(at) => {
            kept[at % count].epoch += 1;
            Some(seq(at % count))
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn every_edit_is_found_and_named(lengths in prop::collection::vec(0..12_usize, 1..5), edit in edits()) {
        let mut kept = trail(&lengths);
        match tamper(&mut kept, &edit) {
            // Nothing changed, or only the newest record (a cut or forged tail shows against a checkpoint alone).
            None => {}
            Some(seq) => {
                let flaw = prove(&kept).unwrap_err();
                prop_assert_eq!(flaw.seq.min(seq), flaw.seq.max(seq), "{:?}", flaw);
            }
        }
    }
}

fn encoded(record: &Record) -> Vec<u8> {
    let mut raw = Vec::new();
    chain::encode(record, &mut raw).unwrap();
    raw
}
