//! Layers as the file of a model.

use std::path::Path;

use backend_api::{Backend, DType, Error, Result, Tensor};
use prost::Message;

use super::layer::function;
use super::{Exportable, Layer};
use crate::onnx::array::{Array, type_number};
use crate::onnx::proto::{
    AttributeProto, DimensionProto, GraphProto, ModelProto, NodeProto, OperatorSetProto,
    ShapeProto, TensorProto, TensorTypeProto, TypeProto, ValueInfoProto, attribute_type,
};

/// The version of the operators that are written; the first with `layout`-aware nodes is 14.
const OPSET: i64 = 17;
/// The version of the file format that belongs to it.
const IR_VERSION: i64 = 8;

/// Writes a stack of cells as an `.onnx` file.
///
/// | input, output | shape |
/// |---|---|
/// | `x` | `[time, batch, input]` |
/// | `h0`, .., and for LSTMs `c0`, ..: the initial states of layers | `[1, batch, n]` |
/// | `y` | `[time, batch, n]` |
/// | `hn0`, .., `cn0`, ..: the final states | `[1, batch, n]` |
///
/// `time` and `batch` are any numbers.
///
/// ```
/// use recurrent::interchange::onnx::{Model, write};
/// use recurrent::{Device, LstmCell};
///
/// # fn main() -> recurrent::Result<()> {
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("stack.onnx");
/// let device = Device::cpu();
/// write(&path, &[LstmCell::new(&device, 3, 8)?, LstmCell::new(&device, 8, 4)?])?;
///
/// let model = Model::read(&path)?;
/// let inputs: Vec<String> = model.inputs().iter().map(|port| port.to_string()).collect();
/// assert_eq!(inputs[..3], [
///     "x: f32 [time, batch, 3]",
///     "h0: f32 [1, batch, 8]",
///     "c0: f32 [1, batch, 8]",
/// ]);
/// assert_eq!(model.outputs()[0].to_string(), "y: f32 [time, batch, 4]");
/// # Ok(()) }
/// ```
///
/// # Errors
/// ONNX cannot express an option of a cell ([`Layer::of`]); the layers do not fit; the type is
/// `bf16`; the file cannot be written.
pub fn write<C: Exportable>(path: impl AsRef<Path>, cells: &[C]) -> Result<()> {
    let layers = cells
        .iter()
        .map(|cell| Ok(vec![cell.layer()?]))
        .collect::<Result<Vec<_>>>()?;
    save(path.as_ref(), &layers)
}

/// Writes a bidirectional stack as an `.onnx` file: each layer has a forward and a backward cell,
/// and their outputs, concatenated, are the input of the next. The names are those of [`write()`];
/// states are `[2, batch, n]`, and `y` is `[time, batch, 2 n]`.
///
/// ```
/// use recurrent::interchange::onnx::{Model, write_bidirectional};
/// use recurrent::{Device, GruCell};
///
/// # fn main() -> recurrent::Result<()> {
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("gru.onnx");
/// let device = Device::cpu();
/// let cells = [GruCell::new(&device, 3, 8)?, GruCell::new(&device, 3, 8)?];
/// write_bidirectional(&path, &cells[..1], &cells[1..])?;
/// assert_eq!(Model::read(&path)?.outputs()[0].to_string(), "y: f32 [time, batch, 16]");
/// # Ok(()) }
/// ```
///
/// # Errors
/// As [`write()`]; also if the directions differ in their number of layers, or the cells of a layer
/// in operator, sizes, peepholes or `reset_after`.
pub fn write_bidirectional<C: Exportable>(
    path: impl AsRef<Path>,
    forward: &[C],
    backward: &[C],
) -> Result<()> {
    if forward.len() != backward.len() {
        let (ahead, back) = (forward.len(), backward.len());
        let problem = format!("are {ahead} forward and {back} backward");
        return Err(Error::argument("onnx", "cells", problem));
    }
    let pair = |(a, b): (&C, &C)| {
        let (a, b) = (a.layer()?, b.layer()?);
        let shape = |l: &Layer<C::Backend>| {
            (
                l.operator,
                l.inputs,
                l.units,
                l.reset_after,
                l.peepholes.is_some(),
            )
        };
        if shape(&a) != shape(&b) {
            let text = |l| {
                let (operator, inputs, units, reset_after, peepholes) = shape(l);
                format!(
                    "{operator} {inputs} to {units}, reset_after {reset_after}, \
                     peepholes {peepholes}"
                )
            };
            let problem = format!("of a layer differ: {}; {}", text(&a), text(&b));
            return Err(Error::argument("onnx", "cells", problem));
        }
        Ok(vec![a, b])
    };
    let layers = forward
        .iter()
        .zip(backward)
        .map(pair)
        .collect::<Result<Vec<_>>>()?;
    save(path.as_ref(), &layers)
}

