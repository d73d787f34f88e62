use std::time::Instant;

use backend_api::{Activation, Binary, Compare, Element, Fused, Op, Reduce, Tensor, Unary};

use super::{Code, Instruction, Rows, run};
use crate::device::Cpu;
use crate::element::Float;
use crate::scan::program::Place;
use crate::simd::tests::archs;

/// All instructions.
fn codes() -> Vec<Code> {
    let unary = [
        Unary::Neg,
        Unary::Abs,
        Unary::Sign,
        Unary::Square,
        Unary::Sqrt,
        Unary::Recip,
        Unary::Exp,
        Unary::Log,
        Unary::Floor,
        Unary::Sin,
        Unary::Cos,
    ];
    let binary = [
        Binary::Add,
        Binary::Sub,
        Binary::Mul,
        Binary::Div,
        Binary::Max,
        Binary::Min,
        Binary::FloorMod,
    ];
    let compare = [
        Compare::Eq,
        Compare::Ne,
        Compare::Lt,
        Compare::Le,
        Compare::Gt,
        Compare::Ge,
    ];
    let (mul, add) = (0.1, -0.7);
    let (min, max) = (-0.3, 0.9);
    let mut codes = vec![
        Code::Copy,
        Code::Affine { mul, add },
        Code::Clamp { min, max },
        Code::Select,
        Code::MulAdd,
        Code::SubMul,
        Code::MulSub,
        Code::Reduce(Reduce::Sum),
        Code::Reduce(Reduce::Max),
        Code::Dot,
    ];
    codes.extend(unary.map(Code::Unary));
    codes.extend(binary.map(Code::Binary));
    codes.extend(compare.map(Code::Compare));
    codes.extend(Activation::ALL.map(|f| Code::Unary(Unary::Activation(f))));
    codes.extend(Activation::ALL.map(Code::ActivationGrad));
    codes
}

/// A small generator of numbers.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        ((self.0 >> 33) as usize) % end
    }

    fn number<T: Float>(&mut self) -> T {
        let special = [
            0.0,
            -0.0,
            1.0,
            f64::NAN,
            f64::INFINITY,
            f64::NEG_INFINITY,
            1e-40,
            -90.0,
            800.0,
        ];
        let x = match self.below(20) {
            0 => special[self.below(special.len())],
            1 => 1.0,
            2 => 0.0,
            _ => (self.below(4001) as f64 - 2000.0) * 1.7e-3,
        };
        T::from_f64(x)
    }
}

/// The operation of the device, on dense operands of `rows` rows.
fn expected<T: Float + Element>(cpu: &Cpu, code: Code, rows: usize, ins: &[Vec<T>; 3]) -> Vec<T> {
    let shape = [rows, ins[0].len() / rows];
    let [a, b, c] = [0, 1, 2].map(|i| Tensor::from_slice(cpu, &ins[i], &shape).unwrap());
    let call = |op: Op, ins: &[&Tensor<Cpu>]| Tensor::call(cpu, &op, ins).unwrap();
    let product = || call(Op::Binary(Binary::Mul), &[&a, &b]);
    let to = T::DTYPE;
    let result = match code {
        Code::Copy => call(Op::Copy, &[&a]),
        Code::Affine { mul, add } => call(Op::Affine { mul, add }, &[&a]),
        Code::Clamp { min, max } => call(Op::Clamp { min, max }, &[&a]),
        Code::Unary(f) => call(Op::Unary(f), &[&a]),
        Code::Binary(f) => call(Op::Binary(f), &[&a, &b]),
        Code::Compare(f) => call(Op::Cast { to }, &[&call(Op::Compare(f), &[&a, &b])]),
        Code::Select => {
            let zero = Tensor::scalar(cpu, 0.0, to).unwrap();
            let condition = call(Op::Compare(Compare::Ne), &[&a, &zero]);
            call(Op::Select, &[&condition, &b, &c])
        }
        Code::ActivationGrad(activation) => {
            call(Op::Fused(Fused::ActivationGrad { activation }), &[&a, &b])
        }
        Code::MulAdd => call(Op::Binary(Binary::Add), &[&product(), &c]),
        Code::SubMul => call(Op::Binary(Binary::Sub), &[&c, &product()]),
        Code::MulSub => call(Op::Binary(Binary::Sub), &[&product(), &c]),
        Code::Reduce(kind) => call(Op::Reduce { kind, axis: 1 }, &[&a]),
        Code::Dot => {
            let (kind, axis) = (Reduce::Sum, 1);
            call(Op::Reduce { kind, axis }, &[&product()])
        }
    };
    result.to_vec().unwrap()
}

