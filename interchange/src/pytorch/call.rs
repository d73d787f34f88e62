//! The functions that a pickle may call.

use super::globals::Global;
use super::storage::{Storage, Tensor};
use super::value::{Heap, Id, Value};

/// Reads `("storage", class, key, device, count)`; old files have a view as sixth.
pub(super) fn storage(heap: &Heap, id: Id) -> Result<Storage, String> {
    let damaged = || "is damaged: the name of a storage".to_owned();
    let Value::Tuple(parts) = heap.get(id) else {
        return Err(damaged());
    };
    let &[kind, class, key, _, count, ref view @ ..] = &parts[..] else {
        return Err(damaged());
    };
    if heap.str(kind) != Some("storage") {
        return Err("asks for a persistent object that is no storage; refused".to_owned());
    }
    if view.iter().any(|&id| !matches!(heap.get(id), Value::None)) {
        return Err("has views of storages, as PyTorch before 0.4 wrote; refused".to_owned());
    }
    let element = match heap.get(class) {
        Value::Global(Global::StorageOf(element)) => Some(*element),
        Value::Global(Global::UntypedStorage) => None,
        _ => return Err(damaged()),
    };
    Ok(Storage {
        key: heap.str(key).ok_or_else(damaged)?.to_owned(),
        element,
        count: heap.size(count).ok_or_else(damaged)?,
    })
}

/// Calls the function with a tuple of arguments.
pub(super) fn call(global: Global, heap: &Heap, arguments: Id) -> Result<Value, String> {
    let damaged = || format!("is damaged: the arguments of `{}`", global.name());
    let Value::Tuple(arguments) = heap.get(arguments) else {
        return Err(damaged());
    };
    match (global, &arguments[..]) {
        (Global::OrderedDict, []) => Ok(Value::Dict(Vec::new())),
        // Python 2 gives the pairs as an argument.
        (Global::OrderedDict, &[items]) => pairs(heap, items).ok_or_else(damaged),
        (Global::Size, &[sizes]) => Ok(heap.get(sizes).clone()),
        (Global::RebuildTensor | Global::RebuildTensorV2 | Global::RebuildTensorV3, arguments) => {
            tensor(global, heap, arguments)?.ok_or_else(damaged)
        }
        (Global::RebuildParameter, &[data, ..]) => match heap.get(data) {
            Value::Tensor(tensor) => Ok(Value::Tensor(tensor.clone())),
            _ => Err(damaged()),
        },
        _ => Err(format!(
            "asks to call `{}`, which is refused",
            global.name()
        )),
    }
}

/// `storage, offset, sizes, strides`, then whether it has gradients, its hooks, the element
/// type in the third version, and metadata. `None` if the arguments are others.
fn tensor(global: Global, heap: &Heap, arguments: &[Id]) -> Result<Option<Value>, String> {
    let &[storage, offset, sizes, strides, ref rest @ ..] = arguments else {
        return Ok(None);
    };
    let Value::Storage(storage) = heap.get(storage) else {
        return Ok(None);
    };
    let third = global == Global::RebuildTensorV3;
    // Bits for conjugated and negated views.
    let metadata = rest.get(if third { 3 } else { 2 }).map(|&id| heap.get(id));
    if matches!(metadata, Some(Value::Dict(items)) if !items.is_empty()) {
        return Err("has a tensor with metadata, which is refused".to_owned());
    }
    let element = match rest.get(2).map(|&id| heap.get(id)) {
        _ if !third => storage.element,
        Some(Value::Global(Global::DType(element))) => Some(*element),
        _ => None,
    };
    let parts = (
        element,
        heap.size(offset),
        heap.sizes(sizes),
        heap.sizes(strides),
    );
    let (Some(element), Some(offset), Some(dims), Some(strides)) = parts else {
        return Ok(None);
    };
    Ok(Some(Value::Tensor(Tensor {
        storage: storage.clone(),
        element,
        offset,
        dims,
        strides,
    })))
}

/// A dictionary of a list of pairs.
fn pairs(heap: &Heap, items: Id) -> Option<Value> {
    let Value::List(items) = heap.get(items) else {
        return None;
    };
    let pair = |&id: &Id| match heap.get(id) {
        Value::Tuple(pair) | Value::List(pair) => match pair[..] {
            [key, value] => Some((key, value)),
            _ => None,
        },
        _ => None,
    };
    items
        .iter()
        .map(pair)
        .collect::<Option<_>>()
        .map(Value::Dict)
}
