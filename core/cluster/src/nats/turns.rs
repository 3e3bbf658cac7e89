//! Which server is connected to next: the one whose turn was the longest ago, so never the one that was just left or lost, if there
//! is another. Chosen at random it would be that one as often as any.

use async_nats::{Server, ServerAddr};
use twox_hash::XxHash3_64;

pub(super) struct Turns {
    /// Each node has an order of its own, so that they are not all at one server.
    seed: u64,
    /// Host and port of those that had a turn, the last one last. As many as the client knows at most.
    had: Vec<(String, u16)>,
}

impl Turns {
    pub(super) fn of(node: &str) -> Self {
        Self { seed: XxHash3_64::oneshot(node.as_bytes()), had: Vec::new() }
    }

    /// Of those that the client knows. Servers tell of each other by addresses, which a certificate need not have: those that were
    /// configured come first.
    pub(super) fn next(&mut self, known: &[Server]) -> Option<ServerAddr> {
        let place = |server: &Server| {
            let address = address(&server.addr);
            let had = self.had.iter().position(|had| *had == address);
            let own = XxHash3_64::oneshot_with_seed(self.seed, format!("{address:?}").as_bytes());
            (had, server.is_discovered, own)
        };
        let next = known.iter().min_by_key(|server| place(server))?.addr.clone();
        let last = address(&next);
        self.had.retain(|had| *had != last);
        self.had.push(last);
        Some(next)
    }
}

fn address(server: &ServerAddr) -> (String, u16) {
    (server.host().to_owned(), server.port())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn server(url: &str, is_discovered: bool) -> Server {
        let addr = url.parse().unwrap();
        Server { addr, failed_attempts: 0, did_connect: false, is_discovered, last_error: None }
    }

    fn hosts(turns: &mut Turns, known: &[Server], count: usize) -> Vec<String> {
        (0..count).map(|_| turns.next(known).unwrap().host().to_owned()).collect()
    }

    #[test]
    fn a_server_has_its_next_turn_when_all_others_had_theirs() {
        let mut known = vec![server("nats://a:4222", false), server("nats://b", false)];
        let mut turns = Turns::of("node");
        assert_eq!(turns.next(&[]), None);
        let first = hosts(&mut turns, &known, 2);
        assert_ne!(first[0], first[1]);
        // What one of them tells: itself as well, which is no other server.
        known.push(server("nats://b:4222", true));
        known.push(server("nats://c:4222", true));
        let order = ["c", first[0].as_str(), first[1].as_str(), "c", first[0].as_str()];
        assert_eq!(hosts(&mut turns, &known, 5), order);
    }

    #[test]
    fn servers_that_were_configured_are_tried_before_those_that_they_tell_of() {
        let known = ["x", "y", "a", "b"].map(|host| server(&format!("nats://{host}:4222"), host < "c"));
        for node in 0..20 {
            let order = hosts(&mut Turns::of(&format!("node{node}")), &known, 4);
            assert!(order[..2].iter().all(|host| host >= &"x".to_owned()), "{order:?}");
        }
    }

    #[test]
    fn nodes_are_not_all_at_one_server() {
        let known = ["a", "b", "c"].map(|host| server(&format!("nats://{host}:4222"), false));
        let first = |node| hosts(&mut Turns::of(&format!("node{node}")), &known, 1);
        assert_eq!((0..20).flat_map(first).collect::<HashSet<_>>().len(), 3);
    }
}
