//! Lines of at most 100 columns.

use super::{Problem, Source};

const COLUMNS: usize = 100;
const CODE: [&str; 7] = ["rs", "py", "cu", "cuh", "cpp", "h", "c"];

pub(super) fn check(sources: &[Source]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for source in sources {
        let is_document = source.has_extension("md");
        if !is_document && !CODE.iter().any(|code| source.has_extension(code)) {
            continue;
        }
        for (i, line) in source.text.lines().enumerate() {
            let columns = line.chars().count();
            // A row of a table, a preformatted line and an address cannot be broken.
            let is_preformatted = line.trim_start().starts_with('|') || line.starts_with("    ");
            let whole = is_document && is_preformatted || line.contains("://");
            if columns > COLUMNS && !whole {
                problems.push(source.problem(i + 1, format!("has {columns} columns")));
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::source;

    #[test]
    fn long_lines_are_found_except_tables_and_links() {
        let long = "x ".repeat(51);
        let sources = [
            source(
                "a.rs",
                &format!("fn a() {{}}\n{long}\n// https://example.org/{long}\n"),
            ),
            source("b.md", &format!("| {long} |\n{long}\n    {long}\n")),
            source("c.cpp", &long),
            source("d.txt", &long),
        ];
        let found: Vec<_> = check(&sources)
            .into_iter()
            .map(|p| (p.file, p.line))
            .collect();
        assert_eq!(
            found,
            [("a.rs".into(), 2), ("b.md".into(), 2), ("c.cpp".into(), 1)]
        );
    }
}
