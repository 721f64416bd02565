//! One replica on a disk that is as fast as it is sure, and the messages that the others would send it.

use bytes::Bytes;
use flowstone_batch::BatchBuilder;
use flowstone_raft::control::{
    ControlRecord, KraftVersionRange, KraftVoter, KraftVoters, VoterEndpoint, read_control_batch,
};
use flowstone_raft::messages::*;
use flowstone_raft::*;
use flowstone_types::{Instant, LeaderEpoch, NodeId, Offset, Timestamp, Uuid};
use std::time::Duration;

pub const CLUSTER: &str = "MkU3OEVBNTcwNTJENDM2Qg";

pub fn key(id: i32) -> ReplicaKey {
    ReplicaKey { id: NodeId(id), directory: Uuid(0x1000_u128.wrapping_add(id as u128)) }
}

pub fn voter(id: i32) -> KraftVoter {
    let endpoint = VoterEndpoint {
        name: "CONTROLLER".into(),
        host: format!("host{id}"),
        port: 9093,
        ..VoterEndpoint::default()
    };
    KraftVoter {
        voter_id: id,
        voter_directory_id: key(id).directory,
        endpoints: vec![endpoint],
        kraft_version_feature: KraftVersionRange {
            max_supported_version: 1,
            ..KraftVersionRange::default()
        },
        ..KraftVoter::default()
    }
}

pub fn quorum(ids: &[i32]) -> Quorum {
    let voters = ids.iter().map(|id| voter(*id)).collect();
    Quorum { kraft_version: 1, voters: KraftVoters { voters, ..KraftVoters::default() } }
}

/// As `controller.quorum.voters` configures them: without directories, at `kraft.version` 0.
pub fn static_quorum(ids: &[i32]) -> Quorum {
    let mut quorum = Quorum { kraft_version: 0, ..quorum(ids) };
    quorum.voters.voters.iter_mut().for_each(|voter| voter.voter_directory_id = Uuid::ZERO);
    quorum
}

pub fn settings() -> Settings {
    Settings {
        cluster_id: CLUSTER.into(),
        role: Role::Controller,
        listener: "CONTROLLER".into(),
        bootstrap_servers: 0,
        auto_join: false,
        timers: Timers::default(),
        retention: Retention::default(),
    }
}

/// A formatted node of these voters.
pub fn formatted(ids: &[i32]) -> Stored {
    Stored {
        state: None,
        epochs: vec![],
        log_start: Offset(0),
        log_end: Offset(0),
        log_bytes: 0,
        log_bytes_behind_snapshot: 0,
        quorum: QuorumHistory::configured(quorum(ids)),
        snapshots: vec![],
    }
}

/// One with a log: `epochs` as (epoch, start).
pub fn with_log(ids: &[i32], epochs: &[(i32, i64)], end: i64) -> Stored {
    let start = |(epoch, start): &(i32, i64)| EpochStart {
        epoch: LeaderEpoch(*epoch),
        start: Offset(*start),
    };
    Stored {
        epochs: epochs.iter().map(start).collect(),
        log_end: Offset(end),
        quorum: QuorumHistory::of_snapshot(quorum(ids)),
        ..formatted(ids)
    }
}

pub fn saved(epoch: i32, leader: i32, voted: i32) -> QuorumState {
    let voted_directory = if voted < 0 { Uuid::ZERO } else { key(voted).directory };
    let (epoch, leader, voted) = (LeaderEpoch(epoch), NodeId(leader), NodeId(voted));
    QuorumState { epoch, leader, voted, voted_directory }
}

pub fn batch(at: i64, epoch: i32, values: &[&str]) -> Bytes {
    let mut batch = BatchBuilder::new(Offset(at)).leader_epoch(LeaderEpoch(epoch));
    for value in values {
        batch.push(Timestamp(5), None, Some(value.as_bytes()), &[]);
    }
    batch.build()
}

