//! Operations with a default body, compared with the reference and with the default body on the
//! same device.

use backend_api::{Activation, AdamStep, DType, Fused, LstmGates, Op};

use super::case::Case;
use super::draw::{ALL, Arrange, FLOATS, Fill};
use super::operation::{Operand, Operation};
use super::tolerance::Class;

use Arrange::{Cut, Offset, Rotated, Stretched, Turned, TurnedCut, Whole};

/// Rows and hidden units of a step, and the layout of the operands.
const SIZES: [([usize; 2], Arrange); 9] = [
    ([3, 5], Whole),
    ([1, 1], Offset),
    ([0, 4], Whole),
    ([2, 33], Turned),
    ([5, 16], Cut),
    ([4, 7], TurnedCut),
    ([6, 3], Stretched),
    ([1, 300], Whole),
    ([301, 65], Whole),
];

/// An operation with a default body, under the name of its cases.
pub(super) struct Form {
    pub(super) name: String,
    pub(super) class: Class,
    pub(super) dtypes: &'static [DType],
    pub(super) operation: Operation,
}

pub(super) fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    for form in forms() {
        let Form {
            name,
            class,
            dtypes,
            operation,
        } = form;
        all.push(Case::program(
            "fused",
            &name,
            class,
            dtypes,
            operation.clone(),
        ));
        all.push(Case::overrides(name, class, dtypes, operation));
    }
    all
}

/// All forms except steps, of which a device makes a program.
pub(super) fn forms() -> Vec<Form> {
    let mut all = activations();
    for (i, (size, at)) in SIZES.into_iter().enumerate() {
        all.extend(steps(size, at, Activation::COMMON[i % 5]));
    }
    let (size, at) = SIZES[0];
    for activation in Activation::ALL.into_iter().filter(|f| !f.is_common()) {
        all.extend(steps(size, at, activation));
    }
    all.extend(masked());
    all.extend(losses());
    all.extend(optimizers());
    all
}

fn form(
    fused: Fused,
    what: &str,
    class: Class,
    dtypes: &'static [DType],
    operands: Vec<Operand>,
) -> Form {
    let operation = Operation::new(Op::Fused(fused), operands);
    Form {
        name: format!("{} {what}", operation.name()),
        class,
        dtypes,
        operation,
    }
}

/// Values in the range of an activation.
fn values(dims: &[usize], at: Arrange) -> Operand {
    Operand::filled(dims, at, Fill::Range(-0.95, 0.95))
}

fn activations() -> Vec<Form> {
    let forms: [(&[usize], Arrange); 8] = [
        (&[3, 5], Whole),
        (&[4], Offset),
        (&[0, 3], Whole),
        (&[2, 3, 4], Turned),
        (&[5, 6], Stretched),
        (&[2, 1, 3, 1, 2, 3], Rotated),
        (&[7, 9], TurnedCut),
        (&[300, 234], Cut),
    ];
    let mut all = Vec::new();
    for activation in Activation::ALL {
        // One activation also has many elements.
        let count = if activation == Activation::Tanh { 8 } else { 7 };
        for (i, (dims, at)) in forms.into_iter().take(count).enumerate() {
            let width = &dims[dims.len() - 1..];
            let bias = Operand::new(width, [Whole, Offset][i % 2]);
            let what = format!("{} {dims:?}{at}", activation.name());
            let operands = vec![Operand::new(dims, at), bias];
            all.push(form(
                Fused::BiasActivation { activation },
                &what,
                Class::Step,
                FLOATS,
                operands,
            ));
            let operands = vec![
                values(dims, at),
                Operand::new(dims, [Whole, Turned, Cut][i % 3]),
            ];
            all.push(form(
                Fused::ActivationGrad { activation },
                &what,
                Class::Step,
                FLOATS,
                operands,
            ));
        }
    }
    all
}

fn steps([rows, n]: [usize; 2], at: Arrange, activation: Activation) -> Vec<Form> {
    // Devices have kernels for the sigmoid with common activations.
    let recurrent_activation = match activation.is_common() {
        true => Activation::Sigmoid,
        false => Activation::HardSigmoid,
    };
    let gates = LstmGates {
        recurrent_activation,
        forget_bias: 0.75,
        activation,
    };
    let state = || Operand::new(&[rows, n], at);
    let wide = |count: usize| Operand::new(&[rows, count * n], at);
    let gate = |count: usize| Operand::filled(&[rows, count * n], at, Fill::Range(0.05, 0.95));
    let value = || values(&[rows, n], at);
    let what = format!("{} [{rows}, {n}]{at}", activation.name());
    [
        (Fused::LstmStep(gates), vec![wide(4), state()]),
        (
            Fused::LstmStepGrad(gates),
            vec![gate(4), state(), state(), state(), state()],
        ),
        (
            Fused::GruGates {
                activation: recurrent_activation,
            },
            vec![wide(2), state()],
        ),
        (
            Fused::GruGatesGrad {
                activation: recurrent_activation,
            },
            vec![gate(1), gate(1), state(), state(), state()],
        ),
        (
            Fused::GruOutput { activation },
            vec![state(), gate(1), state()],
        ),
        (
            Fused::GruOutputGrad { activation },
            vec![value(), gate(1), state(), state()],
        ),
    ]
    .into_iter()
    .map(|(fused, operands)| form(fused, &what, Class::Step, FLOATS, operands))
    .collect()
}

