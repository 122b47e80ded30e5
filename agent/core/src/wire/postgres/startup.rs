//! The untyped first packet of a client: StartupMessage or CancelRequest, and the switches inside `options`.
//! It refuses what is longer than the server would read, and text that is not UTF-8.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::{Fields, Violation};
use crate::limits::PG_STARTUP_BYTES;

/// A first packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opener {
    Startup(Startup),
    /// Process id and secret key (4 to 256 bytes) are forwarded as they are and never kept.
    Cancel,
}

/// StartupMessage.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Startup {
    /// Minor part of the 3.x version asked for.
    pub minor: u16,
    pub user: String,
    /// Defaults to the user, as in the server.
    pub database: String,
    /// Every parameter as sent, in order, `user` and `database` among them.
    pub parameters: Vec<(String, String)>,
}

const CANCEL: u32 = 80_877_102;
/// Protocol major version 3 in the upper half of the version word.
const MAJOR: u32 = 3;
/// CancelRequest: length, code, process id and 4 … 256 bytes of key (protocol 3.2).
const CANCEL_BYTES: core::ops::RangeInclusive<usize> = 16..=268;

/// Reads a first packet and says how many bytes it took; `None` while it is not complete.
///
/// # Errors
/// A length the server would refuse, another major version, parameters that do not parse.
pub fn opener(bytes: &[u8]) -> Result<Option<(Opener, usize)>, Violation> {
    let Some(length) = bytes.first_chunk::<4>() else { return Ok(None) };
    let length = usize::try_from(i32::from_be_bytes(*length)).map_err(|_| Violation::Length)?;
    if !(8..=PG_STARTUP_BYTES).contains(&length) {
        return Err(Violation::Length);
    }
    let Some(packet) = bytes.get(4..length) else { return Ok(None) };
    let mut fields = Fields::new(packet);
    let version = fields.oid()?;
    if version == CANCEL {
        return if CANCEL_BYTES.contains(&length) {
            Ok(Some((Opener::Cancel, length)))
        } else {
            Err(Violation::Length)
        };
    }
    if version >> 16 != MAJOR {
        return Err(Violation::Version);
    }
    let minor = u16::try_from(version & 0xffff).unwrap_or(u16::MAX);
    Ok(Some((Opener::Startup(startup(minor, fields)?), length)))
}

fn startup(minor: u16, mut fields: Fields<'_>) -> Result<Startup, Violation> {
    let mut startup = Startup { minor, ..Startup::default() };
    loop {
        let name = text(fields.cstr()?)?;
        if name.is_empty() {
            fields.end()?;
            break;
        }
        let value = text(fields.cstr()?)?;
        match name.as_str() {
            "user" => startup.user.clone_from(&value),
            "database" => startup.database.clone_from(&value),
            _ => {}
        }
        startup.parameters.push((name, value));
    }
    if startup.user.is_empty() {
        return Err(Violation::Field("no user name in the start-up packet"));
    }
    if startup.database.is_empty() {
        startup.database.clone_from(&startup.user);
    }
    Ok(startup)
}

fn text(bytes: &[u8]) -> Result<String, Violation> {
    core::str::from_utf8(bytes)
        .map(ToString::to_string)
        .map_err(|_| Violation::Field("parameter is not UTF-8"))
}

/// The settings inside `options`: words split at white space with backslash escapes, then `-c name=value`,
/// `-cname=value` or `--name=value` (server: `pg_split_opts`, `process_postgres_switches`).
///
/// # Errors
/// Any other switch: weir does not know what it would do.
pub fn options(value: &str) -> Result<Vec<(String, String)>, Violation> {
    let mut settings = Vec::new();
    let mut words = words(value).into_iter();
    while let Some(word) = words.next() {
        let setting = if let Some(long) = word.strip_prefix("--") {
            long.to_string()
        } else if word == "-c" {
            words.next().ok_or(Violation::Field("options: -c without a setting"))?
        } else if let Some(short) = word.strip_prefix("-c") {
            short.to_string()
        } else {
            return Err(Violation::Field("options: only -c name=value and --name=value are understood"));
        };
        let (name, value) =
            setting.split_once('=').ok_or(Violation::Field("options: a setting without a value"))?;
        settings.push((name.replace('-', "_").to_ascii_lowercase(), value.to_string()));
    }
    Ok(settings)
}

fn words(value: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut open = false;
    let mut letters = value.chars();
    while let Some(letter) = letters.next() {
        match letter {
            ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c' => {
                if open {
                    words.push(core::mem::take(&mut word));
                }
                open = false;
            }
            '\\' => {
                open = true;
                word.extend(letters.next());
            }
            letter => {
                open = true;
                word.push(letter);
            }
        }
    }
    if open {
        words.push(word);
    }
    words
}
