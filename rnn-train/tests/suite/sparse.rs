//! Sparse gradients of tables, and their use by optimizers.

use backend_api::{Backend, Counting, DType, Element, MemoryPolicy, Result, Tensor};
use backend_cpu::Cpu;
use rnn_core::{DynamicRnn, EmbeddingWrapper, GruCell, Initializer, Module, Param, Visitor};
use rnn_train::optim::{Adagrad, Adam, Momentum, Optimizer, RmsProp, Sgd};
use rnn_train::{Autodiff, Gradient, Gradients, IndexedSlices, value_and_grad};

use crate::common::{Device, device, tensor};

const ROWS: usize = 6;
const DEPTH: usize = 2;

#[derive(Clone, Debug)]
struct Table(Param<Device>);

impl Module for Table {
    type Backend = Device;
    fn params(&mut self, v: &mut Visitor<'_, Device>) {
        v.param("embedding", &mut self.0);
    }
}

/// Irregular nonzero numbers.
fn numbers(count: usize, phase: f64) -> Vec<f64> {
    (0..count).map(|k| (phase + 1.7 * k as f64).sin()).collect()
}

impl Table {
    fn new() -> Self {
        let d = device();
        let mut table = Param::new(&d, Initializer::ZEROS, &[ROWS, DEPTH], DType::F64).unwrap();
        let first = numbers(ROWS * DEPTH, 0.3);
        table.set(tensor(&d, &first, &[ROWS, DEPTH])).unwrap();
        Self(table)
    }

    /// A weighted sum of the rows at `ids`, with a different weight for each element.
    fn sum<I: Element>(&self, ids: &[I], phase: f64) -> Result<Tensor<Device>> {
        let d = self.0.device();
        let rows = self.0.gather(&tensor(d, ids, &[ids.len()]))?;
        let weights = numbers(ids.len() * DEPTH, phase);
        rows.mul(tensor(d, &weights, &[ids.len(), DEPTH]))?
            .sum_all()
    }

    fn grads(&self, loss: impl Fn(&Self) -> Result<Tensor<Device>>) -> Gradients<Device> {
        value_and_grad(self, loss).unwrap().1
    }
}

#[track_caller]
fn slices<B: Backend>(grads: &Gradients<B>) -> &IndexedSlices<B> {
    match grads.get("embedding") {
        Some(Gradient::Sparse(rows)) => rows,
        other => panic!("{other:?}"),
    }
}

fn values(t: &Tensor<Device>) -> Vec<f64> {
    t.to_vec().unwrap()
}

#[track_caller]
fn assert_close(found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!(
            (found - expected).abs() < 1e-14,
            "{found} is not {expected}"
        );
    }
}

/// The gradient of [`Table::sum`] for all rows, computed by hand.
fn by_hand<I: Copy + Into<i64>>(ids: &[I], phase: f64) -> Vec<f64> {
    let mut all = vec![0.0; ROWS * DEPTH];
    let weights = numbers(ids.len() * DEPTH, phase);
    for (&id, weights) in ids.iter().zip(weights.chunks(DEPTH)) {
        let at = id.into() as usize * DEPTH;
        for (all, weight) in all[at..].iter_mut().zip(weights) {
            *all += weight;
        }
    }
    all
}

#[test]
fn lookups_give_row_gradients_and_norms_do_not_sum_equal_rows() {
    let grads = Table::new().grads(|m| m.sum(&[3i64, 1, 3], 0.9));
    let rows = slices(&grads);
    let weights = numbers(3 * DEPTH, 0.9);
    assert_eq!(rows.indices().to_vec::<i64>().unwrap(), [3, 1, 3]);
    assert_eq!(values(rows.values()), weights);
    assert_eq!(rows.dense_shape().dims(), [ROWS, DEPTH]);
    let dense = grads.get("embedding").unwrap();
    assert_eq!(dense.meta().shape, rows.dense_shape());
    assert_close(
        &values(&dense.to_dense().unwrap()),
        &by_hand(&[3, 1, 3], 0.9),
    );

    let norm = weights.iter().map(|w| w * w).sum::<f64>().sqrt();
    let found = grads.global_norm().unwrap().item().unwrap();
    assert_close(&[found], &[norm]);
    let summed = by_hand(&[3, 1, 3], 0.9).iter().map(|w| w * w).sum::<f64>();
    assert!((found - summed.sqrt()).abs() > 0.1);

    let half = grads.clip_by_global_norm(norm / 2.0).unwrap();
    let expected: Vec<f64> = weights.iter().map(|w| w / 2.0).collect();
    assert_close(&values(slices(&half).values()), &expected);
    assert_eq!(slices(&half).indices().to_vec::<i64>().unwrap(), [3, 1, 3]);
    let nan = grads.clip_by_known_norm(1.0, f64::INFINITY).unwrap();
    assert!(values(slices(&nan).values()).iter().all(|v| v.is_nan()));
}