/// Node 1. Its disk is done with everything at once, unless told not to flush.
pub struct One {
    pub raft: Raft,
    pub now: Now,
    pub flushes: bool,
    pub saves: bool,
    /// Control records that it appended.
    pub told: Vec<ControlRecord>,
}

impl One {
    pub fn start(stored: Stored) -> (Self, Vec<Effect>) {
        Self::start_with(settings(), stored)
    }

    pub fn start_with(settings: Settings, stored: Stored) -> (Self, Vec<Effect>) {
        let now = Now { clock: Instant(1_000_000_000), wall: Timestamp(1_000_000) };
        let mut effects = Vec::new();
        let raft = Raft::start(settings, key(1), voter(1), stored, 7, now, &mut effects).unwrap();
        let mut one = Self { raft, now, flushes: true, saves: true, told: vec![] };
        let effects = one.perform(effects);
        (one, effects)
    }

    fn perform(&mut self, effects: Vec<Effect>) -> Vec<Effect> {
        let mut seen = Vec::new();
        for effect in effects {
            seen.push(effect.clone());
            match effect {
                Effect::SaveState(_) if self.saves => seen.extend(self.input(Input::StateSaved)),
                Effect::Append { batches, end } => {
                    if flowstone_batch::BatchHeader::parse(&batches)
                        .unwrap()
                        .attributes
                        .is_control()
                    {
                        self.told.extend(read_control_batch(&batches).unwrap());
                    }
                    if self.flushes {
                        seen.extend(self.input(Input::Flushed { end }));
                    }
                }
                Effect::Truncate { .. } => seen.extend(self.input(Input::Truncated)),
                _ => {}
            }
        }
        seen
    }

    pub fn input(&mut self, input: Input) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.raft.handle(self.now, input, &mut effects);
        assert!(self.raft.next_deadline().is_none_or(|deadline| deadline > self.now.clock));
        self.perform(effects)
    }

    pub fn append(&mut self, values: &[&str]) -> Vec<Effect> {
        let (epoch, _) = self.raft.leading().unwrap();
        let (end, mut effects) = (self.raft.log_end(), Vec::new());
        let batch = batch(end.0, epoch.0, values);
        self.raft.append(self.now, epoch, batch, &mut effects).unwrap();
        self.perform(effects)
    }

    pub fn after(&mut self, delay: Duration) -> Vec<Effect> {
        self.now.clock = self.now.clock.after(delay);
        self.now.wall.0 += delay.as_millis() as i64;
        self.input(Input::Tick)
    }

    pub fn request(&mut self, request: Request) -> Vec<Effect> {
        let listener = "CONTROLLER".into();
        self.input(Input::Request { token: Token(9), listener, request })
    }

    /// Has the voters in `granting` answer everything of this kind that is asked in `effects`.
    pub fn grant(&mut self, effects: &[Effect], granting: &[i32]) -> Vec<Effect> {
        let mut seen = Vec::new();
        for effect in effects {
            if let Effect::Send { id, to: Destination::Node { id: to, .. }, request } = effect
                && let Request::Vote(vote) = request
                && granting.contains(&to.0)
            {
                let epoch = vote.topics[0].partitions[0].replica_epoch;
                let response = Ok(Response::Vote(vote_response(epoch, -1, true)));
                seen.extend(self.input(Input::Response { id: *id, response }));
            }
        }
        seen
    }

    /// Makes it stand, be elected by 2 (and 3), and commit what it starts with.
    pub fn elect(&mut self) -> Vec<Effect> {
        // Before the first Fetch, which nobody answers, has timed out.
        let pre = self.after(Duration::from_millis(1_999));
        assert_eq!(self.raft.state_name(), "prospective");
        let votes = self.grant(&pre, &[2, 3, 4]);
        let mut led = self.grant(&votes, &[2, 3, 4]);
        assert_eq!(self.raft.state_name(), "leader");
        led.splice(0..0, votes);
        led
    }

    pub fn fetch(&mut self, from: i32, at: i64, last_epoch: i32) -> Vec<Effect> {
        let epoch = self.raft.epoch().0;
        self.request(Request::Fetch(fetch(key(from), epoch, at, last_epoch)))
    }
}

