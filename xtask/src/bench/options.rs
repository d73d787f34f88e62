//! The command line of `cargo xtask bench`.

use std::error::Error;
use std::path::PathBuf;

use backend_api::{MemoryPolicy, Precision};

use super::scaling::SCALING;
use super::workloads::{GROUPS, Mode, WORKLOADS, Workload};

const HELP: &str = "\
Usage: cargo xtask bench [OPTIONS]

Measures the workloads: the median of 5 to 100 runs after warming up. Each workload runs in its own
process, on as many cores as threads (through `taskset`, if it is installed). Before the timing,
five steps are compared with plain operations on the CPU, which run one step at a time: the outputs,
and in training also the loss and the gradients.

--group NAME         standard; cells: layer-normalized LSTM, UGRNN, NAS, SRU and a user's own cell;
                     or streams: of 512 units, with several rows (default: standard)
--workload NAME,..   only these workloads; --list prints all (default: all of the group)
--mode MODE,..       fwd, train, stream or memory (default: all modes of the workload)
--threads N,..       numbers of CPU threads (default: 1,2)
--device NAME,..     cpu or cuda; cpu-unfused or cuda-unfused, without the fused kernels;
                     cpu-vector, without AMX (default: cpu)
--policy NAME,..     memory policies of training: store, recompute or offload (default: store)
--precision NAME     products in exact, tf32 (cuda only), bf16 or int8 (cpu only) precision; on the
                     CPU, bf16 and int8 are for inference only (default: exact)
--compare NAME,..    run other frameworks too, and print ratios: torch, jax, onnxruntime, openvino
                     (scripts in bench/), burn, candle (built if requested); a framework that is not
                     installed is skipped with a remark
--python PATH        the Python with the modules of these frameworks (default: python3)
--scaling            measure an LSTM at several numbers of steps and batch sizes instead; prints
                     tables and writes two plots
--input              measure reading, parsing and batching of records instead
                     (see cargo xtask bench --input --help)
--plots DIR          the folder for the plots (default: bench/plots)
--json               print only JSON lines
--save FILE          append the JSON lines to FILE
--baseline FILE      print ratios to the times in FILE, from --save
--verify             print results of small networks with known weights, the same for every
                     framework; with --compare, compare torch's and jax's cells of --group cells
";

/// What `--device` accepts. The part before a hyphen is the device.
const BACKENDS: [&str; 5] = ["cpu", "cpu-unfused", "cpu-vector", "cuda", "cuda-unfused"];

/// The parsed command line.
#[derive(Debug)]
pub(super) struct Options {
    pub(super) workloads: Vec<Workload>,
    pub(super) modes: Vec<Mode>,
    pub(super) threads: Vec<usize>,
    pub(super) backends: Vec<String>,
    pub(super) policies: Vec<MemoryPolicy>,
    pub(super) precision: Precision,
    pub(super) compare: Vec<String>,
    pub(super) python: String,
    pub(super) scaling: bool,
    pub(super) plots: PathBuf,
    pub(super) json: bool,
    pub(super) save: Option<String>,
    pub(super) baseline: Option<String>,
    pub(super) verify: bool,
    /// Whether to measure in this process instead of starting one.
    pub(super) here: bool,
}

impl Options {
    /// Parses the command line. Returns `None` after printing the help text.
    pub(super) fn parse(args: &[String]) -> Result<Option<Self>, Box<dyn Error>> {
        let mut options = Self {
            workloads: WORKLOADS.to_vec(),
            modes: Mode::ALL.to_vec(),
            threads: vec![1, 2],
            backends: vec!["cpu".into()],
            policies: vec![MemoryPolicy::Store],
            precision: Precision::Exact,
            compare: Vec::new(),
            python: "python3".into(),
            scaling: false,
            plots: super::root().join("bench").join("plots"),
            json: false,
            save: None,
            baseline: None,
            verify: false,
            here: false,
        };
        let mut named = None;
        let all = || GROUPS.iter().flat_map(|(_, group)| *group).chain(&SCALING);
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or_else(|| format!("{arg} wants a value"));
            match arg.as_str() {
                "--help" | "-h" => {
                    print!("{HELP}");
                    return Ok(None);
                }
                "--list" => {
                    print!("{}", list(all()));
                    return Ok(None);
                }
                "--group" => {
                    let name = value()?;
                    let group = GROUPS.iter().find(|(group, _)| group == name);
                    let (_, group) = group.ok_or_else(|| format!("there is no group `{name}`"))?;
                    options.workloads = group.to_vec();
                }
                "--workload" => {
                    named = Some(listed(value()?, "workload", |name| {
                        all().copied().find(|w| w.name == name)
                    })?);
                }
                "--mode" => {
                    options.modes = listed(value()?, "mode", |name| {
                        Mode::ALL.into_iter().find(|m| m.name() == name)
                    })?;
                }
                "--threads" => {
                    options.threads = listed(value()?, "number of threads", |n| {
                        n.parse().ok().filter(|n| *n > 0)
                    })?;
                }
                "--device" | "--backend" => {
                    options.backends = listed(value()?, "device", |name| {
                        BACKENDS.contains(&name).then(|| name.to_owned())
                    })?;
                }
                "--policy" => {
                    options.policies = listed(value()?, "memory policy", |name| name.parse().ok())?;
                }
                "--precision" => options.precision = value()?.parse()?,
                "--compare" => options.compare = listed(value()?, "", |name| Some(name.into()))?,
                "--python" => options.python.clone_from(value()?),
                "--scaling" => options.scaling = true,
                "--plots" => options.plots = value()?.into(),
                "--save" => options.save = Some(value()?.clone()),
                "--baseline" => options.baseline = Some(value()?.clone()),
                "--json" => options.json = true,
                "--verify" => options.verify = true,
                "--here" => options.here = true,
                other => return Err(format!("there is no option `{other}` (--help)").into()),
            }
        }
        match named {
            Some(named) => options.workloads = named,
            None if options.scaling => options.workloads = SCALING.to_vec(),
            None => {}
        }
        Ok(Some(options))
    }

    /// For each workload without any requested mode, which modes it has.
    pub(super) fn without_mode(&self) -> Vec<String> {
        let has = |w: &&Workload| w.modes.iter().any(|mode| self.modes.contains(mode));
        let without = self.workloads.iter().filter(|w| !has(w));
        let remark = |w: &Workload| {
            let (asked, has) = (names(&self.modes), names(w.modes));
            format!("{} has no mode {asked}, only {has}", w.name)
        };
        without.map(remark).collect()
    }
}

