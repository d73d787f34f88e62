//! Operators: what a node computes.

mod convolution;
mod elementwise;
mod host;
mod layers;
mod moving;
mod reduce;

use backend_api::{Backend, Result, Tensor};

use super::node::Node;
use super::recurrent;
use super::value::{Ints, Value};

/// A node with its arguments.
#[derive(Debug)]
pub(super) struct Call<'a, B: Backend> {
    pub(super) device: &'a B,
    pub(super) node: &'a Node,
    pub(super) opset: i64,
    pub(super) inputs: Vec<Option<Value<B>>>,
    pub(super) max_elements: usize,
}

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
    "ArgMax" ["axis" "keepdims" "select_last_index"] reduce::arg_max;
    "BatchNormalization" ["epsilon" "momentum" "training_mode" "spatial"] layers::batch_norm;
    "Cast" ["to" "saturate" "round_mode"] moving::cast;
    "Clip" ["min" "max"] elementwise::clip;
    "Concat" ["axis"] moving::concat;
    "Constant" ["value" "value_float" "value_floats" "value_int" "value_ints"] moving::constant;
    "ConstantOfShape" ["value"] moving::constant_of_shape;
    "Conv" ["auto_pad" "dilations" "group" "kernel_shape" "pads" "strides"] convolution::conv;
    "Div" [] elementwise::div;
    "Dropout" ["ratio" "seed"] layers::dropout;
    "Elu" ["alpha"] |c| c.activation(recurrent::Function::Elu(c.float("alpha", 1.0)?));
    "Equal" [] elementwise::equal;
    "Exp" [] |c| c.unary(Tensor::exp);
    "Expand" [] moving::expand;
    "Flatten" ["axis"] moving::flatten;
    "GRU" ["activation_alpha" "activation_beta" "activations" "clip" "direction" "hidden_size"
           "layout" "linear_before_reset"] recurrent::run;
    "Gather" ["axis"] moving::gather;
    "Gemm" ["alpha" "beta" "transA" "transB"] layers::gemm;
    "HardSigmoid" ["alpha" "beta"] |c| c.activation(recurrent::Function::HardSigmoid(
        c.float("alpha", f64::from(0.2f32))?, c.float("beta", 0.5)?));
    "Identity" [] |c| Ok(vec![c.value(0)?.clone()]);
    "LSTM" ["activation_alpha" "activation_beta" "activations" "clip" "direction" "hidden_size"
            "input_forget" "layout"] recurrent::run;
    "LayerNormalization" ["axis" "epsilon" "stash_type"] layers::layer_norm;
    "LeakyRelu" ["alpha"] |c| c.activation(
        recurrent::Function::LeakyRelu(c.float("alpha", f64::from(0.01f32))?));
    "Log" [] |c| c.unary(Tensor::log);
    "LogSoftmax" ["axis"] |c| reduce::softmax(c, Tensor::log_softmax);
    "MatMul" [] layers::matmul;
    "Max" [] elementwise::max;
    "Min" [] elementwise::min;
    "Mul" [] elementwise::mul;
    "Neg" [] |c| c.unary(Tensor::neg);
    "Pow" [] elementwise::pow;
    "RNN" ["activation_alpha" "activation_beta" "activations" "clip" "direction" "hidden_size"
           "layout"] recurrent::run;
    "ReduceMax" ["axes" "keepdims" "noop_with_empty_axes"] |c| reduce::reduce(c, Tensor::max);
    "ReduceMean" ["axes" "keepdims" "noop_with_empty_axes"] |c| reduce::reduce(c, Tensor::mean);
    "ReduceSum" ["axes" "keepdims" "noop_with_empty_axes"] |c| reduce::reduce(c, Tensor::sum);
    "Relu" [] |c| c.unary(Tensor::relu);
    "Reshape" ["allowzero"] moving::reshape;
    "Shape" ["start" "end"] moving::shape;
    "Sigmoid" [] |c| c.unary(Tensor::sigmoid);
    "Slice" ["axes" "ends" "starts"] moving::slice;
    "Softmax" ["axis"] |c| reduce::softmax(c, Tensor::softmax);
    "Softplus" [] |c| c.unary(|x| x.activate(backend_api::Activation::Softplus));
    "Softsign" [] |c| c.unary(|x| x.activate(backend_api::Activation::Softsign));
    "Split" ["axis" "num_outputs" "split"] moving::split;
    "Sqrt" [] |c| c.unary(Tensor::sqrt);
    "Squeeze" ["axes"] moving::squeeze;
    "Sub" [] elementwise::sub;
    "Tanh" [] |c| c.unary(Tensor::tanh);
    "Transpose" ["perm"] moving::transpose;
    "Unsqueeze" ["axes"] moving::unsqueeze;
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
    /// An input that may be absent.
    pub(super) fn optional(&self, i: usize) -> Option<&Value<B>> {
        self.inputs.get(i).and_then(Option::as_ref)
    }

    pub(super) fn value(&self, i: usize) -> Result<&Value<B>> {
        let missing = || self.node.wrong(format!("lacks its input {i}"));
        self.optional(i).ok_or_else(missing)
    }

    pub(super) fn tensor(&self, i: usize) -> Result<Tensor<B>> {
        self.value(i)?.tensor(self.device)
    }

    pub(super) fn optional_tensor(&self, i: usize) -> Result<Option<Tensor<B>>> {
        self.optional(i)
            .map(|value| value.tensor(self.device))
            .transpose()
    }

    pub(super) fn optional_ints(&self, i: usize) -> Result<Option<Vec<i64>>> {
        let ints = |value: &Value<B>| Ok(value.ints(&format!("input {i}"))?.values);
        self.optional(i).map(ints).transpose()
    }

    /// The inputs, if all of them are integers on the host.
    fn host(&self) -> Option<Vec<&Ints>> {
        let ints = |value: &'_ Option<Value<B>>| matches!(value, Some(Value::Ints(_)));
        if !self.inputs.iter().all(ints) {
            return None;
        }
        let ints = self.inputs.iter().filter_map(|value| match value {
            Some(Value::Ints(ints)) => Some(ints),
            _ => None,
        });
        Some(ints.collect())
    }

    pub(super) fn float(&self, name: &str, default: f64) -> Result<f64> {
        Ok(self.node.float(name)?.unwrap_or(default))
    }

    fn int(&self, name: &str, default: i64) -> Result<i64> {
        Ok(self.node.int(name)?.unwrap_or(default))
    }

    /// The list that older versions have as an attribute, and newer ones as an input.
    fn list(&self, name: &str, input: usize) -> Result<Option<Vec<i64>>> {
        match self.node.ints(name)? {
            Some(list) => Ok(Some(list.to_vec())),
            None => self.optional_ints(input),
        }
    }

    /// An axis of `rank` axes; a negative one counts from the end.
    fn axis(&self, axis: i64, rank: usize) -> Result<usize> {
        let counted = if axis < 0 {
            axis.saturating_add(rank as i64)
        } else {
            axis
        };
        let found = usize::try_from(counted).ok().filter(|&axis| axis < rank);
        found.ok_or_else(|| {
            self.node
                .wrong(format!("has axis {axis} of a shape of rank {rank}"))
        })
    }

    fn axes(&self, axes: &[i64], rank: usize) -> Result<Vec<usize>> {
        let mut axes: Vec<usize> = axes
            .iter()
            .map(|&axis| self.axis(axis, rank))
            .collect::<Result<_>>()?;
        axes.sort_unstable();
        let count = axes.len();
        axes.dedup();
        match axes.len() == count {
            true => Ok(axes),
            false => Err(self.node.wrong("has an axis twice")),
        }
    }

    /// A length from the model.
    fn size(&self, size: i64, what: &str) -> Result<usize> {
        let wrong = |_| self.node.wrong(format!("has {what} {size}"));
        usize::try_from(size).map_err(wrong)
    }

    /// Checks the size of a result that is not bounded by the sizes of the inputs.
    fn check_count(&self, dims: &[usize]) -> Result<()> {
        let count = dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        if count.is_some_and(|count| count <= self.max_elements) {
            return Ok(());
        }
        let limit = self.max_elements;
        Err(self.node.wrong(format!(
            "makes a tensor {dims:?}, but at most {limit} elements are allowed (`max_elements`)"
        )))
    }

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
