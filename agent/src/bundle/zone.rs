//! Named time zones → tables of offsets for the core, which knows no database.
//! It refuses to guess: a name that neither the host nor the built-in copy knows is left out, and loading says so.

use std::collections::BTreeMap;

use jiff::tz::TimeZone;
use jiff::{Timestamp, civil};
use weir_core::policy::Zone;

/// The tables of those names that are known.
pub(super) fn tables(names: &[String]) -> BTreeMap<String, Zone> {
    let known = names.iter().filter_map(|name| Some((name.clone(), table(&TimeZone::get(name).ok()?)?)));
    known.collect()
}

fn table(zone: &TimeZone) -> Option<Zone> {
    let at = |year| civil::date(year, 1, 1).to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp());
    let (first, last): (Timestamp, Timestamp) = (at(FIRST_YEAR)?, at(LAST_YEAR)?);
    let transitions = zone
        .following(first)
        .take_while(|transition| transition.timestamp() < last)
        .map(|transition| (transition.timestamp().as_second(), transition.offset().seconds()));
    Some(Zone { first: zone.to_offset(first).seconds(), transitions: transitions.collect() })
}

/// Years for which a table holds; policies speak of now, tests of a few years around it.
const FIRST_YEAR: i16 = 2000;
const LAST_YEAR: i16 = 2100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_summer_and_winter() {
        let zones = tables(&["Europe/Berlin".into(), "Europe/Berlyn".into()]);
        assert_eq!(zones.len(), 1);
        let berlin = &zones["Europe/Berlin"];
        assert_eq!(berlin.first, 3_600);
        // 2026-03-29 01:00 UTC: summer time begins.
        assert!(berlin.transitions.contains(&(1_774_746_000, 7_200)));
    }
}
