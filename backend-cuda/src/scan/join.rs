//! Products of a step that are one product: with one operand and results side by side, or with
//! operands side by side and one result.

use backend_api::trace::program::{Phase, Product, RowProgram, Start};

/// What a step queues.
#[derive(Debug)]
pub(super) enum Launch {
    /// A product, and the index of its matrix among those of the steps.
    Product(Product, usize),
    /// The kernel of a phase.
    Kernel(usize),
}

/// Matrices of a program, side by side or one below the other.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Joined {
    /// Rows and columns.
    pub(super) shape: [usize; 2],
    /// The index of each matrix, and its first row and column.
    pub(super) parts: Vec<(usize, [usize; 2])>,
}

/// The launches of a step, and the matrices of its products.
pub(super) fn launches(program: &RowProgram) -> (Vec<Launch>, Vec<Joined>) {
    let (mut all, mut matrices) = (Vec::new(), Vec::new());
    let steps = program.ahead..program.behind;
    // Products between which there are no instructions depend on each other by their results only.
    let runs = program.phases[steps].chunk_by(|a, b| is_product(a) && is_product(b));
    let mut number = program.ahead;
    for run in runs {
        let products = run.iter().filter_map(|phase| match phase {
            Phase::Product(product) => Some(with_matrix(product)),
            Phase::Tile(_) => None,
        });
        let below = fold(products.collect(), |a, b| {
            let adds = b.start == Start::Existing && a.out == b.out && a.n == b.n;
            let follows = a.a.buffer == b.a.buffer && a.a.offset + a.k == b.a.offset;
            (adds && follows).then_some([a.k, 0])
        });
        let beside = fold(below, |a, b| {
            let shares = a.a == b.a && a.k == b.k && a.start == b.start;
            let follows = a.out.buffer == b.out.buffer && a.out.offset + a.n == b.out.offset;
            (shares && follows).then_some([0, a.n])
        });
        if beside.is_empty() {
            all.push(Launch::Kernel(number));
        }
        for (product, matrix) in beside {
            let known = matrices.iter().position(|known| *known == matrix);
            all.push(Launch::Product(product, known.unwrap_or(matrices.len())));
            if known.is_none() {
                matrices.push(matrix);
            }
        }
        number += run.len();
    }
    (all, matrices)
}

fn is_product(phase: &Phase) -> bool {
    matches!(phase, Phase::Product(_))
}

fn with_matrix(product: &Product) -> (Product, Joined) {
    let matrix = Joined {
        shape: [product.k, product.n],
        parts: vec![(product.matrix, [0; 2])],
    };
    (product.clone(), matrix)
}

/// Joins each product to an earlier one, if `place` finds where its matrix lies in the joint one.
fn fold(
    products: Vec<(Product, Joined)>,
    place: impl Fn(&Product, &Product) -> Option<[usize; 2]>,
) -> Vec<(Product, Joined)> {
    let mut all: Vec<(Product, Joined)> = Vec::new();
    for (product, matrix) in products {
        let mut known = all.iter_mut();
        let found = known.find_map(|known| Some((place(&known.0, &product)?, known)));
        let Some((at, (whole, joint))) = found else {
            all.push((product, matrix));
            continue;
        };
        let moved = |(i, [row, column]): (usize, [usize; 2])| (i, [row + at[0], column + at[1]]);
        joint.parts.extend(matrix.parts.into_iter().map(moved));
        match at {
            [0, _] => whole.n += product.n,
            _ => whole.k += product.k,
        }
        joint.shape = [whole.k, whole.n];
    }
    all
}
