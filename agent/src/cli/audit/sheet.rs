//! Rows on the terminal: an aligned table, or an object a line.
//! It refuses to pass control characters on: what a workload wrote must not drive the reader's terminal.

use std::io::{self, Write};

use comfy_table::{Table, presets};
use serde_json::Value;

/// Collects a table, or prints JSON lines as they come.
#[derive(Debug)]
pub(super) struct Sheet {
    names: Vec<String>,
    /// `None`: JSON.
    table: Option<Table>,
}

impl Sheet {
    pub(super) fn new(names: Vec<String>, json: bool) -> Sheet {
        let table = (!json).then(|| {
            let mut table = Table::new();
            table.load_style(presets::NOTHING).set_header(&names);
            table
        });
        Sheet { names, table }
    }

    pub(super) fn row(&mut self, values: &[Value]) -> io::Result<()> {
        if let Some(table) = &mut self.table {
            table.add_row(values.iter().map(cell));
            return Ok(());
        }
        let mut line = String::from("{");
        for (index, (name, value)) in self.names.iter().zip(values).enumerate() {
            let comma = if index == 0 { "" } else { "," };
            line.push_str(&format!("{comma}{}:{value}", Value::String(name.clone())));
        }
        line.push('}');
        writeln!(io::stdout(), "{line}")
    }

    pub(super) fn finish(self) -> io::Result<()> {
        match self.table {
            Some(table) => writeln!(io::stdout(), "{table}"),
            None => Ok(()),
        }
    }
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => printable(text),
        other => printable(&other.to_string()),
    }
}

/// `text` with control characters and direction marks written as escapes.
pub(super) fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let steers = c.is_control()
            || matches!(c, '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if steers { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_steers_the_terminal() {
        assert_eq!(printable("a\u{1b}[2J\u{202e}é\n"), "a\\u{1b}[2J\\u{202e}é\\n");
    }
}
