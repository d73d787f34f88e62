//! Matmuls.

use backend_api::{Op, Precision};

use super::case::Case;
use super::draw::{Arrange, FLOATS, Fill};
use super::operation::{Operand, Operation};
use super::tolerance::Class;

use Arrange::{Cut, Offset, Rotated, Stretched, Turned, TurnedCut, Whole};

type Form = (&'static [usize], Arrange);

/// `a` and `b`.
const FORMS: &[[Form; 2]] = &[
    [(&[3, 4], Whole), (&[4, 5], Whole)],
    [(&[1, 4], Whole), (&[4, 5], Whole)],
    [(&[3, 1], Whole), (&[1, 2], Whole)],
    [(&[1, 1], Offset), (&[1, 1], Whole)],
    [(&[17, 33], Whole), (&[33, 9], Whole)],
    [(&[7, 5], Turned), (&[5, 6], Whole)],
    [(&[7, 5], Whole), (&[5, 6], Turned)],
    [(&[7, 5], Turned), (&[5, 6], Turned)],
    [(&[7, 5], Cut), (&[5, 6], Offset)],
    [(&[7, 5], TurnedCut), (&[5, 6], Cut)],
    [(&[7, 5], Offset), (&[5, 6], TurnedCut)],
    [(&[7, 5], Stretched), (&[5, 6], Stretched)],
    [(&[2, 3, 4], Whole), (&[4, 5], Whole)],
    [(&[2, 3, 4], Turned), (&[4, 5], Turned)],
    [(&[2, 3, 4], Cut), (&[4, 5], Whole)],
    [(&[6, 3, 4], Whole), (&[6, 4, 5], Whole)],
    [(&[6, 3, 4], Rotated), (&[6, 4, 5], Cut)],
    [(&[2, 3, 2, 5], Whole), (&[2, 3, 5, 4], Turned)],
    [(&[2, 1, 2, 2, 3, 4], Whole), (&[2, 1, 2, 2, 4, 3], Rotated)],
    [(&[3, 0], Whole), (&[0, 2], Whole)],
    [(&[0, 3], Whole), (&[3, 2], Whole)],
    [(&[2, 3], Whole), (&[3, 0], Whole)],
    [(&[0, 3, 4], Whole), (&[4, 5], Whole)],
    [(&[2, 3, 0], Whole), (&[2, 0, 2], Whole)],
];

/// Sizes at which devices split the work.
const LARGE: &[[Form; 2]] = &[
    [(&[130, 70], Whole), (&[70, 150], Whole)],
    [(&[1, 700], Whole), (&[700, 300], Whole)],
    [(&[300, 2], Whole), (&[2, 250], Turned)],
    [(&[65, 129], Turned), (&[129, 67], Cut)],
    [(&[4, 40, 30], Whole), (&[30, 50], Whole)],
];

pub(super) fn product(alpha: f64) -> Op {
    let precision = Precision::Exact;
    Op::MatMul { alpha, precision }
}

/// Numbers in `-1..1`, so that long sums stay small.
fn unit(dims: &[usize], at: Arrange) -> Operand {
    Operand::filled(dims, at, Fill::Range(-1.0, 1.0))
}

pub(super) fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    let addends = [Whole, Turned, Cut, Stretched];
    for (i, [(a, a_at), (b, b_at)]) in FORMS.iter().chain(LARGE).enumerate() {
        let operands = || vec![unit(a, *a_at), unit(b, *b_at)];
        let name = format!("matmul {a:?}{a_at} and {b:?}{b_at}");
        all.push(case(name.clone(), Class::Product, product(1.0), operands()));
        let mut dims = a.to_vec();
        if let (Some(last), Some(n)) = (dims.last_mut(), b.last()) {
            *last = *n;
        }
        let (at, alpha) = (addends[i % 4], [1.0, -0.5][i % 2]);
        let mut three = operands();
        three.push(unit(&dims, at));
        let name = format!("{name} plus{at}");
        all.push(case(name, Class::Product, product(alpha), three));
    }
    let rounding = [
        (Precision::Tf32, Class::Tf32),
        (Precision::Bf16, Class::Bf16),
    ];
    for (precision, class) in rounding {
        for [(a, a_at), (b, b_at)] in FORMS[..5].iter().chain(&LARGE[..1]) {
            let alpha = 1.0;
            let op = Op::MatMul { alpha, precision };
            let operands = vec![unit(a, *a_at), unit(b, *b_at)];
            let name = format!("matmul {a:?}{a_at} and {b:?}{b_at} in {precision:?}");
            all.push(case(name, class, op, operands));
        }
    }
    // The same tensor as several operands.
    let itself = vec![
        unit(&[6, 6], Whole),
        Operand::Again(0),
        Operand::Transposed(0),
    ];
    let name = "matmul of a matrix and itself, plus its transpose";
    all.push(case(name.into(), Class::Product, product(2.0), itself));
    let gram = vec![unit(&[2, 6, 6], Whole), Operand::Transposed(0)];
    let name = "matmul of matrices and their transposes";
    all.push(case(name.into(), Class::Product, product(0.25), gram));
    all
}

fn case(name: String, class: Class, op: Op, operands: Vec<Operand>) -> Case {
    Case::program("matmul", name, class, FLOATS, Operation::new(op, operands))
}
