//! Operators: what a node computes.

mod convolution;
mod elementwise;
mod host;
mod indexing;
mod layers;
mod moving;
mod pooling;
mod reduce;
mod shapes;

use backend_api::{Backend, Compare, Result, Tensor};

use super::call::Call;
use super::node::Node;
use super::recurrent;
use super::value::{Ints, Value};

/// What a node computes: its results, in order.
pub(super) type Run<B> = fn(&Call<'_, B>) -> Result<Vec<Value<B>>>;

/// An operator on a device.
#[derive(Debug)]
pub(super) struct Operator<B: Backend>(Run<B>);

impl<B: Backend> Clone for Operator<B> {
    fn clone(&self) -> Self {
        Self(self.0)
    }
}

/// The table of operators: the name, the attributes and the function of each.
macro_rules! operators {
    ($($name:literal [$($attribute:literal)*] $run:expr;)*) => {
        /// The operators that are supported.
        ///
        /// ```
        /// use recurrent::interchange::onnx::OPERATORS;
        ///
        /// assert!(OPERATORS.contains(&"LSTM"));
        /// assert!(!OPERATORS.contains(&"Loop"));
        /// ```
        pub const OPERATORS: &[&str] = &[$($name),*];

        /// The attributes and the function of an operator.
        fn find<B: Backend>(name: &str) -> Option<(&'static [&'static str], Run<B>)> {
            match name {
                $($name => Some((&[$($attribute),*], $run)),)*
                _ => None,
            }
        }
    };
}

