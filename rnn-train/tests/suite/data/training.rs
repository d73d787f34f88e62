//! Training from record files: an interrupted and resumed run ends with the same bits as an
//! uninterrupted one.

use std::path::{Path, PathBuf};

use backend_api::{DType, Error, Result, Tensor};
use rnn_core::static_state_saving_rnn;
use rnn_core::{BasicRnnCell, Dense, DynamicRnn, Module, StateSaver, StaticRnn, Visitor};
use rnn_train::checkpoint::Checkpoints;
use rnn_train::data::{
    Batch, Compression, Field, Pad, RecordFiles, Remainder, SegmentSpec, Segments, Source,
    SourceExt,
};
use rnn_train::losses::{SequenceLoss, sequence_mask};
use rnn_train::optim::Adam;
use rnn_train::training::Trainer;
use tempfile::tempdir;

use super::{features, write};
use crate::common::{Device, contents, device, tensor};

/// Labels each step with one of four classes.
#[derive(Clone, Debug)]
struct Tagger {
    cell: BasicRnnCell<Device>,
    dense: Dense<Device>,
}

impl Module for Tagger {
    type Backend = Device;
    fn params(&mut self, v: &mut Visitor<'_, Device>) {
        v.child("cell", &mut self.cell);
        v.child("dense", &mut self.dense);
    }
}

impl Tagger {
    fn new(device: &Device) -> Self {
        let mut model = Self {
            cell: BasicRnnCell::new(device, 2, 5).unwrap(),
            dense: Dense::new(device, 5, 4).unwrap(),
        };
        model.initialize(3).unwrap();
        model
    }

    /// The loss of outputs `[batch, time, units]`: the class is the token modulo 4.
    fn loss(
        &self,
        outputs: &Tensor<Device>,
        tokens: &[i64],
        lengths: &[i64],
    ) -> Result<Tensor<Device>> {
        let device = outputs.device();
        let (batch, steps) = (lengths.len(), outputs.dims()[1]);
        let classes: Vec<i64> = tokens.iter().map(|token| token % 4).collect();
        let classes = Tensor::from_slice(device, &classes, &[batch, steps])?;
        let lengths = Tensor::from_slice(device, lengths, &[batch])?;
        let weights = sequence_mask(&lengths, steps)?.cast(DType::F32)?;
        SequenceLoss::default().of(&self.dense.forward(outputs)?, &classes, &weights)
    }
}