fn save<B: Backend>(path: &Path, layers: &[Vec<Layer<B>>]) -> Result<()> {
    let model = ModelProto {
        ir_version: IR_VERSION,
        producer_name: "recurrent".into(),
        graph: Some(Writer::new(layers)?.graph),
        opset_import: vec![OperatorSetProto {
            domain: String::new(),
            version: OPSET,
        }],
        functions: vec![],
    };
    std::fs::write(path, model.encode_to_vec()).map_err(|e| Error::io(path, e))
}

/// A graph under construction.
struct Writer {
    graph: GraphProto,
    dtype: DType,
}

impl Writer {
    fn new<B: Backend>(layers: &[Vec<Layer<B>>]) -> Result<Self> {
        let wrong = |problem: String| Error::argument("onnx", "cells", problem);
        let Some(first) = layers.first().and_then(|layer| layer.first()) else {
            return Err(wrong("are missing".into()));
        };
        let mut writer = Self {
            graph: GraphProto {
                name: "recurrent".into(),
                ..GraphProto::default()
            },
            dtype: first.weights[0].dtype(),
        };
        if writer.dtype == DType::Bf16 {
            return Err(wrong(
                "are bf16, which the operators of ONNX cannot express".into(),
            ));
        }
        let x = writer.port(
            "x",
            &[Length::Time, Length::Batch, Length::Fixed(first.inputs)],
        );
        writer.graph.input.push(x);
        let mut width = first.inputs;
        let mut states = Vec::new();
        for (i, layer) in layers.iter().enumerate() {
            let Some(first) = layer.first() else {
                continue;
            };
            let dtype = first.weights[0].dtype();
            if first.inputs != width || dtype != writer.dtype {
                return Err(wrong(format!(
                    "do not fit: layer {i} takes {} {dtype}, but its input is {width} {}",
                    first.inputs, writer.dtype
                )));
            }
            width = layer.len() * first.units;
            let output = if i + 1 == layers.len() {
                "y".into()
            } else {
                format!("y{i}")
            };
            let input = if i == 0 {
                "x".into()
            } else {
                format!("y{}", i - 1)
            };
            states.extend(writer.layer(i, layer, input, output)?);
        }
        let y = writer.port("y", &[Length::Time, Length::Batch, Length::Fixed(width)]);
        writer.graph.output.push(y);
        writer.graph.output.extend(states);
        Ok(writer)
    }

    /// Adds a layer. Returns its final states.
    fn layer<B: Backend>(
        &mut self,
        i: usize,
        layer: &[Layer<B>],
        input: String,
        output: String,
    ) -> Result<Vec<ValueInfoProto>> {
        let first = &layer[0];
        let lstm = first.operator == "LSTM";
        let weights = self.weights(i, layer)?;
        let names: &[&str] = if lstm { &["h", "c"] } else { &["h"] };
        let dims = [
            Length::Fixed(layer.len()),
            Length::Batch,
            Length::Fixed(first.units),
        ];
        let mut results = Vec::new();
        for name in names {
            let state = self.port(&format!("{name}{i}"), &dims);
            self.graph.input.push(state);
            results.push(self.port(&format!("{name}n{i}"), &dims));
        }
        let [w, r, b] = weights;
        let mut inputs = vec![input, w, r, b, String::new(), format!("h{i}")];
        if lstm {
            inputs.push(format!("c{i}"));
        }
        let peepholes = layer
            .iter()
            .filter_map(|l| l.peepholes.clone())
            .collect::<Vec<_>>();
        if !peepholes.is_empty() {
            inputs.push(self.weight(format!("P{i}"), &peepholes)?);
        }
        let sequence = format!("{output}_directions");
        let outputs = [sequence.clone()]
            .into_iter()
            .chain(results.iter().map(|r| r.name.clone()));
        self.graph.node.push(NodeProto {
            name: format!("layer{i}"),
            op_type: first.operator.into(),
            input: inputs,
            output: outputs.collect(),
            attribute: attributes(layer)?,
            ..NodeProto::default()
        });
        self.joined(layer.len(), sequence, output);
        Ok(results)
    }

