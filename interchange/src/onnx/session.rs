//! Models on a device.

use std::collections::{HashMap, HashSet};

use backend_api::{Backend, Error, Result, Tensor};
use rnn_core::AnyCell;

use super::call::Call;
use super::error::is_too_large;
use super::model::{Model, Port};
use super::node::Node;
use super::operators::Operator;
use super::recurrent::Recurrent;
use super::value::Value;

/// The largest number of elements of a result in a run: 1 GiB of `f32`.
const MAX_ELEMENTS: usize = 1 << 28;

/// The elements that nodes of weights alone may make when a model is copied to a device: a fixed
/// number, and a number for each element of a weight. What makes more is computed in every run.
const FREE_CONSTANTS: usize = 1 << 18;
const CONSTANTS_PER_WEIGHT: usize = 8;

/// A model on a device: [`Model::on`].
///
/// ```
/// use recurrent::interchange::onnx::{Model, write};
/// use recurrent::{Device, DynamicRnn, GruCell, Tensor};
///
/// # fn main() -> recurrent::Result<()> {
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("gru.onnx");
/// let device = Device::cpu();
/// let cell = GruCell::new(&device, 3, 8)?;
/// write(&path, &[cell.clone()])?;
///
/// let session = Model::read(&path)?.on(&device)?;
/// let x = Tensor::from_slice(&device, &[0.5f32; 12], &[4, 1, 3])?;
/// let state = Tensor::zeros(&device, &[1, 1, 8])?;
/// let outputs = session.run(&[("x", &x), ("h0", &state)])?;
/// let expected = DynamicRnn::new(&cell).time_major(true).run(&x)?.outputs;
/// assert_eq!(outputs[0].1.to_vec::<f32>()?, expected.to_vec::<f32>()?);
/// // The node is such a cell.
/// assert_eq!(session.cells("layer0")?.len(), 1);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Session<B: Backend> {
    device: B,
    opset: i64,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    constants: HashMap<String, Value<B>>,
    steps: Vec<Step<B>>,
    max_elements: usize,
}

/// A node to compute in every run.
#[derive(Clone, Debug)]
struct Step<B: Backend> {
    node: Node,
    operator: Operator<B>,
    /// The cells of a recurrent node whose weights are constant.
    recurrent: Option<Recurrent<B>>,
    /// The values that no later node reads.
    last: Vec<String>,
}

impl Model {
    /// Copies the weights to a device, and computes what depends on weights alone.
    ///
    /// # Errors
    /// An operator, attribute or element type is not supported; a part of the model that depends
    /// on weights alone is invalid; the device is out of memory.
    pub fn on<B: Backend>(&self, device: &B) -> Result<Session<B>> {
        Session::new(self, device)
    }
}

impl<B: Backend> Session<B> {
    fn new(model: &Model, device: &B) -> Result<Self> {
        let mut session = Self {
            device: device.clone(),
            opset: model.opset,
            inputs: model.inputs().to_vec(),
            outputs: model.outputs().to_vec(),
            constants: HashMap::new(),
            steps: Vec::new(),
            max_elements: 0,
        };
        let mut weights = 0;
        for (name, array) in model.weights() {
            let value = Value::of(array, device)?;
            weights += value.count();
            session.constants.insert(name.clone(), value);
        }
        session.max_elements = FREE_CONSTANTS + CONSTANTS_PER_WEIGHT * weights;
        for node in &model.nodes {
            session.add(node)?;
        }
        session.max_elements = MAX_ELEMENTS;
        session.find_last_uses();
        Ok(session)
    }

