//! Shared by the programs of `bench/candle` and `bench/burn`: the arguments of `rnn_torch.py`, the
//! procedure of a measurement, and its line of JSON.

#[path = "timing.rs"]
mod timing;

use std::error::Error;

use timing::Times;

pub type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The sizes of a workload, and the measurement.
#[derive(Debug, Default)]
pub struct Args {
    workload: String,
    mode: String,
    pub cell: String,
    threads: usize,
    pub layers: usize,
    pub batch: usize,
    pub steps: usize,
    pub inputs: usize,
    pub units: usize,
    pub classes: usize,
    input_grad: bool,
    device: String,
    flops: f64,
}

impl Args {
    pub fn parse() -> Result<Self> {
        let mut it = Self::default();
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            if arg == "--input-grad" {
                it.input_grad = true;
                continue;
            }
            let value = args.next().ok_or_else(|| format!("{arg} wants a value"))?;
            match arg.as_str() {
                "--workload" => it.workload = value,
                "--mode" => it.mode = value,
                "--cell" => it.cell = value,
                "--device" => it.device = value,
                "--threads" => it.threads = value.parse()?,
                "--layers" => it.layers = value.parse()?,
                "--batch" => it.batch = value.parse()?,
                "--steps" => it.steps = value.parse()?,
                "--inputs" => it.inputs = value.parse()?,
                "--units" => it.units = value.parse()?,
                "--classes" => it.classes = value.parse()?,
                "--flops" => it.flops = value.parse()?,
                // Ragged rows run padded; matmuls are exact.
                "--lengths" | "--precision" => {}
                _ => return Err(format!("there is no option {arg}").into()),
            }
        }
        let threads = std::env::var("RAYON_NUM_THREADS").ok();
        if threads.and_then(|n| n.parse().ok()) != Some(it.threads) {
            return Err("RAYON_NUM_THREADS has to be the number of threads too".into());
        }
        Ok(it)
    }

    /// Whether the network is trained.
    pub fn trains(&self) -> bool {
        matches!(self.mode.as_str(), "train" | "memory")
    }

    /// Whether training differentiates with respect to the inputs.
    pub fn input_grad(&self) -> bool {
        self.input_grad && self.trains()
    }
}

/// A network in another framework, with its inputs.
pub trait Network {
    /// Creates inputs of `steps` steps.
    fn inputs(&mut self, steps: usize) -> Result<()>;
    /// The whole sequence, without recording.
    fn forward(&mut self) -> Result<()>;
    /// Forward, mean of all outputs (or cross-entropy of the last one), backward, Adam.
    fn train(&mut self) -> Result<()>;
    /// One step; the state is carried.
    fn step(&mut self) -> Result<()>;
    /// Returns a function that multiplies two square matrices.
    fn product(&self, side: usize) -> Result<Box<dyn FnMut() -> Result<()>>>;
}

/// Cells that the frameworks' crates have, or have the parts of.
const CELLS: [&str; 3] = ["rnn_tanh", "lstm", "gru"];

/// Runs the measurement and prints its line. Prints nothing for a device other than the CPU, or
/// another cell.
pub fn measure(peer: &str, network: impl FnOnce(&Args) -> Result<Box<dyn Network>>) -> Result<()> {
    let args = Args::parse()?;
    if args.device != "cpu" || !CELLS.contains(&args.cell.as_str()) {
        return Ok(());
    }
    let mut network = network(&args)?;
    let mut more = String::new();
    let times = match args.mode.as_str() {
        "memory" => {
            network.inputs(2)?;
            network.train()?;
            let base = timing::resident()?;
            timing::restart_peak();
            network.inputs(args.steps)?;
            let times = timing::counted(1, &mut || network.train())?;
            let growth = (timing::peak()? - base) / 1024.0;
            more += &format!(",\"peak_increase_mib\":{growth}");
            times
        }
        mode => {
            network.inputs(args.steps)?;
            let times = match mode {
                "fwd" => timing::repeat(&mut || network.forward())?,
                "train" => timing::repeat(&mut || network.train())?,
                "stream" => timing::stream(&mut || network.step())?,
                _ => return Err(format!("there is no mode {mode}").into()),
            };
            more += &spread(&times, mode == "stream");
            let side = 1024;
            let best = timing::counted(18, &mut *network.product(side)?)?.quantile(0.0);
            let peak = 2.0 * (side as f64).powi(3) / best / 1e9;
            more += &format!(",\"peak_gflops\":{peak}");
            times
        }
    };
    let median = times.quantile(0.5);
    println!(
        "{{\"peer\":\"{peer}\",\"version\":\"{}\",\"workload\":\"{}\",\"mode\":\"{}\",\
         \"threads\":{},\"median_s\":{median},\"gflops\":{},\"repeats\":{}{more}}}",
        env!("CARGO_PKG_VERSION"),
        args.workload,
        args.mode,
        args.threads,
        args.flops / median / 1e9,
        times.count(),
    );
    Ok(())
}

fn spread(times: &Times, stream: bool) -> String {
    let at = |share| times.quantile(share);
    let mut text = format!(",\"min_s\":{},\"max_s\":{}", at(0.0), at(1.0));
    if stream {
        let (p50, p99) = (at(0.5) * 1e6, at(0.99) * 1e6);
        text += &format!(",\"p50_us\":{p50},\"p99_us\":{p99}");
    }
    text
}
