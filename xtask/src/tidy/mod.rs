//! `cargo xtask tidy`: checks of the sources that the compiler does not make.

mod circles;
mod columns;
mod documents;
mod examples;
mod facade;
mod walk;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const HELP: &str = "\
Usage: cargo xtask tidy

Checks the files that git tracks:
  circles     no modules of one folder use each other in a circle
  columns     no line of code or of a document has more than 100 columns, except tables and links
  facade      `recurrent` exports what the crates below it export, and it can be constructed
  documents   every file that a document or a comment names exists, and every link has a target
  examples    examples in the documentation import `recurrent` alone
  walk        the tasks in ARCHITECTURE.md list every source file that names their example
";

/// A problem: the file, the line (from 1; 0 for the whole file) and what is wrong.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Problem {
    file: PathBuf,
    line: usize,
    text: String,
}

/// A tracked file.
struct Source {
    /// Relative to the root of the repository.
    path: PathBuf,
    text: String,
}

impl Source {
    fn has_extension(&self, extension: &str) -> bool {
        self.path.extension().is_some_and(|e| e == extension)
    }

    fn problem(&self, line: usize, text: impl Into<String>) -> Problem {
        Problem {
            file: self.path.clone(),
            line,
            text: text.into(),
        }
    }
}

pub(crate) fn run(args: &[String]) -> ExitCode {
    match args {
        [] => {}
        [help] if help == "--help" || help == "-h" => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprint!("tidy: has no options\n\n{HELP}");
            return ExitCode::FAILURE;
        }
    }
    match problems(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").as_path()) {
        Ok(problems) if problems.is_empty() => ExitCode::SUCCESS,
        Ok(problems) => {
            for Problem { file, line, text } in &problems {
                match line {
                    0 => eprintln!("{}: {text}", file.display()),
                    line => eprintln!("{}:{line}: {text}", file.display()),
                }
            }
            eprintln!("tidy: {} problems", problems.len());
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("tidy: {error}");
            ExitCode::FAILURE
        }
    }
}

fn problems(root: &Path) -> Result<Vec<Problem>, Box<dyn Error>> {
    let sources = tracked(root)?;
    let mut all = columns::check(&sources);
    all.extend(documents::check(&sources));
    all.extend(examples::check(&sources));
    all.extend(walk::check(&sources));
    all.extend(circles::check(&sources)?);
    all.extend(facade::check(&sources)?);
    all.sort();
    Ok(all)
}

/// The text files that git tracks.
fn tracked(root: &Path) -> Result<Vec<Source>, Box<dyn Error>> {
    let listed = Command::new("git")
        .args(["ls-files", "-z"])
        .current_dir(root)
        .output()?;
    if !listed.status.success() {
        return Err(String::from_utf8_lossy(&listed.stderr).into());
    }
    let names = String::from_utf8(listed.stdout)?;
    let mut sources = Vec::new();
    for name in names.split_terminator('\0') {
        // A file that was deleted but is still in the index.
        let Ok(bytes) = std::fs::read(root.join(name)) else {
            continue;
        };
        sources.push(Source {
            path: name.into(),
            // A binary file counts as an empty text: it exists, and nothing in it is checked.
            text: String::from_utf8(bytes).unwrap_or_default(),
        });
    }
    Ok(sources)
}

#[cfg(test)]
fn source(path: &str, text: &str) -> Source {
    Source {
        path: path.into(),
        text: text.into(),
    }
}
