//! How a cell runs, for people.

use std::fmt;

use crate::MemoryPlan;

/// How a cell runs over a sequence on a device: the result of
/// [`DynamicRnn::explain`](crate::DynamicRnn::explain). Its text shows all parts.
///
/// ```
/// use recurrent::{BasicLstmCell, Device, DynamicRnn, Tensor};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let cell = BasicLstmCell::new(&device, 4, 8)?;
/// let how = DynamicRnn::new(&cell).explain(&Tensor::ones(&device, &[2, 5, 4])?)?;
/// assert_eq!(how.parts.len(), 1);
/// println!("{how}"); // the program of one step
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Explanation {
    /// The parts of the cell that run over all steps, in the order in which they run.
    pub parts: Vec<ExplainedPart>,
    /// The memory policy, and what it stores for the gradient. `None` if nothing has a gradient, as
    /// outside of the loss of `value_and_grad`.
    pub memory: Option<MemoryPlan>,
}

/// How a part of a cell runs over all steps.
///
/// ```
/// use recurrent::{Device, DynamicRnn, GruCell, MultiRnnCell, Tensor};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let layers = [(3, 4), (4, 4)].map(|(depth, units)| GruCell::new(&device, depth, units));
/// let cell = MultiRnnCell::new(layers.into_iter().collect::<Result<Vec<_>, _>>()?)?;
/// let how = DynamicRnn::new(&cell).explain(&Tensor::ones(&device, &[2, 5, 3])?)?;
/// assert!(how.parts.iter().all(|part| !part.text.is_empty()));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ExplainedPart {
    /// How the steps run.
    pub path: StepPath,
    /// The program, or the operations, for people.
    pub text: String,
}

/// How the steps of a part of a cell run, from slow to fast.
///
/// ```
/// use recurrent::cells::UgrnnCell;
/// use recurrent::{Device, DynamicRnn, StepPath, Tensor};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let x = Tensor::ones(&device, &[2, 5, 4])?;
/// let cell = UgrnnCell::new(&device, 4, 8)?;
/// match &DynamicRnn::new(&cell).explain(&x)?.parts[0].path {
///     StepPath::Compiled => {}
///     StepPath::Called(why) | StepPath::Stepwise(why) => panic!("slow: {why}"),
///     path => panic!("unknown: {path:?}"),
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StepPath {
    /// The cell's own code is called for each time, for this reason.
    Called(String),
    /// The operations of the traced step run one by one for each time, for this reason.
    Stepwise(String),
    /// The device runs a program that it made of the traced step.
    Compiled,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, part) in self.parts.iter().enumerate() {
            writeln!(f, "part {}: {}", i + 1, part.path)?;
            let mut lines = part.text.lines();
            lines.try_for_each(|line| writeln!(f, "  {line}"))?;
        }
        if let Some(memory) = &self.memory {
            writeln!(f, "memory: {memory}")?;
        }
        Ok(())
    }
}

impl fmt::Display for StepPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Called(reason) => write!(f, "the cell is called for each time: {reason}"),
            Self::Stepwise(reason) => write!(f, "operation by operation: {reason}"),
            Self::Compiled => f.write_str("compiled"),
        }
    }
}