/// The workloads as a table.
fn list<'a>(workloads: impl Iterator<Item = &'a Workload>) -> String {
    let mut text = format!(
        "{:<20} {:<10} {:>6} {:>5} {:>6} {:>6} {:>5}  modes\n",
        "workload", "cell", "layers", "batch", "steps", "inputs", "units"
    );
    for w in workloads {
        text += &format!(
            "{:<20} {:<10} {:>6} {:>5} {:>6} {:>6} {:>5}  {}\n",
            w.name,
            w.kind.name(),
            w.layers,
            w.batch,
            w.steps,
            w.inputs,
            w.units,
            names(w.modes),
        );
    }
    text
}

fn names(modes: &[Mode]) -> String {
    let names: Vec<&str> = modes.iter().map(|mode| mode.name()).collect();
    names.join(", ")
}

/// Parses values separated by commas.
fn listed<T>(
    text: &str,
    what: &str,
    find: impl Fn(&str) -> Option<T>,
) -> Result<Vec<T>, Box<dyn Error>> {
    let one = |name| find(name).ok_or_else(|| format!("there is no {what} `{name}`").into());
    text.split(',').map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::line::{device, label};

    fn parse(line: &str) -> Result<Options, String> {
        let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let options = Options::parse(&args).map_err(|e| e.to_string())?;
        options.ok_or_else(|| "help".into())
    }

    #[test]
    fn lists_have_commas_between() {
        let options = parse("--device cpu,cpu-unfused --threads 1,4 --mode fwd,stream").unwrap();
        assert_eq!(options.backends, ["cpu", "cpu-unfused"]);
        assert_eq!(options.threads, [1, 4]);
        assert_eq!(options.modes, [Mode::Forward, Mode::Stream]);
        assert_eq!(options.workloads.len(), WORKLOADS.len());
        assert_eq!(device(&options.backends[1]), "cpu");
        assert_eq!(
            label("cpu-unfused", Precision::Exact, MemoryPolicy::Store),
            "cpu-unfused"
        );
        let both = label("cuda", Precision::Tf32, MemoryPolicy::Offload);
        assert_eq!((device(&both), &*both), ("cuda", "cuda tf32 offload"));
    }

    #[test]
    fn scaling_has_workloads_of_its_own_unless_some_are_named() {
        assert_eq!(parse("--scaling").unwrap().workloads.len(), SCALING.len());
        let options = parse("--scaling --workload B16_T300 --plots here").unwrap();
        assert_eq!(options.workloads[0].steps, 300);
        assert_eq!(options.plots, PathBuf::from("here"));
    }

    #[test]
    fn a_group_is_measured_unless_workloads_are_named() {
        let options = parse("--group cells").unwrap();
        let names: Vec<&str> = options.workloads.iter().map(|w| w.name).collect();
        assert_eq!((names.len(), names[0]), (20, "C1_layer_norm_B1"));
        assert_eq!(names[19], "C5_custom_B256");
        let options = parse("--workload C3_nas_B16 --group standard").unwrap();
        assert_eq!(options.workloads[0].name, "C3_nas_B16");
    }

    #[test]
    fn workloads_say_which_modes_they_have() {
        let remarks = parse("--workload W1_mnist,W2_ptb --mode fwd")
            .unwrap()
            .without_mode();
        assert_eq!(remarks, ["W1_mnist has no mode fwd, only train"]);
        let remarks = parse("--workload W8_memory --mode fwd,stream")
            .unwrap()
            .without_mode();
        assert_eq!(remarks, ["W8_memory has no mode fwd, stream, only memory"]);
        assert!(parse("").unwrap().without_mode().is_empty());
    }

    #[test]
    fn the_list_of_workloads_is_a_table() {
        let text = list(WORKLOADS.iter());
        let columns = |line: &str| {
            line.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let second = text.lines().nth(2).unwrap();
        let expected = [
            "W2_ptb", "lstm", "2", "20", "35", "650", "650", "fwd,", "train",
        ];
        assert_eq!(columns(second), expected);
        assert_eq!(text.lines().count(), WORKLOADS.len() + 1);
    }

    #[test]
    fn what_there_is_not_is_named() {
        for (line, error) in [
            ("--group cell", "there is no group `cell`"),
            ("--device gpu", "there is no device `gpu`"),
            ("--threads 0", "there is no number of threads `0`"),
            ("--workload W3", "there is no workload `W3`"),
            ("--mode fwd,sleep", "there is no mode `sleep`"),
            (
                "--precision double",
                "precision: name is `double`, but must be one of exact, tf32, bf16, int8",
            ),
            ("--save", "--save wants a value"),
            ("--fast", "there is no option `--fast` (--help)"),
        ] {
            assert_eq!(parse(line).unwrap_err(), error);
        }
    }
}
