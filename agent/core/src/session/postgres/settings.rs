//! Session settings that change how the server reads a text, as the server reports them.
//! It refuses texts whose meaning depends on a setting that is not known for sure.

use crate::action::{Effect, Effects, Statement};
use crate::sql::Dialect;

#[derive(Debug, Clone, Copy, Default)]
pub struct Settings {
    pub dialect: Dialect,
    pub encoding: Encoding,
    /// Statements that may have changed the settings are still under way; the server reports changes before it is ready.
    pub uncertain: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encoding {
    /// Not reported yet.
    #[default]
    Unknown,
    Utf8,
    /// Every byte below 128 is that ASCII character, wherever it stands.
    AsciiSafe,
    /// The second byte of a character may be a quote, a backslash or a letter.
    Overlapping,
}

impl Settings {
    /// Takes in a ParameterStatus.
    pub fn report(&mut self, name: &[u8], value: &[u8]) {
        match name {
            b"standard_conforming_strings" => {
                self.dialect.standard_conforming_strings = value != b"off";
            }
            b"client_encoding" => self.encoding = encoding(value),
            _ => {}
        }
    }

    /// The text, where the server and weir are sure to read the same.
    pub fn readable<'a>(&self, text: &'a [u8]) -> Option<&'a str> {
        let read = core::str::from_utf8(text).ok()?;
        let plain = read.is_ascii();
        let sure = match self.encoding {
            Encoding::Utf8 | Encoding::AsciiSafe => plain || !self.uncertain,
            Encoding::Unknown | Encoding::Overlapping => plain,
        };
        // A backslash is what `standard_conforming_strings` is about.
        (sure && !(self.uncertain && memchr::memchr(b'\\', text).is_some())).then_some(read)
    }
}

fn encoding(name: &[u8]) -> Encoding {
    if name.eq_ignore_ascii_case(b"UTF8") {
        return Encoding::Utf8;
    }
    let overlapping: [&[u8]; 8] =
        [b"SJIS", b"SHIFT_JIS_2004", b"BIG5", b"GBK", b"GB18030", b"UHC", b"JOHAB", b"MULE_INTERNAL"];
    if overlapping.iter().any(|known| name.eq_ignore_ascii_case(known)) {
        return Encoding::Overlapping;
    }
    Encoding::AsciiSafe
}

/// After this statement names may mean something else, or texts may read differently.
pub fn unsettles(statement: &Statement) -> bool {
    let always = Effects::of(&[
        Effect::Create,
        Effect::Alter,
        Effect::Drop,
        Effect::Do,
        Effect::Unknown,
        Effect::Admin,
    ]);
    if statement.effects.touches(always) {
        return true;
    }
    if statement.effects.has(Effect::Call)
        // CALL returns what its procedure says; a function in a query has output columns.
        && (statement.outputs.is_none()
            || statement.functions.iter().any(|function| function.name == "set_config"))
    {
        return true;
    }
    statement.effects.has(Effect::Session) && sets_what_matters(&statement.text)
}

/// A SET, RESET or DISCARD of something other than the settings that name no object and change no text.
fn sets_what_matters(text: &str) -> bool {
    const HARMLESS: [&str; 14] = [
        "application_name",
        "statement_timeout",
        "lock_timeout",
        "idle_in_transaction_session_timeout",
        "datestyle",
        "intervalstyle",
        "timezone",
        "extra_float_digits",
        "work_mem",
        "bytea_output",
        "client_min_messages",
        "jit",
        "transaction_isolation",
        "default_transaction_read_only",
    ];
    let lower = text.trim().to_ascii_lowercase();
    if lower.starts_with("show") {
        return false;
    }
    let setting = lower.strip_prefix("set ").map(str::trim_start).map(|rest| {
        rest.strip_prefix("local ").or(rest.strip_prefix("session ")).unwrap_or(rest).trim_start()
    });
    match setting {
        Some(rest) => {
            let name = rest.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_')).next();
            !name.is_some_and(|name| HARMLESS.contains(&name))
        }
        None => true,
    }
}
