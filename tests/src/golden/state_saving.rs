//! Cases of `static_state_saving_rnn`.

use std::collections::HashMap;

use backend_api::{Error, Result as ApiResult, Tensor};
use rnn_core::{Cell, Nest, StateSaver, StaticRnn, cell_from_config, static_state_saving_rnn};

use super::Trouble;
use super::case::StateSavingCase;
use super::check::{Check, Graph, Worst, extent, join};
use super::file::GoldenFile;
use super::static_rnn::{stack, unstack};
use crate::devices::TestDevice;

/// States by name.
struct Saved(HashMap<String, Tensor<TestDevice>>);

impl StateSaver<TestDevice> for Saved {
    fn state(&self, name: &str) -> ApiResult<Tensor<TestDevice>> {
        self.0
            .get(name)
            .cloned()
            .ok_or_else(|| Error::argument("state", "name", format!("`{name}` is not known")))
    }

    fn save_state(&mut self, name: &str, value: Tensor<TestDevice>) -> ApiResult<()> {
        self.0.insert(name.into(), value);
        Ok(())
    }
}

pub(super) fn run(
    device: &TestDevice,
    file: &GoldenFile,
    case: &StateSavingCase,
) -> Result<Worst, Trouble> {
    let dtype = case.dtype.dtype();
    let plain = cell_from_config(device, &case.cell, case.input_size, dtype)?;
    let scope = format!("rnn/{}", plain.scope());
    let x = file.tensor(device, "input/x")?;
    // The lengths of the chunks are derived from these.
    file.lengths(case.sequence_length.as_deref())?;
    let mut check = Check::new(file, dtype);
    let zero = plain.zero_state(extent(&x, 0)?)?;
    // A state that is one tensor is called `s`.
    let named = |name: String| if name.is_empty() { "s".into() } else { name };
    let names: Vec<String> = zero
        .named_leaves()
        .into_iter()
        .map(|(name, _)| named(name))
        .collect();
    let mut saved = Saved(HashMap::new());
    for name in &names {
        let state = file.tensor(device, &join("initial_state", name))?;
        saved.0.insert(name.clone(), state);
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for k in 0..case.chunks {
        let mut graph = Graph::new();
        let cell = graph.model(file, &scope, &plain)?;
        let start = k * case.num_unroll;
        let chunk = x.slice(1, start..start + case.num_unroll)?;
        let lengths = file.tensor(device, &format!("chunk/{k}/sequence_length"))?;
        let lengths: Vec<i64> = lengths.to_f64_vec()?.iter().map(|&l| l as i64).collect();
        check.given(&format!("chunk/{k}/sequence_length"));
        let rnn = StaticRnn::new(&cell).sequence_length(&lengths);
        let inputs = unstack(&chunk, false)?;
        let result = static_state_saving_rnn(rnn, &cell, &inputs, &mut saved, &names)?;
        let outputs = stack(&result.outputs)?.transpose(0, 1)?;
        check.tensor(&format!("chunk/{k}/outputs"), &outputs)?;
        for name in &names {
            let key = join(&format!("chunk/{k}/saved_state"), name);
            check.tensor(&key, &saved.state(name)?)?;
        }
        let weight = format!("chunk/{k}/R");
        check.given(&weight);
        let loss = outputs.mul(&file.tensor(device, &weight)?)?.sum_all()?;
        for ((key, _), grad) in graph.leaves().zip(graph.gradients(&loss)?) {
            check.tensor(&format!("chunk/{k}/grad/{key}"), &grad)?;
        }
    }
    check.finish()
}
