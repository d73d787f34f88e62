//! Converting a file into another format.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use backend_api::{Error, Result};
use rnn_train::convert::Arrays;
use rnn_train::internal::listed;

use crate::file::File;
use crate::format::Format;

const OP: &str = "convert";

/// New names for arrays.
///
/// A line of the text is an old and a new name, separated by spaces. A `*` at the end of both
/// stands for any rest of the name. `-` in place of the new name leaves the array out. The first
/// line that fits counts. Empty lines and those that begin with `#` do not count.
///
/// ```text
/// rnn/lstm_cell/kernel   encoder/kernel
/// dense/*                output/*
/// Adam*                  -
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NameMap {
    rules: Vec<(String, Option<String>)>,
}

impl NameMap {
    /// Reads the text of a map.
    ///
    /// # Errors
    /// A line is not two names, or has a `*` elsewhere than at the end of both.
    ///
    /// ```
    /// use recurrent::interchange::NameMap;
    ///
    /// let map = NameMap::parse("rnn/* encoder/*\nAdam* -")?;
    /// assert!(NameMap::parse("rnn/*").is_err());
    /// # let _ = map;
    /// # Ok::<(), recurrent::Error>(())
    /// ```
    pub fn parse(text: &str) -> Result<Self> {
        let mut rules = Vec::new();
        for (i, line) in text.lines().enumerate() {
            let names: Vec<&str> = line.split_whitespace().collect();
            let refuse = |problem: &str| {
                let problem = format!("`{line}` {problem}");
                Err(Error::argument(
                    OP,
                    format!("line {} of the map", i + 1),
                    problem,
                ))
            };
            match names[..] {
                [] => {}
                [first, ..] if first.starts_with('#') => {}
                [old, "-"] => rules.push((old.to_owned(), None)),
                [old, new] if old.ends_with('*') == new.ends_with('*') => {
                    rules.push((old.to_owned(), Some(new.to_owned())));
                }
                [_, _] => return refuse("has a `*` at the end of one name only"),
                _ => return refuse("is not an old and a new name"),
            }
        }
        Ok(Self { rules })
    }

    /// The rule that fits a name, and the new name: `None` to leave the array out.
    fn of(&self, name: &str) -> Option<(usize, Option<String>)> {
        self.rules.iter().enumerate().find_map(|(i, (old, new))| {
            let rest = match old.strip_suffix('*') {
                Some(start) => name.strip_prefix(start)?,
                None => (name == old).then_some("")?,
            };
            let new = new.as_ref().map(|new| match new.strip_suffix('*') {
                Some(start) => format!("{start}{rest}"),
                None => new.clone(),
            });
            Some((i, new))
        })
    }
}

/// What became of the names of a file.
///
/// ```
/// use recurrent::checkpoint::save_params;
/// use recurrent::interchange::{Conversion, NameMap};
/// use recurrent::{Dense, Device};
///
/// # fn main() -> recurrent::Result<()> {
/// let folder = std::env::temp_dir();
/// let path = folder.join("recurrent-report.safetensors");
/// save_params(&path, &Dense::new(&Device::cpu(), 3, 2)?)?;
/// let options = Conversion::new().map(NameMap::parse("kernel weight")?).allow_left_over(true);
/// let report = options.run(&path, folder.join("recurrent-report.npz"))?;
/// assert_eq!(report.used, [("kernel".to_owned(), "weight".to_owned())]);
/// assert_eq!(report.left_over, ["bias"]);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Report {
    /// The arrays written: names in the file, and new names.
    pub used: Vec<(String, String)>,
    /// Names in the map that the file does not have.
    pub missing: Vec<String>,
    /// Arrays for which the map has no line; they are not written.
    pub left_over: Vec<String>,
    /// Arrays that the map leaves out.
    pub left_out: Vec<String>,
    /// What is not an array of numbers, with a description; no format can have it.
    pub others: Vec<(String, String)>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "used {}", self.used.len())?;
        for (old, new) in self.used.iter().filter(|(old, new)| old != new) {
            writeln!(f, "  {old} -> {new}")?;
        }
        for (what, names) in [
            ("missing", &self.missing),
            ("left over", &self.left_over),
            ("left out", &self.left_out),
        ] {
            writeln!(f, "{what} {}", names.len())?;
            names.iter().try_for_each(|name| writeln!(f, "  {name}"))?;
        }
        writeln!(f, "not arrays {}", self.others.len())?;
        let mut others = self.others.iter();
        others.try_for_each(|(name, what)| writeln!(f, "  {name}: {what}"))
    }
}

