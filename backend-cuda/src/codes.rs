//! The numeric codes of operations in kernels. Each list is in the order of an `enum` in a kernel
//! file.

use backend_api::{Activation, Binary, Compare, DType, Reduce, Unary};

/// The `enum` of activations in the generated header "activations.cuh".
pub(crate) fn activation(f: Activation) -> Option<i32> {
    let index = Activation::ALL.iter().position(|known| *known == f);
    index.map(|index| index as i32)
}

/// The `enum` of unary functions in `functions.cuh`.
pub(crate) fn unary(f: Unary) -> Option<i32> {
    Some(match f {
        Unary::Neg => 0,
        Unary::Abs => 1,
        Unary::Sign => 2,
        Unary::Square => 3,
        Unary::Sqrt => 4,
        Unary::Recip => 5,
        Unary::Exp => 6,
        Unary::Log => 7,
        Unary::Floor => 8,
        Unary::Sin => 9,
        Unary::Cos => 10,
        Unary::Activation(f) => 11 + activation(f)?,
    })
}

/// The `enum` of binary functions in `functions.cuh`.
pub(crate) fn binary(f: Binary) -> i32 {
    match f {
        Binary::Add => 0,
        Binary::Sub => 1,
        Binary::Mul => 2,
        Binary::Div => 3,
        Binary::Max => 4,
        Binary::Min => 5,
        Binary::FloorMod => 6,
    }
}

/// The `enum` of comparisons in `functions.cuh`.
pub(crate) fn compare(f: Compare) -> i32 {
    match f {
        Compare::Eq => 0,
        Compare::Ne => 1,
        Compare::Lt => 2,
        Compare::Le => 3,
        Compare::Gt => 4,
        Compare::Ge => 5,
    }
}

/// The `enum` of reductions in `reduce.cu`.
pub(crate) fn reduce(kind: Reduce) -> i32 {
    match kind {
        Reduce::Sum => 0,
        Reduce::Max => 1,
    }
}

/// The `enum` of element types in `elementwise.cu`.
pub(crate) fn dtype(dtype: DType) -> Option<i32> {
    Some(match dtype {
        DType::F32 => 0,
        DType::F64 => 1,
        DType::I32 => 2,
        DType::I64 => 3,
        DType::U8 => 4,
        DType::Bool => 5,
        DType::F16 => 6,
        DType::Bf16 => 7,
        _ => return None,
    })
}
