//! Data-parallel training: the batches of a step are computed by several processes, the ranks, and
//! every rank takes the step with the mean of all gradients.
//!
//! | part | what it does |
//! |---|---|
//! | [`Collective`] | moves bytes between the ranks; an engine such as MPI implements it |
//! | [`Local`] | ranks that are threads of one process |
//! | [`DataParallel`] | what a [`Trainer`](crate::training::Trainer) needs of the ranks |
//!
//! `recurrent::distributed` (features `distributed` and `nccl`) has the engines MPI and NCCL.

mod agreement;
mod background;
mod bucket;
mod collective;
mod data_parallel;
mod exchange;
mod local;
mod rows;
mod spare;
mod step_sum;
mod sums;
mod tree;

pub use collective::Collective;
pub use data_parallel::DataParallel;
pub use local::Local;
pub(crate) use step_sum::StepSum;
pub(crate) use sums::StepTotal;
use tree::{Node, Tree};