#[test]
fn equal_indices_are_summed_in_order_of_first_occurrence() {
    let grads = Table::new().grads(|m| m.sum(&[3i32, 1, 3, 5], 0.9));
    let summed = slices(&grads).summed().unwrap();
    assert_eq!(summed.indices().to_vec::<i64>().unwrap(), [3, 1, 5]);
    let all = by_hand(&[3, 1, 3, 5], 0.9);
    let expected = [&all[6..8], &all[2..4], &all[10..12]].concat();
    assert_close(&values(summed.values()), &expected);
    assert_eq!(summed.dense_shape().dims(), [ROWS, DEPTH]);
}

#[test]
fn lookups_of_one_table_are_joined() {
    let grads = Table::new().grads(|m| m.sum(&[3i32, 1], 0.9)?.add(&m.sum(&[1i64, 4, 1], 0.2)?));
    // The newest lookup comes first; of two id types the wider one is used.
    let rows = slices(&grads);
    assert_eq!(rows.indices().to_vec::<i64>().unwrap(), [1, 4, 1, 3, 1]);
    let expected: Vec<f64> = by_hand(&[3, 1], 0.9)
        .iter()
        .zip(by_hand(&[1, 4, 1], 0.2))
        .map(|(a, b)| a + b)
        .collect();
    assert_close(&values(&rows.to_dense().unwrap()), &expected);
}

/// A table that is also the output projection (tied embeddings), or of which a part is looked up.
#[test]
fn other_uses_make_the_gradient_dense() {
    let table = Table::new();
    let ids = [3i64, 1, 3];
    let tied = table.grads(|m| {
        let squares = m.0.transpose(0, 1)?.square()?.sum_all()?;
        m.sum(&ids, 0.9)?.add(&squares)
    });
    let Some(Gradient::Dense(found)) = tied.get("embedding") else {
        panic!("{tied:?}");
    };
    let expected: Vec<f64> = by_hand(&ids, 0.9)
        .iter()
        .zip(values(&table.0))
        .map(|(g, w)| g + 2.0 * w)
        .collect();
    assert_close(&values(found), &expected);
    // The gradient is dense, so all rows change.
    let mut stepped = table.clone();
    Momentum::new(0.5, 0.9).step(&mut stepped, &tied).unwrap();
    let expected: Vec<f64> = values(&table.0)
        .iter()
        .zip(&expected)
        .map(|(w, g)| w - 0.5 * g)
        .collect();
    assert_close(&values(&stepped.0), &expected);

    let part = table.grads(|m| {
        let d = m.0.device();
        m.0.slice(0, 2..6)?
            .gather(&tensor(d, &ids, &[3]))?
            .sum_all()
    });
    let Some(Gradient::Dense(found)) = part.get("embedding") else {
        panic!("{part:?}");
    };
    let expected = [0., 0., 0., 0., 0., 0., 1., 1., 0., 0., 2., 2.];
    assert_eq!(values(found), expected);
}

/// One optimizer step for one element, which updates the value and the slots in place.
type ByHand = fn(g: f64, w: &mut f64, slots: &mut [f64]);

/// The optimizers with the formulas of TensorFlow's documentation.
fn row_wise_rules(check: &mut dyn FnMut(&str, Rule, Vec<f64>, ByHand)) {
    check("sgd", Rule::Sgd(Sgd::new(0.5)), vec![], |g, w, _| {
        *w -= 0.5 * g;
    });
    let momentum = Momentum::new(0.5, 0.9);
    let rule = Rule::Momentum(momentum.clone());
    check("momentum", rule, vec![0.0], |g, w, s| {
        s[0] = 0.9 * s[0] + g;
        *w -= 0.5 * s[0];
    });
    let rule = Rule::Momentum(momentum.nesterov(true));
    check("nesterov", rule, vec![0.0], |g, w, s| {
        s[0] = 0.9 * s[0] + g;
        *w -= 0.5 * (g + 0.9 * s[0]);
    });
    let rms = RmsProp::new(0.1).decay(0.8).epsilon(1e-3);
    check(
        "rms_prop",
        Rule::RmsProp(rms.clone()),
        vec![1.0, 0.0],
        |g, w, s| {
            s[0] = 0.8 * s[0] + (1.0 - 0.8) * g * g;
            s[1] = 0.1 * g / (s[0] + 1e-3).sqrt();
            *w -= s[1];
        },
    );
    let rule = Rule::RmsProp(rms.momentum(0.7).centered(true));
    check("rms_prop centered", rule, vec![1.0, 0.0, 0.0], |g, w, s| {
        s[0] = 0.8 * s[0] + (1.0 - 0.8) * g * g;
        s[1] = 0.8 * s[1] + (1.0 - 0.8) * g;
        s[2] = 0.7 * s[2] + 0.1 * g / (s[0] - s[1] * s[1] + 1e-3).sqrt();
        *w -= s[2];
    });
    let rule = Rule::Adagrad(Adagrad::new(0.1));
    check("adagrad", rule, vec![0.1], |g, w, s| {
        s[0] += g * g;
        *w -= 0.1 * g / s[0].sqrt();
    });
}

