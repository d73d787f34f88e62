//! The macro for cell builders.

/// Declares the options of a cell: a builder with a setter per option, which can also be
/// deserialized from JSON under the names of TensorFlow's arguments. The number of units comes
/// first, then options with defaults, then options that may be absent. The cell implements `build`,
/// for which `sizes` returns the checked sizes.
macro_rules! cell_builder {
    (
        $builder:ident builds $cell:ident, TensorFlow $class:literal, scope $scope:literal;
        $(#[$units_attribute:meta])* $units:ident;
        $($(#[$doc:meta])* $field:ident: $type:ty = $default:expr,)*
        $(; $($(#[$option_doc:meta])* $option:ident: $option_type:ty,)*)?
    ) => {
        impl<B: ::backend_api::Backend> $cell<B> {
            /// Creates a cell with TensorFlow's defaults, in `f32`.
            ///
            /// # Errors
            /// The sizes do not fit, or the device is out of memory.
            pub fn new(
                device: &B,
                input_size: usize,
                $units: usize,
            ) -> ::backend_api::Result<Self> {
                $builder::new(input_size, $units).build(device)
            }

            /// Returns a builder with TensorFlow's defaults.
            pub fn builder(input_size: usize, $units: usize) -> $builder {
                $builder::new(input_size, $units)
            }
        }

        #[doc = concat!("Options of a [`", stringify!($cell), "`]: each method sets one.")]
        ///
        #[doc = concat!("`", stringify!($cell), "::builder(input_size, ", stringify!($units), ")`")]
        /// returns this builder. `build(&device)` checks the options, and makes the cell.
        ///
        /// ```
        #[doc = concat!("use recurrent::cells::", stringify!($cell), ";")]
        /// use recurrent::{DType, Device, Module};
        ///
        /// # fn main() -> recurrent::Result<()> {
        #[doc = concat!("let cell = ", stringify!($cell), "::builder(8, 8).dtype(DType::F64);")]
        /// let cell = cell.build(&Device::cpu())?;
        /// assert_eq!(cell.named_params()[0].1.dtype(), DType::F64);
        /// # Ok(()) }
        /// ```
        ///
        #[doc = concat!(
            "In a configuration ([`cell_from_config`](crate::cell_from_config)) this is the type `",
            $class,
            "`, and the options have the names of these methods."
        )]
        #[derive(Clone, Debug, ::serde::Deserialize)]
        #[serde(default = "absent", deny_unknown_fields)]
        pub struct $builder {
            #[serde(skip)]
            input_size: usize,
            #[serde(skip)]
            dtype: ::backend_api::DType,
            $(#[$units_attribute])*
            $units: usize,
            $($field: $type,)*
            $($($option: Option<$option_type>,)*)?
        }

        /// The values of options that JSON does not name. `units` is 0, so that a cell without
        /// units is an error.
        fn absent() -> $builder {
            $builder::new(0, 0)
        }

        impl $builder {
            /// Creates a builder with TensorFlow's defaults.
            pub fn new(input_size: usize, $units: usize) -> Self {
                Self {
                    input_size,
                    dtype: ::backend_api::DType::F32,
                    $units,
                    $($field: $default,)*
                    $($($option: None,)*)?
                }
            }

            $($(#[$doc])*
            pub fn $field(mut self, $field: $type) -> Self {
                self.$field = $field;
                self
            })*

            $($($(#[$option_doc])*
            pub fn $option(mut self, $option: $option_type) -> Self {
                self.$option = Some($option);
                self
            })*)?

            /// Sets the element type. Default: `f32`.
            pub fn dtype(mut self, dtype: ::backend_api::DType) -> Self {
                self.dtype = dtype;
                self
            }

            fn sizes(&self) -> ::backend_api::Result<$crate::cells::CellSize> {
                self.sizes_as($scope)
            }

            /// The checked sizes, for a cell with another name in messages.
            fn sizes_as(
                &self,
                cell: &'static str,
            ) -> ::backend_api::Result<$crate::cells::CellSize> {
                $crate::cells::CellSize {
                    cell,
                    input: self.input_size,
                    units: self.$units,
                    dtype: self.dtype,
                }
                .check_as(stringify!($units))
            }
        }

        impl $crate::CellConfig for $builder {
            const CLASS: &'static str = $class;
            type Cell<B: ::backend_api::Backend> = $cell<B>;

            fn build_for<B: ::backend_api::Backend>(
                mut self,
                device: &B,
                input_size: usize,
                dtype: ::backend_api::DType,
            ) -> ::backend_api::Result<$cell<B>> {
                self.input_size = input_size;
                self.dtype(dtype).build(device)
            }
        }
    };
}

pub(crate) use cell_builder;