/// Trains for two epochs on a source; fails once at step `fails_at`, as if the program were killed.
fn train<S: Source>(
    folder: &Path,
    new: impl Fn() -> S,
    loss: impl Fn(&Tagger, &S::Item) -> Result<Tensor<Device>>,
    device: &Device,
    mut fails_at: Option<u64>,
) -> Vec<(String, DType, Vec<u8>)> {
    loop {
        let (mut model, mut adam, mut source) = (Tagger::new(device), Adam::new(0.05), new());
        let mut trainer = Trainer::new(1)
            .show_progress(false)
            .save_to(Checkpoints::new(folder))
            .save_every(1);
        trainer.resume(&mut model, &mut adam, &mut source).unwrap();
        let failed = loop {
            if trainer.state().epoch == 2 {
                assert!(trainer.state().step > 8, "too few steps");
                return contents(&model);
            }
            let epoch =
                trainer.run_epoch(&mut model, &mut adam, &mut source, |model, item, step| {
                    if fails_at == Some(step.step) {
                        return Err(Error::argument("test", "program", "is killed"));
                    }
                    loss(model, item)
                });
            if epoch.is_err() {
                break true;
            }
        };
        assert!(failed && fails_at.take().is_some());
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let parts = [("a", 0..9), ("b", 9..20)];
    let write = |(name, range)| write(folder, name, Compression::Gzip, range);
    parts.map(write).to_vec()
}

#[test]
fn a_run_over_record_files_resumes_at_every_step() {
    let data = tempdir().unwrap();
    let files = files(data.path());
    let d = device();
    let f = features();
    let (tokens, values, spec) = (f.tokens, f.values, f.spec);
    let new = || {
        RecordFiles::open(&files)
            .unwrap()
            .shuffle_files(5)
            .parse(spec.clone())
            .shuffle(6, 7)
            .unwrap()
            .bucket_by_sequence_length(move |s| s.steps(tokens), &[5], &[4], Remainder::Keep)
            .unwrap()
            .pad(Pad::new())
            .prefetch(3)
            .unwrap()
    };
    let loss = |model: &Tagger, batch: &Batch| {
        let x = batch.tensor(&d, values)?;
        let lengths = batch.lengths(tokens)?;
        let rnn = DynamicRnn::new(&model.cell).sequence_length(lengths);
        model.loss(&rnn.run(&x)?.outputs, batch.get(tokens)?, lengths)
    };
    let run = |fails_at| train(tempdir().unwrap().path(), new, loss, &d, fails_at);
    let whole = run(None);
    for step in 1..12 {
        assert_eq!(run(Some(step)), whole, "killed in step {step}");
    }
}

#[test]
fn a_run_over_segments_resumes_with_the_saved_states() {
    let data = tempdir().unwrap();
    let files = files(data.path());
    let d = device();
    let f = features();
    let (tokens, values): (Field<i64>, Field<f32>) = (f.tokens, f.values);
    let new = || {
        let samples = RecordFiles::open(&files)
            .unwrap()
            .shuffle_files(2)
            .parse(f.spec.clone());
        let samples = samples.prefetch(2).unwrap();
        let spec = SegmentSpec::new(f.key, 3, 4)
            .sequence(tokens)
            .sequence(values);
        let zero = tensor(&d, &[0f32; 5], &[5]);
        Segments::new(samples, spec.sequence(f.tags), &[("h", zero)])
    };
    // A ragged field cannot be cut.
    let error = new().unwrap().next_item().unwrap_err().to_string();
    assert!(error.contains("ragged"), "{error}");

    let mut spec = rnn_train::data::ExampleSpec::new();
    let key = rnn_train::data::FixedLen::<rnn_train::data::ByteStrings>::new("key", &[]);
    let key = spec.context(key).unwrap();
    let list = rnn_train::data::FixedLenSequence::<i64>::new("tokens", &[]);
    let tokens = spec.sequence(list).unwrap();
    let list = rnn_train::data::FixedLenSequence::<f32>::new("values", &[2]);
    let values = spec.sequence(list).unwrap();
    let new = || {
        let samples = RecordFiles::open(&files)
            .unwrap()
            .shuffle_files(2)
            .parse(spec.clone());
        let samples = samples.prefetch(2).unwrap();
        let segments = SegmentSpec::new(key, 3, 4)
            .sequence(tokens)
            .sequence(values);
        Segments::new(samples, segments, &[("h", tensor(&d, &[0f32; 5], &[5]))]).unwrap()
    };
    let loss = |model: &Tagger, segment: &rnn_train::data::SegmentBatch<Device>| {
        let x = segment.batch().tensor(&d, values)?;
        let steps: Vec<_> = (0..3).map(|t| x.select(1, t)).collect::<Result<_>>()?;
        let rnn = StaticRnn::new(&model.cell).sequence_length(segment.lengths());
        let run = static_state_saving_rnn(rnn, &model.cell, &steps, &mut &*segment, &["h"])?;
        let outputs = Tensor::stack(&run.outputs.iter().collect::<Vec<_>>(), 1)?;
        model.loss(&outputs, segment.batch().get(tokens)?, segment.lengths())
    };
    // States of later segments differ from the initial states of sequences.
    let mut source = new();
    let model = Tagger::new(&d);
    let mut later = 0;
    while let Some(segment) = source.next_item().unwrap() {
        let state: Vec<f32> = segment.state("h").unwrap().to_vec().unwrap();
        for (row, &s) in segment.sequences().iter().enumerate() {
            assert_eq!(s > 0, state[row * 5..][..5].iter().any(|v| *v != 0.0));
            later += usize::from(s > 0);
        }
        loss(&model, &segment).unwrap();
    }
    assert!(later > 5);

    let run = |fails_at| train(tempdir().unwrap().path(), new, loss, &d, fails_at);
    let whole = run(None);
    for step in 1..12 {
        assert_eq!(run(Some(step)), whole, "killed in step {step}");
    }
}