operators! {
    "Abs" [] |c| c.unary(Tensor::abs);
    "Add" [] elementwise::add;
    "And" [] |c| elementwise::logic(c, |a, b| a.and(b));
    "ArgMax" ["axis" "keepdims" "select_last_index"] reduce::arg_max;
    "AveragePool" ["auto_pad" "ceil_mode" "count_include_pad" "dilations" "kernel_shape" "pads"
                   "strides"] pooling::average_pool;
    "BatchNormalization" ["epsilon" "momentum" "training_mode" "spatial"] layers::batch_norm;
    "Cast" ["to" "saturate" "round_mode"] shapes::cast;
    "Ceil" [] |c| c.unary(|x| x.neg()?.floor()?.neg());
    "Clip" ["min" "max"] elementwise::clip;
    "Concat" ["axis"] moving::concat;
    "Constant" ["value" "value_float" "value_floats" "value_int" "value_ints"] shapes::constant;
    "ConstantOfShape" ["value"] shapes::constant_of_shape;
    "Conv" ["auto_pad" "dilations" "group" "kernel_shape" "pads" "strides"] convolution::conv;
    "Cos" [] |c| c.unary(Tensor::cos);
    "Div" [] elementwise::div;
    "Dropout" ["ratio" "seed"] layers::dropout;
    "Elu" ["alpha"] |c| c.activation(recurrent::Function::Elu(c.float("alpha", 1.0)?));
    "Equal" [] |c| elementwise::compare(c, Compare::Eq, |a, b| a == b);
    "Exp" [] |c| c.unary(Tensor::exp);
    "Expand" [] moving::expand;
    "Flatten" ["axis"] shapes::flatten;
    "Floor" [] |c| c.unary(Tensor::floor);
    "GRU" ["activation_alpha" "activation_beta" "activations" "clip" "direction" "hidden_size"
           "layout" "linear_before_reset"] recurrent::run;
    "Gather" ["axis"] indexing::gather;
    "Gemm" ["alpha" "beta" "transA" "transB"] layers::gemm;
    "GlobalAveragePool" [] |c| pooling::global(c, Tensor::mean);
    "GlobalMaxPool" [] |c| pooling::global(c, Tensor::max);
    "Greater" [] |c| elementwise::compare(c, Compare::Gt, |a, b| a > b);
    "GreaterOrEqual" [] |c| elementwise::compare(c, Compare::Ge, |a, b| a >= b);
    "HardSigmoid" ["alpha" "beta"] |c| c.activation(recurrent::Function::HardSigmoid(
        c.float("alpha", f64::from(0.2f32))?, c.float("beta", 0.5)?));
    "HardSwish" [] |c| c.unary(|x| x.mul(&recurrent::Function::HardSigmoid(1.0 / 6.0, 0.5).of(x)?));
    "Identity" [] |c| Ok(vec![c.value(0)?.clone()]);
    "InstanceNormalization" ["epsilon"] layers::instance_norm;
    "LSTM" ["activation_alpha" "activation_beta" "activations" "clip" "direction" "hidden_size"
            "input_forget" "layout"] recurrent::run;
    "LayerNormalization" ["axis" "epsilon" "stash_type"] layers::layer_norm;
    "LeakyRelu" ["alpha"] |c| c.activation(
        recurrent::Function::LeakyRelu(c.float("alpha", f64::from(0.01f32))?));
    "Less" [] |c| elementwise::compare(c, Compare::Lt, |a, b| a < b);
    "LessOrEqual" [] |c| elementwise::compare(c, Compare::Le, |a, b| a <= b);
    "Log" [] |c| c.unary(Tensor::log);
    "LogSoftmax" ["axis"] |c| reduce::softmax(c, Tensor::log_softmax);
    "MatMul" [] layers::matmul;
    "Max" [] elementwise::max;
    "MaxPool" ["auto_pad" "ceil_mode" "dilations" "kernel_shape" "pads" "storage_order" "strides"]
              pooling::max_pool;
    "Min" [] elementwise::min;
    "Mul" [] elementwise::mul;
    "Neg" [] |c| c.unary(Tensor::neg);
    "Not" [] |c| c.unary(Tensor::not);
    "Or" [] |c| elementwise::logic(c, |a, b| a.or(b));
    "PRelu" [] elementwise::prelu;
    "Pad" ["mode" "pads" "value"] moving::pad;
    "Pow" [] elementwise::pow;
    "RNN" ["activation_alpha" "activation_beta" "activations" "clip" "direction" "hidden_size"
           "layout"] recurrent::run;
    "Range" [] shapes::range;
    "Reciprocal" [] |c| c.unary(Tensor::recip);
    "ReduceL2" ["axes" "keepdims" "noop_with_empty_axes"] reduce::norm;
    "ReduceMax" ["axes" "keepdims" "noop_with_empty_axes"] reduce::max;
    "ReduceMean" ["axes" "keepdims" "noop_with_empty_axes"] |c| reduce::reduce(c, Tensor::mean);
    "ReduceMin" ["axes" "keepdims" "noop_with_empty_axes"]
                reduce::min;
    "ReduceSum" ["axes" "keepdims" "noop_with_empty_axes"] |c| reduce::reduce(c, Tensor::sum);
    "Relu" [] |c| c.unary(Tensor::relu);
    "Reshape" ["allowzero"] shapes::reshape;
    "ReverseSequence" ["batch_axis" "time_axis"] moving::reverse;
    "Selu" ["alpha" "gamma"] elementwise::selu;
    "Shape" ["start" "end"] shapes::shape;
    "Sigmoid" [] |c| c.unary(Tensor::sigmoid);
    "Sign" [] |c| c.unary(Tensor::sign);
    "Sin" [] |c| c.unary(Tensor::sin);
    "Slice" ["axes" "ends" "starts"] indexing::slice;
    "Softmax" ["axis"] |c| reduce::softmax(c, Tensor::softmax);
    "Softplus" [] |c| c.unary(|x| x.activate(backend_api::Activation::Softplus));
    "Softsign" [] |c| c.unary(|x| x.activate(backend_api::Activation::Softsign));
    "Split" ["axis" "num_outputs" "split"] moving::split;
    "Sqrt" [] |c| c.unary(Tensor::sqrt);
    "Squeeze" ["axes"] shapes::squeeze;
    "Sub" [] elementwise::sub;
    "Sum" [] elementwise::add;
    "Tanh" [] |c| c.unary(Tensor::tanh);
    "ThresholdedRelu" ["alpha"] |c| c.activation(
        recurrent::Function::ThresholdedRelu(c.float("alpha", 1.0)?));
    "Tile" [] moving::tile;
    "Transpose" ["perm"] moving::transpose;
    "Unsqueeze" ["axes"] shapes::unsqueeze;
    "Where" [] elementwise::select;
}

impl<B: Backend> Operator<B> {
    /// The operator of a node.
    pub(super) fn of(node: &Node) -> Result<Self> {
        let Some((attributes, run)) = find(&node.operator) else {
            return Err(node.unsupported("needs this operator; `onnx::OPERATORS` lists others"));
        };
        match node
            .attributes
            .keys()
            .find(|name| !attributes.contains(&&***name))
        {
            Some(name) => Err(node.unsupported(format!("needs the attribute `{name}`"))),
            None => Ok(Self(run)),
        }
    }

    pub(super) fn run(&self, call: &Call<'_, B>) -> Result<Vec<Value<B>>> {
        (self.0)(call)
    }
}

impl<B: Backend> Call<'_, B> {
    fn unary(&self, f: impl FnOnce(&Tensor<B>) -> Result<Tensor<B>>) -> Result<Vec<Value<B>>> {
        one(f(&self.tensor(0)?)?)
    }

    fn activation(&self, function: recurrent::Function) -> Result<Vec<Value<B>>> {
        self.unary(|x| function.of(x))
    }
}

/// The results of an operator with one.
fn one<B: Backend>(tensor: Tensor<B>) -> Result<Vec<Value<B>>> {
    Ok(vec![Value::Tensor(tensor)])
}

fn ints<B: Backend>(ints: Ints) -> Result<Vec<Value<B>>> {
    Ok(vec![Value::Ints(ints)])
}
