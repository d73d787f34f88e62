//! Code shared by the examples: reading options and reporting errors.

use std::collections::HashMap;
use std::io::{self, Write};
use std::process::ExitCode;
use std::str::FromStr;

use recurrent::Device;

/// The error type of the examples.
pub type Error = Box<dyn std::error::Error>;

/// The exit code of a program; prints the error if it failed. A broken pipe (`| head`) is not an
/// error.
pub fn report(result: Result<(), Error>) -> ExitCode {
    let unread = |e: &Error| {
        let io = e.downcast_ref::<io::Error>();
        io.is_some_and(|io| io.kind() == io::ErrorKind::BrokenPipe)
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if unread(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Options of the form `--name value`.
pub struct Options(HashMap<String, String>);

impl Options {
    /// Reads the command line. `known` lists the names of all options; `--help` prints `help` and
    /// exits.
    pub fn read(help: &str, known: &[&str]) -> Result<Self, Error> {
        let mut options = HashMap::new();
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            let name = arg.strip_prefix("--").unwrap_or_default();
            if matches!(arg.as_str(), "--help" | "-h") {
                write!(io::stdout(), "{help}")?;
                std::process::exit(0);
            }
            if !known.contains(&name) {
                return Err(format!("unknown option `{arg}`\n\n{help}").into());
            }
            let value = args.next().ok_or(format!("--{name} requires a value"))?;
            options.insert(name.to_owned(), value);
        }
        Ok(Self(options))
    }

    /// The value of an option, or its default.
    pub fn get<T: FromStr>(&self, name: &str, default: T) -> Result<T, Error>
    where
        T::Err: std::fmt::Display,
    {
        match self.0.get(name) {
            None => Ok(default),
            Some(text) => text
                .parse()
                .map_err(|e| format!("--{name} {text}: {e}").into()),
        }
    }

    /// The value of an option, if it was given.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The device of `--device`, or else of the environment.
    pub fn device(&self) -> recurrent::Result<Device> {
        match self.text("device") {
            Some(name) => name.parse(),
            None => Device::from_env(),
        }
    }
}
