//! What a shard counts.

use flowstone_wire::Api;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

/// Requests answered, by API, since the node started.
#[derive(Default)]
pub struct ShardMetrics {
    requests: RefCell<BTreeMap<Api, Requests>>,
}

/// Of one API.
#[derive(Clone, Copy, Default, Debug)]
pub struct Requests {
    /// How many were answered.
    pub count: u64,
    /// The time they took, from decoded to encoded.
    pub total: Duration,
}

impl ShardMetrics {
    /// A request was answered.
    pub fn answered(&self, api: Api, took: Duration) {
        let mut requests = self.requests.borrow_mut();
        let of_api = requests.entry(api).or_default();
        of_api.count += 1;
        of_api.total += took;
    }
}
