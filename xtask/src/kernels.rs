//! `cargo xtask kernels`: compiles every CUDA kernel for every architecture with the real compiler,
//! on a machine without a GPU.

mod steps;

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use backend_cuda::kernels::{self, Module};

const HELP: &str = "\
Usage: cargo xtask kernels [--install] [--update]

Compiles every kernel, and those generated for some cells, with NVRTC to machine code for sm_75,
sm_80, sm_90a and sm_100, and compares its registers, stack and shared memory with
backend-cuda/kernels/budget.tsv. Fails if a kernel does not compile, spills registers or exceeds its
budget. Requires neither a GPU nor a driver.

--install   install NVRTC from its Python package in target/nvrtc, if it is missing
--update    write the current resources of the kernels as their budget

NVRTC is loaded from $RECURRENT_NVRTC (path of the library), else from target/nvrtc, else from the
system.
";

/// The Python package with NVRTC, in the version whose machine code the oldest supported driver
/// accepts.
const PACKAGE: &str = "nvidia-cuda-nvrtc==13.0.88";
const ARCHITECTURES: [&str; 4] = ["sm_75", "sm_80", "sm_90a", "sm_100"];
const HEADER: &str =
    "# kernel\tregisters for sm_75 sm_80 sm_90a sm_100\tbytes of stack\tbytes of shared memory";

/// A source, and what the names of its kernels begin with.
struct Source {
    prefix: String,
    name: String,
    text: String,
}

/// The resources that a kernel uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Resources {
    registers: [u32; ARCHITECTURES.len()],
    stack: u32,
    shared: u32,
    spilled: u32,
}

pub(crate) fn run(args: &[String]) -> ExitCode {
    match try_run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kernels: {error}");
            ExitCode::FAILURE
        }
    }
}