/// The trait `Optimizer` is not object-safe, so an enum stands for its implementations.
enum Rule {
    Sgd(Sgd<Device>),
    Momentum(Momentum<Device>),
    RmsProp(RmsProp<Device>),
    Adagrad(Adagrad<Device>),
}

impl Rule {
    /// Takes one step and returns the slots of the table.
    fn step(&mut self, model: &mut Table, grads: &Gradients<Device>) -> Vec<Vec<f64>> {
        fn of<O: Optimizer<Device>>(
            rule: &mut O,
            model: &mut Table,
            grads: &Gradients<Device>,
        ) -> Vec<Vec<f64>> {
            rule.step(model, grads).unwrap();
            let slots = rule.state().get(model.0.id()).unwrap();
            slots.iter().map(values).collect()
        }
        match self {
            Self::Sgd(rule) => of(rule, model, grads),
            Self::Momentum(rule) => of(rule, model, grads),
            Self::RmsProp(rule) => of(rule, model, grads),
            Self::Adagrad(rule) => of(rule, model, grads),
        }
    }
}

/// A row that is looked up twice takes one step with the sum of its gradients. A row that is not
/// looked up keeps every bit, in its slots too, even if the previous step looked it up.
#[test]
fn only_gathered_rows_change() {
    row_wise_rules(&mut |name, mut rule, start, by_hand_step| {
        let mut table = Table::new();
        let mut w = values(&table.0);
        let mut slots: Vec<Vec<f64>> = start.iter().map(|&s| vec![s; ROWS * DEPTH]).collect();
        let mut found_slots = slots.clone();
        for (step, ids) in [&[3i64, 1, 3][..], &[0, 3, 0, 0], &[], &[5]]
            .iter()
            .enumerate()
        {
            let phase = 0.4 + step as f64;
            let before = (values(&table.0), found_slots);
            let grads = table.grads(|m| m.sum(ids, phase));
            found_slots = rule.step(&mut table, &grads);
            let grads = by_hand(ids, phase);
            for i in 0..ROWS * DEPTH {
                if ids.contains(&((i / DEPTH) as i64)) {
                    let mut s: Vec<f64> = slots.iter().map(|slot| slot[i]).collect();
                    by_hand_step(grads[i], &mut w[i], &mut s);
                    for (slot, s) in slots.iter_mut().zip(s) {
                        slot[i] = s;
                    }
                    continue;
                }
                let bits = |all: &[f64]| all[i].to_bits();
                let what = format!("{name}: element {i} after step {step}");
                assert_eq!(bits(&values(&table.0)), bits(&before.0), "{what}");
                for (found, before) in found_slots.iter().zip(&before.1) {
                    assert_eq!(bits(found), bits(before), "{what}");
                }
            }
            assert_close(&values(&table.0), &w);
            assert_eq!(found_slots.len(), slots.len(), "{name}");
            for (found, expected) in found_slots.iter().zip(&slots) {
                assert_close(found, expected);
            }
        }
    });
}

