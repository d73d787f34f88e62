//! The LSTM on a grid of time and frequency: the common implementation of both cells.

use std::sync::Arc;

use backend_api::{Backend, DType, Error, Result, Tensor};
use serde::Deserialize;

use super::conv::pad;
use super::frequency::{check_clip, clip, count};
use super::{Affine, CellSize, First, GridLstmState};
use crate::limits::check_sizes;
use crate::{Cell, Initializer, Module, Param, StepContext, Visitor};

/// The common implementation of both grid cells: one or two directions along the frequency axis.
#[derive(Clone, Debug)]
pub(super) struct Grid<B: Backend> {
    sizes: CellSize,
    feature_size: usize,
    frequency_skip: usize,
    couple: bool,
    forget_bias: f64,
    cell_clip: Option<f64>,
    /// First feature and number of windows of each block.
    blocks: Vec<(usize, usize)>,
    directions: Vec<Direction<B>>,
    /// The names of the state's tensors.
    names: Arc<[String]>,
}

#[derive(Clone, Debug)]
struct Direction<B: Backend> {
    scope: &'static str,
    /// Whether it starts at the last window.
    backward: bool,
    /// How far its windows are shifted; features beyond the input are zero.
    offset: isize,
    blocks: Vec<Block<B>>,
}

/// The weights of a block: those of frequency, then those of time unless they are shared.
#[derive(Clone, Debug)]
struct Block<B: Backend>(Vec<Weights<B>>);

#[derive(Clone, Debug)]
struct Weights<B: Backend> {
    affine: Affine<B>,
    peepholes: Option<Peepholes<B>>,
}

/// The peephole weights of each gate: for the cell states of frequency and of time.
#[derive(Clone, Debug)]
struct Peepholes<B: Backend> {
    /// `None` if coupled with the input gate.
    f: Option<[Param<B>; 2]>,
    i: [Param<B>; 2],
    o: [Param<B>; 2],
}

/// The gates of one of the two LSTMs. The output gate is before its activation, the others after.
#[derive(Clone)]
struct Gates<B: Backend> {
    i: Tensor<B>,
    j: Tensor<B>,
    f: Tensor<B>,
    o: Tensor<B>,
}

impl<B: Backend> Block<B> {
    fn joined(
        &self,
        part: impl Fn(&Affine<B>) -> Result<Tensor<B>>,
        axis: usize,
    ) -> Result<Tensor<B>> {
        let parts: Vec<_> = self
            .0
            .iter()
            .map(|w| part(&w.affine))
            .collect::<Result<_>>()?;
        Tensor::concat(&parts.iter().collect::<Vec<_>>(), axis)
    }
}

/// `gate` plus the peephole terms, if any.
fn look<B: Backend>(
    gate: &Tensor<B>,
    peephole: Option<&[Param<B>; 2]>,
    c_freq: &Tensor<B>,
    c_time: &Tensor<B>,
) -> Result<Tensor<B>> {
    match peephole {
        Some([freq, time]) => gate.add(&c_freq.mul(freq)?)?.add(&c_time.mul(time)?),
        None => Ok(gate.clone()),
    }
}

impl<B: Backend> Weights<B> {
    /// The output gate before its activation, with the peephole terms of the new cell states.
    fn output(&self, o: &Tensor<B>, c_freq: &Tensor<B>, c_time: &Tensor<B>) -> Result<Tensor<B>> {
        look(o, self.peepholes.as_ref().map(|w| &w.o), c_freq, c_time)
    }
}

impl<B: Backend> Grid<B> {
    fn device(&self) -> &B {
        self.directions[0].blocks[0].0[0].affine.device()
    }

    fn windows(&self) -> usize {
        self.blocks.iter().map(|(_, count)| count).sum()
    }

