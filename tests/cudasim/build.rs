//! Compiles the simulator (`sim/*.cpp`) to one shared object, and links the libraries under whose
//! names cudarc looks for CUDA: each is empty and depends on the simulator.
//!
//! `CXX` names the C++ compiler; it also compiles kernels at run time. `CUDASIM_SANITIZE=address`
//! or `=thread` builds for a sanitizer (see `cargo xtask sanitize`). Without a compiler the crate
//! still builds, and `install` returns the reason.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;
use std::{env, fs, thread};

/// Both names of each library: the one that cudarc tries first, and the one with a version.
const NAMES: [&str; 9] = [
    "libcuda.so",
    "libcuda.so.1",
    "libnvrtc.so",
    "libnvrtc.so.13",
    "libcublas.so",
    "libcublas.so.13",
    "libnvtx3interop.so",
    "libnvtx3interop.so.1",
    "libnccl.so.2",
];

fn main() {
    println!("cargo::rerun-if-changed=sim");
    println!("cargo::rerun-if-env-changed=CXX");
    println!("cargo::rerun-if-env-changed=CUDASIM_SANITIZE");
    let problem = build().err().unwrap_or_default();
    if !problem.is_empty() {
        println!("cargo::warning=the simulated CUDA device is not built: {problem}");
    }
    println!("cargo::rustc-env=CUDASIM_PROBLEM={problem}");
}

fn build() -> Result<(), String> {
    if env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("linux") {
        return Err("it needs Linux".to_owned());
    }
    let (compiler, version) = compiler()?;
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let root =
        PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR"));
    let sources = files_below(&root.join("sim"));
    let sanitize = env::var("CUDASIM_SANITIZE").unwrap_or_default();

    let mut flags: Vec<String> = [
        "-std=c++17",
        "-O2",
        "-g1",
        "-fPIC",
        "-fvisibility=hidden",
        "-Wall",
        "-Wextra",
    ]
    .map(str::to_owned)
    .to_vec();
    match sanitize.as_str() {
        "" => {}
        "address" => {
            flags.extend(
                [
                    "-fsanitize=address",
                    "-fno-omit-frame-pointer",
                    "-DCUDASIM_SANITIZE_ADDRESS",
                ]
                .map(str::to_owned),
            );
        }
        // Only kernels are instrumented: all fibers access the simulator's own data, which the
        // sanitizer would report.
        "thread" => flags.push("-DCUDASIM_SANITIZE_THREAD".to_owned()),
        other => {
            return Err(format!(
                "CUDASIM_SANITIZE is `{other}`, but must be address or thread"
            ));
        }
    }
    flags.push(define("CUDASIM_CXX", &compiler));
    flags.push(define(
        "CUDASIM_INCLUDE",
        &root.join("sim/include").display().to_string(),
    ));
    flags.push(define(
        "CUDASIM_BUILD",
        &fingerprint(&sources, &version, &sanitize, &out),
    ));

    let objects = compile_all(&compiler, &flags, &sources, &out)?;
    let mut link = Command::new(&compiler);
    link.arg("-shared")
        .args(&objects)
        .arg("-o")
        .arg(out.join("libcudasim.so"))
        .args(["-ldl", "-pthread"]);
    if sanitize == "address" {
        link.arg("-fsanitize=address");
    }
    run(&mut link)?;
    let empty = out.join("empty.cpp");
    fs::write(&empty, "").map_err(|error| format!("{}: {error}", empty.display()))?;
    for name in NAMES {
        let mut link = Command::new(&compiler);
        link.args([
            "-shared",
            "-fPIC",
            "-Wl,--no-as-needed",
            "-Wl,-rpath,$ORIGIN",
        ])
        .arg(format!("-Wl,-soname,{name}"));
        link.arg(&empty)
            .arg("-L")
            .arg(&out)
            .arg("-lcudasim")
            .arg("-o")
            .arg(out.join(name));
        run(&mut link)?;
    }
    Ok(())
}

/// The first C++ compiler that starts, and its version text.
fn compiler() -> Result<(String, String), String> {
    let named = env::var("CXX").ok();
    let candidates = named
        .as_deref()
        .map_or(vec!["g++", "c++", "clang++"], |name| vec![name]);
    for name in &candidates {
        if let Ok(output) = Command::new(name).arg("--version").output()
            && output.status.success()
        {
            return Ok((
                (*name).to_owned(),
                String::from_utf8_lossy(&output.stdout).into_owned(),
            ));
        }
    }
    Err(format!(
        "no C++ compiler found (tried {}); set CXX to name one",
        candidates.join(", ")
    ))
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)
        .expect("the folder of the sources exists")
        .flatten()
    {
        let path = entry.path();
        if path.is_dir() {
            files.extend(files_below(&path))
        } else {
            files.push(path)
        }
    }
    files.sort();
    files
}

/// Identifies this build of the simulator. A compiled kernel is valid only for one build and one
/// folder, and kernel caches identify a device by its name, which contains the fingerprint. The
/// time is included for a folder that was deleted and built again.
fn fingerprint(sources: &[PathBuf], version: &str, sanitize: &str, out: &Path) -> String {
    let mut hasher = DefaultHasher::new();
    for path in sources {
        fs::read(path)
            .expect("the sources are readable")
            .hash(&mut hasher);
    }
    (version, sanitize, out, SystemTime::now()).hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

fn define(name: &str, value: &str) -> String {
    format!("-D{name}=\"{value}\"")
}

fn compile_all(
    compiler: &str,
    flags: &[String],
    sources: &[PathBuf],
    out: &Path,
) -> Result<Vec<PathBuf>, String> {
    let jobs: Vec<(&PathBuf, PathBuf)> = sources
        .iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "cpp"))
        .map(|path| {
            (
                path,
                out.join(path.file_name().expect("a source file has a name"))
                    .with_extension("o"),
            )
        })
        .collect();
    let workers = thread::available_parallelism()
        .map_or(1, usize::from)
        .min(jobs.len());
    let problems: Vec<String> = thread::scope(|scope| {
        let handles: Vec<_> = (0..workers)
            .map(|worker| {
                let jobs = &jobs;
                scope.spawn(move || {
                    jobs.iter()
                        .skip(worker)
                        .step_by(workers)
                        .filter_map(|(source, object)| {
                            run(Command::new(compiler)
                                .args(flags)
                                .arg("-c")
                                .arg(source)
                                .arg("-o")
                                .arg(object))
                            .err()
                        })
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        handles
            .into_iter()
            .flat_map(|handle| handle.join().expect("a compile thread does not panic"))
            .collect()
    });
    // A compile error is a bug in the simulator, not a missing tool.
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    Ok(jobs.into_iter().map(|(_, object)| object).collect())
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command
        .output()
        .map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "{command:?} failed: {}",
        String::from_utf8_lossy(&output.stderr)
    ))
}