/// The indices of a place's elements.
fn elements(place: Place, [rows, blocks, width]: [usize; 3]) -> Vec<usize> {
    let mut indices = Vec::new();
    for row in 0..rows {
        for block in 0..blocks {
            for column in 0..width {
                let at = row * place.row + block * place.block + column * place.column;
                indices.push(place.offset + at);
            }
        }
    }
    indices
}

/// A place with these strides of columns, maybe gaps, and maybe the same elements in all rows.
fn place(
    numbers: &mut Numbers,
    buffer: usize,
    sizes: [usize; 3],
    column: usize,
    repeat: bool,
) -> Place {
    let [_, blocks, width] = sizes;
    let mut gap = |end| {
        if numbers.below(2) == 0 {
            0
        } else {
            numbers.below(end)
        }
    };
    let block = ((width - 1) * column + 1) + gap(3);
    let row = block * (blocks - 1) + ((width - 1) * column + 1) + gap(4);
    Place {
        buffer,
        offset: gap(5),
        row: if repeat { 0 } else { row },
        block,
        column,
    }
}

/// Runs an instruction with random strides of operands that are sometimes the result's place, for
/// all vector units, and compares it with the device's operation.
fn check<T: Float + Element>(cpu: &Cpu, numbers: &mut Numbers, code: Code, width: usize) {
    let (rows, blocks) = (1 + numbers.below(5), 1 + numbers.below(3));
    let sizes = [rows, blocks, width];
    let reduces = matches!(code, Code::Reduce(_) | Code::Dot);
    let results = [rows, blocks, if reduces { 1 } else { width }];
    let out = place(numbers, 0, results, 1, false);
    let ins = [1, 2, 3].map(|buffer| {
        if !reduces && numbers.below(5) == 0 {
            return out;
        }
        let column = [1, 1, 1, 0, 0, 3][numbers.below(6)];
        let repeat = numbers.below(4) == 0;
        place(numbers, buffer, sizes, column, repeat)
    });
    let instruction = Instruction {
        code,
        blocks,
        width,
        out,
        ins,
    };
    let length = |place, sizes| elements(place, sizes).into_iter().max().unwrap_or(0) + 1;
    let mut buffers: [Vec<T>; 4] = Default::default();
    for place in ins {
        buffers[place.buffer].resize(length(place, sizes), T::ZERO);
    }
    // Some elements behind the result, which must not change.
    buffers[0].resize(length(out, results) + 5, T::ZERO);
    for x in buffers.iter_mut().flatten() {
        *x = numbers.number();
    }
    let dense = ins.map(|place| {
        let indices = elements(place, sizes).into_iter();
        indices
            .map(|i| buffers[place.buffer][i])
            .collect::<Vec<T>>()
    });
    let values = expected(cpu, code, rows * blocks, &dense);
    let mut wanted = buffers.clone();
    for (i, value) in elements(out, results).into_iter().zip(values) {
        wanted[0][i] = value;
    }
    for arch in archs() {
        let mut found = buffers.clone();
        let mut pointers = found.each_mut().map(|x| registers(x));
        for place in ins {
            pointers[place.buffer].stride = place.row;
        }
        // SAFETY: the buffers are as long as the places need, and of places in the buffer of the
        // result, all are the result's.
        unsafe { run(arch, &[instruction], &pointers, rows) };
        for (buffer, (found, wanted)) in found.iter().zip(&wanted).enumerate() {
            for (i, (a, b)) in found.iter().zip(wanted).enumerate() {
                let same = bytemuck::bytes_of(a) == bytemuck::bytes_of(b);
                assert!(
                    same || (a.is_nan() && b.is_nan()),
                    "{arch:?}, {rows} rows, {instruction:?}: element {i} of buffer {buffer} is \
                     {a:?}, not {b:?}"
                );
            }
        }
    }
}

