//! Programs that use `recurrent` alone: every cell can be constructed, and states, models and cells
//! of users need no other crate.

use recurrent::prelude::*;
use recurrent::wrappers::DropoutWrapper;
use recurrent::{
    AnyState, BidirectionalDynamicRnn, BidirectionalOutput, Initializer, Layers, Meta, ParamId,
    Path, Result, Shape, StaticRnn, StreamingRnn, cells,
};

macro_rules! constructors {
    (
        registered { $($cell:ident $doc:ident: $($builder:ident),+;)* }
        others { $($other:ident $other_doc:ident: $other_builder:ident;)* }
    ) => {
        /// Compiles only if each cell has the constructors, and its builders have names.
        #[test]
        fn every_cell_has_constructors() {
            $(
                let _ = (cells::$cell::new, cells::$cell::builder);
                let _: ($(Option<cells::$builder>,)+) = Default::default();
            )*
            $(
                let _ = (cells::$other::new, cells::$other::builder);
                let _: Option<cells::$other_builder> = None;
            )*
        }
    };
}

rnn_core::for_each_cell!(constructors);

#[test]
fn cells_with_many_sizes_are_built_by_users() -> Result<()> {
    let device = Device::cpu();
    let x = Tensor::from_slice(&device, &[0.5f32; 2 * 3 * 7], &[2, 3, 7])?;
    let grid = cells::GridLstmCell::new(&device, 7, 5, 3, 2, &[3])?;
    assert_eq!(
        DynamicRnn::new(&grid).run(&x)?.outputs.shape().dims(),
        [2, 3, 30]
    );
    let both = cells::BidirectionalGridLstmCell::builder(7, 5, 3, 2, &[3]);
    let both = both.use_peepholes(true).build(&device)?;
    assert_eq!(
        DynamicRnn::new(&both).run(&x)?.outputs.shape().dims(),
        [2, 3, 60]
    );
    let fused = cells::LstmBlockFusedCell::new(&device, 7, 4)?;
    let run = recurrent::FusedRnnCell::run(&fused, &x, None, None)?;
    assert_eq!(run.outputs.shape().dims(), [2, 3, 4]);
    Ok(())
}

/// Signatures of users can name what the library's signatures name.
#[derive(Clone, Debug)]
struct Tagger<L> {
    layers: MultiRnnCell<L>,
    outputs: Dense,
}

impl<L: Layers<Backend = Device, Input = Tensor, Output = Tensor>> Tagger<L> {
    fn tag(&self, x: &Tensor) -> Result<Tensor> {
        self.outputs
            .forward(&DynamicRnn::new(&self.layers).run(x)?.outputs)
    }
}

type BothGru = BidirectionalOutput<Tensor, Tensor, Tensor, Tensor>;

fn both_ways(forward: &GruCell, backward: &GruCell, x: &Tensor) -> Result<BothGru> {
    BidirectionalDynamicRnn::new(forward, backward).run(x)
}

fn ids(model: &impl Module) -> Vec<ParamId> {
    model
        .named_params()
        .iter()
        .map(|(_, param)| param.id())
        .collect()
}

fn erased(state: LstmState) -> AnyState {
    AnyState::new(state)
}

#[test]
fn users_write_signatures() -> Result<()> {
    let device = Device::cpu();
    let x = Tensor::from_slice(&device, &[0.5f32; 2 * 3 * 4], &[2, 3, 4])?;
    let gru = |depth| GruCell::new(&device, depth, 4);
    let outputs = Dense::new(&device, 4, 2)?;
    let of_one_type: MultiRnnCell<Vec<GruCell>> = MultiRnnCell::new(vec![gru(4)?, gru(4)?])?;
    let tagger = Tagger {
        layers: of_one_type,
        outputs: outputs.clone(),
    };
    assert_eq!(tagger.tag(&x)?.shape().dims(), [2, 3, 2]);
    let layers = MultiRnnCell::new((gru(4)?, LstmCell::new(&device, 4, 4)?))?;
    assert_eq!(
        Tagger { layers, outputs }.tag(&x)?.shape().dims(),
        [2, 3, 2]
    );
    let (forward, backward) = (gru(4)?, gru(4)?);
    let both = both_ways(&forward, &backward, &x)?;
    assert_eq!(both.outputs.1.shape().dims(), [2, 3, 4]);
    assert_eq!(ids(&forward).len(), 4);
    assert!(ids(&forward).iter().all(|id| !ids(&backward).contains(id)));
    let state = erased(LstmCell::new(&device, 4, 4)?.zero_state(2)?);
    assert_eq!(state.downcast::<LstmState>()?.c.shape().dims(), [2, 4]);
    Ok(())
}

/// A state written by hand.
#[derive(Clone, Debug)]
struct Trace {
    inner: LstmState,
    mean: Tensor,
}

impl Nest<Device> for Trace {
    fn visit<'a>(&'a self, path: &Path<'_>, f: &mut dyn FnMut(&Path<'_>, &'a Tensor)) {
        self.inner.visit(&Path::Field(path, "inner"), f);
        f(&Path::Field(path, "mean"), &self.mean);
    }

    fn map(&self, f: &mut dyn FnMut(&Tensor) -> Result<Tensor>) -> Result<Self> {
        Ok(Self {
            inner: self.inner.map(f)?,
            mean: f(&self.mean)?,
        })
    }
}

nest! {
    /// A declared state with the same parts, and more.
    pub struct Declared {
        /// The state of another cell.
        inner: LstmState,
        /// A tuple and a list.
        mean: (Tensor, Vec<Tensor>),
    }
}

