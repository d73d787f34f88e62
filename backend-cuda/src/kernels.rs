//! The kernel sources, and their compilation with NVRTC.
//!
//! Sources are compiled to machine code for one architecture (CUBIN), not to PTX. Only the full
//! compilation shows that a kernel is valid for an architecture, and the driver loads a CUBIN
//! without compiling it again.

use std::ffi::{CStr, CString, c_char};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::{fs, ptr};

use backend_api::activation::ActivationFn;
use backend_api::expr::Expr;
use backend_api::{Activation, Error, Result, with_activation};
use cudarc::nvrtc::{result, sys};

use crate::libraries::{Library, open_for_good};

/// Headers that kernels include: name and text. "activations.cuh" is generated from the definitions
/// in [`backend_api::activation`].
pub fn headers() -> [(&'static str, &'static str); 6] {
    static ACTIVATIONS: LazyLock<String> = LazyLock::new(activations);
    [
        ("common.cuh", include_str!("../kernels/common.cuh")),
        ("activations.cuh", &ACTIVATIONS),
        ("cells.cuh", include_str!("../kernels/cells.cuh")),
        ("functions.cuh", include_str!("../kernels/functions.cuh")),
        ("steps.cuh", include_str!("../kernels/steps.cuh")),
        ("prim.cuh", include_str!("../kernels/prim.cuh")),
    ]
}

/// The activations as C++: their codes, a list of the common ones, `activate` and `activation_grad`
/// for the common ones, and the same with `_uncommon` for the others, so that kernels of cells do
/// not contain those.
fn activations() -> String {
    let (common, uncommon) = Activation::ALL.split_at(Activation::COMMON.len());
    let code = |f: &Activation| f.name().to_uppercase();
    let codes = |all: &[Activation]| all.iter().map(code).collect::<Vec<_>>().join(", ");
    let value = |f: Activation| with_activation!(f, F => F::value(Expr::argument("x")));
    let gradient = |f: Activation| {
        let (y, dy) = (Expr::argument("y"), Expr::argument("dy"));
        with_activation!(f, F => F::gradient(y, dy))
    };
    let function =
        |name: &str, arguments: &str, all: &[Activation], of: &dyn Fn(Activation) -> Expr| {
            let mut text = format!(
                "template <class T> __device__ inline T {name}(int f, {arguments}) \
                 {{\n  switch (f) {{\n"
            );
            for (i, f) in all.iter().enumerate() {
                let label = match i + 1 == all.len() {
                    true => "default".to_owned(),
                    false => format!("case {}", code(f)),
                };
                text += &format!("  {label}: {{\n{}\n  }}\n", of(*f).to_c());
            }
            text + "  }\n}\n"
        };
    let each = |f: &Activation| format!(" X({}, {})", code(f), f.name());
    [
        format!(
            "#define FOR_COMMON(X){}\n",
            common.iter().map(each).collect::<String>()
        ),
        format!("enum {{ {}, COMMON }};\n", codes(common)),
        format!(
            "enum {{ {} = COMMON, {} }};\n",
            code(&uncommon[0]),
            codes(&uncommon[1..])
        ),
        function("activate", "T x", common, &value),
        function("activation_grad", "T y, T dy", common, &gradient),
        function("activation_grad_uncommon", "T y, T dy", uncommon, &gradient),
        function("activate_uncommon", "T x", uncommon, &value),
    ]
    .concat()
}

/// A kernel source file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Module {
    /// Elementwise operations.
    Elementwise,
    /// Single steps of recurrent cells.
    Gates,
    /// Softmax cross-entropy.
    Loss,
    /// A whole LSTM sequence in one launch.
    LstmPersistent,
    /// Optimizer steps.
    Optimizer,
    /// Random numbers.
    Random,
    /// Sums, maxima and argmax.
    Reduce,
    /// Operations that move rows: gather, scatter, reverse.
    Rows,
    /// Descriptions of runs of generated steps.
    Steps,
}

impl Module {
    /// All modules.
    pub const ALL: [Self; 9] = [
        Self::Elementwise,
        Self::Gates,
        Self::Loss,
        Self::LstmPersistent,
        Self::Optimizer,
        Self::Random,
        Self::Reduce,
        Self::Rows,
        Self::Steps,
    ];

    /// The name of the source file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Elementwise => "elementwise.cu",
            Self::Gates => "gates.cu",
            Self::Loss => "loss.cu",
            Self::LstmPersistent => "lstm_persistent.cu",
            Self::Optimizer => "optimizer.cu",
            Self::Random => "random.cu",
            Self::Reduce => "reduce.cu",
            Self::Rows => "rows.cu",
            Self::Steps => "steps.cu",
        }
    }

    /// The text of the source file.
    pub const fn source(self) -> &'static str {
        match self {
            Self::Elementwise => include_str!("../kernels/elementwise.cu"),
            Self::Gates => include_str!("../kernels/gates.cu"),
            Self::Loss => include_str!("../kernels/loss.cu"),
            Self::LstmPersistent => include_str!("../kernels/lstm_persistent.cu"),
            Self::Optimizer => include_str!("../kernels/optimizer.cu"),
            Self::Random => include_str!("../kernels/random.cu"),
            Self::Reduce => include_str!("../kernels/reduce.cu"),
            Self::Rows => include_str!("../kernels/rows.cu"),
            Self::Steps => include_str!("../kernels/steps.cu"),
        }
    }
}

/// The output of a compilation.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// The machine code.
    pub cubin: Vec<u8>,
    /// The compiler's log: warnings, and with `verbose` the registers and spills of each kernel.
    pub log: String,
}

