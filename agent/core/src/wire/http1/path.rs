//! The ways in which servers read a path: percent-decoded once, dot segments resolved, runs of `/` made one.
//! It refuses paths of which nobody can list the readings: NUL, broken encodings, dot segments with parameters.

use alloc::string::String;
use alloc::vec::Vec;

use super::Violation;

/// Every reading of a path that rules have to look at.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Readings {
    /// What could separate segments and could be part of a name is taken for part of a name; an encoded slash is then
    /// written `%2F`, since a bare one means a separator.
    pub path: String,
    /// The other ways, each once: with encoded slashes, backslashes or encoded backslashes as separators, and with path
    /// parameters (`;x`) left out. Empty for nearly all paths.
    pub others: Vec<String>,
}

/// What servers disagree about, as far as it occurs in a path.
#[derive(Debug, Clone, Copy, Default)]
struct Doubts(u8);

impl Readings {
    /// # Errors
    /// Encoded NUL, dot segments with parameters (`..;x`) in any reading, broken or non-UTF-8 encodings.
    pub fn of(path: &str) -> Result<Self, Violation> {
        let doubts = Doubts::in_path(path)?;
        let plain = doubts.0 == 0 && !path.contains('%');
        if plain && !path.contains("//") && !path.contains("/.") {
            return Ok(Self { path: path.into(), others: Vec::new() });
        }
        let mut readings = Self { path: read(path, Doubts::default())?, others: Vec::new() };
        for settled in (1..=doubts.0).filter(|settled| settled & !doubts.0 == 0) {
            let other = read(path, Doubts(settled))?;
            if other != readings.path && !readings.others.contains(&other) {
                readings.others.push(other);
            }
        }
        Ok(readings)
    }
}

impl Doubts {
    const ENCODED_SLASH: u8 = 1;
    const BACKSLASH: u8 = 2;
    const ENCODED_BACKSLASH: u8 = 4;
    const PARAMETERS: u8 = 8;

    fn in_path(path: &str) -> Result<Self, Violation> {
        let mut doubts = Self::default();
        each_byte(path, |byte, encoded| {
            doubts.0 |= match (byte, encoded) {
                (b'/', true) => Self::ENCODED_SLASH,
                (b'\\', false) => Self::BACKSLASH,
                (b'\\', true) => Self::ENCODED_BACKSLASH,
                (b';', _) => Self::PARAMETERS,
                (0, _) => return Err(Violation::AmbiguousPath),
                _ => 0,
            };
            Ok(())
        })?;
        Ok(doubts)
    }

    fn has(self, doubt: u8) -> bool {
        self.0 & doubt != 0
    }

    /// Whether this byte ends a segment, where the doubts of `self` are settled that way.
    fn separates(self, byte: u8, encoded: bool) -> bool {
        match (byte, encoded) {
            (b'/', false) => true,
            (b'/', true) => self.has(Self::ENCODED_SLASH),
            (b'\\', false) => self.has(Self::BACKSLASH),
            (b'\\', true) => self.has(Self::ENCODED_BACKSLASH),
            _ => false,
        }
    }
}

/// One reading: the normal form of `path` where the doubts in `settled` are separators, or parameters to leave out.
fn read(path: &str, settled: Doubts) -> Result<String, Violation> {
    let mut out = String::with_capacity(path.len());
    let mut segment = Vec::new();
    // The slash that every path begins with opens the first segment.
    let mut opened = false;
    each_byte(path, |byte, encoded| {
        if settled.separates(byte, encoded) {
            if opened {
                close(&mut segment, settled, &mut out)?;
            }
            opened = true;
        } else if (byte, encoded) == (b'/', true) {
            segment.extend_from_slice(b"%2F");
        } else {
            segment.push(byte);
        }
        Ok(())
    })?;
    // What ends in a slash or a dot segment names a directory.
    if close(&mut segment, settled, &mut out)? || out.is_empty() {
        out.push('/');
    }
    Ok(out)
}

/// Adds a segment, or resolves it where it is a dot segment. True where it names a directory.
fn close(segment: &mut Vec<u8>, settled: Doubts, out: &mut String) -> Result<bool, Violation> {
    let text = String::from_utf8(core::mem::take(segment)).map_err(|_| Violation::PercentEncoding)?;
    let (name, parameters) = text.split_once(';').map_or((&*text, None), |(name, rest)| (name, Some(rest)));
    if parameters.is_some() && matches!(name, "." | "..") {
        return Err(Violation::AmbiguousPath);
    }
    match if settled.has(Doubts::PARAMETERS) { name } else { &*text } {
        "" | "." => return Ok(true),
        ".." => {
            out.truncate(out.rfind('/').unwrap_or(0));
            return Ok(true);
        }
        name => {
            out.push('/');
            out.push_str(name);
        }
    }
    Ok(false)
}

/// The bytes that a path stands for, each with whether it was percent-encoded.
fn each_byte(path: &str, mut visit: impl FnMut(u8, bool) -> Result<(), Violation>) -> Result<(), Violation> {
    let mut rest = path.as_bytes();
    while let [first, after @ ..] = rest {
        rest = match (first, after) {
            (b'%', [high, low, after @ ..]) => {
                let byte = hex(*high).zip(hex(*low)).map(|(high, low)| high << 4 | low);
                visit(byte.ok_or(Violation::PercentEncoding)?, true)?;
                after
            }
            (b'%', _) => return Err(Violation::PercentEncoding),
            (byte, after) => {
                visit(*byte, false)?;
                after
            }
        };
    }
    Ok(())
}

fn hex(digit: u8) -> Option<u8> {
    (digit as char).to_digit(16).map(|value| value as u8)
}
