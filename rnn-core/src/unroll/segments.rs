//! Splits a sequence into segments for the memory policy.

use std::sync::{Arc, OnceLock};

use super::{Backend, MemoryPolicy, Mode, Nest, Result, Tensor, Unroll};

pub(super) fn run<B, I, S, O>(
    u: &Unroll<B>,
    inputs: &I,
    state: &S,
    body: impl Fn(&Unroll<B>, &I, &S) -> Result<(O, S)> + Clone + Send + Sync + 'static,
) -> Result<(O, S)>
where
    B: Backend,
    I: Nest<B>,
    S: Nest<B>,
    O: Nest<B>,
{
    let Some(device) = device(inputs, state) else {
        // Without tensors there is no device, and nothing to store.
        return body(u, inputs, state);
    };
    let length = u.segment.unwrap_or(u.steps).max(1);
    let mut state = state.clone();
    let mut parts: Vec<O> = Vec::new();
    let mut t = 0;
    // Run once even for an empty sequence, because only the body knows the structure of the
    // outputs.
    while t < u.steps || parts.is_empty() {
        let end = (t + length).min(u.steps);
        let part = Unroll {
            start: u.start + t,
            steps: end - t,
            ..u.clone()
        };
        let slice = inputs.map(&mut |x| x.slice(0, t..end))?;
        let (output, new) = one(&device, &part, &slice, &state, body.clone())?;
        parts.push(output);
        state = new;
        t = end.max(t + 1);
    }
    let columns: Vec<Vec<&Tensor<B>>> = parts.iter().map(Nest::leaves).collect();
    let mut column = 0;
    let outputs = parts[0].map(&mut |_| {
        let leaves: Vec<_> = columns.iter().map(|leaves| leaves[column]).collect();
        column += 1;
        Tensor::concat(&leaves, 0)
    })?;
    Ok((outputs, state))
}

fn device<B: Backend, I: Nest<B>, S: Nest<B>>(inputs: &I, state: &S) -> Option<B> {
    let leaves = [inputs.leaves(), state.leaves()].concat();
    leaves.first().map(|t| t.device().clone())
}

/// Runs one segment. Inputs, outputs and state are passed to the device as a flat list of
/// tensors.
fn one<B, I, S, O>(
    device: &B,
    part: &Unroll<B>,
    inputs: &I,
    state: &S,
    body: impl Fn(&Unroll<B>, &I, &S) -> Result<(O, S)> + Send + Sync + 'static,
) -> Result<(O, S)>
where
    B: Backend,
    I: Nest<B>,
    S: Nest<B>,
    O: Nest<B>,
{
    // The structure of the outputs is known only after the body has run. The body, which a device
    // may keep for the gradient, must not keep the outputs alive.
    let structure: Arc<OnceLock<(O, S)>> = Arc::default();
    let found = Arc::downgrade(&structure);
    let (like_inputs, like_state) = (detached(inputs)?, detached(state)?);
    let mut flat: Vec<Tensor<B>> = inputs.leaves().into_iter().cloned().collect();
    let split = flat.len();
    flat.extend(state.leaves().into_iter().cloned());
    // Sub-cells do not split a segment again.
    let unroll = Unroll {
        memory_policy: MemoryPolicy::Store,
        segment: None,
        ..part.clone()
    };
    let results = device.segment(
        part.memory_policy,
        &flat,
        Arc::new(move |_: &B, leaves: &[Tensor<B>]| {
            let inputs = like_inputs.rebuild(&leaves[..split])?;
            let state = like_state.rebuild(&leaves[split..])?;
            // The device may call this again when all scopes have ended.
            let (output, state) = Mode::outside(|| body(&unroll, &inputs, &state))?;
            let mut flat: Vec<Tensor<B>> = output.leaves().into_iter().cloned().collect();
            flat.extend(state.leaves().into_iter().cloned());
            if let Some(found) = found.upgrade() {
                // Only the structure is used; detached, so that it keeps no history alive.
                let _ = found.set((detached(&output)?, detached(&state)?));
            }
            Ok(flat)
        }),
    )?;
    let Some((output, state)) = structure.get() else {
        return Err(backend_api::Error::argument(
            "segment",
            "body",
            "was not run by the device",
        ));
    };
    let split = output.leaves().len();
    let outputs = output.rebuild(&results[..split])?;
    Ok((outputs, state.rebuild(&results[split..])?))
}

fn detached<B: Backend, N: Nest<B>>(nest: &N) -> Result<N> {
    nest.map(&mut |t| Ok(t.detach()))
}
