//! Files and links that documents and comments name.

use std::collections::HashSet;
use std::path::{Component, Path, PathBuf};

use super::{Problem, Source};

/// Extensions by which a word in backticks counts as the name of a file of this repository.
const EXTENSIONS: [&str; 7] = ["rs", "cu", "cuh", "cpp", "md", "py", "tsv"];

pub(super) fn check(sources: &[Source]) -> Vec<Problem> {
    let files = Files::new(sources);
    let mut problems = Vec::new();
    for source in sources {
        let is_document = source.has_extension("md");
        for (i, line) in source.text.lines().enumerate() {
            let comment = match is_document {
                true => line,
                false => match line.trim_start().strip_prefix("//") {
                    Some(comment) if source.has_extension("rs") => comment,
                    _ => continue,
                },
            };
            for name in quoted(comment).filter(|name| is_file_name(name)) {
                if !files.contain(&source.path, name) {
                    problems.push(source.problem(i + 1, format!("`{name}` does not exist")));
                }
            }
            for target in links(comment).filter(|_| is_document) {
                if !files.link_works(&source.path, target) {
                    problems.push(source.problem(i + 1, format!("no target of link `{target}`")));
                }
            }
        }
    }
    problems
}

/// The texts in single backticks.
fn quoted(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// The targets of Markdown links within the repository.
fn links(line: &str) -> impl Iterator<Item = &str> {
    line.split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next())
        .filter(|target| !target.contains("://"))
}

fn is_file_name(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
    let (stem, extension) = text.rsplit_once('.').unwrap_or_default();
    text.chars().all(plain) && !stem.is_empty() && EXTENSIONS.contains(&extension)
}

/// The tracked files and their folders.
struct Files<'a> {
    paths: HashSet<PathBuf>,
    sources: &'a [Source],
}

impl<'a> Files<'a> {
    fn new(sources: &'a [Source]) -> Self {
        let ancestors = |source: &'a Source| source.path.ancestors().map(Path::to_path_buf);
        Self {
            paths: sources.iter().flat_map(ancestors).collect(),
            sources,
        }
    }

    /// Whether a file exists at `name` from the root or from the file that names it, or anywhere
    /// with a path that ends in `name`.
    fn contain(&self, from: &Path, name: &str) -> bool {
        self.paths.contains(Path::new(name))
            || self.paths.contains(&beside(from, name))
            || self
                .sources
                .iter()
                .any(|source| source.path.ends_with(name))
    }

    /// Whether a link from a document leads to a file, and to a heading if it names one.
    fn link_works(&self, from: &Path, target: &str) -> bool {
        let (file, heading) = target.split_once('#').unwrap_or((target, ""));
        let path = match file {
            "" => from.to_path_buf(),
            file => beside(from, file),
        };
        if heading.is_empty() {
            return self.paths.contains(&path);
        }
        let source = self.sources.iter().find(|source| source.path == path);
        source.is_some_and(|source| {
            let headings = source.text.lines().filter(|line| line.starts_with('#'));
            headings.map(anchor).any(|anchor| anchor == heading)
        })
    }
}

/// A path relative to the folder of `from`.
fn beside(from: &Path, name: &str) -> PathBuf {
    let mut path = from.parent().unwrap_or(Path::new("")).to_path_buf();
    for part in Path::new(name).components() {
        match part {
            Component::ParentDir => {
                path.pop();
            }
            Component::CurDir => {}
            part => path.push(part),
        }
    }
    path
}

/// The anchor of a heading, as in rendered documents.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text
        .chars()
        .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::source;

    #[test]
    fn missing_files_headings_and_link_targets_are_found() {
        let sources = [
            source(
                "a/src/lib.rs",
                "//! `lib.rs`, `src/lib.rs`, `gone.rs`.\nlet x = `no.rs`;\n",
            ),
            source(
                "README.md",
                "# One: two\n[b](docs/b.md#ab-c) [up](#one-two) [gone](c.md)\n`a/src/x.rs` `2.5`\n",
            ),
            source(
                "docs/b.md",
                "## `ab` c\n[r](../README.md) [r](../README.md#three) [w](https://x)\n",
            ),
        ];
        let found: Vec<String> = check(&sources)
            .into_iter()
            .map(|p| format!("{}:{} {}", p.file.display(), p.line, p.text))
            .collect();
        assert_eq!(
            found,
            [
                "a/src/lib.rs:1 `gone.rs` does not exist",
                "README.md:2 no target of link `c.md`",
                "README.md:3 `a/src/x.rs` does not exist",
                "docs/b.md:2 no target of link `../README.md#three`",
            ]
        );
    }
}
