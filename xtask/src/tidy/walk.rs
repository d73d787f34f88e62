//! The tasks in ARCHITECTURE.md: each has an example, and lists the files that name it.
//!
//! A task is a heading, followed by a line ``Example: `A`, `b`.`` with the names that the example
//! has in code, and by list items that begin with the path of a file in backticks. Every source
//! file that names the example must be listed, and every listed file must name it. Tests and tools
//! need not be listed.

use std::path::Path;

use super::{Problem, Source};

const DOCUMENT: &str = "ARCHITECTURE.md";
const EXAMPLE: &str = "Example: ";

pub(super) fn check(sources: &[Source]) -> Vec<Problem> {
    let Some(document) = sources.iter().find(|s| s.path == Path::new(DOCUMENT)) else {
        return Vec::new();
    };
    let tasks = tasks(&document.text);
    if tasks.is_empty() {
        return vec![document.problem(0, "has no task with an example")];
    }
    let mut problems = Vec::new();
    for task in tasks {
        let names_it =
            |source: &&Source| task.names.iter().any(|name| has_word(&source.text, name));
        for source in sources
            .iter()
            .filter(|s| is_product(&s.path))
            .filter(names_it)
        {
            if !task
                .files
                .iter()
                .any(|(_, file)| source.path == Path::new(file))
            {
                let text = format!("names {}, but the task does not list it", task.names[0]);
                problems
                    .push(document.problem(task.line, format!("{} {text}", source.path.display())));
            }
        }
        for (line, file) in task.files {
            let source = sources.iter().find(|s| s.path == Path::new(file));
            if !source.as_ref().is_some_and(names_it) {
                problems.push(document.problem(line, format!("{file} does not name the example")));
            }
        }
    }
    problems
}

struct Task<'a> {
    line: usize,
    names: Vec<&'a str>,
    files: Vec<(usize, &'a str)>,
}

fn tasks(text: &str) -> Vec<Task<'_>> {
    let mut tasks: Vec<Task<'_>> = Vec::new();
    let mut within = false;
    for (i, line) in text.lines().enumerate() {
        if line.starts_with('#') {
            within = false;
        } else if let Some(example) = line.strip_prefix(EXAMPLE) {
            within = true;
            tasks.push(Task {
                line: i + 1,
                names: example.split('`').skip(1).step_by(2).collect(),
                files: Vec::new(),
            });
        } else if let Some(item) = line.strip_prefix("- `")
            && let (true, Some(task)) = (within, tasks.last_mut())
        {
            let file = item.split('`').next().unwrap_or_default();
            task.files.push((i + 1, file));
        }
    }
    tasks
}

/// Whether a file is part of the product: a source or a kernel of a library crate.
fn is_product(path: &Path) -> bool {
    let mut parts = path.iter().map(|part| part.to_string_lossy());
    let (folder, within) = (parts.next(), parts.next());
    let (folder, within) = (folder.unwrap_or_default(), within.unwrap_or_default());
    let library = !matches!(&*folder, "tests" | "xtask" | "bench" | "datasets" | "fuzz");
    library && matches!(&*within, "src" | "kernels" | "Cargo.toml")
}

/// Whether a text contains `word`, not as a part of a longer word.
fn has_word(text: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        let before = text[..at].chars().next_back().is_some_and(is_part);
        let after = text[at + word.len()..].chars().next().is_some_and(is_part);
        !before && !after
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::source;

    #[test]
    fn a_task_lists_the_files_that_name_its_example() {
        let document = "\
## A cell
Example: `NasCell`, `NASCell`.
- `core/src/nas.rs`: the cell
- `core/src/other.rs`: does not name it
- `tests/golden.py`: its golden numbers

## Other
- `core/src/mod.rs`
";
        let mut sources = vec![
            source(DOCUMENT, document),
            source("core/src/nas.rs", "struct NasCell;"),
            source("core/src/mod.rs", "pub use nas::NasCell;"),
            source("core/src/other.rs", "struct NasCellBuilder;"),
            source("tests/golden.py", "\"NASCell\""),
            source("tests/cells.rs", "NasCell"),
        ];
        let texts = |sources: &[Source]| -> Vec<String> {
            check(sources)
                .into_iter()
                .map(|p| format!("{}: {}", p.line, p.text))
                .collect()
        };
        assert_eq!(
            texts(&sources),
            [
                "2: core/src/mod.rs names NasCell, but the task does not list it",
                "4: core/src/other.rs does not name the example",
            ]
        );
        sources[0].text = "## No tasks".into();
        assert_eq!(texts(&sources), ["0: has no task with an example"]);
    }
}
