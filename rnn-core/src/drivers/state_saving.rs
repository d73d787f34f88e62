//! TensorFlow's `static_state_saving_rnn`.

use backend_api::{Backend, Error, Result, Tensor};

use super::static_rnn::batch;
use super::{RnnOutput, StaticRnn};
use crate::nest::places;
use crate::{Cell, Nest};

/// Where the states of sequences are kept between one stretch of a sequence and the next.
pub trait StateSaver<B: Backend> {
    /// The state of that name, `[batch, ..]`.
    ///
    /// # Errors
    /// There is none of that name.
    fn state(&self, name: &str) -> Result<Tensor<B>>;

    /// Keeps a state under its name.
    ///
    /// # Errors
    /// There is none of that name, or the new one does not fit.
    fn save_state(&mut self, name: &str, value: Tensor<B>) -> Result<()>;
}

/// Runs a cell over a stretch of long sequences, from the states that a saver holds, and saves the states after it;
/// TensorFlow's `static_state_saving_rnn`.
///
/// `names` has one name for each tensor of the state, in order (`c` before `h` for an LSTM). What is saved
/// has no history: no gradient crosses from one stretch to the next.
///
/// # Errors
/// There are more or fewer names than tensors in the state; those of the saver and of [`StaticRnn::run`].
pub fn static_state_saving_rnn<C: Cell>(
    rnn: StaticRnn<'_, C>,
    cell: &C,
    inputs: &[C::Input],
    saver: &mut impl StateSaver<C::B>,
    names: &[&str],
) -> Result<RnnOutput<Vec<C::Output>, C::State>> {
    let op = "static_state_saving_rnn";
    let like = cell.zero_state(batch(op, inputs)?)?;
    if names.len() != like.leaves().len() {
        let problem = format!(
            "is `{}`, but there must be a name for each tensor of the cell's state, which is {}",
            names.join("`, `"),
            places(&like)
        );
        return Err(Error::argument(op, "state_name", problem));
    }
    let saved: Vec<Tensor<C::B>> = names
        .iter()
        .map(|name| saver.state(name))
        .collect::<Result<_>>()?;
    let result = rnn.initial_state(like.rebuild(&saved)?).run(inputs)?;
    for (name, leaf) in names.iter().zip(result.state.leaves()) {
        saver.save_state(name, leaf.detach())?;
    }
    Ok(result)
}
