//! Operators. Their results are `Result`s: `(&x * 2.0 + &y)?`. Only a tensor can be
//! beside a `Result`; beside a number it needs a `?`: `(&x * &y)? + 1.0`.

use std::ops::{Add, BitAnd, BitOr, Div, Mul, Neg, Not, Sub};

use super::operand::Operand;
use crate::{Backend, Result, Tensor};

macro_rules! operator {
    ($trait:ident::$operator:ident, $method:ident) => {
        operator!(@tensors $trait $operator $method, &Tensor<B>);
        operator!(@tensors $trait $operator $method, Tensor<B>);
        operator!(@others $trait $operator $method, Result<Tensor<B>>);
    };
    ($trait:ident::$operator:ident, $method:ident, numbers) => {
        operator!($trait::$operator, $method);
        // With another type of floats, or of integers, the type of a literal would be ambiguous.
        operator!(@others $trait $operator $method, f64);
        operator!(@others $trait $operator $method, i32);
    };
    (@tensors $trait:ident $operator:ident $method:ident, $left:ty) => {
        impl<B: Backend, R: Operand<B>> $trait<R> for $left {
            type Output = Result<Tensor<B>>;
            fn $operator(self, right: R) -> Self::Output {
                Tensor::$method(&self, right)
            }
        }
    };
    (@others $trait:ident $operator:ident $method:ident, $left:ty) => {
        operator!(@other $trait $operator $method, $left, &Tensor<B>);
        operator!(@other $trait $operator $method, $left, Tensor<B>);
    };
    // Only with a tensor on the right, since the traits of other pairs belong to other crates.
    (@other $trait:ident $operator:ident $method:ident, $left:ty, $right:ty) => {
        impl<B: Backend> $trait<$right> for $left {
            type Output = Result<Tensor<B>>;
            fn $operator(self, right: $right) -> Self::Output {
                Operand::<B>::with(self, stringify!($method), &right, |left| {
                    left.$method(&right)
                })
            }
        }
    };
}

operator!(Add::add, add, numbers);
operator!(Sub::sub, sub, numbers);
operator!(Mul::mul, mul, numbers);
operator!(Div::div, div, numbers);
operator!(BitAnd::bitand, and);
operator!(BitOr::bitor, or);

macro_rules! prefix {
    ($trait:ident::$operator:ident, $left:ty) => {
        impl<B: Backend> $trait for $left {
            type Output = Result<Tensor<B>>;
            fn $operator(self) -> Self::Output {
                Tensor::$operator(&self)
            }
        }
    };
}

prefix!(Neg::neg, Tensor<B>);
prefix!(Neg::neg, &Tensor<B>);
prefix!(Not::not, Tensor<B>);
prefix!(Not::not, &Tensor<B>);