    /// Computes a node if all of its inputs are known, else adds it to the steps.
    fn add(&mut self, node: &Node) -> Result<()> {
        let operator = Operator::of(node)?;
        let constant = |name: &String| name.is_empty() || self.constants.contains_key(name);
        if node.inputs.iter().all(constant) {
            match self.call(node, &operator, None, &HashMap::new()) {
                Ok(results) => {
                    let count: usize = results.iter().map(|(_, value)| value.count()).sum();
                    self.max_elements = match &*node.operator {
                        "Constant" => self.max_elements + CONSTANTS_PER_WEIGHT * count,
                        _ => self.max_elements.saturating_sub(count),
                    };
                    self.constants.extend(results);
                    return Ok(());
                }
                Err(error) if is_too_large(&error) => {}
                Err(error) => return Err(error),
            }
        }
        let recurrent = if Recurrent::<B>::is(node) {
            let call = self.arguments(node, &HashMap::new());
            Recurrent::of_constants(&call).map_err(|e| explained(node, e))?
        } else {
            None
        };
        self.steps.push(Step {
            node: node.clone(),
            operator,
            recurrent,
            last: Vec::new(),
        });
        Ok(())
    }

    /// Finds what each step reads last, and forgets the constants that none reads.
    fn find_last_uses(&mut self) {
        let outputs = self.outputs.iter().map(|o| o.name.clone());
        let mut needed: HashSet<String> = outputs.collect();
        for step in self.steps.iter_mut().rev() {
            // Cells have the weights.
            let cells = step.recurrent.is_some();
            let reads = |i: usize| !(cells && Recurrent::<B>::WEIGHTS.contains(&i));
            let inputs = step.node.inputs.iter().enumerate();
            let inputs = inputs.filter_map(|(i, name)| reads(i).then_some(name));
            let uses = inputs.chain(&step.node.outputs);
            let last = uses.filter(|&name| !name.is_empty() && needed.insert(name.clone()));
            step.last = last.cloned().collect();
        }
        self.constants.retain(|name, _| needed.contains(name));
    }

    /// Limits the number of elements of each result in a run. Default: 2^28. A damaged file then
    /// cannot ask for all memory.
    ///
    /// ```
    /// use recurrent::interchange::onnx::{Model, write};
    /// use recurrent::{Device, GruCell, Tensor};
    ///
    /// # fn main() -> recurrent::Result<()> {
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let path = folder.path().join("gru.onnx");
    /// let device = Device::cpu();
    /// write(&path, &[GruCell::new(&device, 3, 8)?])?;
    /// let session = Model::read(&path)?.on(&device)?.max_elements(100);
    /// let state = Tensor::zeros(&device, &[1, 2, 8])?;
    /// let run = |time| {
    ///     let x = Tensor::ones(&device, &[time, 2, 3])?;
    ///     session.run(&[("x", &x), ("h0", &state)])
    /// };
    /// assert!(run(6).is_ok());
    /// assert!(run(7).unwrap_err().to_string().contains("[7, 1, 2, 8]"));
    /// # Ok(()) }
    /// ```
    pub fn max_elements(mut self, elements: usize) -> Self {
        self.max_elements = elements;
        self
    }

    /// The inputs that [`run`](Self::run) needs.
    pub fn inputs(&self) -> &[Port] {
        &self.inputs
    }

    /// The outputs that [`run`](Self::run) returns.
    pub fn outputs(&self) -> &[Port] {
        &self.outputs
    }

    /// The cells of a recurrent node: one, or with the direction `bidirectional` the forward and
    /// the backward one.
    ///
    /// # Errors
    /// No node with this name is an RNN, GRU or LSTM, or its weights depend on inputs.
    pub fn cells(&self, node: &str) -> Result<&[AnyCell<B>]> {
        let found = self.steps.iter().find(|step| step.node.name == node);
        match found.and_then(|step| step.recurrent.as_ref()) {
            Some(recurrent) => Ok(recurrent.cells()),
            None => {
                let recurrent = self.steps.iter().filter(|step| step.recurrent.is_some());
                let names: Vec<&str> = recurrent.map(|step| &*step.node.name).collect();
                let problem = format!(
                    "is `{node}`, but the recurrent nodes with constant weights are `{}`",
                    names.join("`, `")
                );
                Err(Error::argument("onnx", "node", problem))
            }
        }
    }