fn check_all<T: Float + Element>() {
    let cpu = Cpu::builder().threads(1).build().unwrap();
    let mut numbers = Numbers(1);
    for code in codes() {
        for width in 1..=130 {
            for _ in 0..6 {
                check::<T>(&cpu, &mut numbers, code, width);
            }
        }
    }
}

#[test]
fn instructions_of_singles_have_the_bits_of_operations() {
    check_all::<f32>();
}

#[test]
fn instructions_of_doubles_have_the_bits_of_operations() {
    check_all::<f64>();
}

fn registers<T>(data: &mut [T]) -> Rows<T> {
    Rows {
        at: data.as_mut_ptr(),
        stride: 0,
    }
}

#[test]
fn a_sum_over_no_columns_is_zero() {
    let mut out = [1.0f32; 3];
    let place = Place {
        row: 1,
        column: 1,
        ..Place::default()
    };
    let instruction = |code, width| Instruction {
        code,
        blocks: 1,
        width,
        out: place,
        ins: [place; 3],
    };
    let program = [instruction(Code::Copy, 0), instruction(Code::Dot, 0)];
    // SAFETY: the results are the first two elements.
    unsafe { run(pulp::Arch::new(), &program, &[registers(&mut out)], 2) };
    assert_eq!(out, [0.0, 0.0, 1.0]);
}

/// Prints the nanoseconds of an instruction on `rows` rows of `width` elements. The first
/// operand of an element-wise one is the result of the one before.
#[test]
#[ignore = "measures; run it in release mode"]
fn measure() {
    let activation = |f| Code::Unary(Unary::Activation(f));
    let codes = [
        ("copy", Code::Copy),
        ("add", Code::Binary(Binary::Add)),
        ("mul", Code::Binary(Binary::Mul)),
        ("div", Code::Binary(Binary::Div)),
        ("affine", Code::Affine { mul: 0.5, add: 0.1 }),
        ("multiply-add", Code::MulAdd),
        ("less", Code::Compare(Compare::Lt)),
        ("select", Code::Select),
        ("sqrt", Code::Unary(Unary::Sqrt)),
        ("tanh", activation(Activation::Tanh)),
        ("sigmoid", activation(Activation::Sigmoid)),
        ("tanh gradient", Code::ActivationGrad(Activation::Tanh)),
        ("sum", Code::Reduce(Reduce::Sum)),
        ("max", Code::Reduce(Reduce::Max)),
        ("dot", Code::Dot),
    ];
    // Rows, width, columns' stride of the second operand, gap between rows.
    let cases = [
        (1, 1, 1, 0),
        (1, 64, 1, 0),
        (1, 64, 0, 0),
        (1, 100, 1, 0),
        (1, 10, 1, 0),
        (16, 64, 1, 0),
        (16, 64, 1, 64),
        (16, 64, 0, 0),
        (16, 1, 1, 0),
    ];
    println!("{:>16} {cases:?}", "");
    for arch in archs() {
        println!("{arch:?}");
        for (name, code) in codes {
            print!("{name:>16}");
            for (rows, width, column, gap) in cases {
                let stride = width + gap;
                let distance = rows * stride + 80;
                let reduces = matches!(code, Code::Reduce(_) | Code::Dot);
                let place = |i, row, column| Place {
                    buffer: 0,
                    offset: i * distance,
                    row,
                    block: 0,
                    column,
                };
                // Eight places in turn.
                let program: Vec<_> = (0..64)
                    .map(|i| Instruction {
                        code,
                        blocks: 1,
                        width,
                        out: place(if reduces { 8 } else { (i + 1) % 8 }, stride, 1),
                        ins: [
                            place(i % 8, stride, 1),
                            place((i + 5) % 8, stride, column),
                            place((i + 3) % 8, stride, 1),
                        ],
                    })
                    .collect();
                let mut data = vec![0.5f32; 9 * distance + 16];
                let aligned = data.as_ptr().align_offset(64);
                let buffers = [registers(&mut data[aligned..])];
                let mut best = f64::INFINITY;
                for _ in 0..200 {
                    let start = Instant::now();
                    for _ in 0..10 {
                        // SAFETY: there are nine places, and no result overlaps an operand.
                        unsafe { run(arch, &program, &buffers, rows) };
                    }
                    let each = start.elapsed().as_secs_f64() / 640.0;
                    best = best.min(each * 1e9);
                }
                print!(" {best:9.1}");
            }
            println!();
        }
    }
}
