//! Aligned columns: as wide as their widest cell, three spaces apart.

use std::io::Write;

const GAP: usize = 3;
/// No column with a neighbour is narrower than this, gap included.
const WIDTH_MIN: usize = 6;

/// Prints rows under one another; a later batch is never narrower than an earlier one (`get -w`).
#[derive(Default)]
pub struct Columns {
    widths: Vec<usize>,
}

impl Columns {
    pub fn print(&mut self, out: &mut dyn Write, rows: &[Vec<String>]) -> std::io::Result<()> {
        for row in rows {
            self.widths.resize(self.widths.len().max(row.len()), 0);
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        for row in rows {
            let mut line = String::new();
            for (at, cell) in row.iter().enumerate() {
                line.push_str(cell);
                if at + 1 < row.len() {
                    let width = (self.widths[at] + GAP).max(WIDTH_MIN);
                    line.extend(std::iter::repeat_n(' ', width - cell.chars().count()));
                }
            }
            writeln!(out, "{line}")?;
        }
        Ok(())
    }
}

/// Prints one table.
pub fn print(out: &mut dyn Write, rows: &[Vec<String>]) -> std::io::Result<()> {
    Columns::default().print(out, rows)
}
