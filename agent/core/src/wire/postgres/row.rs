//! DataRow: the cells of one row, read where they lie.
//! It refuses a row whose cells do not fill it exactly.

use super::{Fields, Violation};

/// The cells of a row; `None` is SQL NULL.
#[derive(Debug, Clone)]
pub struct Cells<'a> {
    fields: Fields<'a>,
    left: usize,
}

/// Reads the head of a DataRow body.
///
/// # Errors
/// Cut short, or a negative count.
pub fn cells(body: &[u8]) -> Result<Cells<'_>, Violation> {
    let mut fields = Fields::new(body);
    let left = fields.count()?;
    Ok(Cells { fields, left })
}

impl<'a> Cells<'a> {
    /// Cells not read yet.
    #[must_use]
    pub fn left(&self) -> usize {
        self.left
    }

    /// The next cell, `Ok(None)` after the last.
    ///
    /// # Errors
    /// Cut short, or bytes after the last cell.
    pub fn cell(&mut self) -> Result<Option<Option<&'a [u8]>>, Violation> {
        let Some(left) = self.left.checked_sub(1) else {
            self.fields.end()?;
            return Ok(None);
        };
        self.left = left;
        self.fields.value().map(Some)
    }
}
