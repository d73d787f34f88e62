//! `cargo xtask gpu-pack`: an archive for the first run on a machine with a GPU and without a
//! compiler.

use std::env;
use std::error::Error;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use flate2::Compression;
use flate2::write::GzEncoder;
use recurrent_tests::conformance::cases;

const HELP: &str = "\
Usage: cargo xtask gpu-pack [--out FILE] [--dry-run]

Builds the tests of the CUDA backend and xtask, and packs them with the golden files, PyTorch's
counterparts of the benchmarks and a script. On a machine with a GPU:

  tar xzf gpu.tar.gz && bash gpu/first.sh

The script runs the tests, the conformance suite, the golden files, the benchmarks and NVIDIA's
checkers, and writes gpu/out/summary.txt. The machine needs the same operating system, a driver,
NVRTC and cuBLAS.

--out FILE   the archive (default: target/gpu.tar.gz)
--dry-run    runs the script here on debug builds, without a GPU: its programs must start, know
             their arguments and pass a few tests on the simulated device
";

/// The files of the archive beside the programs.
const FILES: [(&str, &str); 3] = [
    ("first.sh", include_str!("first.sh")),
    ("libraries.py", include_str!("libraries.py")),
    ("cudnn.py", include_str!("cudnn.py")),
];
/// The tests of the CUDA backend.
const TESTS: [&str; 2] = ["cuda", "cuda_missing"];
/// The folders of the tree that the programs read.
const TREE: [&str; 2] = ["tests/golden/fixtures", "tests/golden/surface"];

pub(crate) fn run(args: &[String]) -> ExitCode {
    match try_run(args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("gpu-pack: {error}");
            ExitCode::FAILURE
        }
    }
}

fn try_run(args: &[String]) -> Result<bool, Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .ok_or("the workspace folder does not exist")?;
    let (mut out, mut dry) = (None, false);
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--help" | "-h" => {
                print!("{HELP}");
                return Ok(true);
            }
            "--out" => out = Some(PathBuf::from(args.next().ok_or("--out requires a value")?)),
            "--dry-run" => dry = true,
            other => return Err(format!("unknown option `{other}`").into()),
        }
    }
    let programs = build(root, dry)?;
    if dry {
        return dry_run(root, &programs);
    }
    let out = out.unwrap_or_else(|| root.join("target").join("gpu.tar.gz"));
    pack(root, &programs, &out)?;
    println!("{}: {} bytes", out.display(), fs::metadata(&out)?.len());
    Ok(true)
}

/// Builds the programs and returns their names and paths.
fn build(root: &Path, debug: bool) -> Result<Vec<(String, PathBuf)>, Box<dyn Error>> {
    let mut programs = built(root, debug, &["test", "--no-run", "--workspace"], &TESTS)?;
    programs.extend(match debug {
        true => vec![("xtask".to_owned(), env::current_exe()?)],
        false => built(root, debug, &["build", "--package", "xtask"], &[])?,
    });
    match programs.len() {
        3 => Ok(programs),
        n => Err(format!("cargo built {n} programs instead of 3").into()),
    }
}

/// The executables that a command of cargo builds.
fn built(
    root: &Path,
    debug: bool,
    command: &[&str],
    tests: &[&str],
) -> Result<Vec<(String, PathBuf)>, Box<dyn Error>> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(root).args(command);
    cargo.args(tests.iter().flat_map(|name| ["--test", name]));
    cargo.args(["--message-format", "json-render-diagnostics"]);
    if !debug {
        cargo.arg("--release");
        cargo.env("CARGO_PROFILE_RELEASE_STRIP", "symbols");
    }
    let output = cargo.stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err(format!("{cargo:?} failed").into());
    }
    let mut programs = Vec::new();
    for line in String::from_utf8(output.stdout)?.lines() {
        let message: serde_json::Value = serde_json::from_str(line)?;
        let path = message["executable"].as_str();
        let name = message["target"]["name"].as_str();
        if let (Some(path), Some(name)) = (path, name) {
            programs.push((name.to_owned(), PathBuf::from(path)));
        }
    }
    Ok(programs)
}

/// The names and texts of the files beside the programs: those in [`FILES`], where the programs
/// were built, and the groups of the conformance suite.
fn texts(root: &Path) -> Vec<(&'static str, String)> {
    let mut groups: Vec<&str> = cases().iter().map(|case| case.group).collect();
    groups.dedup();
    let files = FILES.map(|(name, text)| (name, text.to_owned()));
    let made = [
        ("built", root.display().to_string()),
        ("groups", groups.join("\n") + "\n"),
    ];
    files.into_iter().chain(made).collect()
}

fn pack(root: &Path, programs: &[(String, PathBuf)], out: &Path) -> Result<(), Box<dyn Error>> {
    let file = File::create(out).map_err(|e| format!("{}: {e}", out.display()))?;
    let mut archive = tar::Builder::new(GzEncoder::new(file, Compression::best()));
    for (name, path) in programs {
        archive.append_path_with_name(path, format!("gpu/bin/{name}"))?;
    }
    for part in TREE {
        archive.append_dir_all(format!("gpu/tree/{part}"), root.join(part))?;
    }
    // The folder has build folders, too.
    for entry in fs::read_dir(root.join("bench"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "py") {
            archive.append_path_with_name(
                &path,
                Path::new("gpu/tree").join(path.strip_prefix(root)?),
            )?;
        }
    }
    for (name, text) in texts(root) {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, format!("gpu/{name}"), text.as_bytes())?;
    }
    archive.into_inner()?.finish()?;
    Ok(())
}

/// Runs the script in a folder like the archive's. Returns whether all steps passed.
#[cfg(unix)]
fn dry_run(root: &Path, programs: &[(String, PathBuf)]) -> Result<bool, Box<dyn Error>> {
    use std::os::unix::fs::symlink;
    let folder = tempfile::tempdir()?;
    let here = folder.path();
    fs::create_dir(here.join("bin"))?;
    for (name, path) in programs {
        symlink(path, here.join("bin").join(name))?;
    }
    symlink(root, here.join("tree"))?;
    for (name, text) in texts(root) {
        fs::write(here.join(name), text)?;
    }
    let script = here.join("first.sh");
    let status = Command::new("bash")
        .arg(script)
        .env("DRY_RUN", "1")
        .status()?;
    Ok(status.success())
}

#[cfg(not(unix))]
fn dry_run(_: &Path, _: &[(String, PathBuf)]) -> Result<bool, Box<dyn Error>> {
    Err("the script needs bash".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_script_names_exists() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        for part in TREE {
            assert!(root.join(part).is_dir(), "{part}");
        }
        let (_, rest) = FILES[0].1.split_once("\nsmall=backend::").unwrap();
        let test = format!("fn {}()", rest.lines().next().unwrap());
        let source = fs::read_to_string(root.join("tests/tests/cuda/backend.rs")).unwrap();
        assert!(source.contains(&test), "{test}");
    }
}