    fn gates(
        &self,
        weights: &Weights<B>,
        z: &Tensor<B>,
        c_freq: &Tensor<B>,
        c_time: &Tensor<B>,
    ) -> Result<Gates<B>> {
        let z = z.split_last(if self.couple { 3 } else { 4 })?;
        let peepholes = weights.peepholes.as_ref();
        let i = look(&z[0], peepholes.map(|w| &w.i), c_freq, c_time)?.sigmoid()?;
        let f = if self.couple {
            i.affine(-1.0, 1.0)?
        } else {
            let f = z[2].affine(1.0, self.forget_bias)?;
            let peephole = peepholes.and_then(|w| w.f.as_ref());
            look(&f, peephole, c_freq, c_time)?.sigmoid()?
        };
        Ok(Gates {
            i,
            j: z[1].tanh()?,
            f,
            o: z[z.len() - 1].clone(),
        })
    }

    fn next(&self, gates: &Gates<B>, c: &Tensor<B>) -> Result<Tensor<B>> {
        let c = gates.f.mul(c)?.add(&gates.i.mul(&gates.j)?)?;
        clip(c, self.cell_clip)
    }

    fn check_state(&self, state: &GridLstmState<B>, batch: usize) -> Result<()> {
        if state.names != self.names {
            let text = format!(
                "has tensors {:?}, but {:?} are needed",
                state.names, self.names
            );
            return Err(Error::argument(self.sizes.cell, "state", text));
        }
        for (name, t) in state.names.iter().zip(&state.tensors) {
            self.sizes.state(name, t, batch)?;
        }
        Ok(())
    }
}

impl<B: Backend> Module for Direction<B> {
    type Backend = B;
    fn params(&mut self, v: &mut Visitor<'_, B>) {
        for (b, block) in self.blocks.iter_mut().enumerate() {
            for (weights, letter) in block.0.iter_mut().zip(["f", "t"]) {
                let (kernel, bias) = (format!("W_{letter}_{b}_0"), format!("B_{letter}_{b}"));
                weights.affine.params_as(v, &kernel, &bias);
            }
            for (weights, of) in block.0.iter_mut().zip(["freq", "time"]) {
                let Some(w) = &mut weights.peepholes else {
                    continue;
                };
                let gates = [
                    ("F", w.f.as_mut()),
                    ("I", Some(&mut w.i)),
                    ("O", Some(&mut w.o)),
                ];
                for (gate, pair) in gates {
                    for (param, sees) in pair.into_iter().flatten().zip(["f", "t"]) {
                        v.param(&format!("W_{gate}_diag_{of}{sees}_{b}"), param);
                    }
                }
            }
        }
    }
}

impl<B: Backend> Module for Grid<B> {
    type Backend = B;
    fn params(&mut self, v: &mut Visitor<'_, B>) {
        v.dtype(&mut self.sizes.dtype);
        for direction in &mut self.directions {
            v.child(direction.scope, direction);
        }
    }
}

impl<B: Backend> Cell for Grid<B> {
    type Input = Tensor<B>;
    type State = GridLstmState<B>;
    type Output = Tensor<B>;

    fn zero_state(&self, batch: usize) -> Result<GridLstmState<B>> {
        let zeros = self.sizes.zeros(self.device(), batch)?;
        Ok(GridLstmState {
            names: self.names.clone(),
            tensors: vec![zeros; self.names.len()],
        })
    }

    fn zero_output(&self, batch: usize) -> Result<Tensor<B>> {
        let wide = CellSize {
            units: 2 * self.sizes.units * self.windows() * self.directions.len(),
            ..self.sizes
        };
        wide.zeros(self.device(), batch)
    }