/// A leader of three voters, with everything committed.
pub fn leader() -> One {
    let (mut one, _) = One::start(formatted(&[1, 2, 3]));
    one.elect();
    let end = one.raft.log_end();
    let mut now = fetch(key(2), one.raft.epoch().0, end.0, one.raft.epoch().0);
    now.max_wait_ms = 0;
    one.request(Request::Fetch(now));
    assert_eq!(one.raft.high_watermark(), Some(end));
    one
}

/// A follower of node 2 in `epoch`, with its first Fetch.
pub fn follower(stored: Stored, epoch: i32) -> (One, RequestId) {
    let (mut one, _) = One::start(stored);
    let effects = one.request(begin(2, epoch));
    let id = asks_fetch(&effects).expect("it fetches").0;
    (one, id)
}

pub fn vote(from: i32, epoch: i32, last: (i32, i64), pre_vote: bool) -> VoteRequest {
    let partition = VotePartition {
        replica_epoch: epoch,
        replica_id: from,
        replica_directory_id: key(from).directory,
        voter_directory_id: key(1).directory,
        last_offset_epoch: last.0,
        last_offset: last.1,
        pre_vote,
        ..VotePartition::default()
    };
    let topic =
        VoteTopic { topic_name: TOPIC.into(), partitions: vec![partition], ..VoteTopic::default() };
    VoteRequest {
        cluster_id: Some(CLUSTER.into()),
        voter_id: 1,
        topics: vec![topic],
        ..VoteRequest::default()
    }
}

pub fn vote_response(epoch: i32, leader: i32, granted: bool) -> VoteResponse {
    let partition = VotedPartition {
        leader_id: leader,
        leader_epoch: epoch,
        vote_granted: granted,
        ..VotedPartition::default()
    };
    let topic = VotedTopic {
        topic_name: TOPIC.into(),
        partitions: vec![partition],
        ..VotedTopic::default()
    };
    VoteResponse { topics: vec![topic], ..VoteResponse::default() }
}

pub fn begin(leader: i32, epoch: i32) -> Request {
    let partition = BeginPartition {
        voter_directory_id: key(1).directory,
        leader_id: leader,
        leader_epoch: epoch,
        ..BeginPartition::default()
    };
    let topic = BeginTopic {
        topic_name: TOPIC.into(),
        partitions: vec![partition],
        ..BeginTopic::default()
    };
    Request::BeginQuorumEpoch(BeginQuorumEpochRequest {
        cluster_id: Some(CLUSTER.into()),
        voter_id: 1,
        topics: vec![topic],
        leader_endpoints: voter(leader).endpoints,
        ..BeginQuorumEpochRequest::default()
    })
}

pub fn end(leader: i32, epoch: i32, successors: &[i32]) -> Request {
    let candidate = |id: &i32| Candidate {
        candidate_id: *id,
        candidate_directory_id: key(*id).directory,
        ..Candidate::default()
    };
    let partition = EndPartition {
        leader_id: leader,
        leader_epoch: epoch,
        preferred_candidates: successors.iter().map(candidate).collect(),
        ..EndPartition::default()
    };
    let topic =
        EndTopic { topic_name: TOPIC.into(), partitions: vec![partition], ..EndTopic::default() };
    Request::EndQuorumEpoch(EndQuorumEpochRequest {
        cluster_id: Some(CLUSTER.into()),
        topics: vec![topic],
        leader_endpoints: voter(leader).endpoints,
        ..EndQuorumEpochRequest::default()
    })
}

pub fn fetch(from: ReplicaKey, epoch: i32, at: i64, last_epoch: i32) -> FetchRequest {
    let partition = FetchPartition {
        current_leader_epoch: epoch,
        fetch_offset: at,
        last_fetched_epoch: last_epoch,
        partition_max_bytes: 1 << 20,
        replica_directory_id: from.directory,
        ..FetchPartition::default()
    };
    let topic = FetchTopic {
        topic_id: Uuid::METADATA_TOPIC,
        partitions: vec![partition],
        ..FetchTopic::default()
    };
    FetchRequest {
        cluster_id: Some(CLUSTER.into()),
        replica_state: ReplicaEpoch { replica_id: from.id.0, ..ReplicaEpoch::default() },
        max_wait_ms: 500,
        topics: vec![topic],
        ..FetchRequest::default()
    }
}

