//! Rules for parts of a model.

use std::mem;

use backend_api::{Backend, Error, Result, Tensor};
use rnn_core::Module;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Optimizer, OptimizerState, Slot, step};
use crate::Gradients;
use crate::arrays::listed;

backend_api::shared_doc! { param_groups_doc:
/// An optimizer with other hyperparameters, such as the learning rate or the weight decay, for some
/// parts of a model; PyTorch's parameter groups. A part may also be frozen.
///
/// A part is given by a path: the name of a parameter, or of a part of the model, whose parameters
/// all belong to the group. `*` stands for any characters. The first group that has a parameter
/// counts; `new` gives the rule of the others.
///
/// [`set_learning_rate`](crate::optim::Optimizer::set_learning_rate) and schedules set the rate of
/// the parameters outside of groups. The rates of groups keep their ratios to it.
///
/// ```
/// use recurrent::optim::Optimizer;
/// use recurrent::{AdamW, Dense, Device, Module, ParamGroups, Tensor, value_and_grad};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let mut model = (Dense::new(&device, 3, 4)?, Dense::new(&device, 4, 2)?);
/// let mut optimizer = ParamGroups::new(AdamW::new(0.1))
///     .freeze("0/kernel")
///     .group("*/bias", AdamW::new(0.1).weight_decay(0.0))
///     .group("1", AdamW::new(0.01));
/// optimizer.set_learning_rate(0.2); // that of `1/kernel` is now 0.02
///
/// let kernel = |model: &(Dense, Dense)| model.named_params()[0].1.to_vec::<f32>();
/// let before = kernel(&model)?;
/// let x = Tensor::ones(&device, &[1, 3])?;
/// let (_, grads) = value_and_grad(&model, |(hidden, output)| {
///     output.forward(&hidden.forward(&x)?)?.square()?.sum_all()
/// })?;
/// optimizer.step(&mut model, &grads)?;
/// assert_eq!(kernel(&model)?, before);
/// # Ok(()) }
/// ```
///
/// A frozen parameter stays as it is. [`Trainer`](crate::training::Trainer) computes no gradient of
/// it, and neither does [`value_and_grad_of`](crate::value_and_grad_of).
///
/// # Errors
/// `step` changes nothing if a group has no parameter of the model, the rule of a group has other
/// slots than that of the others, or the step of a rule fails.
}

#[doc = param_groups_doc!()]
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(bound = "O: Serialize + DeserializeOwned", deny_unknown_fields)]
pub struct ParamGroups<B: Backend, O> {
    rule: O,
    groups: Vec<Group<O>>,
    #[serde(skip)]
    state: OptimizerState<B>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Group<O> {
    path: String,
    /// `None` if the parameters are frozen.
    rule: Option<O>,
    /// The learning rate as a multiple of that outside of groups.
    ratio: f64,
}

impl<B: Backend, O: Optimizer<B>> ParamGroups<B, O> {
    /// An optimizer without groups: `rule` updates all parameters.
    pub fn new(rule: O) -> Self {
        Self {
            rule: without_state(rule),
            groups: Vec::new(),
            state: OptimizerState::default(),
        }
    }

    /// Adds a group: `rule` updates the parameters at `path` that no earlier group has.
    #[must_use]
    pub fn group(mut self, path: impl Into<String>, rule: O) -> Self {
        self.groups.push(Group {
            path: path.into(),
            ratio: rule.learning_rate() / self.rule.learning_rate(),
            rule: Some(without_state(rule)),
        });
        self
    }

    /// Adds a group of parameters that do not change.
    #[must_use]
    pub fn freeze(mut self, path: impl Into<String>) -> Self {
        self.groups.push(Group {
            path: path.into(),
            rule: None,
            ratio: 1.0,
        });
        self
    }

    /// The rule of the parameter with this name; `None` if it is frozen.
    pub fn rule_of(&self, name: &str) -> Option<&O> {
        let group = self.groups.iter().find(|group| has(&group.path, name));
        group.map_or(Some(&self.rule), |group| group.rule.as_ref())
    }

