//! TensorFlow's `static_state_saving_rnn`.

use backend_api::{Backend, Error, Result, Tensor};

use super::static_rnn::batch;
use super::{RnnOutput, StaticRnn};
use crate::nest::structure;
use crate::{Cell, Nest};

/// Storage for the states of long sequences between segments.
///
/// ```
/// use std::collections::HashMap;
/// use recurrent::{Device, Error, Result, StateSaver, Tensor};
///
/// # fn main() -> recurrent::Result<()> {
/// struct InMemory(HashMap<String, Tensor>);
/// impl StateSaver<Device> for InMemory {
///     fn state(&self, name: &str) -> Result<Tensor> {
///         let found = self.0.get(name).cloned();
///         found.ok_or_else(|| Error::argument("state", name, "is not known"))
///     }
///     fn save_state(&mut self, name: &str, value: Tensor) -> Result<()> {
///         self.0.insert(name.to_owned(), value);
///         Ok(())
///     }
/// }
/// let zero = Tensor::zeros(&Device::cpu(), &[2, 8])?;
/// let mut saver = InMemory([("h".to_owned(), zero.clone())].into());
/// saver.save_state("h", zero.add(1.0)?)?;
/// assert_eq!(saver.state("h")?.sum_all()?.item()?, 16.0);
/// assert_eq!(saver.state("c").unwrap_err().to_string(), "state: c is not known");
/// # Ok(()) }
/// ```
pub trait StateSaver<B: Backend> {
    /// The state with the given name, `[batch, ..]`.
    ///
    /// # Errors
    /// No state has that name.
    fn state(&self, name: &str) -> Result<Tensor<B>>;

    /// Stores a state under its name.
    ///
    /// # Errors
    /// No state has that name, or the value does not fit.
    fn save_state(&mut self, name: &str, value: Tensor<B>) -> Result<()>;
}

/// Runs a cell over a segment of long sequences; TensorFlow's `static_state_saving_rnn`. The
/// initial states come from a saver, which then stores the final states.
///
/// `names` has one name per tensor of the state, in order (`c` before `h` for an LSTM). Saved
/// states are detached: no gradient flows from one segment to the previous one.
///
/// ```
/// use recurrent::{Cell, Device, GruCell, Result, StateSaver, StaticRnn, Tensor};
/// use recurrent::static_state_saving_rnn;
///
/// # fn main() -> recurrent::Result<()> {
/// struct Saved(Tensor);
/// impl StateSaver<Device> for Saved {
///     fn state(&self, _: &str) -> Result<Tensor> {
///         Ok(self.0.clone())
///     }
///     fn save_state(&mut self, _: &str, value: Tensor) -> Result<()> {
///         self.0 = value;
///         Ok(())
///     }
/// }
/// let device = Device::cpu();
/// let cell = GruCell::new(&device, 4, 8)?;
/// let steps = vec![Tensor::ones(&device, &[2, 4])?; 6];
/// let mut saved = Saved(cell.zero_state(2)?);
/// for segment in steps.chunks(3) {
///     static_state_saving_rnn(StaticRnn::new(&cell), &cell, segment, &mut saved, &["h"])?;
/// }
/// // The second segment goes on from where the first ends.
/// let whole = StaticRnn::new(&cell).run(&steps)?.state;
/// assert_eq!(saved.0.to_vec::<f32>()?, whole.to_vec::<f32>()?);
/// # Ok(()) }
/// ```
///
/// # Errors
/// The number of names differs from the number of state tensors; also as the saver and
/// [`StaticRnn::run`].
pub fn static_state_saving_rnn<C: Cell>(
    rnn: StaticRnn<'_, C>,
    cell: &C,
    inputs: &[C::Input],
    saver: &mut impl StateSaver<C::Backend>,
    names: &[&str],
) -> Result<RnnOutput<Vec<C::Output>, C::State>> {
    let op = "static_state_saving_rnn";
    let like = cell.zero_state(batch(op, inputs)?)?;
    if names.len() != like.leaves().len() {
        let problem = format!(
            "is `{}`, but must have a name for each tensor of the cell's state, which is {}",
            names.join("`, `"),
            structure(&like)
        );
        return Err(Error::argument(op, "state_name", problem));
    }
    let saved: Vec<Tensor<C::Backend>> = names
        .iter()
        .map(|name| saver.state(name))
        .collect::<Result<_>>()?;
    let result = rnn.initial_state(like.rebuild(&saved)?).run(inputs)?;
    for (name, leaf) in names.iter().zip(result.state.leaves()) {
        saver.save_state(name, leaf.detach())?;
    }
    Ok(result)
}
