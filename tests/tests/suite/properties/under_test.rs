//! A cell in a driver, and the numbers that it gives.
use super::*;
/// A cell with its inputs and its initial state as parameters, so that all of them are
/// differentiated.
#[derive(Clone, Debug)]
pub(super) struct CellUnderTest<C: Cell> {
    pub(super) cell: C,
    pub(super) inputs: Param<TestDevice>,
    pub(super) state: Vec<Param<TestDevice>>,
}

impl<C: Cell<Backend = TestDevice>> Module for CellUnderTest<C> {
    type Backend = TestDevice;
    fn params(&mut self, v: &mut Visitor<'_, TestDevice>) {
        v.child("cell", &mut self.cell);
        v.param("inputs", &mut self.inputs);
        for (i, state) in self.state.iter_mut().enumerate() {
            v.param(&format!("state_{i}"), state);
        }
    }
}

impl<C: Cell<Backend = TestDevice, Input = T, Output = T>> CellUnderTest<C> {
    /// All numbers are random and a function of the case alone.
    pub(super) fn new(device: &TestDevice, cell: C, case: &Case) -> Result<Self> {
        let param = |dims: &[usize]| Param::new(device, Initializer::ZEROS, dims, DType::F64);
        let zero = cell.zero_state(case.batch)?;
        let state = zero.leaves().into_iter().map(|t| param(&t.dims()));
        let mut subject = Self {
            state: state.collect::<Result<_>>()?,
            inputs: param(&[case.batch, case.steps, case.depth])?,
            cell,
        };
        let mut number = 0;
        subject.each_param(&mut |_, param| {
            number += 1;
            // Scales the values so that sums over many inputs are no larger than sums over few.
            let rows = param.dims().first().map_or(1, |&rows| rows.max(4));
            let (mean, std) = (0.0, (2.0 / rows as f64).sqrt().min(0.6));
            let key = philox::derive(case.seed, number);
            let value = Initializer::Normal { mean, std }.tensor(device, key, param.meta())?;
            param.set(value)
        })?;
        Ok(subject)
    }

    pub(super) fn initial(&self, batch: usize) -> Result<C::State> {
        let leaves: Vec<_> = self.state.iter().map(|p| p.value().clone()).collect();
        self.cell.zero_state(batch)?.rebuild(&leaves)
    }

    pub(super) fn rnn(&self, case: &Case) -> Result<DynamicRnn<'_, C>> {
        Ok(DynamicRnn::new(&self.cell)
            .sequence_length(&case.lengths)
            .initial_state(self.initial(case.batch)?)
            .mode(case.mode))
    }

    pub(super) fn driver(&self, case: &Case) -> Result<Run> {
        let result = self.rnn(case)?.run(self.inputs.value())?;
        Ok((vec![result.outputs], owned(&result.state)))
    }

    /// Runs each row alone, cut to its length, in evaluation mode.
    pub(super) fn rows(&self, case: &Case) -> Result<Run> {
        let (mut outputs, mut finals) = (Vec::new(), Vec::new());
        for (row, &length) in case.lengths.iter().enumerate() {
            let of_row = |t: &T| t.slice(0, row..row + 1);
            let length = length.min(case.steps);
            let inputs = of_row(&self.inputs)?.slice(1, 0..length)?;
            let initial = self.initial(case.batch)?.map(&mut |t| of_row(t))?;
            let rnn = DynamicRnn::new(&self.cell).initial_state(initial);
            let result = rnn.run(&inputs)?;
            let dims = [1, case.steps - length, result.outputs.shape().last()];
            let zeros =
                Tensor::from_slice(inputs.device(), &vec![0.0; dims.iter().product()], &dims)?;
            outputs.push(Tensor::concat(&[&result.outputs, &zeros], 1)?);
            finals.push(owned(&result.state));
        }
        Ok((vec![joined(&outputs, 0)?], joined_states(&finals)?))
    }

    /// Runs the cell's own steps, with explicit handling of the lengths.
    pub(super) fn stepped(&self, case: &Case) -> Result<Run> {
        let mut states = vec![self.initial(case.batch)?];
        let mut outputs = Vec::new();
        for t in 0..case.steps {
            let cx = StepContext::new(case.mode).at(t);
            let x = self.inputs.select(1, t)?;
            let (output, state) = self.cell.step(&cx, &x, &states[t])?;
            outputs.push(output);
            states.push(state);
        }
        let zero = self.cell.zero_output(1)?.unsqueeze(1)?;
        let (mut rows, mut finals) = (Vec::new(), Vec::new());
        for (row, &length) in case.lengths.iter().enumerate() {
            let of_row = |t: &T| t.slice(0, row..row + 1);
            // An empty part first, in case there are no steps.
            let mut parts = vec![zero.slice(1, 0..0)?];
            for (t, output) in outputs.iter().enumerate() {
                parts.push(match t < length {
                    true => of_row(output)?.unsqueeze(1)?,
                    false => zero.clone(),
                });
            }
            rows.push(joined(&parts, 1)?);
            let last = states[length.min(case.steps)].leaves();
            finals.push(last.into_iter().map(of_row).collect::<Result<Vec<_>>>()?);
        }
        Ok((vec![joined(&rows, 0)?], joined_states(&finals)?))
    }

    /// Runs chunks of `chunk` steps with the state carried over, in evaluation mode.
    pub(super) fn chunked(&self, case: &Case, chunk: usize) -> Result<Run> {
        let mut state = self.initial(case.batch)?;
        let mut parts = Vec::new();
        let mut start = 0;
        while start < case.steps || parts.is_empty() {
            let end = (start + chunk).min(case.steps);
            let left: Vec<usize> = case
                .lengths
                .iter()
                .map(|l| l.saturating_sub(start))
                .collect();
            let rnn = DynamicRnn::new(&self.cell)
                .sequence_length(&left)
                .initial_state(state);
            let result = rnn.run(&self.inputs.slice(1, start..end)?)?;
            parts.push(result.outputs);
            state = result.state;
            start += chunk;
        }
        Ok((vec![joined(&parts, 1)?], owned(&state)))
    }

    /// The same problem with other finite numbers, large and small, in the padding.
    pub(super) fn spoiled(&self, case: &Case) -> Result<Self> {
        let mut values = self.inputs.to_vec::<f64>()?;
        for (i, value) in values.iter_mut().enumerate() {
            let (row, rest) = (i / (case.steps * case.depth), i % (case.steps * case.depth));
            if rest / case.depth >= case.lengths[row] {
                *value = [1e30, -3.5, -1e12, 1e-300, 77.0][(i + row) % 5];
            }
        }
        let mut spoiled = self.clone();
        let (device, dims) = (self.inputs.device(), self.inputs.dims());
        spoiled
            .inputs
            .set(Tensor::from_slice(device, &values, &dims)?)?;
        Ok(spoiled)
    }
}

