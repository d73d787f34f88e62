//! The training loop, and its parts, each of which works alone.
//!
//! For each step, a [`Trainer`] takes a batch from a [`Source`](crate::data::Source), computes the
//! loss and its gradient, and calls the optimizer. Between steps it checks for non-finite values,
//! saves checkpoints and shows progress. The caller owns the model, the optimizer, the data and the
//! loss, and decides what happens between epochs or, with [`Trainer::step`], between steps.
//!
//! | part | what it does |
//! |---|---|
//! | [`evaluate`], [`Mean`] | means of metrics over a data set, in evaluation mode |
//! | [`EarlyStopping`] | says when a metric has stopped improving |
//! | [`lr_find`] | the loss as a function of the learning rate |
//! | [`Interrupt`] | Ctrl-C ends a run between two steps |
//! | [`Progress`] | a bar, or lines, with throughput and time left |

mod early_stopping;
mod evaluate;
mod interrupt;
mod lr_find;
mod progress;
mod ranks;
mod reports;
mod steps;
mod trainer;

pub use early_stopping::EarlyStopping;
pub use evaluate::{Mean, evaluate};
pub use interrupt::Interrupt;
pub use lr_find::lr_find;
pub use progress::Progress;
pub use reports::{EpochReport, StepReport, TrainEvent, TrainStep};
pub use trainer::Trainer;
