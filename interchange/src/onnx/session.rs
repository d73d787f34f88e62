//! Models on a device.

use std::collections::{HashMap, HashSet};

use backend_api::{Backend, Error, Result, Tensor};
use rnn_core::AnyCell;

use super::model::{Model, Port};
use super::node::Node;
use super::operators::{Call, Operator};
use super::recurrent::Recurrent;
use super::value::Value;

/// The largest number of elements that an operator may make of few: 1 GiB of `f32`.
const MAX_ELEMENTS: usize = 1 << 28;

/// A model on a device: [`Model::on`].
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

impl<B: Backend> Session<B> {
    pub(super) fn new(model: &Model, device: &B) -> Result<Self> {
        let mut session = Self {
            device: device.clone(),
            opset: model.opset,
            inputs: model.inputs().to_vec(),
            outputs: model.outputs().to_vec(),
            constants: HashMap::new(),
            steps: Vec::new(),
            max_elements: MAX_ELEMENTS,
        };
        for (name, array) in model.weights() {
            let value = Value::of(array, device)?;
            session.constants.insert(name.clone(), value);
        }
        for node in &model.nodes {
            let operator = Operator::of(node)?;
            let constant = |name: &String| name.is_empty() || session.constants.contains_key(name);
            if node.inputs.iter().all(constant) {
                let results = session.call(node, &operator, None, &HashMap::new())?;
                session.constants.extend(results);
                continue;
            }
            let weights = if Recurrent::<B>::is(node) {
                let call = session.arguments(node, &HashMap::new(), true)?;
                Recurrent::of_constants(&call).map_err(|e| explained(node, e))?
            } else {
                None
            };
            session.steps.push(Step {
                node: node.clone(),
                operator,
                recurrent: weights,
                last: Vec::new(),
            });
        }
        session.find_last_uses();
        Ok(session)
    }

    fn find_last_uses(&mut self) {
        let outputs = self.outputs.iter().map(|o| o.name.clone());
        let mut needed: HashSet<String> = outputs.collect();
        for step in self.steps.iter_mut().rev() {
            let named = |name: &&String| !name.is_empty();
            let uses = step
                .node
                .inputs
                .iter()
                .chain(&step.node.outputs)
                .filter(named);
            let last = uses.filter(|&name| needed.insert(name.clone()));
            step.last = last.cloned().collect();
        }
    }

    /// Limits the number of elements that an operator such as `Expand` may make of few. Default:
    /// 2^28. A damaged file then cannot ask for all memory.
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

    /// The arguments of a node; with `partial` also without those that are not known yet.
    fn arguments<'a>(
        &'a self,
        node: &'a Node,
        values: &HashMap<String, Value<B>>,
        partial: bool,
    ) -> Result<Call<'a, B>> {
        let mut inputs = Vec::with_capacity(node.inputs.len());
        for name in &node.inputs {
            let value = self.value(values, name).cloned();
            if value.is_none() && !name.is_empty() && !partial {
                return Err(node.wrong(format!("reads `{name}`, which is not computed")));
            }
            inputs.push(value);
        }
        Ok(Call {
            device: &self.device,
            node,
            opset: self.opset,
            inputs,
            max_elements: self.max_elements,
        })
    }

    fn call(
        &self,
        node: &Node,
        operator: &Operator<B>,
        recurrent: Option<&Recurrent<B>>,
        values: &HashMap<String, Value<B>>,
    ) -> Result<Vec<(String, Value<B>)>> {
        let call = self.arguments(node, values, false)?;
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