    fn step(
        &self,
        _: &StepContext,
        x: &Tensor<B>,
        state: &GridLstmState<B>,
    ) -> Result<(Tensor<B>, GridLstmState<B>)> {
        let batch = self.sizes.input(x)?;
        self.check_state(state, batch)?;
        let (mut outputs, mut states) = (Vec::new(), Vec::new());
        let mut old = state.tensors.chunks_exact(2);
        let zeros = self.sizes.zeros(x.device(), batch)?;
        for direction in &self.directions {
            let (back, on) = match direction.offset {
                offset if offset < 0 => (offset.unsigned_abs(), 0),
                offset => (0, offset.unsigned_abs()),
            };
            let x = pad(x, 1, back, on)?;
            for (&(start, count), block) in self.blocks.iter().zip(&direction.blocks) {
                let of_x = block.joined(Affine::input_kernel, 1)?;
                let of_m = block.joined(Affine::recurrent_kernel, 1)?;
                let bias = block.joined(|affine| Ok(affine.bias().clone()), 0)?;
                let (mut c_freq, mut m_freq) = (zeros.clone(), zeros.clone());
                for (k, old) in (0..count).zip(&mut old) {
                    let (c_time, m_time) = (&old[0], &old[1]);
                    let k = if direction.backward { count - 1 - k } else { k };
                    let start = start + on + k * self.frequency_skip;
                    let x = x.slice(1, start..start + self.feature_size)?;
                    let z = x.matmul(&of_x)?.add(&bias)?;
                    let m = Tensor::concat(&[m_time, &m_freq], 1)?;
                    let z = m.matmul_add(&of_m, &z)?.split_last(block.0.len())?;
                    let freq = self.gates(&block.0[0], &z[0], &c_freq, c_time)?;
                    let time = match (block.0.get(1), z.get(1)) {
                        (Some(weights), Some(z)) => self.gates(weights, z, &c_freq, c_time)?,
                        _ => freq.clone(),
                    };
                    let c_time = self.next(&time, c_time)?;
                    c_freq = self.next(&freq, &c_freq)?;
                    let of_time = block.0.get(1).unwrap_or(&block.0[0]);
                    let o_freq = block.0[0].output(&freq.o, &c_freq, &c_time)?;
                    let o_time = of_time.output(&time.o, &c_freq, &c_time)?;
                    m_freq = o_freq.sigmoid()?.mul(&c_freq.tanh()?)?;
                    let m_time = o_time.sigmoid()?.mul(&c_time.tanh()?)?;
                    outputs.extend([m_time.clone(), m_freq.clone()]);
                    states.extend([c_time, m_time]);
                }
            }
        }
        let output = Tensor::concat(&outputs.iter().collect::<Vec<_>>(), 1)?;
        let state = GridLstmState {
            names: self.names.clone(),
            tensors: states,
        };
        Ok((output, state))
    }
}

/// The options of both grid cells.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GridOptions {
    #[serde(skip)]
    pub(super) input_size: usize,
    #[serde(skip)]
    pub(super) dtype: DType,
    num_units: usize,
    #[serde(default)]
    pub(super) use_peepholes: bool,
    #[serde(default)]
    pub(super) share_time_frequency_weights: bool,
    #[serde(default)]
    pub(super) cell_clip: Option<f64>,
    #[serde(default = "one")]
    pub(super) forget_bias: f64,
    feature_size: usize,
    frequency_skip: usize,
    num_frequency_blocks: Vec<usize>,
    #[serde(default)]
    pub(super) start_freqindex_list: Option<Vec<usize>>,
    #[serde(default)]
    pub(super) end_freqindex_list: Option<Vec<usize>>,
    #[serde(default)]
    pub(super) couple_input_forget_gates: bool,
    /// For the bidirectional cell only.
    #[serde(default)]
    pub(super) backward_slice_offset: Option<isize>,
    #[serde(default)]
    pub(super) initializer: Option<Initializer>,
}

fn one() -> f64 {
    1.0
}

impl GridOptions {
    pub(super) fn new(
        input_size: usize,
        num_units: usize,
        feature_size: usize,
        frequency_skip: usize,
        num_frequency_blocks: &[usize],
    ) -> Self {
        Self {
            input_size,
            dtype: DType::F32,
            num_units,
            use_peepholes: false,
            share_time_frequency_weights: false,
            cell_clip: None,
            forget_bias: 1.0,
            feature_size,
            frequency_skip,
            num_frequency_blocks: num_frequency_blocks.to_vec(),
            start_freqindex_list: None,
            end_freqindex_list: None,
            couple_input_forget_gates: false,
            backward_slice_offset: None,
            initializer: None,
        }
    }

