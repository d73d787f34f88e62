//! A machine for pickles that makes values of plain types and tensors, and nothing else.
//!
//! A pickle is a program that builds a value, and may call any function by its name. Here the names
//! are those that build tensors; a pickle that asks for another one is refused with that name.

use std::collections::HashMap;

use super::value::{Heap, Id, Value};
use super::{call, globals};

/// The state of a machine.
struct Machine<'a> {
    bytes: &'a [u8],
    heap: Heap,
    stack: Vec<Id>,
    /// Lengths of the stack at the open marks.
    marks: Vec<usize>,
    memo: HashMap<usize, Id>,
}

type Step<T = ()> = Result<T, String>;

const ENDS: &str = "is truncated: the pickle does not end";
const NUMBER: &str = "is damaged: a number in the pickle";

/// Runs the pickle at the front of `bytes`, which is taken off.
pub(super) fn run(bytes: &mut &[u8]) -> Step<(Heap, Id)> {
    let mut machine = Machine {
        bytes,
        heap: Heap::default(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
    };
    loop {
        match machine.array::<1>()? {
            [b'.'] => break,
            [code] => machine.run(code)?,
        }
    }
    let result = machine.pop()?;
    *bytes = machine.bytes;
    Ok((machine.heap, result))
}

impl<'a> Machine<'a> {
    fn take(&mut self, count: usize) -> Step<&'a [u8]> {
        let (taken, rest) = self.bytes.split_at_checked(count).ok_or(ENDS)?;
        self.bytes = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Step<[u8; N]> {
        let (taken, rest) = self.bytes.split_first_chunk().ok_or(ENDS)?;
        self.bytes = rest;
        Ok(*taken)
    }

    /// A number without a sign in some bytes.
    fn number(&mut self, bytes: usize) -> Step<usize> {
        let mut number = [0; 8];
        number[..bytes].copy_from_slice(self.take(bytes)?);
        usize::try_from(u64::from_le_bytes(number)).map_err(|e| e.to_string())
    }

    fn line(&mut self) -> Step<&'a str> {
        let end = self.bytes.iter().position(|&byte| byte == b'\n');
        let line = self.take(end.ok_or(ENDS)?)?;
        self.take(1)?;
        text(line)
    }

    fn push(&mut self, value: Value) {
        self.stack.push(self.heap.0.len());
        self.heap.0.push(value);
    }

    fn pop(&mut self) -> Step<Id> {
        let id = self.top()?;
        self.stack.pop();
        Ok(id)
    }

    fn top(&self) -> Step<Id> {
        let below = self.marks.last().copied().unwrap_or(0);
        let own = self.stack.get(below..).and_then(<[Id]>::last);
        let missing = || "is damaged: the pickle takes a value that it has not made".to_owned();
        own.copied().ok_or_else(missing)
    }

    fn pop_mark(&mut self) -> Step<Vec<Id>> {
        let mark = self.marks.pop();
        let mark = mark.ok_or("is damaged: a mark is missing in the pickle")?;
        Ok(self.stack.split_off(mark))
    }

    fn tuple(&mut self, count: usize) -> Step {
        let mut items = Vec::with_capacity(count);
        for _ in 0..count {
            items.push(self.pop()?);
        }
        items.reverse();
        self.push(Value::Tuple(items));
        Ok(())
    }

    fn str(&mut self, length: usize) -> Step {
        let length = self.number(length)?;
        let value = text(self.take(length)?)?.to_owned();
        self.push(Value::Str(value));
        Ok(())
    }

    fn skipped(&mut self, length: usize) -> Step {
        let length = self.number(length)?;
        self.take(length)?;
        self.push(Value::Bytes);
        Ok(())
    }

    /// An integer of any length; one of more than 8 bytes only marks old files.
    fn long(&mut self, length: usize) -> Step {
        let length = self.number(length)?;
        let bytes = self.take(length)?;
        let negative = bytes.last().is_some_and(|&byte| byte >= 0x80);
        let mut value = [if negative { 0xff } else { 0 }; 8];
        let value = match value.get_mut(..bytes.len()) {
            Some(low) => {
                low.copy_from_slice(bytes);
                Value::Int(i64::from_le_bytes(value))
            }
            None => Value::Bytes,
        };
        self.push(value);
        Ok(())
    }

    fn put(&mut self, key: usize) -> Step {
        self.memo.insert(key, self.top()?);
        Ok(())
    }

    fn fetch(&mut self, key: usize) -> Step {
        let id = self.memo.get(&key);
        let id = id.ok_or("is damaged: the pickle takes a value that it has not kept")?;
        self.stack.push(*id);
        Ok(())
    }

    /// Runs one operation: here those that make plain values.
    fn run(&mut self, code: u8) -> Step {
        match code {
            0x80 => drop(self.take(1)?),
            0x95 => drop(self.take(8)?),
            b'(' => self.marks.push(self.stack.len()),
            b'0' => drop(self.pop()?),
            b'1' => drop(self.pop_mark()?),
            b'2' => self.stack.push(self.top()?),
            b'N' => self.push(Value::None),
            0x88 => self.push(Value::Bool(true)),
            0x89 => self.push(Value::Bool(false)),
            b'K' | b'M' => {
                let value = self.number(if code == b'K' { 1 } else { 2 })?;
                self.push(Value::Int(value as i64));
            }
            b'J' => {
                let value = i32::from_le_bytes(self.array()?);
                self.push(Value::Int(value.into()));
            }
            b'I' | b'L' => {
                let value = match self.line()? {
                    "01" => Value::Bool(true),
                    "00" => Value::Bool(false),
                    digits => {
                        let value = digits.trim_end_matches('L').parse();
                        Value::Int(value.map_err(|_| NUMBER)?)
                    }
                };
                self.push(value);
            }
            0x8a => self.long(1)?,
            0x8b => self.long(4)?,
            b'G' => {
                let value = f64::from_be_bytes(self.array()?);
                self.push(Value::Float(value));
            }
            b'F' => {
                let value = self.line()?.parse().map_err(|_| NUMBER)?;
                self.push(Value::Float(value));
            }
            b'U' | 0x8c => self.str(1)?,
            b'T' | b'X' => self.str(4)?,
            0x8d => self.str(8)?,
            b'S' | b'V' => {
                let plain = self.line()?.trim_matches(['\'', '"']);
                self.push(Value::Str(plain.to_owned()));
            }
            b'C' => self.skipped(1)?,
            b'B' => self.skipped(4)?,
            other => self.run_on_values(other)?,
        }
        Ok(())
    }

    /// Operations on other values.
    fn run_on_values(&mut self, code: u8) -> Step {
        match code {
            b')' => self.tuple(0),
            0x85..=0x87 => self.tuple(usize::from(code - 0x84)),
            b't' | b'l' | b'd' => {
                let items = self.pop_mark()?;
                self.push(match code {
                    b't' => Value::Tuple(items),
                    b'l' => Value::List(items),
                    _ => Value::Dict(pairs(&items)?),
                });
                Ok(())
            }
            b']' | b'}' => {
                self.push(match code {
                    b']' => Value::List(Vec::new()),
                    _ => Value::Dict(Vec::new()),
                });
                Ok(())
            }
            b'a' => {
                let item = self.pop()?;
                self.extend(&[item])
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.extend(&[key, value])
            }
            b'e' | b'u' => {
                let items = self.pop_mark()?;
                self.extend(&items)
            }
            b'p' => {
                let key = self.line()?.parse().map_err(|_| NUMBER)?;
                self.put(key)
            }
            b'g' => {
                let key = self.line()?.parse().map_err(|_| NUMBER)?;
                self.fetch(key)
            }
            b'q' | b'r' => {
                let key = self.number(if code == b'q' { 1 } else { 4 })?;
                self.put(key)
            }
            b'h' | b'j' => {
                let key = self.number(if code == b'h' { 1 } else { 4 })?;
                self.fetch(key)
            }
            0x94 => self.put(self.memo.len()),
            other => self.run_call(other),
        }
    }

    /// Adds to the list or the dictionary on the stack.
    fn extend(&mut self, more: &[Id]) -> Step {
        let of = self.top()?;
        match &mut self.heap.0[of] {
            Value::List(items) => items.extend(more),
            Value::Dict(items) => items.extend(pairs(more)?),
            other => {
                return Err(format!(
                    "asks to add to a {}, which is refused",
                    other.kind()
                ));
            }
        }
        Ok(())
    }

    /// Operations that name and call functions.
    fn run_call(&mut self, code: u8) -> Step {
        match code {
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.push(Value::Global(globals::find(module, name)?));
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let text = |id| self.heap.str(id).ok_or("is damaged: a name in the pickle");
                let global = globals::find(text(module)?, text(name)?)?;
                self.push(Value::Global(global));
            }
            b'Q' => {
                let id = self.pop()?;
                let storage = call::storage(&self.heap, id)?;
                self.push(Value::Storage(storage));
            }
            b'R' | 0x81 => {
                let (arguments, function) = (self.pop()?, self.pop()?);
                let Value::Global(global) = self.heap.get(function) else {
                    let kind = self.heap.get(function).kind();
                    return Err(format!("asks to call a {kind}, which is refused"));
                };
                let value = call::call(*global, &self.heap, arguments)?;
                self.push(value);
            }
            b'b' => {
                self.pop()?;
                // The state of a dictionary is its `_metadata`.
                let of = self.heap.get(self.top()?);
                if !matches!(of, Value::Dict(_)) {
                    let kind = of.kind();
                    return Err(format!(
                        "asks to set the state of a {kind}, which is refused"
                    ));
                }
            }
            other => {
                let problem = "of pickles, which is refused";
                return Err(format!("asks for operation 0x{other:02x} {problem}"));
            }
        }
        Ok(())
    }
}

fn pairs(items: &[Id]) -> Step<Vec<(Id, Id)>> {
    match items.as_chunks() {
        (pairs, []) => Ok(pairs.iter().map(|&[key, value]| (key, value)).collect()),
        _ => Err("is damaged: a key in the pickle has no value".to_owned()),
    }
}

fn text(bytes: &[u8]) -> Step<&str> {
    std::str::from_utf8(bytes).map_err(|_| "is damaged: a text in the pickle".to_owned())
}
