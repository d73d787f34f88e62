//! Cells from options that are known only at run time.

use backend_api::{Backend, DType, Error, Result, Tensor};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::wrappers::ConcatState;
use crate::{AnyCell, Cell, cells, wrappers};

/// The options of a cell class: the fields of its builder. They can be deserialized from JSON,
/// under the names of the arguments of TensorFlow's constructor. An unknown option is an error.
///
/// ```
/// use recurrent::cells::GruCellBuilder;
/// use recurrent::serde_json::{from_value, json};
/// use recurrent::{Cell, CellConfig, DType, Device};
///
/// # fn main() -> recurrent::Result<()> {
/// // A cell whose type is known, with options that are not.
/// let options: GruCellBuilder = from_value(json!({ "num_units": 5 })).expect("valid options");
/// let cell = options.build_for(&Device::cpu(), 3, DType::F32)?;
/// assert_eq!(cell.output_size()?.total(), 5);
/// assert_eq!(GruCellBuilder::CLASS, "GRUCell");
/// # Ok(()) }
/// ```
pub trait CellConfig: DeserializeOwned {
    /// TensorFlow's name of the class, for example `BasicLSTMCell`.
    const CLASS: &'static str;

    /// The type of the cell.
    type Cell<B: Backend>: Cell<Backend = B>;

    /// Builds the cell for inputs of the given depth and type.
    ///
    /// # Errors
    /// The options contradict each other or the input, or the device is out of memory.
    fn build_for<B: Backend>(
        self,
        device: &B,
        input_size: usize,
        dtype: DType,
    ) -> Result<Self::Cell<B>>;
}

/// Builds a cell from JSON. `type` is TensorFlow's class name; the other fields are the arguments
/// of its constructor, including wrapped cells and stacks. With `state_is_tuple: false`, the state
/// is a single tensor ([`ConcatState`]).
///
/// ```
/// use recurrent::{Cell, DType, Device, cell_from_config};
///
/// # fn main() -> recurrent::Result<()> {
/// let options = serde_json::json!({
///     "type": "BasicLSTMCell", "num_units": 5, "forget_bias": 0.5,
/// });
/// let cell = cell_from_config(&Device::cpu(), &options, 3, DType::F32)?;
/// assert_eq!(cell.zero_output(2)?.shape().dims(), [2, 5]);
/// # Ok(()) }
/// ```
///
/// # Errors
/// The class or an option is unknown, or the options contradict each other. A size is 0 or above
/// 2^24, or a matrix would have more than 2^30 elements (in each gate), or a stack more than 65,536
/// layers.
pub fn cell_from_config<B: Backend>(
    device: &B,
    config: &Value,
    input_size: usize,
    dtype: DType,
) -> Result<AnyCell<B>> {
    let mut options = config.clone();
    let fields = options
        .as_object_mut()
        .ok_or_else(|| problem("cell", "is not a JSON object".into()))?;
    // Python's `None` selects the default.
    fields.retain(|_, value| !value.is_null());
    let class = match fields.remove("type") {
        Some(Value::String(class)) => class,
        _ => return Err(problem("type", "is missing".into())),
    };
    let one_tensor = match fields.remove("state_is_tuple") {
        None | Some(Value::Bool(true)) => false,
        Some(Value::Bool(false)) => true,
        Some(other) => {
            return Err(problem(
                "state_is_tuple",
                format!("is {other}, but must be true or false"),
            ));
        }
    };
    let cell = registered(device, &class, options, input_size, dtype)?;
    Ok(if one_tensor {
        AnyCell::new(ConcatState::new(cell))
    } else {
        cell
    })
}

fn problem(arg: &str, text: String) -> Error {
    Error::argument("cell_from_config", arg, text)
}

fn build<B, Config>(
    device: &B,
    options: Value,
    input_size: usize,
    dtype: DType,
) -> Result<AnyCell<B>>
where
    B: Backend,
    Config: CellConfig,
    Config::Cell<B>: Cell<Backend = B, Input = Tensor<B>, Output = Tensor<B>>,
{
    let config: Config =
        serde_json::from_value(options).map_err(|e| problem(Config::CLASS, e.to_string()))?;
    config
        .build_for(device, input_size, dtype)
        .map(AnyCell::new)
}

macro_rules! registry {
    (
        registered { $($cell:ident $doc:ident: $($config:ident),+;)* }
        others { $($other:ident $other_doc:ident: $builder:ident;)* }
    ) => {
        classes! {
            $($(cells::$config,)+)*
            // One line for each wrapper whose inputs and outputs are single tensors.
            wrappers::AttentionCellWrapperBuilder<Value>,
            wrappers::CompiledWrapperConfig,
            wrappers::DeviceWrapperConfig,
            wrappers::DropoutWrapperBuilder<Value>,
            wrappers::EmbeddingWrapperConfig,
            wrappers::HighwayWrapperConfig,
            wrappers::InputProjectionWrapperConfig,
            wrappers::MultiRnnCellConfig,
            wrappers::OutputProjectionWrapperConfig,
            wrappers::ResidualWrapperConfig,
        }
    };
}

macro_rules! classes {
    ($($config:ty),* $(,)?) => {
        /// TensorFlow's names of the classes that [`cell_from_config`] supports.
        ///
        /// ```
        /// use recurrent::CELL_CLASSES;
        ///
        /// assert!(CELL_CLASSES.contains(&"LSTMCell") && CELL_CLASSES.contains(&"DropoutWrapper"));
        /// ```
        pub const CELL_CLASSES: &[&str] = &[$(<$config>::CLASS),*];

        fn registered<B: Backend>(
            device: &B,
            class: &str,
            options: Value,
            input_size: usize,
            dtype: DType,
        ) -> Result<AnyCell<B>> {
            match class {
                $(<$config>::CLASS => build::<B, $config>(device, options, input_size, dtype),)*
                other => Err(problem("type", format!("`{other}` is not known"))),
            }
        }
    };
}

crate::for_each_cell!(registry);
