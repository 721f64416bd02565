//! Many members that come, go, hang, commit and lose their connection, against a log that is slow and
//! at times refuses: whatever happens, the promises hold. A failing seed is printed; run it alone
//! with `FLOWSTONE_SEED=<seed>`.

use crate::harness::{Coordinator, GROUP, commit, commit_by, fetch, join, sync};
use bytes::Bytes;
use flowstone_coordinators::{
    Answer, Config, DeleteGroups, Error, Refusal, Request, RequestId, Text,
};
use std::collections::BTreeMap;

#[test]
fn promises_hold_whatever_happens() {
    let seeds = match std::env::var("FLOWSTONE_SEED") {
        Ok(seed) => vec![seed.parse().expect("a number")],
        Err(_) => (0..300).collect(),
    };
    for seed in seeds {
        let run = std::panic::catch_unwind(|| World::new(seed).run(600));
        assert!(run.is_ok(), "failed with FLOWSTONE_SEED={seed}");
    }
}

/// Knuth's 64-bit linear congruential generator; its high bits are good enough here.
struct Lcg(u64);

impl Lcg {
    fn below(&mut self, end: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }
}

/// A client as it sees itself.
#[derive(Default)]
struct Client {
    /// Empty until it was given one.
    member: String,
    instance: Option<String>,
    generation: i32,
    phase: Phase,
}

#[derive(Default)]
enum Phase {
    #[default]
    Outside,
    Joining(RequestId),
    Syncing(RequestId),
    Working,
}

