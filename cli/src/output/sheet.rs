//! A sheet of `Name:  value` lines for `describe`: values of neighbouring lines stand under one another.

use std::io::Write;

/// Lines of cells; a cell is as wide as the widest in the unbroken run of lines that have one there (elastic tabstops).
#[derive(Default)]
pub struct Sheet {
    lines: Vec<Vec<String>>,
}

const GAP: usize = 2;

impl Sheet {
    /// A line of cells, indented by `level` steps.
    pub fn line<T: Into<String>>(&mut self, level: usize, cells: impl IntoIterator<Item = T>) {
        let mut cells: Vec<String> = cells.into_iter().map(Into::into).collect();
        if let Some(first) = cells.first_mut() {
            first.insert_str(0, &"  ".repeat(level));
        }
        self.lines.push(cells);
    }

    /// `name:  value`
    pub fn field(&mut self, level: usize, name: &str, value: impl Into<String>) {
        self.line(level, [format!("{name}:"), value.into()]);
    }

    /// As [`Self::field`], where there is a value.
    pub fn field_if(&mut self, level: usize, name: &str, value: &str) {
        if !value.is_empty() {
            self.field(level, name, value);
        }
    }

    /// `name:` alone; what belongs to it follows.
    pub fn heading(&mut self, level: usize, name: &str) {
        self.line(level, [format!("{name}:")]);
    }

    /// Several values under one name, one per line; `<none>` where there are none.
    pub fn values(&mut self, level: usize, name: &str, values: impl IntoIterator<Item = String>) {
        let mut title = format!("{name}:");
        for value in values {
            self.line(level, [std::mem::take(&mut title), value]);
        }
        if !title.is_empty() {
            self.line(level, [title, "<none>".to_owned()]);
        }
    }

    pub fn print(&self, out: &mut dyn Write) -> std::io::Result<()> {
        let widths = self.widths();
        for (cells, widths) in self.lines.iter().zip(widths) {
            let mut line = String::new();
            for (at, cell) in cells.iter().enumerate() {
                line.push_str(cell);
                if let Some(width) = widths.get(at) {
                    line.extend(std::iter::repeat_n(' ', width + GAP - cell.chars().count()));
                }
            }
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }

    /// The widths of all cells but the last of each line.
    fn widths(&self) -> Vec<Vec<usize>> {
        let mut widths: Vec<Vec<usize>> =
            self.lines.iter().map(|cells| vec![0; cells.len().saturating_sub(1)]).collect();
        let columns = widths.iter().map(Vec::len).max().unwrap_or(0);
        for column in 0..columns {
            let mut start = 0;
            while start < widths.len() {
                let run = widths[start..].iter().take_while(|cells| cells.len() > column).count();
                let cells = &self.lines[start..start + run];
                let widest = cells.iter().map(|cells| cells[column].chars().count()).max().unwrap_or(0);
                for line in &mut widths[start..start + run] {
                    line[column] = widest;
                }
                start += run.max(1);
            }
        }
        widths
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn neighbouring_values_stand_under_one_another() {
        let mut sheet = Sheet::default();
        sheet.field(0, "Name", "web");
        sheet.values(0, "Labels", ["a=1".to_owned(), "b=2".to_owned()]);
        sheet.values(0, "Annotations", []);
        sheet.heading(0, "Containers");
        sheet.field(1, "Image", "x");
        let mut out = Vec::new();
        sheet.print(&mut out).unwrap();
        expect![[r#"
            Name:         web
            Labels:       a=1
                          b=2
            Annotations:  <none>
            Containers:
              Image:  x
        "#]]
        .assert_eq(&String::from_utf8(out).unwrap());
    }
}
