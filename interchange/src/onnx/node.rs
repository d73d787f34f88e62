//! Nodes of a graph, and their attributes.

use std::collections::BTreeMap;
use std::path::Path;

use backend_api::{Error, Result};

use super::array::Array;
use super::error::unsupported;
use super::proto::{NodeProto, attribute_type as types};

/// A node of a graph.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) name: String,
    pub(super) operator: String,
    /// An absent input has an empty name.
    pub(super) inputs: Vec<String>,
    pub(super) outputs: Vec<String>,
    pub(super) attributes: BTreeMap<String, Attribute>,
}

/// The value of an attribute.
#[derive(Clone, Debug)]
pub(super) enum Attribute {
    Float(f32),
    Int(i64),
    Text(String),
    Tensor(Array),
    Floats(Vec<f32>),
    Ints(Vec<i64>),
    Texts(Vec<String>),
}

impl Node {
    pub(super) fn of(proto: NodeProto, folder: Option<&Path>) -> Result<Self> {
        let mut node = Self {
            name: proto.name,
            operator: proto.op_type,
            inputs: proto.input,
            outputs: proto.output,
            attributes: BTreeMap::new(),
        };
        if !proto.domain.is_empty() && proto.domain != "ai.onnx" {
            let problem = format!("needs the operators of the domain `{}`", proto.domain);
            return Err(unsupported(node.label(), problem));
        }
        for attribute in proto.attribute {
            let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
            let value = match (attribute.r#type, attribute.t) {
                (types::FLOAT, _) => Attribute::Float(attribute.f),
                (types::INT, _) => Attribute::Int(attribute.i),
                (types::STRING, _) => Attribute::Text(text(attribute.s)),
                (types::FLOATS, _) => Attribute::Floats(attribute.floats),
                (types::INTS, _) => Attribute::Ints(attribute.ints),
                (types::STRINGS, _) => {
                    Attribute::Texts(attribute.strings.into_iter().map(text).collect())
                }
                (types::TENSOR, Some(tensor)) => {
                    Attribute::Tensor(Array::of(tensor, folder, &node.label())?)
                }
                _ => {
                    let problem = format!(
                        "needs the attribute `{}`, which is not a number, text or tensor",
                        attribute.name
                    );
                    return Err(unsupported(node.label(), problem));
                }
            };
            node.attributes.insert(attribute.name, value);
        }
        Ok(node)
    }

    /// The node in messages: its name, or that of its first output, and its operator.
    pub(super) fn label(&self) -> String {
        let name = match (&*self.name, self.outputs.first()) {
            ("", Some(output)) => output,
            (name, _) => name,
        };
        format!("node `{name}` ({})", self.operator)
    }

    /// An error: the node is invalid.
    pub(super) fn wrong(&self, problem: impl Into<String>) -> Error {
        Error::argument("onnx", self.label(), problem)
    }

    /// An error: the node needs something that is not implemented.
    pub(super) fn unsupported(&self, problem: impl Into<String>) -> Error {
        unsupported(self.label(), problem)
    }

    fn attribute<'a, T>(
        &'a self,
        name: &str,
        kind: &str,
        value: impl FnOnce(&'a Attribute) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(attribute) = self.attributes.get(name) else {
            return Ok(None);
        };
        let problem = || self.wrong(format!("has the attribute `{name}`, which is not {kind}"));
        value(attribute).ok_or_else(problem).map(Some)
    }

    pub(super) fn float(&self, name: &str) -> Result<Option<f64>> {
        self.attribute(name, "a float", |a| match a {
            Attribute::Float(x) => Some(f64::from(*x)),
            _ => None,
        })
    }

    pub(super) fn int(&self, name: &str) -> Result<Option<i64>> {
        self.attribute(name, "an int", |a| match a {
            Attribute::Int(x) => Some(*x),
            _ => None,
        })
    }

    /// An attribute that is 0 (the default) or 1.
    pub(super) fn flag(&self, name: &str) -> Result<bool> {
        match self.int(name)?.unwrap_or(0) {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(self.wrong(format!("has {name} = {other}, which is neither 0 nor 1"))),
        }
    }

    pub(super) fn text(&self, name: &str) -> Result<Option<&str>> {
        self.attribute(name, "a text", |a| match a {
            Attribute::Text(x) => Some(&**x),
            _ => None,
        })
    }

    pub(super) fn tensor(&self, name: &str) -> Result<Option<&Array>> {
        self.attribute(name, "a tensor", |a| match a {
            Attribute::Tensor(x) => Some(x),
            _ => None,
        })
    }

    pub(super) fn floats(&self, name: &str) -> Result<Option<&[f32]>> {
        self.attribute(name, "a list of floats", |a| match a {
            Attribute::Floats(x) => Some(&**x),
            _ => None,
        })
    }

    pub(super) fn ints(&self, name: &str) -> Result<Option<&[i64]>> {
        self.attribute(name, "a list of ints", |a| match a {
            Attribute::Ints(x) => Some(&**x),
            _ => None,
        })
    }

    pub(super) fn texts(&self, name: &str) -> Result<Option<&[String]>> {
        self.attribute(name, "a list of texts", |a| match a {
            Attribute::Texts(x) => Some(&**x),
            _ => None,
        })
    }
}
