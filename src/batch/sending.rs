//! A request on its way through the queue.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{mpsc, oneshot};

use super::queue::{Row, Waiter};
use super::service::Batcher;
use super::worker::Message;
use super::{BatchError, Finished, Key, Request};
use crate::account::Reservation;

/// Batches' tokens of one request that are in the queue at a time, for each session: one runs, one waits, and two more come when half of all is
/// done.
const SLICE_BATCHES: usize = 4;

/// A request whose rows enter the queue in slices, so that other requests of its caller do not wait for all of a large one. The shortest come
/// first: rows of one length are neighbours, and make batches without padding.
pub(super) struct Sending {
    batcher: Batcher,
    request: Request,
    room: Arc<Reservation>,
    since: Instant,
    /// The rows in the order in which they are sent.
    order: Vec<usize>,
    /// How many rows are in the queue or past it.
    sent: usize,
    /// Rows that are sent and not answered, in order.
    answers: VecDeque<(usize, oneshot::Receiver<Result<Finished, BatchError>>)>,
    /// Tokens of those.
    outstanding: usize,
}

impl Sending {
    /// Sends the first slice of a request that was admitted.
    pub(super) fn begin(batcher: Batcher, request: Request, room: Reservation) -> Result<Self, BatchError> {
        let mut order: Vec<usize> = (0..request.rows.len()).collect();
        order.sort_by_key(|&index| request.rows[index].len());
        batcher.shared.entered(order.len(), room.amount());
        let mut sending = Self {
            batcher,
            request,
            room: Arc::new(room),
            since: Instant::now(),
            order,
            sent: 0,
            answers: VecDeque::new(),
            outstanding: 0,
        };
        sending.send()?;
        Ok(sending)
    }

    /// Tokens in the queue at a time.
    fn slice(&self) -> usize {
        let limits = &self.batcher.limits;
        SLICE_BATCHES * limits.batch_tokens * limits.sessions
    }

    fn tokens(&self, index: usize) -> usize {
        self.request.rows[index].len()
    }

    /// Sends rows while the slice has room, and one if nothing is outstanding.
    fn send(&mut self) -> Result<(), BatchError> {
        let slice = self.slice();
        let mut rows = Vec::new();
        while let Some(&index) = self.order.get(self.sent) {
            let tokens = self.tokens(index);
            if self.outstanding > 0 && self.outstanding + tokens > slice {
                break;
            }
            let (reply, answer) = oneshot::channel();
            rows.push(Row {
                key: self.key(index),
                caller: Arc::clone(&self.request.caller),
                class: self.request.class,
                waiter: Waiter { since: self.since, reply },
                room: Arc::clone(&self.room),
            });
            self.answers.push_back((index, answer));
            self.outstanding += tokens;
            self.sent += 1;
        }
        if rows.is_empty() {
            return Ok(());
        }
        let (count, tokens) = (rows.len(), rows.iter().map(|row| row.key.ids.len()).sum());
        if let Err(mpsc::error::SendError(_)) = self.batcher.queue.send(Message::Rows(rows)) {
            self.answers.clear();
            self.batcher.shared.left(count, tokens);
            return Err(BatchError::Stopped);
        }
        Ok(())
    }

    fn key(&self, index: usize) -> Key {
        Key { ids: Arc::clone(&self.request.rows[index]), output: self.request.output }
    }

    /// The rows' answers in the request's order, or the first error.
    pub(super) async fn all(mut self) -> Result<Vec<Finished>, BatchError> {
        let mut finished: Vec<Option<Finished>> = vec![None; self.request.rows.len()];
        while let Some((index, answer)) = self.answers.front_mut() {
            let index = *index;
            finished[index] = Some(answer.await.map_err(|_| BatchError::Stopped)??);
            self.answers.pop_front();
            let tokens = self.tokens(index);
            self.outstanding -= tokens;
            // At half a slice, so that neither the engine waits for rows nor the worker for each single one.
            if self.outstanding <= self.slice() / 2 {
                self.send()?;
            }
        }
        Ok(finished.into_iter().flatten().collect())
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        // Also of rows that are in the queue still, which share it.
        self.room.shrink_to(0);
        let unsent = &self.order[self.sent..];
        if !unsent.is_empty() {
            let tokens = unsent.iter().map(|&index| self.tokens(index)).sum();
            self.batcher.shared.left(unsent.len(), tokens);
        }
        if !self.answers.is_empty() {
            let keys = self.answers.iter().map(|(index, _)| self.key(*index)).collect();
            // Closed first: the worker looks for closed ones when it is told.
            self.answers.clear();
            let _ = self.batcher.queue.send(Message::GivenUp(keys));
        }
    }
}
