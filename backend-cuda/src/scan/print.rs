//! The source of a kernel.

use std::collections::BTreeSet;
use std::fmt::{Display, Write};

use backend_api::trace::program::{Buffer, Code, Instruction, Memory, Place, RowProgram};
use backend_api::{DType, Reduce};

use super::kernel::{Kernel, Kind, Operation, Read, WARP};
use super::slots::Slots;
use crate::codes;

/// A kernel under construction.
pub(super) struct Printer<'a> {
    pub(super) program: &'a RowProgram,
    pub(super) slots: &'a Slots,
    pub(super) kernel: &'a Kernel,
    /// Whether it computes the rows of all steps, instead of those of one.
    pub(super) all_steps: bool,
}

impl Printer<'_> {
    /// The kernel of a name.
    ///
    /// # Errors
    /// A function that kernels do not have.
    pub(super) fn print(&self, name: &str) -> Result<String, String> {
        let Kernel {
            threads,
            split,
            stages,
            ..
        } = *self.kernel;
        let mut text =
            format!("KERNEL({name}, __launch_bounds__({threads}))(Steps *s, int offset) {{\n");
        text += match self.program.dtype {
            DType::F64 => "  typedef double T;\n",
            _ => "  typedef float T;\n",
        };
        text += "  typedef Wide<T>::type W;\n";
        for (id, width) in &self.kernel.shared {
            text += &format!("  __shared__ T r{id}[{width}];\n");
        }
        for stage in 0..stages {
            let joined = self.joined(stage).count();
            if joined > 0 && threads > WARP {
                let warps = threads / WARP;
                text += &format!("  __shared__ W parts{stage}[{joined}][{warps}];\n");
            }
        }
        let rows = match self.all_steps {
            true => "s->steps * s->batch",
            false => "s->batch",
        };
        text += &match split {
            1 => format!(
                "  const int lane = threadIdx.x, first = lane;\n\
                 \x20 for (i64 at = blockIdx.x; at < {rows}; at += gridDim.x) {{\n"
            ),
            _ => format!(
                "  const int lane = threadIdx.x, first = blockIdx.x % {split} * {threads} + lane;\n\
                 \x20 for (i64 at = blockIdx.x / {split}; at < {rows}; \
                 at += gridDim.x / {split}) {{\n"
            ),
        };
        text += match self.all_steps {
            true => "    const i64 t = at / s->batch, row = at - t * s->batch;\n",
            false => "    const i64 row = at, t = s->first + s->by * offset;\n",
        };
        self.find_buffers(&mut text);
        self.skip_rows(&mut text);
        for stage in 0..stages {
            self.stage(stage, &mut text)?;
        }
        if self.kernel.stages > 1 || self.joined(0).count() > 0 {
            // The next row uses the same shared memory.
            text += "    __syncthreads();\n";
        }
        Ok(text + "  }\n}\n")
    }

    /// The operations of a stage that reduce a row.
    fn joined(&self, stage: usize) -> impl Iterator<Item = (usize, &Operation)> {
        let all = self.kernel.operations.iter().enumerate();
        all.filter(move |(_, o)| o.stage == stage && matches!(o.kind, Kind::Together(_)))
    }

    /// The elements that a thread has, for loops of `n`.
    fn each(&self, n: usize) -> usize {
        n.div_ceil(self.kernel.threads * self.kernel.split)
    }

    /// The head of a loop over the elements of a thread.
    fn elements(&self, n: usize) -> String {
        let step = self.kernel.threads * self.kernel.split;
        match self.each(n) {
            1 if n == step => "    { [[maybe_unused]] const int e = first;\n".to_owned(),
            1 => format!("    if (first < {n}) {{ [[maybe_unused]] const int e = first;\n"),
            each => format!(
                "#pragma unroll\n    for (int k = 0; k < {each}; k++) \
                 if (const int e = first + k * {step}; e < {n}) {{\n"
            ),
        }
    }

    /// Declares pointers at the row in all buffers.
    fn find_buffers(&self, text: &mut String) {
        let mut written: BTreeSet<String> = BTreeSet::new();
        let mut all: Vec<(String, Buffer)> = Vec::new();
        let mut note = |buffer: Buffer| {
            let name = pointer(buffer);
            if !all.iter().any(|(known, _)| *known == name) {
                all.push((name, buffer));
            }
        };
        for operation in &self.kernel.operations {
            if operation.stored {
                written.insert(pointer(operation.instruction.out.buffer));
                note(operation.instruction.out.buffer);
                if let Memory::Next(i) = operation.instruction.out.buffer.memory {
                    // Rows that have ended keep their state.
                    note(Buffer {
                        memory: Memory::State(i),
                        row: operation.instruction.out.buffer.row,
                    });
                }
            }
            let reads = operation.reads.iter().zip(operation.instruction.operands());
            for (_, place) in reads.filter(|(read, _)| **read == Read::Memory) {
                note(place.buffer);
            }
        }
        for (name, buffer) in all {
            let Some(slot) = self.slots.of(buffer.memory) else {
                continue;
            };
            let slot = match buffer.memory {
                Memory::State(_) => format!("{slot} + (offset & 1)"),
                Memory::Next(_) => format!("{slot} + (~offset & 1)"),
                _ => slot.to_string(),
            };
            let row = match buffer.memory {
                Memory::Input(_) | Memory::Output(_) | Memory::Chunk(_) => "(t * s->batch + row)",
                _ => "row",
            };
            let constant = if written.contains(&name) {
                ""
            } else {
                "const "
            };
            let width = buffer.row;
            let _ = writeln!(
                text,
                "    {constant}T *__restrict__ {name} = \
                 ({constant}T *)s->at[{slot}] + {row} * {width};"
            );
        }
    }

    /// What a row does that does not run at this step: its outputs are zero, its state stays. It
    /// multiplies zeros.
    fn skip_rows(&self, text: &mut String) {
        *text += "    if (!runs(s, t, row)) {\n";
        let mut seen = BTreeSet::new();
        for operation in self.kernel.operations.iter().filter(|o| o.stored) {
            let buffer = operation.instruction.out.buffer;
            let name = pointer(buffer);
            let value = match buffer.memory {
                Memory::Output(_) | Memory::Scratch(_) => "0".to_owned(),
                Memory::Next(i) => format!("s{i}[e]"),
                _ => continue,
            };
            if buffer.row > 0 && seen.insert(name.clone()) {
                let head = self.elements(buffer.row);
                let _ = writeln!(text, "  {head}        {name}[e] = {value};\n      }}");
            }
        }
        *text += "      continue;\n    }\n";
    }

    fn stage(&self, stage: usize, text: &mut String) -> Result<(), String> {
        let all = self.kernel.operations.iter().enumerate();
        let of_stage: Vec<(usize, &Operation)> = all.filter(|(_, o)| o.stage == stage).collect();
        for (i, operation) in &of_stage {
            if operation.kind == Kind::Single {
                self.operation(*i, operation, text)?;
            }
        }
        let mut loops: Vec<usize> = Vec::new();
        for (i, operation) in &of_stage {
            let (each, n) = match operation.kind {
                Kind::Single => continue,
                Kind::Each(n) => (true, n),
                Kind::Together(n) => (false, n),
            };
            if !loops.contains(&n) {
                loops.push(n);
            }
            if each && operation.kept {
                let _ = writeln!(text, "    T v{i}[{}];", self.each(n));
            } else if !each {
                let fold = fold(&operation.instruction);
                let _ = writeln!(text, "    W m{i} = {fold}::none<W>();");
            }
        }
        for n in loops {
            *text += &self.elements(n);
            for (i, operation) in &of_stage {
                if operation.kind != Kind::Single && operation.kind.elements() == n {
                    self.operation(*i, operation, text)?;
                }
            }
            *text += "    }\n";
        }
        self.join(stage, text);
        Ok(())
    }

    /// Reduces over the threads, and waits for them where later stages read what they wrote.
    fn join(&self, stage: usize, text: &mut String) {
        let wide = self.kernel.threads > WARP;
        let mut any = false;
        for (k, (i, operation)) in self.joined(stage).enumerate() {
            let fold = fold(&operation.instruction);
            let _ = writeln!(text, "    m{i} = join_warp<{fold}>(m{i});");
            if wide {
                let _ = writeln!(
                    text,
                    "    if (lane % {WARP} == 0)\n      parts{stage}[{k}][lane / {WARP}] = m{i};"
                );
            }
            any = true;
        }
        let more = stage + 1 < self.kernel.stages;
        if (any && wide) || (self.kernel.waits && more) {
            *text += "    __syncthreads();\n";
        }
        for (k, (i, operation)) in self.joined(stage).enumerate() {
            let fold = fold(&operation.instruction);
            let warps = self.kernel.threads / WARP;
            let _ = match wide {
                true => writeln!(
                    text,
                    "    const T v{i} = (T)join_warps<{fold}, {warps}>(parts{stage}[{k}]);"
                ),
                false => writeln!(text, "    const T v{i} = (T)m{i};"),
            };
            if operation.stored {
                self.store(i, operation, text);
            }
        }
    }

    /// Computes an element.
    fn operation(&self, i: usize, operation: &Operation, text: &mut String) -> Result<(), String> {
        let Instruction { blocks, width, .. } = operation.instruction;
        let reduces = operation.instruction.code.reduces();
        if reduces && operation.kind != Kind::Together(width) {
            // The element is a reduction of its own.
            let element = if blocks == 1 { "0" } else { "e" };
            let fold = fold(&operation.instruction);
            let value = self.value(operation, &|place| {
                index(place, (blocks, width), Some((element, "j")))
            })?;
            let _ = writeln!(
                text,
                "      W m{i} = {fold}::none<W>();\n      \
                 for (int j = 0; j < {width}; j++)\n        \
                 m{i} = {fold}::join(m{i}, (W)({value}));"
            );
            self.assign(i, operation, &format!("(T)m{i}"), text);
            return Ok(());
        }
        let value = self.value(operation, &|place| index(place, (blocks, width), None))?;
        if let Kind::Together(_) = operation.kind {
            let fold = fold(&operation.instruction);
            let _ = writeln!(text, "      m{i} = {fold}::join(m{i}, (W)({value}));");
        } else {
            self.assign(i, operation, &value, text);
        }
        Ok(())
    }

    /// The result of an operation, of the element that a loop computes.
    fn register(&self, i: usize) -> String {
        let operation = &self.kernel.operations[i];
        match (operation.kind, operation.kept) {
            (Kind::Each(n), true) if self.each(n) > 1 => format!("v{i}[k]"),
            (Kind::Each(_), true) => format!("v{i}[0]"),
            _ => format!("v{i}"),
        }
    }

    /// Assigns the value of an element.
    fn assign(&self, i: usize, operation: &Operation, value: &str, text: &mut String) {
        let declared = match (operation.kind, operation.kept) {
            (Kind::Each(_), true) => "",
            _ => "const T ",
        };
        let _ = writeln!(text, "      {declared}{} = {value};", self.register(i));
        if operation.stored {
            self.store(i, operation, text);
        }
    }

    fn store(&self, i: usize, operation: &Operation, text: &mut String) {
        let Instruction {
            out, blocks, width, ..
        } = operation.instruction;
        let columns = if operation.instruction.code.reduces() {
            1
        } else {
            width
        };
        let name = pointer(out.buffer);
        let _ = match operation.kind {
            Kind::Each(_) => {
                let at = index(&out, (blocks, columns), None);
                writeln!(text, "      {name}[{at}] = {};", self.register(i))
            }
            _ => writeln!(
                text,
                "    if (first == 0)\n      {name}[{}] = v{i};",
                out.offset
            ),
        };
    }

    /// What an instruction computes of the elements at the indices of its operands.
    fn value(
        &self,
        operation: &Operation,
        index: &dyn Fn(&Place) -> String,
    ) -> Result<String, String> {
        let operands = operation.reads.iter().zip(operation.instruction.operands());
        let operands: Vec<String> = operands
            .map(|(read, place)| match (*read, place.buffer.memory) {
                (Read::Memory, Memory::Constants) => {
                    number(self.program.constants[place.offset], self.program.dtype)
                }
                (Read::Memory, _) => format!("{}[{}]", pointer(place.buffer), index(place)),
                (Read::Value(j), _) => self.register(j),
            })
            .collect();
        expression(&operation.instruction.code, &operands, self.program.dtype)
    }
}

