//! Who is at the other end of a connection, and which shard it keeps asking for.

use flowstone_wire::{RequestHeader, StrBytes, string};
use std::cell::Cell;
use std::net::SocketAddr;

/// `client.id` of Kafka's own admin clients inside brokers, which may write to internal topics.
const ADMIN_CLIENT_ID: &str = "__admin_client";

/// Touches of partitions after which a connection's habits are judged, and forgotten.
const HABIT_TOUCHES: u32 = 64;
/// Of these, so many must be another shard's for the connection to move there: three quarters.
const MOVE_TOUCHES: u32 = HABIT_TOUCHES / 4 * 3;

/// A connection's client.
pub struct Client {
    /// Its address.
    pub address: SocketAddr,
    /// The listener it came in by.
    pub listener: &'static str,
    /// Whether that is one for controllers.
    pub on_controller_listener: bool,
    /// `client.id` of its last request.
    pub id: Option<StrBytes>,
    /// API version of its last request.
    pub version: i16,
    habit: Cell<Habit>,
}

/// Which shard was touched most, as far as one candidate and its lead tell (Boyer-Moore): a shard
/// with a majority always ends as the candidate.
#[derive(Clone, Copy, Default)]
struct Habit {
    touches: u32,
    candidate: usize,
    of_candidate: u32,
    lead: u32,
}

impl Client {
    /// A client that has not asked anything yet.
    pub fn new(address: SocketAddr, listener: &'static str, on_controller_listener: bool) -> Self {
        // One address whatever the socket's family: limits and logs know 127.0.0.1 by that name.
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        let (id, version, habit) = (None, 0, Cell::default());
        Self { address, listener, on_controller_listener, id, version, habit }
    }

    /// Takes note of a request's header.
    pub fn asks(&mut self, header: &RequestHeader) {
        // A copy: what the header has is a part of its frame, which would stay as long as this.
        if self.id != header.client_id {
            self.id = header.client_id.as_deref().map(string);
        }
        self.version = header.version;
    }

    /// Whether it calls itself an admin client of a broker.
    pub fn is_admin(&self) -> bool {
        self.id.as_deref() == Some(ADMIN_CLIENT_ID)
    }

    /// Its request touched a partition of shard `owner`.
    pub fn touches(&self, owner: usize) {
        let mut habit = self.habit.get();
        habit.touches += 1;
        if habit.lead == 0 && habit.candidate != owner {
            habit = Habit { candidate: owner, of_candidate: 0, ..habit };
        }
        if habit.candidate == owner {
            habit.lead += 1;
            habit.of_candidate += 1;
        } else {
            habit.lead -= 1;
        }
        self.habit.set(habit);
    }

    /// The shard where this connection would have less to forward than on `here`, if its last
    /// requests agree on one.
    pub fn better_home(&self, here: usize) -> Option<usize> {
        let habit = self.habit.get();
        if habit.touches < HABIT_TOUCHES {
            return None;
        }
        self.habit.set(Habit::default());
        (habit.candidate != here && habit.of_candidate >= MOVE_TOUCHES).then_some(habit.candidate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use flowstone_wire::Api;

    fn home_after(touches: impl Iterator<Item = usize>) -> Option<usize> {
        let client = Client::new(([127, 0, 0, 1], 1).into(), "PLAINTEXT", false);
        touches.for_each(|owner| client.touches(owner));
        client.better_home(0)
    }

    /// It would stay as long as the connection waits for its next request: up to `socket.request.max.bytes`.
    #[test]
    fn nothing_of_a_frame_is_kept() {
        let frame = Bytes::from(b"me, and a megabyte of records".to_vec());
        let header = RequestHeader {
            api: Api::Produce,
            version: 9,
            correlation_id: 1,
            client_id: StrBytes::from_utf8(frame.slice(..2)).ok(),
        };
        let mut client = Client::new(([127, 0, 0, 1], 1).into(), "PLAINTEXT", false);
        client.asks(&header);
        drop(header);
        assert_eq!(client.id.as_deref(), Some("me"));
        assert!(frame.is_unique());
    }

    #[test]
    fn a_connection_moves_to_where_most_of_its_partitions_are() {
        assert_eq!(home_after((0..64).map(|_| 1)), Some(1));
        assert_eq!(home_after((0..64).map(|n| usize::from(n % 8 != 0))), Some(1));
        assert_eq!(home_after((0..64).map(|_| 0)), None, "it is there already");
        assert_eq!(home_after((0..64).map(|n| n % 2)), None, "no majority, no move");
        assert_eq!(home_after((0..63).map(|_| 1)), None, "too early to say");
    }
}
