//! The unanswered requests of a connection: a few are answered at a time, further ones wait in order.

use super::Request;
use std::collections::VecDeque;

/// Most requests that wait. Beyond it the connection stops reading.
const MAX_WAITING: usize = 64;

#[derive(Debug)]
struct Waiting {
    id: u32,
    request: Request,
    bytes: usize,
}

/// The requests of one connection; see the module. An idle connection allocates nothing.
#[derive(Debug, Default)]
pub(super) struct Requests {
    /// Ids of the requests that are being answered, without pings.
    running: Vec<u32>,
    /// Id of the ping that is being answered.
    pinging: Option<u32>,
    waiting: VecDeque<Waiting>,
    waiting_bytes: usize,
}

impl Requests {
    /// Whether a request with this id is unanswered.
    pub(super) fn has_id(&self, id: u32) -> bool {
        self.running.contains(&id)
            || self.pinging == Some(id)
            || self.waiting.iter().any(|waiting| waiting.id == id)
    }

    /// Whether another request of any kind may be accepted. Waiting requests may have `max_bytes` together.
    pub(super) fn has_room(&self, max_bytes: usize) -> bool {
        self.waiting.len() < MAX_WAITING && self.waiting_bytes < max_bytes
    }

    /// Accepts a request. Returns it if it can be answered now; otherwise it waits.
    pub(super) fn accept(&mut self, id: u32, request: Request, max_running: usize) -> Option<(u32, Request)> {
        let is_first = !self.waiting.iter().any(|waiting| waiting.request.is_ping() == request.is_ping());
        if is_first && self.can_run(&request, max_running) {
            return Some(self.run(id, request));
        }
        let bytes = request.encoded_len();
        self.waiting_bytes += bytes;
        self.waiting.push_back(Waiting { id, request, bytes });
        None
    }

    /// The next waiting request that can be answered now.
    pub(super) fn next(&mut self, max_running: usize) -> Option<(u32, Request)> {
        let index = self.waiting.iter().position(|waiting| self.can_run(&waiting.request, max_running))?;
        let Waiting { id, request, bytes } = self.waiting.remove(index)?;
        self.waiting_bytes -= bytes;
        if self.waiting.is_empty() {
            self.waiting = VecDeque::new();
        }
        Some(self.run(id, request))
    }

    /// A request is answered.
    pub(super) fn answered(&mut self, id: u32, is_ping: bool) {
        if is_ping {
            self.pinging = None;
        } else if let Some(index) = self.running.iter().position(|running| *running == id) {
            self.running.swap_remove(index);
            if self.running.is_empty() {
                self.running = Vec::new();
            }
        }
    }

    /// A ping waits for other pings only: it tells the device that the connection works.
    fn can_run(&self, request: &Request, max_running: usize) -> bool {
        match request.is_ping() {
            true => self.pinging.is_none(),
            false => self.running.len() < max_running,
        }
    }

    fn run(&mut self, id: u32, request: Request) -> (u32, Request) {
        match request.is_ping() {
            true => self.pinging = Some(id),
            false => self.running.push(id),
        }
        (id, request)
    }
}
