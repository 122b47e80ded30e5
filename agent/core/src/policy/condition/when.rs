//! Windows of time: days, hours, dates, in a zone whose offsets came in as a table.
//! It refuses to own a clock or a time-zone database: both are values from the rim.

use alloc::sync::Arc;
use alloc::vec::Vec;

/// Offsets from UTC of one time zone.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Zone {
    /// Seconds east of UTC before the first transition.
    pub first: i32,
    /// (Unix seconds, offset from then on), ascending.
    pub transitions: Arc<[(i64, i32)]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct When {
    /// Bit 0 is Monday.
    pub(in super::super) days: u8,
    /// Seconds of the local day; a window with `from > to` runs over midnight and belongs to the day it begins on.
    pub(in super::super) from: u32,
    pub(in super::super) to: u32,
    /// First and last day, counted from 1970-01-01; empty: every date.
    pub(in super::super) dates: Vec<(i64, i64)>,
    pub(in super::super) zone: Zone,
    /// Match outside the window instead.
    pub(in super::super) outside: bool,
}

pub(in super::super) const DAY: u32 = 86_400;

impl Zone {
    /// `UTC`, `Z`, or a fixed offset `+HH:MM`.
    #[must_use]
    pub fn fixed(text: &str) -> Option<Zone> {
        let offset = match text {
            "UTC" | "Z" => 0,
            _ => {
                let (sign, rest) = match text.split_at_checked(1)? {
                    ("+", rest) => (1, rest),
                    ("-", rest) => (-1, rest),
                    _ => return None,
                };
                let seconds = time_of_day(rest).filter(|seconds| *seconds <= 18 * 3_600)?;
                sign * i32::try_from(seconds).ok()?
            }
        };
        Some(Zone { first: offset, transitions: Arc::default() })
    }

    fn offset(&self, unix: i64) -> i32 {
        let after = self.transitions.partition_point(|(at, _)| *at <= unix);
        let last = after.checked_sub(1).and_then(|index| self.transitions.get(index));
        last.map_or(self.first, |(_, offset)| *offset)
    }
}

impl When {
    pub(in super::super) fn holds(&self, wall_ns: u64) -> bool {
        let unix = i64::try_from(wall_ns / 1_000_000_000).unwrap_or(i64::MAX / 2);
        let local = unix + i64::from(self.zone.offset(unix));
        let (day, second) = (local.div_euclid(i64::from(DAY)), local.rem_euclid(i64::from(DAY)));
        self.inside(day, u32::try_from(second).unwrap_or(0)) != self.outside
    }

    fn inside(&self, day: i64, second: u32) -> bool {
        if self.from < self.to {
            self.is_day(day) && (self.from..self.to).contains(&second)
        } else {
            (self.is_day(day) && second >= self.from) || (self.is_day(day - 1) && second < self.to)
        }
    }

    fn is_day(&self, day: i64) -> bool {
        // 1970-01-01 was a Thursday, which is bit 3.
        let weekday = (day + 3).rem_euclid(7);
        let dated = self.dates.is_empty() || self.dates.iter().any(|(from, to)| (*from..=*to).contains(&day));
        self.days & (1 << weekday) != 0 && dated
    }
}

/// `HH:MM` → seconds; `24:00` is the end of the day.
pub(in super::super) fn time_of_day(text: &str) -> Option<u32> {
    let (hours, minutes) = text.split_once(':')?;
    let digits = |part: &str| -> Option<u32> {
        let sound = part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
        sound.then(|| part.parse().ok()).flatten()
    };
    let (hours, minutes) = (digits(hours)?, digits(minutes)?);
    let seconds = hours * 3_600 + minutes * 60;
    (minutes < 60 && seconds <= DAY).then_some(seconds)
}

/// `YYYY-MM-DD` → days since 1970-01-01 (proleptic Gregorian calendar).
pub(in super::super) fn date(text: &str) -> Option<i64> {
    let mut parts = text.split('-');
    let mut number = |digits: usize| -> Option<i64> {
        let part = parts.next()?;
        let sound = part.len() == digits && part.bytes().all(|byte| byte.is_ascii_digit());
        sound.then(|| part.parse().ok()).flatten()
    };
    let (year, month, day) = (number(4)?, number(2)?, number(2)?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => return None,
    };
    if parts.next().is_some() || !(1..=length).contains(&day) {
        return None;
    }
    // Years that begin in March put the leap day at the end.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * month + 2) / 5 + day - 1;
    Some(era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(day: &str, time: &str) -> u64 {
        let seconds = date(day).unwrap() * i64::from(DAY) + i64::from(time_of_day(time).unwrap());
        u64::try_from(seconds).unwrap() * 1_000_000_000
    }

    fn window(days: u8, from: &str, to: &str, zone: Zone) -> When {
        let time = |text| time_of_day(text).unwrap();
        When { days, from: time(from), to: time(to), dates: Vec::new(), zone, outside: false }
    }

    #[test]
    fn dates_count_from_1970() {
        assert_eq!(date("1970-01-01"), Some(0));
        assert_eq!(date("2000-02-29"), Some(11_016));
        assert_eq!(date("2026-11-20"), Some(20_777));
        for wrong in ["2026-02-29", "2026-13-01", "26-01-01", "2026-01-01-01", "2026-1-1"] {
            assert_eq!(date(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_window_over_midnight_belongs_to_its_first_day() {
        let friday = window(1 << 4, "20:00", "06:00", Zone::default());
        // 2026-11-20 is a Friday.
        assert!(!friday.holds(at("2026-11-20", "05:59")));
        assert!(friday.holds(at("2026-11-20", "20:00")));
        assert!(friday.holds(at("2026-11-21", "05:59")));
        assert!(!friday.holds(at("2026-11-21", "06:00")));
        assert!(!friday.holds(at("2026-11-21", "20:00")));
    }

    #[test]
    fn offsets_shift_the_day_and_change_at_transitions() {
        let monday = |zone| window(1, "00:00", "24:00", zone);
        // Sunday 23:30 UTC is Monday one hour east.
        assert!(!monday(Zone::default()).holds(at("2026-11-22", "23:30")));
        assert!(monday(Zone::fixed("+01:00").unwrap()).holds(at("2026-11-22", "23:30")));
        let change = i64::try_from(at("2026-11-22", "12:00") / 1_000_000_000).unwrap();
        let zone = Zone { first: 0, transitions: [(change, 3_600)].into() };
        assert!(monday(zone.clone()).holds(at("2026-11-22", "23:30")));
        assert!(!monday(zone).holds(at("2026-11-15", "23:30")));
    }

    #[test]
    fn outside_inverts_and_dates_narrow() {
        let mut when = window(0x7f, "08:00", "18:00", Zone::default());
        when.dates = [(date("2026-12-24").unwrap(), date("2026-12-26").unwrap())].into();
        assert!(when.holds(at("2026-12-25", "09:00")) && !when.holds(at("2026-12-27", "09:00")));
        when.outside = true;
        assert!(!when.holds(at("2026-12-25", "09:00")) && when.holds(at("2026-12-27", "09:00")));
    }

    #[test]
    fn fixed_offsets_are_bounded() {
        assert_eq!(Zone::fixed("-05:30").unwrap().first, -19_800);
        assert!(Zone::fixed("+19:00").is_none() && Zone::fixed("Europe/Berlin").is_none());
    }
}
