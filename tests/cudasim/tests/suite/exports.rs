//! Checks that the simulator exports every CUDA function that the backend or cudarc calls. cudarc
//! looks functions up at their first call and panics if one is missing; this test fails after an
//! upgrade with the missing names instead.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use libloading::Library;

/// Functions that cudarc wraps and the backend does not use.
const NOT_WANTED: [&str; 22] = [
    // Contexts other than the primary one, and context limits.
    "cuCtxCreate_v3",
    "cuCtxCreate_v4",
    "cuCtxDestroy_v2",
    "cuCtxGetCacheConfig",
    "cuCtxSetCacheConfig",
    "cuCtxGetLimit",
    "cuCtxSetLimit",
    // Memory of other devices and programs, and managed memory.
    "cuDestroyExternalMemory",
    "cuExternalMemoryGetMappedBuffer",
    "cuImportExternalMemory",
    "cuMemAdvise_v2",
    "cuMemAllocManaged",
    "cuMemPrefetchAsync_v2",
    "cuMemcpyPeerAsync",
    "cuStreamAttachMemAsync",
    // Clusters of blocks.
    "cuOccupancyMaxActiveClusters",
    "cuOccupancyMaxPotentialClusterSize",
    // cuBLAS functions other than single and batched matrix products.
    "cublasDasum_v2",
    "cublasDgemv_v2",
    "cublasGemmGroupedBatchedEx",
    "cublasSasum_v2",
    "cublasSgemv_v2",
];

fn files(path: &Path, found: &mut Vec<PathBuf>) {
    if path.is_dir() {
        for entry in std::fs::read_dir(path).unwrap() {
            files(&entry.unwrap().path(), found);
        }
    } else if path.extension().is_some_and(|extension| extension == "rs") {
        found.push(path.to_owned());
    }
}

/// Names of CUDA functions that the sources below a path call or take as a value.
fn used(path: &Path) -> BTreeSet<String> {
    let mut paths = Vec::new();
    files(path, &mut paths);
    let mut names = BTreeSet::new();
    for path in paths {
        let text = std::fs::read_to_string(&path).unwrap();
        for (at, _) in text.match_indices("sys::") {
            let name: String = text[at + 5..]
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect();
            let rest = name
                .strip_prefix("cublas")
                .or(name.strip_prefix("nvrtc"))
                .or(name.strip_prefix("cu"));
            let function = text[at + 5 + name.len()..].trim_start().starts_with('(');
            if function && rest.is_some_and(|rest| rest.starts_with(char::is_uppercase)) {
                names.insert(name);
            }
        }
    }
    names
}

fn cargo(args: &[&str]) -> std::process::Output {
    let mut command = Command::new(env!("CARGO"));
    command.args(args).output().unwrap()
}

fn cudarc() -> PathBuf {
    let version = String::from_utf8(cargo(&["-vV"]).stdout).unwrap();
    let host = version
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .unwrap();
    // Crates for other systems may not have been downloaded.
    let output = cargo(&[
        "metadata",
        "--format-version",
        "1",
        "--offline",
        "--filter-platform",
        host,
        "--manifest-path",
        concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"),
    ]);
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let cudarc = packages
        .iter()
        .find(|package| package["name"] == "cudarc")
        .unwrap();
    Path::new(cudarc["manifest_path"].as_str().unwrap()).with_file_name("src")
}

struct Exports([Library; 3]);

impl Exports {
    fn new() -> Self {
        cudasim::install().unwrap();
        // SAFETY: the libraries are already loaded in this process.
        Self(
            ["libcuda.so.1", "libnvrtc.so.13", "libcublas.so.13"]
                .map(|name| unsafe { Library::new(name) }.unwrap()),
        )
    }

    fn have(&self, name: &str) -> bool {
        // SAFETY: the symbol is looked up, not called.
        self.0
            .iter()
            .any(|library| unsafe { library.get::<unsafe extern "C" fn()>(name) }.is_ok())
    }
}

#[test]
fn every_function_called_by_the_backend_is_exported() {
    let exports = Exports::new();
    let backend = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../backend-cuda/src");
    let missing: Vec<String> = used(&backend)
        .into_iter()
        .filter(|name| !exports.have(name))
        .collect();
    assert!(
        missing.is_empty(),
        "the backend calls functions that the simulator does not export: {missing:?}"
    );
}

#[test]
fn every_function_wrapped_by_cudarc_is_exported_or_not_wanted() {
    let exports = Exports::new();
    let source = cudarc();
    let mut names = BTreeSet::new();
    for part in [
        "driver/result.rs",
        "driver/safe",
        "nvrtc/result.rs",
        "nvrtc/safe.rs",
        "cublas/result.rs",
        "cublas/safe",
    ] {
        assert!(source.join(part).exists(), "cudarc no longer has {part}");
        names.extend(used(&source.join(part)));
    }
    assert!(names.len() > 90, "{names:?}");
    let missing: Vec<&String> = names
        .iter()
        .filter(|name| !exports.have(name) && !NOT_WANTED.contains(&name.as_str()))
        .collect();
    assert!(
        missing.is_empty(),
        "cudarc may call functions that the simulator does not export: {missing:?}"
    );
    let wanted: Vec<&str> = NOT_WANTED
        .into_iter()
        .filter(|name| exports.have(name) || !names.contains(*name))
        .collect();
    assert!(
        wanted.is_empty(),
        "listed as not wanted, but exported or unknown to cudarc: {wanted:?}"
    );
}
