//! Tables as every command prints them.

use comfy_table::{ContentArrangement, Table, presets};

/// A table with these column heads, fitted to the terminal.
pub(crate) fn new(heads: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(heads);
    // A serial console says that it has no columns; a table with one letter a line would be none.
    if table.width().is_some_and(|width| width < LEAST_WIDTH) {
        table.set_width(LEAST_WIDTH);
    }
    table
}

const LEAST_WIDTH: u16 = 40;
