//! The attributes of ONNX's recurrent operators.

use backend_api::Result;

use super::Function;
use crate::onnx::node::Node;

/// The recurrent operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Rnn,
    Gru,
    Lstm,
}

impl Kind {
    pub(super) fn of(node: &Node) -> Option<Self> {
        match &*node.operator {
            "RNN" => Some(Self::Rnn),
            "GRU" => Some(Self::Gru),
            "LSTM" => Some(Self::Lstm),
            _ => None,
        }
    }

    /// The number of gates, the candidate included.
    pub(super) fn gates(self) -> usize {
        match self {
            Self::Rnn => 1,
            Self::Gru => 3,
            Self::Lstm => 4,
        }
    }

    /// The activations if none are given.
    fn defaults(self) -> &'static [&'static str] {
        match self {
            Self::Rnn => &["Tanh"],
            Self::Gru => &["Sigmoid", "Tanh"],
            Self::Lstm => &["Sigmoid", "Tanh", "Tanh"],
        }
    }
}

/// The attributes of a node, except those of a direction.
#[derive(Clone, Debug)]
pub(super) struct Options {
    pub(super) kind: Kind,
    pub(super) hidden: Option<usize>,
    /// For each direction, whether it goes from the last step to the first, and its activations.
    pub(super) directions: Vec<(bool, Vec<Function>)>,
    /// Whether the batch is the first axis.
    pub(super) batch_first: bool,
    pub(super) equations: Equations,
}

/// The attributes that change the equations.
#[derive(Clone, Copy, Debug)]
pub(super) struct Equations {
    /// The limit of the gates before their activations.
    pub(super) clip: Option<f64>,
    /// Whether the reset gate is applied after the product with the state.
    pub(super) reset_after: bool,
    /// Whether the forget gate is 1 minus the input gate.
    pub(super) coupled: bool,
}

impl Options {
    pub(super) fn of(node: &Node, kind: Kind) -> Result<Self> {
        let backward: &[bool] = match node.text("direction")?.unwrap_or("forward") {
            "forward" => &[false],
            "reverse" => &[true],
            "bidirectional" => &[false, true],
            other => return Err(node.wrong(format!("has the direction `{other}`"))),
        };
        let clip = node.float("clip")?;
        if clip.is_some_and(|clip| !(clip >= 0.0)) {
            return Err(node.wrong("has a clip that is negative or NaN"));
        }
        let hidden = node.int("hidden_size")?;
        let size = |n| usize::try_from(n).map_err(|_| node.wrong(format!("has hidden_size {n}")));
        Ok(Self {
            kind,
            hidden: hidden.map(size).transpose()?,
            directions: backward
                .iter()
                .copied()
                .zip(functions(node, kind, backward.len())?)
                .collect(),
            batch_first: node.flag("layout")?,
            equations: Equations {
                // 0 is how exporters write that there is no limit.
                clip: clip.filter(|&clip| clip > 0.0),
                reset_after: node.flag("linear_before_reset")?,
                coupled: node.flag("input_forget")?,
            },
        })
    }
}

/// The activations of each direction. Their parameters are listed in order, without places for
/// functions that have none.
fn functions(node: &Node, kind: Kind, directions: usize) -> Result<Vec<Vec<Function>>> {
    let each = kind.defaults().len();
    let names: Vec<&str> = match node.texts("activations")? {
        Some(names) => names.iter().map(|name| &**name).collect(),
        None => kind.defaults().repeat(directions),
    };
    if names.len() != each * directions {
        let problem = format!(
            "has {} activations, but needs {}",
            names.len(),
            each * directions
        );
        return Err(node.wrong(problem));
    }
    let floats = |name| Ok::<_, backend_api::Error>(node.floats(name)?.unwrap_or_default());
    let mut alphas = floats("activation_alpha")?.iter();
    let mut betas = floats("activation_beta")?.iter();
    let function = |name: &&str| {
        let unknown = || node.unsupported(format!("needs the activation `{name}`"));
        Function::of_name(name, &mut alphas, &mut betas).ok_or_else(unknown)
    };
    let all: Vec<Function> = names.iter().map(function).collect::<Result<_>>()?;
    Ok(all.chunks(each).map(<[Function]>::to_vec).collect())
}
