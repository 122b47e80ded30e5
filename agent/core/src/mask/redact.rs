//! `[CLASS]`: that something of this class stood here, and nothing more.

use alloc::format;
use alloc::string::String;

pub(super) fn redact(class: &str) -> String {
    format!("[{}]", class.to_uppercase())
}