fn try_run(args: &[String]) -> Result<(), Box<dyn Error>> {
    let (mut install, mut update) = (false, false);
    for arg in args {
        match arg.as_str() {
            "--help" | "-h" => {
                print!("{HELP}");
                return Ok(());
            }
            "--install" => install = true,
            "--update" => update = true,
            other => return Err(format!("unknown option `{other}`").into()),
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .ok_or("the workspace folder does not exist")?;
    open_compiler(&root.join("target").join("nvrtc"), install)?;
    let (major, minor) = kernels::compiler_version()?;
    println!("NVRTC {major}.{minor}");
    let taken = compile_all()?;
    let file = root.join("backend-cuda").join("kernels").join("budget.tsv");
    if update {
        fs::write(&file, write(&taken))?;
        println!("{} kernels; wrote {}", taken.len(), file.display());
        return Ok(());
    }
    let budget = read(&fs::read_to_string(&file)?)?;
    let problems = compare(&taken, &budget);
    for problem in &problems {
        println!("{problem}");
    }
    if !problems.is_empty() {
        return Err(format!(
            "{} problems (--update accepts new sizes, but never spills)",
            problems.len()
        )
        .into());
    }
    println!(
        "{} kernels for {} are within the budget",
        taken.len(),
        ARCHITECTURES.join(", ")
    );
    Ok(())
}

/// Opens NVRTC from `folder`. The backend finds a library that is already open by its name.
fn open_compiler(folder: &Path, install: bool) -> Result<(), Box<dyn Error>> {
    if let Some(library) = std::env::var_os("RECURRENT_NVRTC") {
        return Ok(kernels::open_compiler(Path::new(&library))?);
    }
    let library: PathBuf = folder.join("nvidia/cu13/lib/libnvrtc.so.13");
    if !library.exists() && install {
        let status = Command::new("python3")
            .args(["-m", "pip", "install", "--quiet", "--target"])
            .arg(folder)
            .arg(PACKAGE)
            .status()?;
        if !status.success() {
            return Err(format!("python3 -m pip install {PACKAGE} failed").into());
        }
    }
    if library.exists() {
        kernels::open_compiler(&library)?;
    }
    Ok(())
}

fn compile_all() -> Result<BTreeMap<String, Resources>, Box<dyn Error>> {
    let files = Module::ALL.map(|module| Source {
        prefix: String::new(),
        name: module.name().to_owned(),
        text: module.source().to_owned(),
    });
    let mut taken = BTreeMap::<String, Resources>::new();
    for source in files.into_iter().chain(steps::sources()?) {
        for (i, architecture) in ARCHITECTURES.iter().enumerate() {
            let compiled = kernels::compile(&source.name, &source.text, architecture, true)?;
            if compiled.log.contains("warning") {
                let name = &source.name;
                return Err(format!("{name} for {architecture}:\n{}", compiled.log).into());
            }
            for (name, one) in parse(&compiled.log) {
                let all = taken.entry(format!("{}{name}", source.prefix)).or_default();
                all.registers[i] = one.registers[0];
                all.stack = all.stack.max(one.stack);
                all.shared = all.shared.max(one.shared);
                all.spilled = all.spilled.max(one.spilled);
            }
        }
    }
    Ok(taken)
}

/// The kernels in a compiler log for one architecture, whose registers are in index 0.
fn parse(log: &str) -> Vec<(String, Resources)> {
    let number_before = |line: &str, what: &str| -> u32 {
        line.find(what)
            .and_then(|end| {
                line[..end]
                    .trim_end()
                    .rsplit(|c: char| !c.is_ascii_digit())
                    .next()
            })
            .and_then(|digits| digits.parse().ok())
            .unwrap_or(0)
    };
    let mut kernels: Vec<(String, Resources)> = Vec::new();
    for line in log.lines() {
        if let Some(name) = line
            .split("entry function '")
            .nth(1)
            .and_then(|s| s.split('\'').next())
        {
            kernels.push((name.to_owned(), Resources::default()));
        } else if let Some((_, kernel)) = kernels.last_mut() {
            if line.contains("bytes stack frame") {
                kernel.stack = number_before(line, "bytes stack frame");
                kernel.spilled = number_before(line, "bytes spill stores");
            }
            if let Some(used) = line.split("Used ").nth(1) {
                kernel.registers[0] = number_before(used, " registers");
                kernel.shared = number_before(used, " bytes smem");
            }
        }
    }
    kernels
}

fn write(taken: &BTreeMap<String, Resources>) -> String {
    let mut text = format!("{HEADER}\n");
    for (name, r) in taken {
        let registers = r.registers.map(|n| n.to_string()).join(" ");
        let _ = writeln!(text, "{name}\t{registers}\t{}\t{}", r.stack, r.shared);
    }
    text
}

fn read(text: &str) -> Result<BTreeMap<String, Resources>, Box<dyn Error>> {
    let mut budget = BTreeMap::new();
    for line in text.lines().filter(|l| !l.starts_with('#')) {
        let wrong = || format!("budget.tsv: `{line}` is not the line of a kernel");
        let mut fields = line.split('\t');
        let mut next = || fields.next().ok_or_else(wrong);
        let name = next()?.to_owned();
        let registers: Vec<u32> = next()?
            .split(' ')
            .map(str::parse)
            .collect::<Result<_, _>>()?;
        let resources = Resources {
            registers: registers.try_into().map_err(|_| wrong())?,
            stack: next()?.parse()?,
            shared: next()?.parse()?,
            spilled: 0,
        };
        budget.insert(name, resources);
    }
    Ok(budget)
}

fn compare(
    taken: &BTreeMap<String, Resources>,
    budget: &BTreeMap<String, Resources>,
) -> Vec<String> {
    let mut problems = Vec::new();
    for (name, now) in taken {
        if now.spilled > 0 {
            problems.push(format!("{name} spills {} bytes of registers", now.spilled));
        }
        let Some(allowed) = budget.get(name) else {
            problems.push(format!("{name} has no budget"));
            continue;
        };
        for ((now, allowed), on) in now
            .registers
            .iter()
            .zip(allowed.registers)
            .zip(ARCHITECTURES)
        {
            if *now > allowed {
                problems.push(format!(
                    "{name} uses {now} registers on {on}; its budget is {allowed}"
                ));
            }
        }
        for (what, now, allowed) in [
            ("stack", now.stack, allowed.stack),
            ("shared memory", now.shared, allowed.shared),
        ] {
            if now > allowed {
                problems.push(format!(
                    "{name} uses {now} bytes of {what}; its budget is {allowed}"
                ));
            }
        }
    }
    for name in budget.keys().filter(|name| !taken.contains_key(*name)) {
        problems.push(format!(
            "{name} has a budget, but the kernel does not exist"
        ));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'adam_f32' for 'sm_80'
ptxas info    : Function properties for adam_f32
    48 bytes stack frame, 8 bytes spill stores, 4 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 1024 bytes smem, 616 bytes cmem[0]
";

    fn parsed() -> BTreeMap<String, Resources> {
        parse(LOG).into_iter().collect()
    }

    #[test]
    fn the_log_is_parsed() {
        let kernel = &parsed()["adam_f32"];
        assert_eq!(
            (
                kernel.registers[0],
                kernel.stack,
                kernel.shared,
                kernel.spilled
            ),
            (40, 48, 1024, 8)
        );
    }

    #[test]
    fn spills_growth_and_unknown_kernels_are_found() {
        let taken = parsed();
        let mut budget = read(&write(&taken)).unwrap();
        assert_eq!(
            compare(&taken, &budget),
            ["adam_f32 spills 8 bytes of registers"]
        );
        budget.get_mut("adam_f32").unwrap().registers[0] = 39;
        budget.insert("gone_f32".into(), Resources::default());
        assert_eq!(compare(&taken, &budget).len(), 3);
        assert_eq!(compare(&taken, &BTreeMap::new()).len(), 2);
    }
}