#[test]
fn adam_decays_every_row() {
    let (mut sparse, mut dense) = (Table::new(), Table::new());
    let (mut adam, mut reference) = (Adam::new(0.1), Adam::new(0.1));
    for (step, ids) in [&[3i64, 1, 3][..], &[0, 3, 0], &[]].iter().enumerate() {
        let phase = 0.4 + step as f64;
        let before = adam.state().get(sparse.0.id()).map(|s| values(&s[0]));
        let old = values(&sparse.0);
        let grads = sparse.grads(|m| m.sum(ids, phase));
        adam.step(&mut sparse, &grads).unwrap();
        let grad = by_hand(ids, phase);
        let grads = dense.grads(|m| {
            let grad = tensor(m.0.device(), &grad, &[ROWS, DEPTH]);
            m.0.mul(&grad)?.sum_all()
        });
        assert!(matches!(grads.get("embedding"), Some(Gradient::Dense(_))));
        reference.step(&mut dense, &grads).unwrap();
        assert_close(&values(&sparse.0), &values(&dense.0));
        let slots = adam.state().get(sparse.0.id()).unwrap();
        let expected = reference.state().get(dense.0.id()).unwrap();
        for (found, expected) in slots.iter().zip(expected) {
            assert_close(&values(found), &values(expected));
        }
        if let Some(before) = before {
            // Only the first step looked up row 1.
            assert_close(
                &values(&slots[0])[2..4],
                &before[2..4].iter().map(|m| 0.9 * m).collect::<Vec<_>>(),
            );
            assert_ne!(values(&sparse.0)[2..4], old[2..4]);
        }
    }
}

#[test]
fn an_empty_gather_has_a_gradient_without_rows() {
    let table = Table::new();
    let grads = table.grads(|m| {
        let none = Tensor::from_slice::<i32>(m.0.device(), &[], &[2, 0])?;
        m.0.gather(&none)?.sum_all()
    });
    let rows = slices(&grads);
    assert_eq!(rows.values().shape().dims(), [0, DEPTH]);
    assert_eq!(rows.indices().shape().dims(), [0]);
    assert_eq!(values(&rows.to_dense().unwrap()), [0.0; ROWS * DEPTH]);
    assert_eq!(grads.global_norm().unwrap().item().unwrap(), 0.0);
    let clipped = grads.clip_by_global_norm(1.0).unwrap();
    assert_eq!(slices(&clipped).values().shape().dims(), [0, DEPTH]);
}

/// Ids of sequences, one of which ends early, for a cell that does the lookup itself.
fn tagged(memory_policy: MemoryPolicy, segment: usize) -> Result<Tagger> {
    let cell = GruCell::<Device>::builder(DEPTH, 3)
        .dtype(DType::F64)
        .build(&device())?;
    let mut tagger = Tagger {
        cell: EmbeddingWrapper::new(cell, ROWS, DEPTH)?,
        memory_policy,
        segment,
    };
    tagger.initialize(5)?;
    Ok(tagger)
}

#[derive(Clone, Debug)]
struct Tagger {
    cell: EmbeddingWrapper<GruCell<Device>>,
    memory_policy: MemoryPolicy,
    segment: usize,
}

impl Module for Tagger {
    type Backend = Device;
    fn params(&mut self, v: &mut Visitor<'_, Device>) {
        self.cell.params(v);
    }
}

const IDS: [i32; 10] = [4, 1, 1, 0, 4, 1, 5, 4, 3, 3];

impl Tagger {
    fn grads(&self) -> Result<Gradients<Device>> {
        let params = self.named_params();
        let ids = Tensor::from_slice(params[0].1.device(), &IDS, &[2, 5])?;
        let loss = |m: &Self| {
            let rnn = DynamicRnn::new(&m.cell)
                .sequence_length(&[5, 3])
                .memory_policy(m.memory_policy)
                .segment_length(m.segment)
                .run(&ids)?;
            rnn.outputs.square()?.sum_all()?.add(&rnn.state.sum_all()?)
        };
        Ok(value_and_grad(self, loss)?.1)
    }
}

#[test]
fn memory_policies_give_the_same_rows() {
    let whole = tagged(MemoryPolicy::Store, 5).unwrap().grads().unwrap();
    // Inside the driver, time is the first axis.
    let ids = slices(&whole).indices().to_vec::<i32>().unwrap();
    assert_eq!(ids, [4, 1, 1, 5, 1, 4, 0, 3, 4, 3]);
    // Rows past a length were looked up, but must have no effect.
    let rows = values(slices(&whole).values());
    assert!(rows[..10].iter().all(|&g| g != 0.0));
    for padding in [7, 9] {
        assert_eq!(rows[padding * DEPTH..(padding + 1) * DEPTH], [0.0; DEPTH]);
    }
    for segment in [1, 2] {
        let all = tagged(MemoryPolicy::Store, segment).unwrap();
        let grads = all.grads().unwrap();
        let dense = slices(&grads).to_dense().unwrap();
        assert_close(
            &values(&dense),
            &values(&slices(&whole).to_dense().unwrap()),
        );
        for memory_policy in [MemoryPolicy::Recompute, MemoryPolicy::Offload] {
            let less = tagged(memory_policy, segment).unwrap();
            let fewer = less.grads().unwrap();
            for ((name, a), (_, b)) in grads.iter().zip(fewer.iter()) {
                let bytes = |g: Option<&Gradient<Device>>| g.unwrap().values().to_bytes().unwrap();
                assert_eq!(bytes(a), bytes(b), "{name} with {memory_policy:?}");
            }
            let ids = |g: &Gradients<Device>| slices(g).indices().to_vec::<i32>().unwrap();
            assert_eq!(ids(&grads), ids(&fewer));
            let stepped = |mut model: Tagger, grads: &Gradients<Device>| {
                let clipped = grads.clip_by_global_norm(0.1).unwrap();
                Momentum::new(0.1, 0.9).step(&mut model, &clipped).unwrap();
                crate::common::contents(&model)
            };
            assert_eq!(stepped(all.clone(), &grads), stepped(less, &fewer));
        }
    }
}

