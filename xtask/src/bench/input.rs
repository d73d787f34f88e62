//! `cargo xtask bench --input`: times reading, parsing, padding and batching of records, and
//! compares with tf.data.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

use backend_api::Result;
use rnn_train::data::{
    Batch, Compression, ExampleSpec, Feature, Field, FixedLen, FixedLenSequence, Pad, RecordFiles,
    RecordWriter, Remainder, Sample, SequenceExample, Source, SourceExt,
};
use serde_json::{Value, json};

use super::timing;

const HELP: &str = "\
Usage: cargo xtask bench --input [OPTIONS]

Writes SequenceExamples of 20 to 200 steps, each with 16 floats and a label, to a TFRecord file,
then times reading, parsing, padding and batching all of them in batches of 64: in file order
(`padded`), and in buckets of similar length (`bucketed`). Prints a line of JSON for each.

--examples N         number of examples (default: 100000)
--file PATH          record file; written if it does not exist (default: a temporary file)
--repeats N          timed passes, after one to warm up (default: 5)
--compare tensorflow also run bench/input_tensorflow.py on the same file
--python PATH        Python with TensorFlow (default: python3)
";

const BATCH: usize = 64;
const WIDTH: usize = 16;
const BOUNDARIES: [usize; 3] = [50, 100, 150];
/// Records read ahead of the parser, and batches read ahead of the consumer.
const AHEAD: (usize, usize) = (128, 8);

#[derive(Debug)]
struct Options {
    examples: usize,
    file: Option<PathBuf>,
    repeats: usize,
    tensorflow: bool,
    python: String,
}

/// Runs the task; `args` are the arguments after `--input`.
///
/// # Errors
/// An option is wrong, the file cannot be written or read, or TensorFlow cannot be run.
pub(super) fn run(args: &[String]) -> std::result::Result<(), Box<dyn Error>> {
    let Some(options) = parse_options(args)? else {
        return Ok(());
    };
    let folder = tempfile::tempdir()?;
    let file = options.file.clone();
    let file = file.unwrap_or_else(|| folder.path().join("input.tfrecord"));
    if !file.exists() {
        write(&file, options.examples)?;
    }
    for bucketed in [false, true] {
        println!("{}", measure(&file, bucketed, options.repeats)?);
    }
    if options.tensorflow {
        for form in [&["--form", "both"][..], &["--form", "single", "--bucket"]] {
            let script = super::root().join("bench").join("input_tensorflow.py");
            let mut command = Command::new(&options.python);
            command.arg(script).arg("--file").arg(&file).args(form);
            command.args(["--repeats", &options.repeats.to_string()]);
            if !command.status()?.success() {
                return Err("bench/input_tensorflow.py failed".into());
            }
        }
    }
    Ok(())
}

fn parse_options(args: &[String]) -> std::result::Result<Option<Options>, Box<dyn Error>> {
    let mut options = Options {
        examples: 100_000,
        file: None,
        repeats: 5,
        tensorflow: false,
        python: "python3".into(),
    };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} requires a value"));
        match arg.as_str() {
            "--help" | "-h" => {
                print!("{HELP}");
                return Ok(None);
            }
            "--examples" => options.examples = value()?.parse()?,
            "--file" => options.file = Some(value()?.into()),
            "--repeats" => options.repeats = value()?.parse()?,
            "--compare" if value()? == "tensorflow" => options.tensorflow = true,
            "--python" => options.python.clone_from(value()?),
            other => return Err(format!("unknown option `{other}` of --input (--help)").into()),
        }
    }
    Ok(Some(options))
}

/// Writes examples whose content is a function of their number.
fn write(path: &Path, examples: usize) -> Result<()> {
    let mut writer = RecordWriter::create(path, Compression::Plain)?;
    for example in 0..examples {
        let steps = 20 + example.wrapping_mul(7919) % 181;
        let values = (0..steps).map(|step| {
            let values = (0..WIDTH).map(|i| ((example + step * WIDTH + i) % 997) as f32 * 0.01);
            Feature::Float(values.collect())
        });
        let labels = (0..steps).map(|step| [((example + step) % 300) as i64]);
        let record = SequenceExample::new()
            .context("label", [(example % 10) as i64])
            .context("length", [steps as i64])
            .feature_list("values", values)
            .feature_list("labels", labels);
        writer.write(&record.to_bytes())?;
    }
    writer.finish()
}

