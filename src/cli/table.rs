//! Results in columns, for people.

use unicode_width::UnicodeWidthStr as _;

/// The rows below their headings, each column as wide as its widest cell and two spaces from the next.
///
/// Control characters become spaces: a reason or a name that somebody put into the log must not move another's cursor.
pub(super) fn table<const COLUMNS: usize>(head: [&str; COLUMNS], rows: &[[String; COLUMNS]]) -> String {
    let shown = |cell: &str| cell.replace(|c: char| c.is_control(), " ");
    let lines: Vec<[String; COLUMNS]> = [head.map(shown)]
        .into_iter()
        .chain(rows.iter().map(|row| row.each_ref().map(|cell| shown(cell))))
        .collect();
    let widest = |column: usize| lines.iter().map(|line| line[column].width()).max().unwrap_or(0);
    let widths: [usize; COLUMNS] = std::array::from_fn(widest);
    let line = |cells: &[String; COLUMNS]| {
        let padded =
            cells.iter().zip(widths).map(|(cell, width)| cell.clone() + &" ".repeat(width - cell.width()));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    lines.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_below_each_other() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned);
        let rows = [row(["m@1", "stable", ""]), row(["naïve@10", "idle", "a\u{1b}[2Jb\nc"])];
        assert_eq!(
            table(["VERSION", "ROLE", "REASON"], &rows),
            "VERSION   ROLE    REASON\nm@1       stable\nnaïve@10  idle    a [2Jb c"
        );
        assert_eq!(table(["A", "B"], &[]), "A  B");
    }
}