    /// Runs the model: takes its inputs by name, and returns its outputs in order.
    ///
    /// # Errors
    /// An input is missing, unknown, or has another type or shape than the model states; a node is
    /// invalid for these inputs, or needs something that is not supported; the device failed.
    pub fn run(&self, inputs: &[(&str, &Tensor<B>)]) -> Result<Vec<(String, Tensor<B>)>> {
        let mut values = self.given(inputs)?;
        for step in &self.steps {
            let results =
                self.call(&step.node, &step.operator, step.recurrent.as_ref(), &values)?;
            values.extend(results);
            for name in &step.last {
                values.remove(name);
            }
        }
        let output = |port: &Port| {
            let value = self.value(&values, &port.name);
            let value = value.ok_or_else(|| {
                Error::argument("onnx", format!("output `{}`", port.name), "is not computed")
            })?;
            Ok((port.name.clone(), value.tensor(&self.device)?))
        };
        self.outputs.iter().map(output).collect()
    }

    /// The inputs as values, checked.
    fn given(&self, inputs: &[(&str, &Tensor<B>)]) -> Result<HashMap<String, Value<B>>> {
        let names = || {
            self.inputs
                .iter()
                .map(Port::to_string)
                .collect::<Vec<_>>()
                .join("; ")
        };
        let wrong = |name: &str, problem: &str| {
            let problem = format!("{problem}; the inputs are {}", names());
            Err(Error::argument("onnx", format!("input `{name}`"), problem))
        };
        let mut values = HashMap::new();
        let mut symbols = HashMap::new();
        for (name, tensor) in inputs {
            let Some(port) = self.inputs.iter().find(|port| port.name == *name) else {
                return wrong(name, "is unknown");
            };
            port.check(tensor.meta(), &mut symbols)?;
            let value = Value::Tensor((*tensor).clone());
            if values.insert((*name).to_owned(), value).is_some() {
                return wrong(name, "is given twice");
            }
        }
        match self
            .inputs
            .iter()
            .find(|port| !values.contains_key(&port.name))
        {
            Some(port) => wrong(&port.name, "is missing"),
            None => Ok(values),
        }
    }

    fn value<'a>(
        &'a self,
        values: &'a HashMap<String, Value<B>>,
        name: &str,
    ) -> Option<&'a Value<B>> {
        values.get(name).or_else(|| self.constants.get(name))
    }

    /// The arguments of a node, as far as they are known.
    fn arguments<'a>(&'a self, node: &'a Node, values: &HashMap<String, Value<B>>) -> Call<'a, B> {
        let known = |name: &String| self.value(values, name).cloned();
        Call {
            device: &self.device,
            node,
            opset: self.opset,
            inputs: node.inputs.iter().map(known).collect(),
            max_elements: self.max_elements,
        }
    }

    fn call(
        &self,
        node: &Node,
        operator: &Operator<B>,
        recurrent: Option<&Recurrent<B>>,
        values: &HashMap<String, Value<B>>,
    ) -> Result<Vec<(String, Value<B>)>> {
        let call = self.arguments(node, values);
        let results = match recurrent {
            Some(recurrent) => recurrent.run(&call),
            None => operator.run(&call),
        };
        let results = results.map_err(|e| explained(node, e))?;
        let surplus = node
            .outputs
            .iter()
            .skip(results.len())
            .find(|name| !name.is_empty());
        if let Some(name) = surplus {
            let problem = format!(
                "needs its output `{name}` beyond the first {}",
                results.len()
            );
            return Err(node.unsupported(problem));
        }
        let named = node.outputs.iter().cloned().zip(results);
        Ok(named.filter(|(name, _)| !name.is_empty()).collect())
    }
}

/// An error of an operation, with the node that caused it.
fn explained(node: &Node, error: Error) -> Error {
    let label = node.label();
    match &error {
        Error::Argument { arg, .. } if *arg == label => error,
        Error::Argument { .. } | Error::Shape { .. } | Error::DType { .. } => {
            Error::argument("onnx", label, format!("failed: {error}"))
        }
        _ => error,
    }
}