/// The pipeline, and the field with the labels of the steps.
fn pipeline(
    path: &Path,
    bucketed: bool,
) -> Result<(Box<dyn FnMut() -> Result<Option<Batch>>>, Field<i64>)> {
    let mut spec = ExampleSpec::new();
    spec.context(FixedLen::<i64>::new("label", &[]))?;
    spec.context(FixedLen::<i64>::new("length", &[]))?;
    spec.sequence(FixedLenSequence::<f32>::new("values", &[WIDTH]))?;
    let labels = spec.sequence(FixedLenSequence::<i64>::new("labels", &[]))?;
    let samples = RecordFiles::open([path])?.prefetch(AHEAD.0)?.parse(spec);
    let next: Box<dyn FnMut() -> Result<Option<Batch>>> = if bucketed {
        let steps = move |sample: &Sample| sample.steps(labels);
        let groups =
            samples.bucket_by_sequence_length(steps, &BOUNDARIES, &[BATCH], Remainder::Keep)?;
        let mut batches = groups.pad(Pad::new()).prefetch(AHEAD.1)?;
        Box::new(move || batches.next_item())
    } else {
        let groups = samples.group(BATCH, Remainder::Keep)?;
        let mut batches = groups.pad(Pad::new()).prefetch(AHEAD.1)?;
        Box::new(move || batches.next_item())
    };
    Ok((next, labels))
}

fn measure(
    path: &Path,
    bucketed: bool,
    repeats: usize,
) -> std::result::Result<Value, Box<dyn Error>> {
    timing::restart_peak();
    let before = timing::resident()?;
    let (mut next, labels) = pipeline(path, bucketed)?;
    let (mut batches, mut examples, mut steps, mut padded, mut checksum) = (0, 0, 0, 0, 0);
    while let Some(batch) = next()? {
        batches += 1;
        examples += batch.size();
        steps += batch.lengths(labels)?.iter().sum::<i64>();
        padded += batch.get(labels)?.len();
        checksum += batch.get(labels)?.iter().sum::<i64>();
    }
    let times = timing::counted(repeats, &mut || -> Result<()> {
        while next()?.is_some() {}
        Ok(())
    })?;
    let megabytes = std::fs::metadata(path)?.len() as f64 / 1e6;
    Ok(json!({
        "peer": "recurrent",
        "version": env!("CARGO_PKG_VERSION"),
        "workload": "input",
        "mode": if bucketed { "bucketed" } else { "padded" },
        "examples": examples,
        "batches": batches,
        "steps": steps,
        "steps_with_padding": padded,
        "checksum": checksum,
        "file_mb": megabytes,
        "median_s": times.quantile(0.5),
        "min_s": times.quantile(0.0),
        "max_s": times.quantile(1.0),
        "repeats": times.count(),
        "peak_increase_kib": timing::peak()? - before,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_orders_read_every_example() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("input");
        write(&path, 200).unwrap();
        let [padded, bucketed] = [false, true].map(|b| measure(&path, b, 1).unwrap());
        let steps: u64 = (0..200u64).map(|i| 20 + i * 7919 % 181).sum();
        for line in [&padded, &bucketed] {
            assert_eq!(
                (&line["examples"], &line["steps"]),
                (&json!(200), &json!(steps))
            );
            assert_eq!(line["checksum"], padded["checksum"]);
        }
        let size = |line: &Value| line["steps_with_padding"].as_u64().unwrap();
        assert!(steps < size(&bucketed) && size(&bucketed) < size(&padded));
    }

    #[test]
    fn an_unknown_option_is_named() {
        let args = |line: &str| -> Vec<String> { line.split(' ').map(str::to_owned).collect() };
        let error = parse_options(&args("--fast")).unwrap_err().to_string();
        assert_eq!(error, "unknown option `--fast` of --input (--help)");
        let options = parse_options(&args("--examples 7 --compare tensorflow"))
            .unwrap()
            .unwrap();
        assert_eq!((options.examples, options.tensorflow), (7, true));
    }
}
