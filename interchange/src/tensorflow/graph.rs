//! The constants of a `GraphDef` or a SavedModel: the weights of a frozen graph.

use std::path::Path;

use prost::Message;

use super::bundle;
use super::messages::{self, Attr, Graph, Node, SavedModel, Tensor};
use crate::contents::{Contents, size};
use crate::element::Element;
use crate::source;

/// The most bytes of all constants of one repeated value together, which take no room in the file.
const REPEATED: usize = 1 << 28;

/// Whether the bytes are a graph: a message of nodes, the first of which has a name.
pub(crate) fn is_graph(bytes: &[u8]) -> bool {
    let Ok(graph) = Graph::decode(bytes) else {
        return false;
    };
    let first = graph.node.first().map(|node| Node::decode(&node[..]));
    matches!(first, Some(Ok(node)) if !node.name.is_empty() && !node.op.is_empty())
}

/// The constants of a graph.
pub(crate) fn open(path: &Path) -> Result<Contents, String> {
    let graph = Graph::decode(&source::whole(path)?[..]).map_err(|e| e.to_string())?;
    let mut constants = Constants::default();
    constants.add_graph(graph)?;
    Ok(constants.contents)
}

/// Whether the bytes begin as a SavedModel does: with the version of its schema, which is 1.
pub(crate) fn is_saved_model(start: &[u8]) -> bool {
    start.starts_with(&[0x08, 0x01, 0x12])
}

/// The constants of a SavedModel, and the variables in the folder beside it.
pub(crate) fn open_saved_model(path: &Path) -> Result<Contents, String> {
    let model = SavedModel::decode(&source::whole(path)?[..]).map_err(|e| e.to_string())?;
    let mut constants = Constants::default();
    for meta in model.meta_graphs {
        constants.add_graph(*meta.graph_def.unwrap_or_default())?;
    }
    let mut contents = constants.contents;
    let variables = path.with_file_name("variables").join("variables.index");
    if variables.exists() {
        let found = bundle::open(&variables);
        contents.merge(found.map_err(|e| format!("{}: {e}", variables.display()))?)?;
    }
    Ok(contents)
}

#[derive(Default)]
struct Constants {
    contents: Contents,
    repeated: usize,
}

impl Constants {
    fn add_graph(&mut self, graph: Graph) -> Result<(), String> {
        self.add_nodes("", graph.node)?;
        for function in graph.library.unwrap_or_default().function {
            let scope = format!("{}/", function.signature.unwrap_or_default().name);
            self.add_nodes(&scope, function.node)?;
        }
        Ok(())
    }

    fn add_nodes(&mut self, scope: &str, nodes: Vec<Vec<u8>>) -> Result<(), String> {
        for node in nodes {
            let node = Node::decode(&node[..]).map_err(|e| format!("has a damaged node: {e}"))?;
            if node.op != "Const" {
                continue;
            }
            let value = node
                .attr
                .into_iter()
                .find(|Attr { key, .. }| key == "value");
            let tensor = value.and_then(|attr| attr.value?.tensor);
            let name = format!("{scope}{}", node.name);
            let Some(tensor) = tensor else {
                return Err(format!("`{name}` is a constant without a value"));
            };
            let added = self.add(&name, tensor);
            added.map_err(|problem| format!("`{name}` {problem}"))?;
        }
        Ok(())
    }

    fn add(&mut self, name: &str, tensor: Tensor) -> Result<(), String> {
        let element = match messages::element(tensor.dtype) {
            Ok(element) => element,
            Err(kind) => {
                self.contents.other(name, format!("a constant: {kind}"));
                return Ok(());
            }
        };
        let dims = tensor.tensor_shape.clone().unwrap_or_default().dims()?;
        let needed = size(element, &dims).ok_or("is too large")?;
        let bytes = match tensor.tensor_content.is_empty() {
            true => listed(&tensor, element),
            false => tensor.tensor_content,
        };
        let has = bytes.len();
        if has == needed {
            return self.contents.hold(name, element, &dims, bytes);
        }
        // A shorter list ends in a value that is repeated; an empty one is of zeros.
        if has > needed || !has.is_multiple_of(element.size()) {
            return Err(format!("has {has} bytes, but its shape has {needed}"));
        }
        self.repeated = self.repeated.saturating_add(needed);
        if self.repeated > REPEATED {
            return Err(format!(
                "repeats its last value; all such constants have more than {REPEATED} bytes"
            ));
        }
        self.contents.add(name, element, &dims, move || {
            let mut all = bytes.clone();
            let last = match bytes.len().checked_sub(element.size()) {
                Some(start) => bytes[start..].to_vec(),
                None => vec![0; element.size()],
            };
            all.extend(last.iter().cycle().take(needed - has));
            Ok(all)
        })
    }
}

/// The values of the field of the type.
fn listed(tensor: &Tensor, element: Element) -> Vec<u8> {
    fn bytes<T: Copy, const N: usize>(values: &[T], of: impl Fn(T) -> [u8; N]) -> Vec<u8> {
        values.iter().flat_map(|&value| of(value)).collect()
    }
    let (ints, halves) = (&tensor.int_val, &tensor.half_val);
    match element {
        Element::F32 => bytes(&tensor.float_val, f32::to_le_bytes),
        Element::F64 => bytes(&tensor.double_val, f64::to_le_bytes),
        Element::F16 | Element::Bf16 => bytes(halves, |bits| (bits as u16).to_le_bytes()),
        Element::I32 => bytes(ints, i32::to_le_bytes),
        Element::I16 | Element::U16 => bytes(ints, |int| (int as u16).to_le_bytes()),
        Element::I8 | Element::U8 => bytes(ints, |int| [int as u8]),
        Element::I64 => bytes(&tensor.int64_val, i64::to_le_bytes),
        Element::U32 => bytes(&tensor.uint32_val, u32::to_le_bytes),
        Element::U64 => bytes(&tensor.uint64_val, u64::to_le_bytes),
        Element::Bool => bytes(&tensor.bool_val, |is| [u8::from(is)]),
    }
}