fn masked() -> Vec<Form> {
    let forms: [(&[usize], Arrange); 7] = [
        (&[5, 3], Whole),
        (&[5], Offset),
        (&[5, 2, 3], Turned),
        (&[5, 3, 2], TurnedCut),
        (&[0, 3], Whole),
        (&[5, 2, 1, 2, 1, 3], Rotated),
        (&[5, 14_001], Whole),
    ];
    let mut all = Vec::new();
    for (i, (dims, at)) in forms.into_iter().enumerate() {
        for (ints, time) in [
            (DType::I32, 0),
            (DType::I64, 2),
            (DType::I64, 5_000_000_000),
        ] {
            let lengths = Fill::These(vec![0.0, 1.0, 2.0, 3.0, 9.0]);
            let numbers = || Fill::Range(-99.0, 99.0);
            let operands = vec![
                Operand::typed(&dims[..1], [Whole, Cut][i % 2], lengths, ints),
                Operand::filled(dims, at, numbers()),
                Operand::filled(dims, [Whole, at][i % 2], numbers()),
            ];
            let what = format!("{dims:?}{at} at time {time} by {ints}");
            all.push(form(
                Fused::MaskedUpdate { time },
                &what,
                Class::Exact,
                ALL,
                operands,
            ));
        }
    }
    all
}

fn losses() -> Vec<Form> {
    let forms: [(&[usize], Arrange); 9] = [
        (&[3, 5], Whole),
        (&[7], Offset),
        (&[2, 3, 4], Turned),
        (&[2, 3, 4], Cut),
        (&[4, 1], Whole),
        (&[0, 6], Whole),
        (&[4, 6], Stretched),
        (&[3, 5000], Whole),
        (&[700, 101], Whole),
    ];
    let mut all = Vec::new();
    for (i, (dims, at)) in forms.into_iter().enumerate() {
        let (rows, classes) = dims.split_at(dims.len() - 1);
        let ints = [DType::I32, DType::I64][i % 2];
        // The logits include one far above the others.
        let logits = || Operand::filled(dims, at, Fill::Range(-9.0, 9.0));
        let labels = || Operand::typed(rows, Whole, Fill::Below(classes[0]), ints);
        let what = format!("{dims:?}{at} with {ints}");
        let each = vec![logits(), labels()];
        all.push(form(
            Fused::SoftmaxCrossEntropy,
            &what,
            Class::Step,
            FLOATS,
            each,
        ));
        let grad = vec![logits(), labels(), Operand::new(rows, [Whole, Cut][i % 2])];
        all.push(form(
            Fused::SoftmaxCrossEntropyGrad,
            &what,
            Class::Step,
            FLOATS,
            grad,
        ));
    }
    let large = Operand::filled(&[2, 3], Whole, Fill::These(vec![1000.0, 0.0, -1000.0]));
    let labels = Operand::typed(&[2], Whole, Fill::These(vec![2.0, 0.0]), DType::I32);
    let operands = vec![large, labels];
    all.push(form(
        Fused::SoftmaxCrossEntropy,
        "of large logits",
        Class::Step,
        FLOATS,
        operands,
    ));
    all
}

/// A step of Adam.
pub(super) const ADAM: AdamStep = AdamStep {
    lr: 0.01,
    beta1: 0.9,
    beta2: 0.999,
    epsilon: 1e-8,
    step: 3,
    keep: 0.875,
};

fn optimizers() -> Vec<Form> {
    let forms: [(&[usize], Arrange); 7] = [
        (&[5, 3], Whole),
        (&[], Offset),
        (&[17], Offset),
        (&[0, 3], Whole),
        (&[4, 6], Turned),
        (&[2, 3, 4], TurnedCut),
        (&[35_003, 2], Whole),
    ];
    let mut all = Vec::new();
    for (dims, at) in forms {
        let w = || Operand::new(dims, at);
        let positive = Operand::filled(dims, at, Fill::Range(0.01, 2.0));
        let what = format!("{dims:?}{at}");
        all.push(form(
            Fused::Sgd { lr: 0.1 },
            &what,
            Class::Step,
            FLOATS,
            vec![w(), w()],
        ));
        let operands = vec![w(), w(), positive, w()];
        all.push(form(
            Fused::Adam(ADAM),
            &what,
            Class::Step,
            FLOATS,
            operands,
        ));
        // Small numbers, so that the sum of many stays below the largest `f16`.
        let small = Operand::filled(dims, at, Fill::Range(-1.0, 1.0));
        let operands = vec![small, Operand::new(&[3, 2], Turned), Operand::Again(0)];
        all.push(form(
            Fused::SquaredNorm,
            &what,
            Class::Sum,
            FLOATS,
            operands,
        ));
    }
    all
}
