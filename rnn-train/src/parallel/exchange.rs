//! The exchange of the gradients of a step, on the thread of the collective, while the walk
//! backwards goes on.
//!
//! Ranks send each other bucket after bucket, then the end of the step. Each begins with a message
//! of every rank, which has its error instead if it has failed since the message before. All ranks
//! read the same messages, and the first error among them ends the exchange on all: what the
//! others have queued by then is dropped.

use std::sync::{Arc, mpsc};

use backend_api::{Backend, Error, Result};
use serde::{Deserialize, Serialize};

use super::agreement::{failed, message, outcomes};
use super::background::Pending;
use super::bucket::{Bucket, Header};
use super::rows::{self, Rows};
use super::spare::Spare;
use super::sums::{Maybe, Params, StepTotal, gradients};
use super::{Collective, DataParallel};

const ACTION: &str = "a step";

/// An exchange that is going on.
#[derive(Debug)]
pub(super) struct Exchange<B: Backend> {
    parts: mpsc::Sender<Result<Part<B>, String>>,
    total: Pending<StepTotal<B>>,
}

/// What a rank adds to the exchange.
#[derive(Debug)]
pub(super) enum Part<B: Backend> {
    Bucket(Bucket<B>),
    /// The number of batches of the step, and the losses of this rank's.
    End(u64, Vec<f64>),
}

#[derive(Serialize, Deserialize)]
enum Message {
    Bucket(Header),
    End(u64, Vec<f64>),
}

impl<B: Backend> Exchange<B> {
    /// The operations that are started before it has ended follow it.
    pub(super) fn start(ranks: &DataParallel, params: Arc<Params<B>>) -> Self {
        let (parts, queue) = mpsc::channel();
        let spare = ranks.spare.clone();
        let total = ranks.start(move |collective| {
            let steps = Steps {
                collective,
                sums: vec![None; params.len()],
                params: &params,
                rows: Vec::new(),
                spare: &spare,
                outcome: Ok(()),
            };
            steps.run(&queue)
        });
        Self { parts, total }
    }

    /// Adds the next part, or the error of this rank, which ends the exchange.
    pub(super) fn send(&self, part: Result<Part<B>, String>) {
        // The receiver is gone if a rank has failed, and `wait` says which.
        let _ = self.parts.send(part);
    }

    /// The sum over all ranks, after the end was sent.
    pub(super) fn wait(self) -> Result<StepTotal<B>> {
        self.total.wait()
    }
}

/// The steps of an exchange.
struct Steps<'s, B: Backend> {
    collective: &'s dyn Collective,
    params: &'s Params<B>,
    sums: Vec<Maybe<B>>,
    /// The gradients that some rank has as rows.
    rows: Vec<Rows<B>>,
    spare: &'s Spare,
    /// What failed on this rank after the last message.
    outcome: Result<()>,
}

impl<B: Backend> Steps<'_, B> {
    fn run(mut self, queue: &mpsc::Receiver<Result<Part<B>, String>>) -> Result<StepTotal<B>> {
        while let Ok(part) = queue.recv() {
            match part {
                Ok(Part::Bucket(bucket)) => self.bucket(bucket)?,
                Ok(Part::End(batches, losses)) => return self.end(batches, losses),
                Err(problem) => {
                    let message = message::<Message>(ACTION, Err(problem))?;
                    let all = self.collective.all_gather(&message)?;
                    outcomes::<Message>(self.collective.rank(), ACTION, &all)?;
                }
            }
        }
        let problem = "the step was left without an outcome".to_owned();
        Err(failed(self.collective.rank(), ACTION, problem))
    }

    /// The messages of all ranks.
    fn agree(&mut self, mine: Result<Message>) -> Result<Vec<Message>> {
        let mine = std::mem::replace(&mut self.outcome, Ok(())).and(mine);
        let (mine, error) = match mine {
            Ok(mine) => (Ok(mine), None),
            Err(error) => (Err(error.to_string()), Some(error)),
        };
        let all = self.collective.all_gather(&message(ACTION, mine)?);
        match error {
            Some(error) => Err(error),
            None => outcomes(self.collective.rank(), ACTION, &all?),
        }
    }

    fn bucket(&mut self, bucket: Bucket<B>) -> Result<()> {
        let packed = bucket.pack(self.params, self.collective.size(), self.spare);
        let (mine, parts) = match packed {
            Ok(parts) => (Ok(Message::Bucket(bucket.header(self.params.len()))), parts),
            Err(error) => (Err(error), Vec::new()),
        };
        let mut headers = Vec::new();
        for (rank, message) in self.agree(mine)?.into_iter().enumerate() {
            match message {
                Message::Bucket(header) if header.is_of(&bucket, self.params.len()) => {
                    headers.push(header);
                }
                _ => return Err(self.at_other_parameters(rank)),
            }
        }
        let sums = bucket.sum(self.collective, self.params, &headers, parts, self.spare)?;
        self.outcome = bucket.unpack(self.params, &headers, &sums, &mut self.sums);
        self.rows.extend(Rows::of(bucket, headers));
        Ok(())
    }

    fn end(mut self, batches: u64, losses: Vec<f64>) -> Result<StepTotal<B>> {
        let packed = rows::pack(&self.rows);
        let (mine, bytes) = match packed {
            Ok(bytes) => (Ok(Message::End(batches, losses)), bytes),
            Err(error) => (Err(error), Vec::new()),
        };
        let mut all_losses = Vec::new();
        for (rank, message) in self.agree(mine)?.into_iter().enumerate() {
            match message {
                Message::End(theirs, losses) if theirs == batches => all_losses.extend(losses),
                Message::End(theirs, _) => {
                    let problem = format!(
                        "the source has {theirs} batches for it, and {batches} on this rank"
                    );
                    return Err(failed(rank, ACTION, problem));
                }
                Message::Bucket(_) => return Err(self.at_other_parameters(rank)),
            }
        }
        if !self.rows.is_empty() {
            let all = self.collective.all_gather(&bytes)?;
            rows::sum(self.params, &self.rows, &all, &mut self.sums)?;
        }
        Ok(StepTotal {
            batches,
            losses: all_losses,
            grads: gradients(self.params, self.sums),
        })
    }

    fn at_other_parameters(&self, rank: usize) -> Error {
        let problem = format!(
            "it does not train the {} parameters of this rank, or sums them in buckets of another \
             size",
            self.params.len()
        );
        failed(rank, ACTION, problem)
    }
}
