//! Files of other frameworks, which `python/` has written.

mod common;
mod convert;
#[cfg(feature = "keras")]
mod keras;
mod pytorch;
mod registry;
mod tensorflow;