    fn check_paths<M: Module>(&self, model: &M) -> Result<()> {
        let params = model.named_params();
        for Group { path, .. } in &self.groups {
            if !params.iter().any(|(name, _)| has(path, name)) {
                let names = listed(params.iter().map(|(name, _)| name.as_str()));
                let problem = format!("is no part of the model, which has {names}");
                return Err(Error::argument(
                    "optimizer",
                    format!("path `{path}`"),
                    problem,
                ));
            }
        }
        Ok(())
    }
}

/// The groups keep the state of all rules.
fn without_state<B: Backend, O: Optimizer<B>>(mut rule: O) -> O {
    *rule.state_mut() = OptimizerState::default();
    rule
}

/// Whether the path is that of the parameter or of a part of the model that has it.
fn has(path: &str, name: &str) -> bool {
    let above = name.match_indices('/').map(|(end, _)| &name[..end]);
    above.chain([name]).any(|part| matches(path, part))
}

/// Whether the text is the pattern, in which `*` stands for any characters.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    text.strip_prefix(start).is_some_and(|text| {
        let mut ends = text.char_indices().map(|(end, _)| end).chain([text.len()]);
        ends.any(|end| matches(rest, &text[end..]))
    })
}

impl<B: Backend, O: Optimizer<B>> Optimizer<B> for ParamGroups<B, O> {
    /// That of the rules.
    fn name(&self) -> &'static str {
        self.rule.name()
    }

    fn slots(&self) -> Vec<Slot> {
        self.rule.slots()
    }

    fn learning_rate(&self) -> f64 {
        self.rule.learning_rate()
    }

    fn set_learning_rate(&mut self, learning_rate: f64) {
        self.rule.set_learning_rate(learning_rate);
        for group in &mut self.groups {
            if let Some(rule) = &mut group.rule {
                rule.set_learning_rate(learning_rate * group.ratio);
            }
        }
    }

    fn state(&self) -> &OptimizerState<B> {
        &self.state
    }

    fn state_mut(&mut self) -> &mut OptimizerState<B> {
        &mut self.state
    }

    fn check(&self) -> Result<()> {
        self.rule.check()?;
        for Group { path, rule, ratio } in &self.groups {
            let refuse = |problem| {
                Err(Error::argument(
                    "optimizer",
                    format!("group `{path}`"),
                    problem,
                ))
            };
            if !ratio.is_finite() {
                return refuse("has a learning rate without a ratio to that outside of groups");
            }
            if let Some(rule) = rule {
                rule.check()?;
                if rule.slots() != self.rule.slots() {
                    return refuse("has other slots than the parameters outside of groups");
                }
            }
        }
        Ok(())
    }

    fn trains(&self, name: &str) -> bool {
        self.rule_of(name).is_some()
    }

    /// Refused, since it has no name to choose a rule by.
    fn update(
        &self,
        _step: u64,
        _value: &Tensor<B>,
        _slots: &[Tensor<B>],
        _grad: &Tensor<B>,
    ) -> Result<(Tensor<B>, Vec<Tensor<B>>)> {
        let problem = "has groups itself, but must be a single rule";
        Err(Error::argument("optimizer", "rule", problem))
    }

    fn step<M: Module<Backend = B>>(&mut self, model: &mut M, grads: &Gradients<B>) -> Result<()> {
        self.check()?;
        self.check_paths(model)?;
        let mut state = mem::replace(&mut self.state, OptimizerState::in_use());
        let taken = step::take(&mut state, model, grads, &|name| self.rule_of(name));
        self.state = state;
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_names_parts_and_patterns() {
        let name = "rnn/lstm_cell/kernel";
        for path in [
            "rnn",
            "rnn/lstm_cell",
            name,
            "*/kernel",
            "*",
            "rnn/*",
            "*lstm*",
            "r*/k*l",
        ] {
            assert!(has(path, name), "{path}");
        }
        for path in [
            "",
            "r",
            "kernel",
            "lstm_cell",
            "rnn/lstm",
            "*/bias",
            "rnn/",
            "*/kern",
            "k*",
        ] {
            assert!(!has(path, name), "{path}");
        }
        assert!(has("*ß", "größe/maß") && has("gr*", "größe") && !has("*ö", "größe"));
    }
}
