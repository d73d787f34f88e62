//! Ending a run on request.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use backend_api::{Error, Result};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// A request to end a run, by Ctrl-C or by another part of the program. Clones share the request.
///
/// [`Trainer::stop_on`](super::Trainer::stop_on) saves a checkpoint and stops between two steps; a
/// loop of the caller's own asks [`is_requested`](Self::is_requested).
///
/// ```
/// use recurrent::data::{Batches, Remainder};
/// use recurrent::training::Interrupt;
/// use recurrent::{Dense, Device, Error, Sgd, Tensor, Trainer};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let (mut model, mut sgd) = (Dense::new(&device, 1, 1)?, Sgd::new(0.1));
/// let mut batches = Batches::new(6, 2, Remainder::Drop, 1)?;
/// let x = Tensor::ones(&device, &[2, 1])?;
/// let interrupt = Interrupt::on_ctrl_c()?;
/// let mut trainer = Trainer::new(42).stop_on(interrupt.clone());
/// let epoch = trainer.run_epoch(&mut model, &mut sgd, &mut batches, |model, _items, step| {
///     if step.step == 2 {
///         interrupt.request(); // as Ctrl-C does
///     }
///     model.forward(&x)?.square()?.mean_all()
/// });
/// assert!(matches!(epoch, Err(Error::Interrupted { step: 2, .. })));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// A request that only [`request`](Self::request) makes.
    pub fn new() -> Self {
        Self::default()
    }

    /// A request that Ctrl-C makes, and so does the signal by which batch systems end a process
    /// (`SIGTERM`). A second one ends the process at once, as it would without this. All calls in a
    /// process return the same request.
    ///
    /// # Errors
    /// The system does not let the process handle the signals.
    pub fn on_ctrl_c() -> Result<Self> {
        static SHARED: Mutex<Option<Interrupt>> = Mutex::new(None);
        // A panic cannot leave a part of a value.
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(interrupt) = &*shared {
            return Ok(interrupt.clone());
        }
        let interrupt = Self::new();
        let failed = |e: std::io::Error| Error::Failed {
            device: "the system".to_owned(),
            action: "handling Ctrl-C",
            problem: e.to_string(),
        };
        for signal in [SIGINT, SIGTERM] {
            // The first signal finds the flag unset, and the second one finds it set.
            flag::register_conditional_default(signal, interrupt.0.clone()).map_err(failed)?;
            flag::register(signal, interrupt.0.clone()).map_err(failed)?;
        }
        *shared = Some(interrupt.clone());
        Ok(interrupt)
    }

    /// Requests the end of the run.
    pub fn request(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Whether the end of the run was requested.
    pub fn is_requested(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}
