//! `when:`: days, hours, dates and zone.
//! It refuses windows without a zone, and windows that are always or never open.

use alloc::format;
use alloc::vec::Vec;

use super::super::condition::when::{DAY, When, Zone, date, time_of_day};
use super::super::node::Node;
use super::super::problem::suggestion;
use super::{Keys, Lexicon, Reader};

pub(super) fn when(reader: &mut Reader<'_>, node: &Node, lexicon: &Lexicon<'_>) -> Option<When> {
    let mut when =
        When { days: 0x7f, from: 0, to: DAY, dates: Vec::new(), zone: Zone::default(), outside: false };
    let mut zoned = false;
    let fields = reader.map(node, &KEYS);
    for (key, line, value) in &fields {
        match *key {
            "days" => when.days = days(reader, value)?,
            "from" => when.from = time(reader, value, "from")?,
            "to" => when.to = time(reader, value, "to")?,
            "dates" => when.dates = dates(reader, value)?,
            "outside" => when.outside = reader.boolean(value, "outside")?,
            "tz" => {
                when.zone = zone(reader, value, lexicon)?;
                zoned = true;
            }
            other => reader.problem(*line, format!("`{other}` in when is read by nothing")),
        }
    }
    if !fields.iter().any(|(key, ..)| matches!(*key, "days" | "from" | "to" | "dates")) {
        reader.problem(node.line, "when without days, from, to or dates is always true");
        return None;
    }
    if !zoned {
        reader.problem(node.line, "when needs tz, such as \"UTC\", \"+01:00\" or \"Europe/Berlin\"");
        return None;
    }
    if when.from == when.to || (when.from == DAY) || (when.to == 0 && when.from == 0) {
        reader.problem(node.line, "from and to are the same time, so the window never opens");
        return None;
    }
    Some(when)
}

/// `mon-fri`, `[sat, sun]`, `fri-mon`.
fn days(reader: &mut Reader<'_>, node: &Node) -> Option<u8> {
    let mut set = 0;
    let mut sound = true;
    for (line, text) in reader.texts(node, "days") {
        for span in text.split(',').map(str::trim) {
            let (from, to) = span.split_once('-').unwrap_or((span, span));
            let place = |name: &str| DAYS.iter().position(|day| *day == name.trim().to_ascii_lowercase());
            let (Some(from), Some(to)) = (place(from), place(to)) else {
                let nearest = suggestion(span, DAYS);
                reader.problem(line, format!("{span:?} is no day or range of days such as mon-fri{nearest}"));
                sound = false;
                continue;
            };
            let length = (to + 7 - from) % 7;
            set |= (0..=length).fold(0, |set, step| set | 1 << ((from + step) % 7));
        }
    }
    (sound && set != 0).then_some(set)
}

fn time(reader: &mut Reader<'_>, node: &Node, what: &str) -> Option<u32> {
    let text = reader.text(node, what)?;
    let time = time_of_day(text);
    if time.is_none() {
        reader
            .problem(node.line, format!("{what}: {text:?} is no time: write \"HH:MM\" from 00:00 to 24:00"));
    }
    time
}

/// `2026-12-24` or `2026-12-24..2027-01-01`.
fn dates(reader: &mut Reader<'_>, node: &Node) -> Option<Vec<(i64, i64)>> {
    let mut spans = Vec::new();
    let mut sound = true;
    for (line, text) in reader.texts(node, "dates") {
        let (from, to) = text.split_once("..").unwrap_or((text, text));
        match (date(from), date(to)) {
            (Some(from), Some(to)) if from <= to => spans.push((from, to)),
            (Some(_), Some(_)) => {
                reader.problem(line, format!("dates: {text:?} ends before it begins"));
                sound = false;
            }
            (None, _) | (_, None) => {
                reader.problem(
                    line,
                    format!("dates: {text:?} is neither YYYY-MM-DD nor YYYY-MM-DD..YYYY-MM-DD"),
                );
                sound = false;
            }
        }
    }
    (sound && !spans.is_empty()).then_some(spans)
}

fn zone(reader: &mut Reader<'_>, node: &Node, lexicon: &Lexicon<'_>) -> Option<Zone> {
    let text = reader.text(node, "tz")?;
    let zone = Zone::fixed(text).or_else(|| lexicon.surroundings.zones.get(text).cloned());
    if zone.is_none() {
        reader.problem(
            node.line,
            format!("this host knows no time zone {text:?}: write an IANA name such as \"Europe/Berlin\", \"UTC\" or \"+01:00\""),
        );
    }
    zone
}

const KEYS: Keys =
    Keys { of: "when", known: &["days", "from", "to", "tz", "dates", "outside"], unbuilt: &[] };

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
