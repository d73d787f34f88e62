//! Messages by which ranks know each other's outcomes.

use backend_api::{Error, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// What every message between programs begins with: ranks that are at different points of their
/// program would otherwise take one thing for another.
#[derive(Serialize, Deserialize)]
struct Message<T> {
    action: String,
    outcome: Result<T, String>,
}

/// The message with this rank's outcome of an action.
pub(super) fn message<T: Serialize>(
    action: &'static str,
    outcome: Result<T, String>,
) -> Result<Vec<u8>> {
    let message = Message {
        action: action.to_owned(),
        outcome,
    };
    serde_json::to_vec(&message).map_err(|e| unsent(action, &e))
}

/// The outcomes of an action on all ranks, from their messages: an error if it failed on one of
/// them, or if one is at another action.
pub(super) fn outcomes<T: DeserializeOwned>(
    rank: usize,
    action: &'static str,
    messages: &[Vec<u8>],
) -> Result<Vec<T>> {
    let mut outcomes = Vec::new();
    let mut elsewhere = None;
    for (rank, bytes) in messages.iter().enumerate() {
        // What is at another action may be of another type.
        let message: Message<serde_json::Value> =
            serde_json::from_slice(bytes).map_err(|e| unsent(action, &e))?;
        match message.outcome {
            Err(problem) => return Err(failed(rank, action, problem)),
            Ok(_) if message.action != action => {
                elsewhere.get_or_insert((rank, message.action));
            }
            Ok(value) => outcomes.push(T::deserialize(value).map_err(|e| unsent(action, &e))?),
        }
    }
    match elsewhere {
        None => Ok(outcomes),
        Some((other, at)) => {
            let problem =
                format!("it is at {at}, and rank {rank} at {action}: all ranks must do the same");
            Err(failed(other, action, problem))
        }
    }
}

fn unsent(action: &'static str, error: &serde_json::Error) -> Error {
    Error::argument("agree", action, error.to_string())
}

/// The error of an action that failed on a rank.
pub(super) fn failed(rank: usize, action: &'static str, problem: String) -> Error {
    Error::Failed {
        device: format!("rank {rank}"),
        action,
        problem,
    }
}