    /// `[time, directions, batch, n]` to `[time, batch, directions n]`.
    fn joined(&mut self, directions: usize, from: String, to: String) {
        let node = |operator: &str, input: Vec<String>, output: &str| NodeProto {
            name: output.into(),
            op_type: operator.into(),
            input,
            output: vec![output.into()],
            ..NodeProto::default()
        };
        if directions == 1 {
            let axes = self.constant(format!("{to}_axes"), &[1]);
            self.graph.node.push(node("Squeeze", vec![from, axes], &to));
            return;
        }
        let turned = format!("{to}_batches");
        let mut transpose = node("Transpose", vec![from], &turned);
        transpose.attribute.push(AttributeProto {
            name: "perm".into(),
            ints: vec![0, 2, 1, 3],
            r#type: attribute_type::INTS,
            ..AttributeProto::default()
        });
        let shape = self.constant(format!("{to}_shape"), &[0, 0, -1]);
        let reshape = node("Reshape", vec![turned, shape], &to);
        self.graph.node.extend([transpose, reshape]);
    }

    fn constant(&mut self, name: String, values: &[i64]) -> String {
        self.graph.initializer.push(TensorProto {
            name: name.clone(),
            dims: vec![values.len() as i64],
            data_type: type_number(DType::I64),
            int64_data: values.to_vec(),
            ..TensorProto::default()
        });
        name
    }

    /// The names of W, R and B.
    fn weights<B: Backend>(&mut self, i: usize, layer: &[Layer<B>]) -> Result<[String; 3]> {
        let names = ["W", "R", "B"].map(|name| format!("{name}{i}"));
        for (k, name) in names.iter().enumerate() {
            let parts: Vec<_> = layer.iter().map(|l| l.weights[k].clone()).collect();
            self.weight(name.clone(), &parts)?;
        }
        Ok(names)
    }

    fn weight<B: Backend>(&mut self, name: String, parts: &[Tensor<B>]) -> Result<String> {
        let stacked = Tensor::stack(&parts.iter().collect::<Vec<_>>(), 0)?;
        let array = Array::from_tensor(&stacked)?;
        self.graph.initializer.push(array.proto(name.clone()));
        Ok(name)
    }

    fn port(&self, name: &str, dims: &[Length]) -> ValueInfoProto {
        let dim = |length: &Length| match length {
            Length::Time => DimensionProto {
                dim_param: Some("time".into()),
                dim_value: None,
            },
            Length::Batch => DimensionProto {
                dim_param: Some("batch".into()),
                dim_value: None,
            },
            Length::Fixed(n) => DimensionProto {
                dim_param: None,
                dim_value: Some(*n as i64),
            },
        };
        let tensor_type = TensorTypeProto {
            elem_type: type_number(self.dtype),
            shape: Some(ShapeProto {
                dim: dims.iter().map(dim).collect(),
            }),
        };
        ValueInfoProto {
            name: name.into(),
            r#type: Some(TypeProto {
                tensor_type: Some(tensor_type),
            }),
        }
    }
}

/// The length of an axis.
enum Length {
    Time,
    Batch,
    Fixed(usize),
}

fn attributes<B: Backend>(layer: &[Layer<B>]) -> Result<Vec<AttributeProto>> {
    let first = &layer[0];
    let named = |name: &str, r#type| AttributeProto {
        name: name.into(),
        r#type,
        ..AttributeProto::default()
    };
    let direction = if layer.len() == 2 {
        "bidirectional"
    } else {
        "forward"
    };
    let mut all = vec![
        AttributeProto {
            i: first.units as i64,
            ..named("hidden_size", attribute_type::INT)
        },
        AttributeProto {
            s: direction.into(),
            ..named("direction", attribute_type::STRING)
        },
    ];
    if first.reset_after {
        all.push(AttributeProto {
            i: 1,
            ..named("linear_before_reset", attribute_type::INT)
        });
    }
    let mut names = named("activations", attribute_type::STRINGS);
    let mut alphas = named("activation_alpha", attribute_type::FLOATS);
    let mut betas = named("activation_beta", attribute_type::FLOATS);
    for &activation in layer.iter().flat_map(|layer| &layer.activations) {
        let (name, alpha, beta) = function(activation)?;
        names.strings.push(name.into());
        alphas.floats.extend(alpha);
        betas.floats.extend(beta);
    }
    all.push(names);
    all.extend(
        [alphas, betas]
            .into_iter()
            .filter(|list| !list.floats.is_empty()),
    );
    Ok(all)
}