/// What leader 2 of `epoch` answers to a Fetch.
pub fn fetched(epoch: i32, high_watermark: i64, records: &[Bytes]) -> FetchResponse {
    let current_leader =
        CurrentLeader { leader_id: 2, leader_epoch: epoch, ..CurrentLeader::default() };
    let records: Vec<u8> = records.iter().flat_map(|batch| batch.to_vec()).collect();
    let partition = FetchedPartition {
        high_watermark,
        current_leader,
        records: Some(records.into()),
        ..FetchedPartition::default()
    };
    let topic = FetchedTopic {
        topic_id: Uuid::METADATA_TOPIC,
        partitions: vec![partition],
        ..FetchedTopic::default()
    };
    FetchResponse { responses: vec![topic], ..FetchResponse::default() }
}

/// What leader 2 of `epoch` answers where the logs part.
pub fn diverging(epoch: i32, ends: (i32, i64)) -> FetchResponse {
    let mut response = fetched(epoch, 1_000, &[]);
    response.responses[0].partitions[0].diverging_epoch =
        EpochEndOffset { epoch: ends.0, end_offset: ends.1, ..EpochEndOffset::default() };
    response
}

pub fn answer(id: RequestId, response: FetchResponse) -> Input {
    Input::Response { id, response: Ok(Response::Fetch(response)) }
}

/// The Fetch among the effects: its id, offset and last epoch.
pub fn asks_fetch(effects: &[Effect]) -> Option<(RequestId, i64, i32)> {
    effects.iter().find_map(|effect| match effect {
        Effect::Send { id, request: Request::Fetch(fetch), .. } => {
            let partition = &fetch.topics[0].partitions[0];
            Some((*id, partition.fetch_offset, partition.last_fetched_epoch))
        }
        _ => None,
    })
}

/// The one answer among the effects.
pub fn response(effects: &[Effect]) -> Response {
    let mut answers = effects.iter().filter_map(|effect| match effect {
        Effect::Respond { response, .. } => Some(response.clone()),
        Effect::ReadAndRespond { response, .. } => Some(Response::Fetch(response.clone())),
        _ => None,
    });
    let first = answers.next().unwrap_or_else(|| panic!("no answer in {effects:#?}"));
    assert!(answers.next().is_none(), "more than one answer in {effects:#?}");
    first
}

pub fn answered_vote(effects: &[Effect]) -> (Code, bool) {
    let Response::Vote(vote) = response(effects) else { panic!("{effects:?}") };
    if vote.error_code != 0 {
        return (Code::of(vote.error_code), false);
    }
    let partition = &vote.topics[0].partitions[0];
    (Code::of(partition.error_code), partition.vote_granted)
}

pub fn answered_fetch(effects: &[Effect]) -> FetchedPartition {
    let Response::Fetch(fetched) = response(effects) else { panic!("{effects:?}") };
    assert_eq!(fetched.error_code, 0);
    fetched.responses[0].partitions[0].clone()
}

/// [`committed`] where nothing is.
pub const NONE: [i64; 0] = [];

/// Offsets that the effects commit.
pub fn committed(effects: &[Effect]) -> Vec<i64> {
    let committed = |effect: &Effect| match effect {
        Effect::Committed(end) => Some(end.0),
        _ => None,
    };
    effects.iter().filter_map(committed).collect()
}

/// The states that the effects save.
pub fn saves(effects: &[Effect]) -> Vec<QuorumState> {
    let saved = |effect: &Effect| match effect {
        Effect::SaveState(state) => Some(state.clone()),
        _ => None,
    };
    effects.iter().filter_map(saved).collect()
}

pub fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}