/// Requested memory traffic does not grow with the table, except for one copy of each tensor.
#[test]
fn the_cost_of_a_large_table_depends_on_the_gathered_rows() {
    const LARGE: usize = 50_000;
    let counting = Counting::new(Cpu::builder().threads(1).build().unwrap());
    let device = Autodiff::new(counting.clone());
    let table_bytes = (LARGE * 4 * 4) as u64;

    #[derive(Clone, Debug)]
    struct Large(Param<Autodiff<Counting<Cpu>>>);
    impl Module for Large {
        type Backend = Autodiff<Counting<Cpu>>;
        fn params(&mut self, v: &mut Visitor<'_, Self::Backend>) {
            v.param("embedding", &mut self.0);
        }
    }
    let table = Param::new(&device, Initializer::ZEROS, &[LARGE, 4], DType::F32).unwrap();
    let mut model = Large(table);
    let ids = tensor(&device, &[7i32, 49_999, 7], &[3]);
    let loss = |m: &Large| m.0.gather(&ids)?.affine(3.0, 1.0)?.square()?.sum_all();
    let mut momentum = Momentum::new(0.1, 0.9);
    // The first step creates the slots.
    let grads = value_and_grad(&model, loss).unwrap().1;
    momentum.step(&mut model, &grads).unwrap();

    let (used, before) = (device.memory(), counting.counts());
    let grads = value_and_grad(&model, loss).unwrap().1;
    let clipped = grads.clip_by_global_norm(1.0).unwrap();
    let after = counting.counts();
    assert!(device.memory().in_use - used.in_use < 10_000);
    // A lookup counts as reading the whole table.
    assert!(after.bytes - before.bytes < table_bytes + 10_000);
    momentum.step(&mut model, &clipped).unwrap();
    // The table and its slot each need a lookup, and a copy that reads and writes.
    let step = counting.counts().bytes - after.bytes;
    assert!(step < 6 * table_bytes + 10_000, "{step}");
    assert_eq!(slices(&grads).indices().shape().dims(), [3]);
}

#[test]
fn sums_of_sparse_gradients_stay_sparse() {
    let table = Table::new();
    let [a, b] = [[1i32, 4], [4, 0]].map(|ids| table.grads(|t| t.sum(&ids, 0.1)));
    let sum = a.add(&b).unwrap();
    assert_eq!(slices(&sum).summed().unwrap().values().shape()[0], 3);
    let dense = |grads: &Gradients<Device>| {
        let grad = grads.get("embedding").unwrap().to_dense().unwrap();
        grad.to_vec::<f64>().unwrap()
    };
    let expected: Vec<f64> = dense(&a)
        .iter()
        .zip(dense(&b))
        .map(|(a, b)| a + b)
        .collect();
    assert_eq!(dense(&sum), expected);
    let whole = table.grads(|t| t.0.square()?.sum_all());
    let mixed = dense(&whole.add(&a).unwrap());
    let expected: Vec<f64> = dense(&whole)
        .iter()
        .zip(dense(&a))
        .map(|(a, b)| a + b)
        .collect();
    assert_eq!(mixed, expected);
}

#[test]
fn with_weight_decay_every_row_decays() {
    let mut table = Table::new();
    let before = values(&table.0);
    let grads = table.grads(|t| t.sum(&[1i32], 0.1));
    Sgd::new(0.5)
        .weight_decay(0.5)
        .step(&mut table, &grads)
        .unwrap();
    for (i, (after, before)) in values(&table.0).iter().zip(before).enumerate() {
        let decayed = (after - 0.75 * before).abs() < 1e-15;
        assert_eq!(decayed, i / DEPTH != 1, "{i}");
    }
}