#[test]
fn states_with_names_are_nests() -> Result<()> {
    let device = Device::cpu();
    let inner = LstmCell::new(&device, 4, 4)?.zero_state(2)?;
    let mean = inner.c.clone();
    let names = |nest: Vec<(String, &Tensor)>| -> Vec<String> {
        nest.into_iter().map(|(name, _)| name).collect()
    };
    let by_hand = Trace {
        inner: inner.clone(),
        mean: mean.clone(),
    };
    assert_eq!(
        names(by_hand.named_leaves()),
        ["inner/c", "inner/h", "mean"]
    );
    let declared = Declared {
        inner,
        mean: (mean.clone(), vec![mean.clone(), mean]),
    };
    let expected = ["inner/c", "inner/h", "mean/0", "mean/1/0", "mean/1/1"];
    assert_eq!(names(declared.named_leaves()), expected);
    assert_eq!(
        declared.map(&mut |t| t.affine(1.0, 2.0))?.mean.1[1].to_vec::<f32>()?,
        [2.0; 8]
    );
    Ok(())
}

nest! {
    struct Leaky {
        slow: Tensor,
        fast: (Tensor, Tensor),
    }
}

/// `position' = position + velocity'`, `velocity' = tanh(velocity + [x, slow] · kernel)`,
/// `slow' = (1 - rate) * slow + rate * position'`, with a rate for each unit.
#[derive(Clone, Debug)]
struct LeakyCell {
    kernel: Dense,
    rates: Vec<Param>,
    scale: Option<Param>,
    units: usize,
}

module!(LeakyCell { kernel as "dense", rates, scale });

impl LeakyCell {
    fn new(device: &Device, depth: usize, units: usize) -> Result<Self> {
        let rate = |value| Param::new(device, Initializer::Constant(value), &[units], DType::F32);
        Ok(Self {
            kernel: Dense::new(device, depth + units, units)?,
            rates: vec![rate(0.1)?, rate(0.2)?],
            scale: None,
            units,
        })
    }

    fn zeros(&self, batch: usize) -> Result<Tensor> {
        let shape = Shape::new(&[batch, self.units])?;
        Tensor::zeros(self.rates[0].device(), Meta::new(shape, DType::F32))
    }
}

impl Cell for LeakyCell {
    type Input = Tensor;
    type State = Leaky;
    type Output = Tensor;

    fn zero_state(&self, batch: usize) -> Result<Leaky> {
        let zero = self.zeros(batch)?;
        Ok(Leaky {
            slow: zero.clone(),
            fast: (zero.clone(), zero),
        })
    }

    fn zero_output(&self, batch: usize) -> Result<Tensor> {
        self.zeros(batch)
    }

    fn step(&self, _: &StepContext, x: &Tensor, state: &Leaky) -> Result<(Tensor, Leaky)> {
        let (position, velocity) = &state.fast;
        let force = self
            .kernel
            .forward(&Tensor::concat(&[x, &state.slow], 1)?)?;
        let velocity = velocity.add(&force)?.tanh()?;
        let position = position.add(&velocity)?;
        let rate = self.rates[0].add(&self.rates[1])?;
        let slow = state.slow.add(&rate.mul(&position.sub(&state.slow)?)?)?;
        let next = Leaky {
            slow: slow.clone(),
            fast: (position, velocity),
        };
        Ok((slow, next))
    }
}

#[test]
fn a_cell_with_a_named_state_is_its_equations() -> Result<()> {
    let device = Device::cpu();
    let cell = LeakyCell::new(&device, 3, 5)?;
    let names: Vec<String> = cell
        .named_params()
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(names, ["dense/kernel", "dense/bias", "rates/0", "rates/1"]);
    let x = Tensor::from_slice(&device, &[0.5f32; 2 * 4 * 3], &[2, 4, 3])?;
    let whole = DynamicRnn::new(&cell).sequence_length(&[4, 2]).run(&x)?;
    let steps: Vec<Tensor> = (0..4).map(|t| x.select(1, t)).collect::<Result<_>>()?;
    let listed = StaticRnn::new(&cell).sequence_length(&[4, 2]).run(&steps)?;
    let near = |a: &Tensor, b: &Tensor| -> Result<bool> {
        let pairs = a.to_vec::<f32>()?.into_iter().zip(b.to_vec::<f32>()?);
        Ok(pairs.into_iter().all(|(a, b)| (a - b).abs() < 1e-6))
    };
    assert!(near(&whole.state.slow, &listed.state.slow)?);
    assert!(near(&whole.state.fast.1, &listed.state.fast.1)?);
    let mut stream = StreamingRnn::new(&cell, 2)?;
    stream.step(&steps[0])?;
    assert!(near(
        &stream.step(&steps[1])?,
        &whole.outputs.select(1, 1)?
    )?);

    let wrapped = DropoutWrapper::builder(cell)
        .output_keep_prob(0.9)
        .build()?;
    let mut model = (wrapped, Dense::new(&device, 5, 1)?);
    model.initialize(2)?;
    let mut adam = Adam::new(0.05);
    let target = Tensor::from_slice(&device, &[0.3f32, -0.2], &[2, 1])?;
    let mut losses = Vec::new();
    for _ in 0..60 {
        let (loss, grads) = value_and_grad(&model, |(cell, output)| {
            let rnn = DynamicRnn::new(cell).sequence_length(&[4, 2]).run(&x)?;
            mean_squared_error(&output.forward(&rnn.state.slow)?, &target)
        })?;
        assert!(grads.iter().all(|(_, grad)| grad.is_some()));
        adam.step(&mut model, &grads)?;
        losses.push(loss.item()?);
    }
    assert!(losses[59] < 0.1 * losses[0], "{} {}", losses[0], losses[59]);
    Ok(())
}