/// The name of the pointer at a row of a buffer, or of an array in shared memory.
fn pointer(buffer: Buffer) -> String {
    match buffer.memory {
        Memory::Register(id) => format!("r{id}"),
        Memory::Constants => "constants".to_owned(),
        Memory::Input(i) => format!("x{i}"),
        // Its rows may be apart, or one row may be that of all.
        Memory::Captured(i) => format!("w{i}_{}", buffer.row),
        Memory::State(i) => format!("s{i}"),
        Memory::Next(i) => format!("n{i}"),
        Memory::Output(i) => format!("y{i}"),
        Memory::Scratch(i) => format!("t{i}"),
        Memory::Chunk(i) => format!("c{i}"),
    }
}

/// The index of an element in a row: of element `e`, or of the given block and column.
fn index(place: &Place, (blocks, width): (usize, usize), at: Option<(&str, &str)>) -> String {
    let mut text = place.offset.to_string();
    let mut add = |index: &dyn Display, by: usize| match by {
        0 => {}
        1 => text += &format!(" + {index}"),
        _ => text += &format!(" + {index} * {by}"),
    };
    match at {
        Some((block, column)) => {
            add(&block, place.block);
            add(&column, place.column);
        }
        None if blocks * width == 1 => {}
        None if blocks == 1 || place.block == place.column * width => add(&"e", place.column),
        None if width == 1 => add(&"e", place.block),
        None => {
            add(&format!("e / {width}"), place.block);
            add(&format!("e % {width}"), place.column);
        }
    }
    text
}