/// Outputs and final state.
pub(super) type Run = (Vec<T>, Vec<T>);

pub(super) fn owned<N: Nest<TestDevice>>(nest: &N) -> Vec<T> {
    nest.leaves().into_iter().cloned().collect()
}

pub(super) fn joined(parts: &[T], axis: usize) -> Result<T> {
    Tensor::concat(&parts.iter().collect::<Vec<_>>(), axis)
}

/// Joins the states of rows to the state of a batch.
pub(super) fn joined_states(rows: &[Vec<T>]) -> Result<Vec<T>> {
    (0..rows[0].len())
        .map(|i| {
            joined(
                &rows.iter().map(|row| row[i].clone()).collect::<Vec<_>>(),
                0,
            )
        })
        .collect()
}

/// Outputs, state and gradients, by name.
pub(super) type Numbers = Vec<(String, Vec<f64>)>;

/// The results of a run, and the gradient of a weighted sum of them with a different weight for
/// each element.
pub(super) fn measure<M: Module<Backend = TestDevice>>(
    model: &M,
    run: impl FnOnce(&M) -> Result<Run>,
) -> Result<Numbers> {
    let numbers = RefCell::new(Numbers::new());
    let (_, grads) = value_and_grad(model, |model| {
        let (outputs, state) = Mode::Evaluation.scope(|| run(model))?;
        let mut sums = Vec::new();
        for (name, tensors) in [("output", outputs), ("state", state)] {
            for (i, t) in tensors.iter().enumerate() {
                let phase = sums.len() as f64 + 0.3;
                let weights: Vec<f64> = (0..t.shape().count())
                    .map(|k| (phase + 0.7 * k as f64).sin())
                    .collect();
                let weights = Tensor::from_slice(t.device(), &weights, &t.dims())?;
                sums.push(t.mul(&weights)?.sum_all()?.reshape(&[1])?);
                let values = (format!("{name} {i}"), t.to_vec()?);
                numbers.borrow_mut().push(values);
            }
        }
        joined(&sums, 0)?.sum_all()
    })?;
    let mut numbers = numbers.into_inner();
    for ((name, param), (_, grad)) in model.named_params().into_iter().zip(grads.iter()) {
        let values = match grad {
            Some(grad) => grad.to_dense()?.to_vec()?,
            None => vec![0.0; param.shape().count()],
        };
        numbers.push((format!("gradient of {name}"), values));
    }
    Ok(numbers)
}

/// Fails if two runs differ by more than `tolerance` times the largest number of a tensor. A
/// tolerance of 0 requires equal numbers, but zeros may differ in sign.
pub(super) fn close(a: &Numbers, b: &Numbers, tolerance: f64) -> Outcome {
    if a.len() != b.len() {
        return Err(format!("{} and {} tensors", a.len(), b.len()).into());
    }
    for ((name, a), (_, b)) in a.iter().zip(b) {
        let largest = b.iter().fold(1.0f64, |m, b| m.max(b.abs()));
        let near = |(a, b): (&f64, &f64)| (a - b).abs() <= tolerance * largest;
        if a.len() != b.len() || !a.iter().zip(b).all(near) {
            return Err(format!("{name}: {a:?} and {b:?}").into());
        }
    }
    Ok(())
}

/// Fails if two runs differ in any bit.
pub(super) fn same_bits(a: &Numbers, b: &Numbers) -> Outcome {
    close(a, b, 0.0)?;
    for ((name, a), (_, b)) in a.iter().zip(b) {
        let bits = |v: &[f64]| v.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        if bits(a) != bits(b) {
            return Err(format!("{name}: {a:?} and {b:?} differ in a sign").into());
        }
    }
    Ok(())
}