/// Loads NVRTC from a path, for a library that the system would not find by name. It is never
/// closed.
///
/// # Errors
/// If the file is not a library or its dependencies are missing.
pub fn open_compiler(library: &Path) -> Result<()> {
    // NVRTC loads `libnvrtc-builtins` by name, so a copy in the same folder must be loaded first.
    let folder = library.parent().unwrap_or(Path::new("."));
    let beside = fs::read_dir(folder).into_iter().flatten().flatten();
    let is_part = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.trim_start_matches("lib").starts_with("nvrtc-builtins")
    };
    let parts = beside.map(|entry| entry.path()).filter(is_part);
    for part in parts.chain([library.to_owned()]) {
        open_for_good(&part).map_err(|e| failed(&part.display().to_string(), e.to_string()))?;
    }
    Ok(())
}

/// NVRTC's version: major and minor.
///
/// # Errors
/// If NVRTC cannot be loaded.
pub fn compiler_version() -> Result<(i32, i32)> {
    present()?;
    let version = Library::Compiler.version();
    let version = version.map_err(|problem| failed("nvrtc", problem))?;
    Ok((version / 1000, version % 1000 / 10))
}

/// Source to compile.
#[derive(Clone, Debug)]
pub(crate) struct Code<'a> {
    /// The name of the file, for messages.
    pub(crate) name: &'a str,
    pub(crate) source: &'a str,
    /// Options besides those that all code has.
    pub(crate) options: Vec<String>,
}

impl<'a> Code<'a> {
    /// One kernel of a source file. The others of the file are not compiled, so that the first
    /// start takes a tenth of a second for each kernel that is needed, and nothing for the rest.
    pub(crate) fn kernel(name: &'a str, source: &'a str, kernel: &str) -> Self {
        // See `KERNEL` in common.cuh.
        let options = ["-DONE_KERNEL".to_owned(), format!("-DWANT_{kernel}=CHOSEN")];
        Self {
            name,
            source,
            options: options.to_vec(),
        }
    }

    /// All options for an architecture.
    pub(crate) fn options(&self, architecture: &str) -> Vec<String> {
        // No textures or runtime functions, whose declarations take time.
        let common = ["--std=c++17", "-default-device", "--minimal"].map(str::to_owned);
        let target = format!("--gpu-architecture={architecture}");
        [target]
            .into_iter()
            .chain(common)
            .chain(self.options.clone())
            .collect()
    }
}

/// Compiles a source for an architecture such as `sm_90`.
///
/// # Errors
/// If NVRTC cannot be loaded, or rejects the source; the error then contains the log.
pub fn compile(name: &str, source: &str, architecture: &str, verbose: bool) -> Result<Compiled> {
    let verbose = verbose.then(|| "--ptxas-options=-v".to_owned());
    let options = verbose.into_iter().collect();
    compile_code(
        &Code {
            name,
            source,
            options,
        },
        architecture,
    )
}

pub(crate) fn compile_code(code: &Code<'_>, architecture: &str) -> Result<Compiled> {
    present()?;
    let Code { name, source, .. } = *code;
    let text = |s: &str| CString::new(s).map_err(|e| failed(name, e.to_string()));
    let (source, file) = (text(source)?, text(name)?);
    let headers = headers()
        .iter()
        .map(|(name, source)| Ok((text(name)?, text(source)?)))
        .collect::<Result<Vec<_>>>()?;
    let names: Vec<*const c_char> = headers.iter().map(|(name, _)| name.as_ptr()).collect();
    let sources: Vec<*const c_char> = headers.iter().map(|(_, source)| source.as_ptr()).collect();
    let mut program = ptr::null_mut();
    // SAFETY: all strings outlive the call, which copies them.
    unsafe {
        sys::nvrtcCreateProgram(
            &raw mut program,
            source.as_ptr(),
            file.as_ptr(),
            headers.len() as i32,
            sources.as_ptr(),
            names.as_ptr(),
        )
    }
    .result()
    .map_err(|e| failed(name, format!("{e:?}")))?;
    let program = Program(program);
    let options = code.options(architecture);
    // SAFETY: the program exists.
    let outcome = unsafe { result::compile_program(program.0, &options) };
    let log = program.log();
    outcome.map_err(|e| failed(name, format!("{e:?} for {architecture}\n{log}")))?;
    let cubin = program
        .cubin()
        .map_err(|e| failed(name, format!("{e:?} for {architecture}")))?;
    Ok(Compiled { cubin, log })
}

fn present() -> Result<()> {
    Library::Compiler
        .open()
        .map_err(|reason| Error::Unavailable {
            device: "the CUDA compiler".into(),
            reason,
        })
}

fn failed(name: &str, problem: String) -> Error {
    Error::Failed {
        device: "the CUDA compiler".into(),
        action: "compiling",
        problem: format!("{name}: {problem}"),
    }
}

/// An NVRTC program, destroyed on drop.
struct Program(sys::nvrtcProgram);

impl Program {
    fn log(&self) -> String {
        // SAFETY: the program exists.
        match unsafe { result::get_program_log(self.0) } {
            // SAFETY: NVRTC terminates its log with a NUL.
            Ok(log) if !log.is_empty() => unsafe { CStr::from_ptr(log.as_ptr()) }
                .to_string_lossy()
                .into_owned(),
            _ => String::new(),
        }
    }

    fn cubin(&self) -> Result<Vec<u8>, result::NvrtcError> {
        let mut size = 0;
        // SAFETY: the program exists and is compiled; the second call writes `size` bytes.
        unsafe {
            sys::nvrtcGetCUBINSize(self.0, &raw mut size).result()?;
            let mut cubin = vec![0u8; size];
            sys::nvrtcGetCUBIN(self.0, cubin.as_mut_ptr().cast()).result()?;
            Ok(cubin)
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: the program exists and is not used after this.
        let _ = unsafe { result::destroy_program(self.0) };
    }
}