/// The name of the reduction of an instruction.
fn fold(instruction: &Instruction) -> &'static str {
    match instruction.code {
        Code::Reduce(Reduce::Max) => "Largest",
        _ => "Sum",
    }
}

fn expression(code: &Code, operands: &[String], dtype: DType) -> Result<String, String> {
    let unknown = || format!("no kernel computes {code:?}");
    let [a, b, c] = [0, 1, 2].map(|i| operands.get(i).map_or("", String::as_str));
    Ok(match code {
        Code::Copy | Code::Reduce(_) => a.to_owned(),
        Code::Affine { mul, add } => {
            format!("{a} * {} + {}", number(*mul, dtype), number(*add, dtype))
        }
        Code::Clamp { min, max } => {
            format!(
                "clamp<T>({a}, {}, {})",
                number(*min, dtype),
                number(*max, dtype)
            )
        }
        Code::Unary(f) => format!("unary<T>({}, {a})", codes::unary(*f).ok_or_else(unknown)?),
        Code::Binary(f) => format!("float_binary<T>({}, {a}, {b})", codes::binary(*f)),
        Code::Compare(f) => format!("(T)compare<T>({}, {a}, {b})", codes::compare(*f)),
        Code::Select => format!("{a} != 0 ? {b} : {c}"),
        Code::ActivationGrad(f) => {
            let code = codes::activation(*f).ok_or_else(unknown)?;
            let uncommon = if f.is_common() { "" } else { "_uncommon" };
            format!("activation_grad{uncommon}<T>({code}, {a}, {b})")
        }
        Code::MulAdd => format!("{a} * {b} + {c}"),
        Code::SubMul => format!("{c} - {a} * {b}"),
        Code::MulSub => format!("{a} * {b} - {c}"),
        Code::Dot => format!("(T)({a} * {b})"),
    })
}

/// A number in the type of the kernel.
fn number(x: f64, dtype: DType) -> String {
    let x = match dtype {
        DType::F64 => x,
        _ => f64::from(x as f32),
    };
    match x {
        _ if x.is_nan() => "(T)not_a_number()".to_owned(),
        f64::INFINITY => "(T)infinity()".to_owned(),
        f64::NEG_INFINITY => "(T)-infinity()".to_owned(),
        _ => format!("(T){x:?}"),
    }
}
