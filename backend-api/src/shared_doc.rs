//! Documentation that two items share.

/// Declares a macro that expands to a text: the documentation of a type, which `recurrent` repeats
/// on the page of its alias, because rustdoc shows no documentation of the aliased type there.
///
/// Links name items that both crates have at the same path, such as `crate::Cell`.
#[doc(hidden)]
#[macro_export]
macro_rules! shared_doc {
    ($name:ident: $(#[doc = $line:literal])+) => {
        #[doc(hidden)]
        #[macro_export]
        macro_rules! $name {
            () => {
                concat!($($line, "\n"),+)
            };
        }
    };
}