struct World {
    c: Coordinator,
    random: Lcg,
    clients: Vec<Client>,
    /// Commits under way, in the order in which they were sent: who waits, and the offset.
    commits: Vec<(RequestId, i64)>,
    next_offset: i64,
    /// Newest offset that was acknowledged.
    acknowledged: i64,
    /// None was, or the group was deleted since: no offset is right, too.
    may_be_gone: bool,
    /// The newest offset sent before the group was deleted.
    deleted_after: i64,
    /// Leader and assignment by member, of each generation as far as they are known.
    leaders: BTreeMap<i32, Text>,
    owners: BTreeMap<i32, BTreeMap<Text, Bytes>>,
    fresh: u128,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Lcg(seed);
        let statics = random.below(4);
        let clients = (0..2 + random.below(6))
            .map(|i| Client {
                instance: (i < statics).then(|| format!("i{i}")),
                ..Client::default()
            })
            .collect();
        let mut c = Coordinator::with(config());
        c.prompt = false;
        Self {
            c,
            random,
            clients,
            commits: Vec::new(),
            next_offset: 0,
            acknowledged: -1,
            may_be_gone: true,
            deleted_after: 0,
            leaders: BTreeMap::new(),
            owners: BTreeMap::new(),
            fresh: 0,
        }
    }

    fn run(mut self, steps: u32) {
        for _ in 0..steps {
            match self.random.below(20) {
                0 => {
                    let far = self.random.one_in(5);
                    let ms = self.random.below(if far { 70_000 } else { 4_000 });
                    self.c.pass(ms);
                }
                1..=3 => self.c.flush(),
                4..=5 => self.c.flush_one(),
                6 if self.c.writes_under_way() > 0 && self.random.one_in(2) => {
                    self.c.refuse(Refusal::Unavailable);
                }
                7 => self.commit(),
                8 if self.random.one_in(10) => self.delete(),
                9 if self.random.one_in(20) => self.restart(),
                _ => {
                    let at = self.random.below(self.clients.len() as u64) as usize;
                    let whim = self.random.below(30);
                    self.step_client(at, whim);
                }
            }
            self.collect();
            self.check();
        }
        self.c.flush();
        self.collect();
        self.check_replay();
        self.check_progress();
    }

    /// `whim` is below 30; from 4 on a member that works goes on to.
    fn step_client(&mut self, at: usize, whim: u64) {
        let client = &mut self.clients[at];
        if whim == 0 {
            // Crashed and started again: it remembers only its instance id.
            *client = Client { instance: client.instance.take(), ..Client::default() };
            return;
        }
        match client.phase {
            Phase::Outside => {
                self.fresh += 1;
                let names: &[&str] = if whim < 10 { &["range", "sticky"] } else { &["range"] };
                let mut request =
                    join(&client.member).fresh(self.fresh).protocols(names).with(|j| {
                        j.rebalance_timeout_ms = 20_000;
                        j.version = if whim.is_multiple_of(2) { 9 } else { 5 };
                    });
                if let Some(instance) = &client.instance {
                    request = request.instance(instance);
                }
                client.phase = Phase::Joining(self.c.ask(request.request()));
            }
            Phase::Joining(_) | Phase::Syncing(_) => {}
            Phase::Working => {
                let (member, generation) = (client.member.clone(), client.generation);
                if whim == 1 {
                    self.c.leave(&[(&member, "")]);
                    let instance = self.clients[at].instance.take();
                    self.clients[at] = Client { instance, ..Client::default() };
                } else if whim < 4 {
                    self.clients[at].phase = Phase::Outside; // Wants a rebalance.
                } else {
                    let instance = client.instance.clone();
                    let beat = self.c.heartbeat_as(&member, instance.as_deref(), generation);
                    self.after_error(at, beat.err());
                }
            }
        }
    }

    fn after_error(&mut self, at: usize, error: Option<Error>) {
        let client = &mut self.clients[at];
        match error {
            None => return,
            Some(
                Error::RebalanceInProgress
                | Error::IllegalGeneration
                | Error::CoordinatorNotAvailable,
            ) => {}
            Some(
                Error::UnknownMemberId | Error::FencedInstanceId | Error::InconsistentGroupProtocol,
            ) => client.member.clear(),
            Some(other) => panic!("unexpected: {other:?}"),
        }
        client.phase = Phase::Outside;
    }

    /// Takes in what was answered.
    fn collect(&mut self) {
        for at in 0..self.clients.len() {
            match self.clients[at].phase {
                Phase::Joining(id) if !self.c.waits(id) => self.has_joined(at, id),
                Phase::Syncing(id) if !self.c.waits(id) => self.has_synced(at, id),
                Phase::Outside | Phase::Joining(_) | Phase::Syncing(_) | Phase::Working => {}
            }
        }
        while let Some((id, offset)) = self.commits.first().copied() {
            let Some(Answer::Commit(topics)) = self.c.take(id) else { break };
            self.commits.remove(0);
            if topics[0].partitions[0].error.is_none() {
                self.acknowledged = offset;
                self.may_be_gone = offset <= self.deleted_after;
            }
        }
    }

    fn has_joined(&mut self, at: usize, id: RequestId) {
        match self.c.joined(id) {
            Err(refused) if refused.error == Error::MemberIdRequired => {
                self.clients[at].member = refused.member.to_string();
                self.clients[at].phase = Phase::Outside;
            }
            Err(refused) => self.after_error(at, Some(refused.error)),
            Ok(joined) => {
                assert!(joined.generation >= self.clients[at].generation, "generations only grow");
                // A returning static leader is told of its old id (before KIP-814).
                if !joined.members.is_empty() && !joined.skip_assignment {
                    let before = self.leaders.insert(joined.generation, joined.leader.clone());
                    assert!(before.is_none_or(|b| b == joined.leader), "one leader a generation");
                    assert_eq!(joined.member, joined.leader);
                }
                let assign = |(i, member): (usize, &flowstone_coordinators::JoinedMember)| {
                    let mark = format!("{}-{i}-{}", joined.generation, self.fresh);
                    (member.member.clone(), Bytes::from(mark))
                };
                let assignments = if joined.skip_assignment {
                    Vec::new()
                } else {
                    joined.members.iter().enumerate().map(assign).collect()
                };
                let request = sync(&joined.member, joined.generation, assignments);
                let client = &mut self.clients[at];
                client.member = joined.member.to_string();
                client.generation = joined.generation;
                client.phase = Phase::Syncing(self.c.ask(request));
            }
        }
    }

    fn has_synced(&mut self, at: usize, id: RequestId) {
        match self.c.synced(id) {
            Err(error) => self.after_error(at, Some(error)),
            Ok(synced) => {
                let client = &mut self.clients[at];
                client.phase = Phase::Working;
                if synced.assignment.is_empty() {
                    return;
                }
                let owner = match &client.instance {
                    Some(instance) => instance.as_str().into(),
                    None => Text::from(client.member.as_str()),
                };
                let owners = self.owners.entry(client.generation).or_default();
                let other = owners.iter().find(|(_, assignment)| **assignment == synced.assignment);
                assert!(other.is_none_or(|(id, _)| *id == owner), "one owner a generation");
                let before = owners.insert(owner, synced.assignment.clone());
                assert!(before.is_none_or(|b| b == synced.assignment), "one assignment");
            }
        }
    }

    fn commit(&mut self) {
        let at = self.random.below(self.clients.len() as u64) as usize;
        let client = &self.clients[at];
        self.next_offset += 1;
        let mut request = match client.phase {
            Phase::Working => commit_by(&client.member, client.generation, "t", self.next_offset),
            Phase::Outside | Phase::Joining(_) | Phase::Syncing(_) => {
                commit(GROUP, "t", self.next_offset)
            }
        };
        request.instance = None;
        let id = self.c.ask(Request::Commit(request));
        if self.c.waits(id) {
            self.commits.push((id, self.next_offset));
        } else {
            assert!(self.c.committed(id).is_some(), "no promise before the log has it");
        }
    }

    fn delete(&mut self) {
        let id = self.c.ask(Request::DeleteGroups(DeleteGroups { groups: vec![GROUP.into()] }));
        if !self.c.waits(id) {
            return; // It has members, or is not there.
        }
        self.may_be_gone = true;
        self.deleted_after = self.next_offset;
        self.leaders.clear();
        self.owners.clear();
        for client in &mut self.clients {
            client.generation = 0;
        }
    }

    /// The machine loses what was not durable; its members find the coordinator again.
    fn restart(&mut self) {
        let mut c = self.c.reloaded(config());
        c.prompt = false;
        self.c = c;
        self.commits.clear();
        // A generation that was never stored may begin anew, with another leader.
        self.leaders.clear();
        self.owners.clear();
        for client in &mut self.clients {
            client.generation = 0;
            match client.phase {
                Phase::Joining(_) | Phase::Syncing(_) => client.phase = Phase::Outside,
                Phase::Outside | Phase::Working => {}
            }
        }
    }

    fn check(&mut self) {
        let offset = self.c.offset(GROUP, "t");
        let sent = self.next_offset;
        if offset == -1 {
            assert!(self.may_be_gone, "an acknowledged offset is lost");
        } else {
            // Refused and unanswered ones may lie between.
            assert!(offset >= self.acknowledged && offset <= sent, "an offset went back");
        }
        let id = self.c.ask(Request::Fetch(fetch(GROUP, "t", true)));
        assert_eq!(self.c.waits(id), self.c.writes_under_way() > 0);
        let group = self.c.describe(GROUP);
        if group.state == "Stable" {
            assert!(!group.members.is_empty() && !group.protocol.is_empty());
        }
        if group.state == "Empty" {
            assert!(group.members.is_empty());
        }
    }

    /// Nobody hangs or crashes any more: all come to work in one generation.
    fn check_progress(&mut self) {
        self.c.prompt = true;
        self.c.flush();
        for _ in 0..400 {
            for at in 0..self.clients.len() {
                self.step_client(at, 20);
                self.collect();
            }
            self.c.pass(1_000);
            self.collect();
            let generation = self.clients[0].generation;
            let works =
                |c: &Client| matches!(c.phase, Phase::Working) && c.generation == generation;
            let group = self.c.describe(GROUP);
            let alone = group.members.len() == self.clients.len(); // The crashed have left.
            if self.clients.iter().all(works) && group.state == "Stable" && alone {
                return;
            }
        }
        panic!("the group does not come to rest: {:?}", self.c.describe(GROUP));
    }

    /// All is durable: a restart finds the group as it is, where it is at rest.
    fn check_replay(&mut self) {
        let (offset, group) = (self.c.offset(GROUP, "t"), self.c.describe(GROUP));
        let mut again = self.c.reloaded(config());
        assert_eq!(again.offset(GROUP, "t"), offset);
        let replayed = again.describe(GROUP);
        match group.state {
            "Stable" => assert_eq!(replayed, group),
            // That it is empty was refused: the generation before is back, and will time out.
            "Empty" if self.c.group_refused => {}
            "Empty" => assert_eq!((replayed.state, replayed.members.len()), ("Empty", 0)),
            "Dead" => assert_eq!(replayed.state, "Dead", "deleted"),
            _ => {} // The log has the generation before.
        }
    }
}

/// Nothing expires within a run.
fn config() -> Config {
    Config { cleanup_interval_ms: i64::MAX / 2_000_000, ..Config::default() }
}