/// Converts files of weights: [`convert`] with options.
///
/// ```
/// use recurrent::checkpoint::save_params;
/// use recurrent::interchange::{Conversion, Format, read};
/// use recurrent::{Dense, Device};
///
/// # fn main() -> recurrent::Result<()> {
/// let folder = std::env::temp_dir();
/// let path = folder.join("recurrent-conversion.safetensors");
/// save_params(&path, &Dense::new(&Device::cpu(), 3, 2)?)?;
/// // The ending `.weights` is of no format.
/// let output = folder.join("recurrent-conversion.weights");
/// Conversion::new().to(Format::PyTorch).run(&path, &output)?;
/// assert_eq!(read(&output)?.names().collect::<Vec<_>>(), ["bias", "kernel"]);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Conversion {
    to: Option<Format>,
    map: Option<NameMap>,
    allow_left_over: bool,
}

impl Conversion {
    /// A conversion that keeps all names, into the format of the ending of the output's name.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the format of the output.
    pub fn to(mut self, format: Format) -> Self {
        self.to = Some(format);
        self
    }

    /// Renames arrays. Those without a line in the map are left over.
    pub fn map(mut self, map: NameMap) -> Self {
        self.map = Some(map);
        self
    }

    /// Writes the output even if arrays are left over.
    pub fn allow_left_over(mut self, allow: bool) -> Self {
        self.allow_left_over = allow;
        self
    }

    /// Converts a file.
    ///
    /// # Errors
    /// The input cannot be read, or the output cannot be written; the map names an array that the
    /// input does not have, gives two arrays one name, or leaves some over, unless that is allowed.
    /// Nothing is written then.
    pub fn run(&self, input: impl AsRef<Path>, output: impl AsRef<Path>) -> Result<Report> {
        let output = output.as_ref();
        let format = match self.to {
            Some(format) => format,
            None => Format::of_extension(output)?,
        };
        let file = File::open(input)?;
        let report = self.plan(&file)?;
        let refuse = |problem: String| Err(Error::format(file.path(), problem));
        if !report.missing.is_empty() {
            let names = listed(report.missing.iter().map(String::as_str));
            let found = listed(file.entries().map(|(name, _)| name));
            return refuse(format!(
                "has no {names}, which the map names; it has {found}"
            ));
        }
        if !report.left_over.is_empty() && !self.allow_left_over {
            let names = listed(report.left_over.iter().map(String::as_str));
            return refuse(format!("has {names}, for which the map has no line"));
        }
        let array = |(old, new): &(String, String)| Ok((new.clone(), file.array(old)?));
        let arrays: Vec<_> = report.used.iter().map(array).collect::<Result<_>>()?;
        format.write(output, &Arrays::new(file.path(), arrays))?;
        Ok(report)
    }

    fn plan(&self, file: &File) -> Result<Report> {
        let mut report = Report::default();
        let others = file.others();
        report.others = others
            .map(|(name, what)| (name.to_owned(), what.to_owned()))
            .collect();
        let mut met = BTreeSet::new();
        let mut origins = BTreeMap::new();
        for (name, _) in file.entries() {
            let new = match &self.map {
                None => Some(name.to_owned()),
                Some(map) => match map.of(name) {
                    None => {
                        report.left_over.push(name.to_owned());
                        continue;
                    }
                    Some((rule, new)) => {
                        met.insert(rule);
                        new
                    }
                },
            };
            let Some(new) = new else {
                report.left_out.push(name.to_owned());
                continue;
            };
            if let Some(other) = origins.insert(new.clone(), name) {
                let problem = format!("gives the name `{new}` to both `{other}` and `{name}`");
                return Err(Error::argument(OP, "map", problem));
            }
            report.used.push((name.to_owned(), new));
        }
        let rules = self.map.iter().flat_map(|map| map.rules.iter().enumerate());
        let unmet = rules.filter(|(i, (_, new))| new.is_some() && !met.contains(i));
        report.missing = unmet.map(|(_, (old, _))| old.clone()).collect();
        Ok(report)
    }
}

/// Converts a file of weights into the format of the ending of the output's name. [`Conversion`]
/// has options.
///
/// ```
/// use recurrent::checkpoint::save_params;
/// use recurrent::interchange::convert;
/// use recurrent::{Device, GruCell};
///
/// # fn main() -> recurrent::Result<()> {
/// let folder = std::env::temp_dir();
/// let path = folder.join("recurrent-convert.safetensors");
/// save_params(&path, &GruCell::new(&Device::cpu(), 3, 4)?)?;
/// // TensorFlow's checkpoint of a cell, which `tf.train.load_checkpoint` reads:
/// let report = convert(&path, folder.join("recurrent-convert.ckpt"))?;
/// assert_eq!(report.used[0].1, "candidate/bias");
/// # Ok(()) }
/// ```
///
/// # Errors
/// Those of [`Conversion::run`].
pub fn convert(input: impl AsRef<Path>, output: impl AsRef<Path>) -> Result<Report> {
    Conversion::new().run(input, output)
}
