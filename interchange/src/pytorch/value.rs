//! Values that a pickle makes.

use super::globals::Global;
use super::storage::{Storage, Tensor};

/// A value's place among all that the machine has made. Values may contain each other.
pub(super) type Id = usize;

/// A value.
#[derive(Clone, Debug)]
pub(super) enum Value {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(String),
    Bytes,
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Global(Global),
    Storage(Storage),
    Tensor(Tensor),
}

impl Value {
    /// The kind of the value, for messages.
    pub(super) fn kind(&self) -> String {
        match self {
            Self::None => "None".to_owned(),
            Self::Bool(value) => format!("bool {value}"),
            Self::Int(value) => format!("int {value}"),
            Self::Float(value) => format!("float {value}"),
            Self::Str(_) => "str".to_owned(),
            Self::Bytes => "bytes".to_owned(),
            Self::Tuple(_) => "tuple".to_owned(),
            Self::List(_) => "list".to_owned(),
            Self::Dict(_) => "dict".to_owned(),
            Self::Global(global) => global.name().to_owned(),
            Self::Storage(_) => "storage".to_owned(),
            Self::Tensor(_) => "tensor".to_owned(),
        }
    }
}

/// The values that a pickle has made.
#[derive(Debug, Default)]
pub(super) struct Heap(pub(super) Vec<Value>);

impl Heap {
    pub(super) fn get(&self, id: Id) -> &Value {
        &self.0[id]
    }

    pub(super) fn all(&self) -> &[Value] {
        &self.0
    }

    pub(super) fn int(&self, id: Id) -> Option<i64> {
        match self.get(id) {
            Value::Int(value) => Some(*value),
            _ => None,
        }
    }

    pub(super) fn size(&self, id: Id) -> Option<usize> {
        self.int(id)?.try_into().ok()
    }

    pub(super) fn str(&self, id: Id) -> Option<&str> {
        match self.get(id) {
            Value::Str(value) => Some(value),
            _ => None,
        }
    }

    pub(super) fn sizes(&self, id: Id) -> Option<Vec<usize>> {
        match self.get(id) {
            Value::Tuple(items) | Value::List(items) => {
                items.iter().map(|&item| self.size(item)).collect()
            }
            _ => None,
        }
    }
}
