//! Models as files state them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use backend_api::{DType, Error, Result};
use prost::Message;

use super::array::{self, Array};
use super::error::unsupported;
use super::node::Node;
use super::proto::{ModelProto, ValueInfoProto};

/// The versions of ONNX's operators that are read.
const OPSETS: std::ops::RangeInclusive<i64> = 7..=28;

/// A model of an `.onnx` file, in host memory.
///
/// ```
/// use recurrent::interchange::onnx::{Model, write};
/// use recurrent::{Device, LstmCell, Tensor};
///
/// # fn main() -> recurrent::Result<()> {
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("lstm.onnx");
/// let device = Device::cpu();
/// write(&path, &[LstmCell::new(&device, 3, 4)?])?;
///
/// let model = Model::read(&path)?;
/// assert_eq!(model.inputs()[0].to_string(), "x: f32 [time, batch, 3]");
/// let session = model.on(&device)?;
/// let x = Tensor::ones(&device, &[5, 2, 3])?;
/// let state = Tensor::zeros(&device, &[1, 2, 4])?;
/// let outputs = session.run(&[("x", &x), ("h0", &state), ("c0", &state)])?;
/// assert_eq!(outputs[0].0, "y");
/// assert_eq!(outputs[0].1.dims()[..], [5, 2, 4]);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Model {
    pub(super) opset: i64,
    pub(super) nodes: Vec<Node>,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    weights: BTreeMap<String, Array>,
}

/// An input or output of a model.
///
/// ```
/// use recurrent::interchange::onnx::{Dim, Model, write};
/// use recurrent::{DType, Device, GruCell};
///
/// # fn main() -> recurrent::Result<()> {
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("gru.onnx");
/// write(&path, &[GruCell::new(&Device::cpu(), 3, 8)?])?;
/// let model = Model::read(&path)?;
/// let state = &model.inputs()[1];
/// assert_eq!((&*state.name, state.dtype), ("h0", DType::F32));
/// let batch = Dim::Symbol("batch".into());
/// assert_eq!(state.dims, Some(vec![Dim::Fixed(1), batch, Dim::Fixed(8)]));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Port {
    /// Its name.
    pub name: String,
    /// Its element type.
    pub dtype: DType,
    /// Its axes, if the file states them.
    pub dims: Option<Vec<Dim>>,
}

/// An axis of a [`Port`].
///
/// ```
/// use recurrent::interchange::onnx::Dim;
///
/// let axes = [Dim::Fixed(1), Dim::Symbol("batch".into()), Dim::Any];
/// let fixed = axes.iter().filter(|axis| matches!(axis, Dim::Fixed(_)));
/// assert_eq!(fixed.count(), 1);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dim {
    /// A length.
    Fixed(usize),
    /// A name for any length. Equal names are equal lengths.
    Symbol(String),
    /// Any length.
    Any,
}

impl std::fmt::Display for Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.name, self.dtype)?;
        let Some(dims) = &self.dims else {
            return Ok(());
        };
        let text = |dim: &Dim| match dim {
            Dim::Fixed(n) => n.to_string(),
            Dim::Symbol(name) => name.clone(),
            Dim::Any => "?".into(),
        };
        write!(
            f,
            " [{}]",
            dims.iter().map(text).collect::<Vec<_>>().join(", ")
        )
    }
}

impl Port {
    fn of(proto: ValueInfoProto) -> Result<Self> {
        let name = proto.name;
        let what = format!("input or output `{name}`");
        let Some(tensor) = proto.r#type.and_then(|t| t.tensor_type) else {
            return Err(unsupported(what, "is not a tensor"));
        };
        let dim = |dim: super::proto::DimensionProto| match (dim.dim_value, dim.dim_param) {
            // Exporters write 0 and -1 for unknown lengths, too.
            (Some(n), _) => usize::try_from(n)
                .ok()
                .filter(|&n| n > 0)
                .map_or(Dim::Any, Dim::Fixed),
            (None, Some(name)) if !name.is_empty() => Dim::Symbol(name),
            _ => Dim::Any,
        };
        Ok(Self {
            dtype: array::dtype(tensor.elem_type, &what)?,
            dims: tensor.shape.map(|s| s.dim.into_iter().map(dim).collect()),
            name,
        })
    }

    /// Checks a shape and type, and that each symbol has one length.
    pub(super) fn check<'a>(
        &'a self,
        meta: backend_api::Meta,
        symbols: &mut HashMap<&'a str, usize>,
    ) -> Result<()> {
        if meta.dtype != self.dtype {
            let expected = format!("the model states {self}");
            return Err(Error::dtype("onnx", &self.name, meta.dtype, expected));
        }
        let Some(dims) = &self.dims else {
            return Ok(());
        };
        let given = meta.shape.dims();
        let fits = given.len() == dims.len()
            && dims.iter().zip(given).all(|(dim, &n)| match dim {
                Dim::Fixed(fixed) => *fixed == n,
                Dim::Symbol(name) => *symbols.entry(name).or_insert(n) == n,
                Dim::Any => true,
            });
        if fits {
            return Ok(());
        }
        let known: Vec<String> = symbols
            .iter()
            .map(|(name, n)| format!("{name} = {n}"))
            .collect();
        let expected = match known.is_empty() {
            true => format!("the model states {self}"),
            false => format!("the model states {self}, with {}", known.join(", ")),
        };
        Err(Error::shape("onnx", &self.name, meta.shape, expected))
    }
}

