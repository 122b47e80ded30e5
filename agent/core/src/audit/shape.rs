//! Whether some bytes are a record, told without making one: for whoever takes records from a process that it does not
//! trust. It refuses what [`Record`](super::Record) would, and fields in another order than they are encoded in.

use core::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::{Decision, Durability, Kind, verify};

/// What can be told of a record at a glance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    pub kind: Kind,
    /// It is the ledger's report on itself.
    pub is_loss: bool,
}

impl Shape {
    /// `None` for what is no encoded record.
    #[must_use]
    pub fn of(raw: &[u8]) -> Option<Shape> {
        serde_json::from_slice(raw).ok()
    }
}

/// What a field holds.
#[derive(Clone, Copy)]
enum Holds {
    Number,
    Text,
    Texts,
    Effects,
    Counts,
    Kind,
    Decision,
    Durability,
}

/// A field by its place among those of a record.
fn field(name: &str) -> Option<(u8, Holds)> {
    use Holds as H;
    Some(match name {
        "ts" => (0, H::Number),
        "kind" => (1, H::Kind),
        "session_id" => (2, H::Text),
        "request_id" => (3, H::Text),
        "workload" => (4, H::Text),
        "owner" => (5, H::Text),
        "user" => (6, H::Text),
        "groups" => (7, H::Texts),
        "identity_class" => (8, H::Text),
        "pid" => (9, H::Number),
        "start_time" => (10, H::Number),
        "exe" => (11, H::Text),
        "exe_sha256" => (12, H::Text),
        "uid" => (13, H::Number),
        "cgroup" => (14, H::Text),
        "container" => (15, H::Text),
        "dst_ip" => (16, H::Text),
        "dst_port" => (17, H::Number),
        "host" => (18, H::Text),
        "protocol" => (19, H::Text),
        "target" => (20, H::Text),
        "effects" => (21, H::Effects),
        "relations" => (22, H::Texts),
        "columns" => (23, H::Texts),
        "statement" => (24, H::Text),
        "method" => (25, H::Text),
        "path" => (26, H::Text),
        "status" => (27, H::Text),
        "model" => (28, H::Text),
        "tokens_in" => (29, H::Number),
        "tokens_out" => (30, H::Number),
        "decision" => (31, H::Decision),
        "rule" => (32, H::Text),
        "reason" => (33, H::Text),
        "policy_commit" => (34, H::Text),
        "policy_sha" => (35, H::Text),
        "masked" => (36, H::Counts),
        "rows" => (37, H::Number),
        "bytes_up" => (38, H::Number),
        "bytes_down" => (39, H::Number),
        "upstream_bytes" => (40, H::Number),
        "weir_bytes" => (41, H::Number),
        "duration_us" => (42, H::Number),
        "overhead_us" => (43, H::Number),
        "approval_id" => (44, H::Text),
        "approver" => (45, H::Text),
        "ticket" => (46, H::Text),
        "durability" => (47, H::Durability),
        _ => return None,
    })
}

struct Name(u8, Holds);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        struct Look;
        impl Visitor<'_> for Look {
            type Value = Name;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a field of a record")
            }
            fn visit_str<E: Error>(self, name: &str) -> Result<Name, E> {
                field(name).map(|(place, holds)| Name(place, holds)).ok_or_else(|| E::custom("no such field"))
            }
        }
        source.deserialize_str(Look)
    }
}

/// A text, of which only whether it is the ledger's word counts.
struct Text(bool);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        struct Look;
        impl Visitor<'_> for Look {
            type Value = Text;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Text, E> {
                Ok(Text(text == verify::LEDGER))
            }
        }
        source.deserialize_str(Look)
    }
}

/// A list of texts; whether it is the ledger's word alone.
struct Texts(bool);

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        struct Look;
        impl<'de> Visitor<'de> for Look {
            type Value = Texts;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of texts")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Texts, A::Error> {
                let (mut count, mut ledger) = (0_u32, false);
                while let Some(Text(is_ledger)) = list.next_element()? {
                    count += 1;
                    ledger = is_ledger;
                }
                Ok(Texts(count == 1 && ledger))
            }
        }
        source.deserialize_seq(Look)
    }
}

struct Counts;

impl<'de> Deserialize<'de> for Counts {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        struct Look;
        impl<'de> Visitor<'de> for Look {
            type Value = Counts;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("counts by name")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Counts, A::Error> {
                while map.next_entry::<Text, u64>()?.is_some() {}
                Ok(Counts)
            }
        }
        source.deserialize_map(Look)
    }
}

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        struct Look;
        impl<'de> Visitor<'de> for Look {
            type Value = Shape;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a record")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Shape, A::Error> {
                let mut shape = Shape { kind: Kind::default(), is_loss: false };
                let mut next = 0;
                while let Some(Name(place, holds)) = map.next_key()? {
                    if place < next {
                        return Err(A::Error::custom("a field out of its place"));
                    }
                    next = place + 1;
                    match holds {
                        Holds::Number => skip::<u64, A>(&mut map)?,
                        Holds::Text => skip::<Text, A>(&mut map)?,
                        Holds::Texts => skip::<Texts, A>(&mut map)?,
                        Holds::Effects => shape.is_loss = map.next_value::<Texts>()?.0,
                        Holds::Counts => skip::<Counts, A>(&mut map)?,
                        Holds::Kind => shape.kind = map.next_value()?,
                        Holds::Decision => skip::<Decision, A>(&mut map)?,
                        Holds::Durability => skip::<Durability, A>(&mut map)?,
                    }
                }
                Ok(shape)
            }
        }
        source.deserialize_map(Look)
    }
}

fn skip<'de, T: Deserialize<'de>, A: MapAccess<'de>>(map: &mut A) -> Result<(), A::Error> {
    map.next_value::<T>().map(|_| ())
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use proptest::prelude::*;

    use super::super::{Record, chain};
    use super::*;

    fn sample() -> Vec<u8> {
        let mut record = Record {
            ts: 7,
            kind: Kind::Outcome,
            workload: "a\"\\b".into(),
            effects: alloc::vec![verify::LEDGER.into()],
            statement: "SELECT \u{1F600} é".into(),
            decision: Decision::Masked,
            rows: u64::MAX,
            durability: Durability::Strict,
            ..Record::default()
        };
        record.masked.insert("ssn".into(), 3);
        let mut raw = Vec::new();
        chain::encode(&record, &mut raw).unwrap();
        raw
    }

    #[test]
    fn kind_and_losses_are_told() {
        assert_eq!(Shape::of(&sample()), Some(Shape { kind: Kind::Outcome, is_loss: true }));
        assert_eq!(Shape::of(b"{}").map(|shape| shape.is_loss), Some(false));
        for wrong in
            ["", "[]", "{\"ts\":\"1\"}", "{\"x\":1}", "{\"rows\":1,\"ts\":1}", "{\"ts\":1,\"ts\":1}", "{}x"]
        {
            assert_eq!(Shape::of(wrong.as_bytes()), None, "{wrong}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]
        /// Whatever passes is a record.
        #[test]
        fn what_passes_can_be_read(at in any::<prop::sample::Index>(), byte in any::<u8>(), how in 0..3_u8) {
            let mut raw = sample();
            let at = at.index(raw.len());
            match how {
                0 => raw[at] = byte,
                1 => {
                    raw.remove(at);
                }
                _ => raw.insert(at, byte),
            }
            if Shape::of(&raw).is_some() {
                prop_assert!(serde_json::from_slice::<Record>(&raw).is_ok());
            }
        }
    }
}
