//! Tables as every command prints them.

use comfy_table::{ContentArrangement, Table, presets};

/// A table with these column heads, fitted to the terminal.
pub(crate) fn new(heads: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(heads);
    table
}