impl Model {
    /// Reads an `.onnx` file, with external data from files in its folder.
    ///
    /// # Errors
    /// The file cannot be read or is damaged; external data is elsewhere or has another size; the
    /// model needs a version of ONNX, an operator, an attribute or an element type that is not
    /// supported ([`is_unsupported`](super::is_unsupported)).
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
        let folder = path.parent().unwrap_or(Path::new(""));
        Self::parse(&bytes, Some(folder)).map_err(|error| match error {
            Error::Argument {
                op: "onnx",
                arg,
                problem,
            } => Error::format(path, format!("{arg} {problem}")),
            other => other,
        })
    }

    /// Reads the bytes of an `.onnx` file. External data is refused.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        Self::parse(bytes, None)
    }

    fn parse(bytes: &[u8], folder: Option<&Path>) -> Result<Self> {
        let wrong = |problem: String| Error::argument("onnx", "the file", problem);
        let proto =
            ModelProto::decode(bytes).map_err(|e| wrong(format!("is not a model of ONNX: {e}")))?;
        let Some(graph) = proto.graph else {
            return Err(wrong("has no graph, so it is no model of ONNX".into()));
        };
        if let Some(function) = proto.functions.first() {
            let what = format!("function `{}`", function.name);
            return Err(unsupported(
                what,
                "needs functions inlined: `onnx.inliner` does this",
            ));
        }
        if !graph.sparse_initializer.is_empty() {
            return Err(unsupported("the model", "needs sparse initializers"));
        }
        let opset = proto
            .opset_import
            .iter()
            .find(|o| o.domain.is_empty() || o.domain == "ai.onnx");
        let opset = opset.map_or(1, |o| o.version);
        if !OPSETS.contains(&opset) {
            let (first, last) = (OPSETS.start(), OPSETS.end());
            let problem = format!("needs opset {opset}, but {first} to {last} are supported");
            return Err(unsupported("the model", problem));
        }
        let mut weights = BTreeMap::new();
        for tensor in graph.initializer {
            let name = tensor.name.clone();
            let array = Array::of(tensor, folder, &format!("initializer `{name}`"))?;
            if weights.insert(name.clone(), array).is_some() {
                return Err(wrong(format!("has two initializers `{name}`")));
            }
        }
        // Before version 4 of the format, initializers are inputs, too.
        let inputs: Vec<Port> = graph
            .input
            .into_iter()
            .filter(|input| !weights.contains_key(&input.name))
            .map(Port::of)
            .collect::<Result<_>>()?;
        let outputs = graph
            .output
            .into_iter()
            .map(Port::of)
            .collect::<Result<Vec<_>>>()?;
        let nodes = graph
            .node
            .into_iter()
            .map(|node| Node::of(node, folder))
            .collect::<Result<Vec<_>>>()?;
        let model = Self {
            opset,
            nodes,
            inputs,
            outputs,
            weights,
        };
        model.check_order()?;
        Ok(model)
    }

    /// Every value has one source, which comes before its uses.
    fn check_order(&self) -> Result<()> {
        let wrong = |what: String, problem: String| Err(Error::argument("onnx", what, problem));
        let mut known: HashSet<&str> = self.weights.keys().map(String::as_str).collect();
        for input in &self.inputs {
            if !known.insert(&input.name) {
                return wrong(format!("input `{}`", input.name), "occurs twice".into());
            }
        }
        for node in &self.nodes {
            for input in node.inputs.iter().filter(|name| !name.is_empty()) {
                if !known.contains(&**input) {
                    let problem = format!("reads `{input}`, which nothing before it computes");
                    return wrong(node.label(), problem);
                }
            }
            for output in node.outputs.iter().filter(|name| !name.is_empty()) {
                if !known.insert(output) {
                    let problem = format!("computes `{output}`, which exists already");
                    return wrong(node.label(), problem);
                }
            }
        }
        match self
            .outputs
            .iter()
            .find(|output| !known.contains(&*output.name))
        {
            Some(output) => wrong(
                format!("output `{}`", output.name),
                "is not computed".into(),
            ),
            None => Ok(()),
        }
    }

    /// The inputs that [`Session::run`](super::Session::run) needs.
    pub fn inputs(&self) -> &[Port] {
        &self.inputs
    }

    /// The outputs that [`Session::run`](super::Session::run) returns.
    pub fn outputs(&self) -> &[Port] {
        &self.outputs
    }

    /// The operator of each node, in order.
    ///
    /// ```
    /// use recurrent::interchange::onnx::{Model, write};
    /// use recurrent::{Device, GruCell};
    ///
    /// # fn main() -> recurrent::Result<()> {
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let path = folder.path().join("gru.onnx");
    /// write(&path, &[GruCell::new(&Device::cpu(), 3, 8)?])?;
    /// let model = Model::read(&path)?;
    /// assert!(model.operators().eq(["GRU", "Squeeze"]));
    /// # Ok(()) }
    /// ```
    pub fn operators(&self) -> impl Iterator<Item = &str> {
        self.nodes.iter().map(|node| &*node.operator)
    }

    /// The initializers by name.
    pub fn weights(&self) -> &BTreeMap<String, Array> {
        &self.weights
    }
}
