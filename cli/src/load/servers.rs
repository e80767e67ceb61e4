//! Round robin over the servers of a run.

use client::{Server, http::Api};
use std::{cell::Cell, rc::Rc};

/// Assigns the next server to each connection attempt. Clones share the turn.
#[derive(Clone, Debug)]
pub(super) struct Servers {
    list: Rc<[(Server, Api)]>,
    turn: Rc<Cell<usize>>,
}

impl Servers {
    /// `servers` must not be empty.
    pub(super) fn new(servers: Vec<Server>) -> Self {
        let list = servers.into_iter().map(|server| (server.clone(), Api::new(server))).collect();
        Self { list, turn: Rc::default() }
    }

    /// The next server.
    pub(super) fn next(&self) -> &Server {
        &self.take_turn().0
    }

    /// The HTTP API of the next server.
    pub(super) fn next_api(&self) -> Api {
        self.take_turn().1.clone()
    }

    fn take_turn(&self) -> &(Server, Api) {
        let turn = self.turn.get();
        self.turn.set(turn.wrapping_add(1));
        &self.list[turn % self.list.len()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_share_the_turn() {
        let servers = ["a:1", "b:1"].map(|url| Server::parse(url).unwrap());
        let (one, other) = (Servers::new(servers.to_vec()), Servers::new(servers.to_vec()));
        let clone = one.clone();
        let turns = [one.next(), clone.next(), one.next(), other.next()].map(|server| server.host_port().0);
        assert_eq!(turns, ["a", "b", "a", "a"]);
    }
}