    /// First feature and number of windows of each block.
    fn blocks(&self, sizes: CellSize) -> Result<Vec<(usize, usize)>> {
        let problem = |arg: &str, text: String| Err(Error::argument(sizes.cell, arg, text));
        let whole = (vec![0], vec![sizes.input]);
        let (starts, ends) = match (&self.start_freqindex_list, &self.end_freqindex_list) {
            (Some(starts), Some(ends)) => (starts, ends),
            (None, None) => (&whole.0, &whole.1),
            _ => {
                let text = "and end_freqindex_list must be given together";
                return problem("start_freqindex_list", text.into());
            }
        };
        let expected = &self.num_frequency_blocks;
        if starts.len() != ends.len() || starts.len() != expected.len() || expected.is_empty() {
            let text = format!(
                "has {} entries, but start_freqindex_list has {} and end_freqindex_list has {}",
                expected.len(),
                starts.len(),
                ends.len()
            );
            return problem("num_frequency_blocks", text);
        }
        let mut blocks = Vec::new();
        for (b, (&start, &end)) in starts.iter().zip(ends).enumerate() {
            if start > end || end > sizes.input {
                let text = format!(
                    "of block {b} is {end}, but the block begins at {start} \
                     and the input has {} features",
                    sizes.input
                );
                return problem("end_freqindex_list", text);
            }
            let windows = count(sizes, end - start, self.feature_size, self.frequency_skip)?;
            if windows != expected[b] {
                let text = format!("of block {b} is {}, but {windows} windows fit", expected[b]);
                return problem("num_frequency_blocks", text);
            }
            blocks.push((start, windows));
        }
        Ok(blocks)
    }

    /// Builds the cell with the given directions: scope, prefix of the state's names, whether it
    /// runs backward, offset.
    pub(super) fn build<B: Backend>(
        self,
        cell: &'static str,
        directions: &[(&'static str, &str, bool, isize)],
        device: &B,
    ) -> Result<Grid<B>> {
        let sizes = CellSize {
            cell,
            input: self.input_size,
            units: self.num_units,
            dtype: self.dtype,
        }
        .check()?;
        check_clip(sizes, self.cell_clip)?;
        if let Some(offset) = self.backward_slice_offset.filter(|&offset| offset != 0) {
            let sizes = [("backward_slice_offset", offset.unsigned_abs())];
            check_sizes(cell, sizes)?;
        }
        let blocks = self.blocks(sizes)?;
        let mut names = Vec::new();
        for (_, prefix, ..) in directions {
            for (b, &(_, windows)) in blocks.iter().enumerate() {
                for k in 0..windows {
                    let name = |what| format!("{prefix}_f{k:02}_b{b:02}_{what}");
                    names.extend([name("c"), name("m")]);
                }
            }
        }
        let direction = |&(scope, _, backward, offset): &(&'static str, &str, bool, isize)| {
            let blocks = blocks.iter().map(|_| self.block(sizes, device));
            Ok(Direction {
                scope,
                backward,
                offset,
                blocks: blocks.collect::<Result<_>>()?,
            })
        };
        Ok(Grid {
            directions: directions.iter().map(direction).collect::<Result<_>>()?,
            sizes,
            feature_size: self.feature_size,
            frequency_skip: self.frequency_skip,
            couple: self.couple_input_forget_gates,
            forget_bias: self.forget_bias,
            cell_clip: self.cell_clip,
            blocks,
            names: names.into(),
        })
    }

    fn block<B: Backend>(&self, sizes: CellSize, device: &B) -> Result<Block<B>> {
        let units = sizes.units;
        let of_window = CellSize {
            input: self.feature_size,
            ..sizes
        };
        let width = if self.couple_input_forget_gates { 3 } else { 4 } * units;
        let first = First::kernel(self.initializer);
        let diag = || Param::new(device, first.kernel, &[units], sizes.dtype);
        let pair = || Ok::<_, Error>([diag()?, diag()?]);
        let peepholes = || {
            Ok::<_, Error>(Peepholes {
                f: (!self.couple_input_forget_gates).then(pair).transpose()?,
                i: pair()?,
                o: pair()?,
            })
        };
        let lstms = if self.share_time_frequency_weights {
            1
        } else {
            2
        };
        let weights = (0..lstms).map(|_| {
            Ok(Weights {
                affine: Affine::with_state(device, of_window, 2 * units, width, first)?,
                peepholes: self.use_peepholes.then(peepholes).transpose()?,
            })
        });
        Ok(Block(weights.collect::<Result<_>>()?))
    }
}
