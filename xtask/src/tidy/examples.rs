//! Examples in the documentation import `recurrent` alone, so that users can paste them.

use std::path::Path;

use super::{Problem, Source};

/// The folders with examples for users.
const FOLDERS: [&str; 5] = [
    "backend-api/src",
    "rnn-core/src",
    "rnn-train/src",
    "recurrent/src",
    "recurrent/guide",
];
const INTERNAL: [&str; 4] = ["backend_api", "backend_cpu", "rnn_core", "rnn_train"];
/// For authors of backends, and of crates that are generic over the backend.
const FOR_DEVELOPERS: [&str; 5] = [
    "backend-api/src/backend.rs",
    "backend-api/src/dispatch.rs",
    "backend-api/src/expr.rs",
    "rnn-core/src/module.rs",
    "rnn-core/src/nest.rs",
];

pub(super) fn check(sources: &[Source]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for source in sources {
        let developers = FOR_DEVELOPERS
            .iter()
            .any(|file| source.path == Path::new(file));
        let users = FOLDERS.iter().any(|folder| source.path.starts_with(folder));
        if developers || !users {
            continue;
        }
        for (i, line) in source.text.lines().enumerate() {
            let text = match source.has_extension("md") {
                true => Some(line),
                false => comment(line),
            };
            if let Some(name) = text
                .and_then(imported)
                .filter(|name| INTERNAL.contains(name))
            {
                let text = format!("the example imports `{name}` instead of `recurrent`");
                problems.push(source.problem(i + 1, text));
            }
        }
    }
    problems
}

/// The text of a line of documentation.
fn comment(line: &str) -> Option<&str> {
    let line = line.trim_start();
    line.strip_prefix("///")
        .or_else(|| line.strip_prefix("//!"))
}

/// The crate of which a line of an example, hidden or not, imports something.
fn imported(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let path = line
        .strip_prefix("# ")
        .unwrap_or(line)
        .strip_prefix("use ")?;
    path.split("::").next()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::source;

    #[test]
    fn imports_of_internal_crates_are_found() {
        let example = "use rnn_core::A;\n/// use recurrent::Tensor;\n    /// # use rnn_core::B;\n\
                       //! use backend_cpu::Cpu;\n";
        let sources = [
            source("rnn-core/src/a.rs", example),
            source("rnn-core/src/nest.rs", example),
            source("xtask/src/a.rs", example),
            source(
                "recurrent/guide/a.md",
                "use rnn_train::X;\nuse recurrent::Y;\n",
            ),
        ];
        let problems = check(&sources);
        let found: Vec<_> = problems
            .iter()
            .map(|p| (p.file.to_str().unwrap(), p.line))
            .collect();
        assert_eq!(
            found,
            [
                ("rnn-core/src/a.rs", 3),
                ("rnn-core/src/a.rs", 4),
                ("recurrent/guide/a.md", 1),
            ]
        );
    }
}
