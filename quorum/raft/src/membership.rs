//! AddRaftVoter, RemoveRaftVoter, UpdateRaftVoter, joining by oneself, and the upgrade from
//! `kraft.version` 0 (KIP-853).
//!
//! Invariants: one change at a time, by one voter, and only once the high watermark of this epoch is
//! known and the voters before are committed (else two majorities might not meet); a new voter supports
//! what is in force and has the log; the last voter stays.

use crate::code::Code;
use crate::control::{
    ControlRecord, KraftVersion, KraftVersionRange, KraftVoter, KraftVoters, VoterEndpoint,
};
use crate::io::{Destination, Effect, Now, Request, Response, Token};
use crate::leader::{Change, ChangeKind};
use crate::links::{Asked, Peer};
use crate::messages::{
    AddRaftVoterRequest, AddRaftVoterResponse, RemoveRaftVoterRequest, RemoveRaftVoterResponse,
    UpdateRaftVoterRequest, UpdateRaftVoterResponse, UpdatedLeader,
};
use crate::raft::Raft;
use crate::settings::Role;
use crate::state::{Address, Follower, State};
use crate::voters::{ReplicaKey, endpoint, key};
use alloc::string::ToString;
use alloc::vec::Vec;
use core::time::Duration;
use flowstone_types::{Instant, NodeId, Offset};

/// Longest that an AddRaftVoter may wait to be committed, whatever it asks for.
const ADD_TIMEOUT_MAX: Duration = Duration::from_mins(1);

/// Why a change of voters is not made.
type Refusal = (Code, &'static str);

impl Raft {
    /// What holds before any change of voters.
    fn check_change(&self, cluster: Option<&alloc::string::String>) -> Result<Offset, Refusal> {
        if !self.is_our_cluster(cluster) {
            return Err((Code::InconsistentClusterId, "the request is of another cluster"));
        }
        let State::Leader(leader) = &self.state else {
            return Err((Code::NotLeaderOrFollower, "this node does not lead"));
        };
        if leader.change.is_some() {
            return Err((Code::RequestTimedOut, "another change of voters is under way"));
        }
        let unknown =
            (Code::RequestTimedOut, "the leader has not committed anything in its epoch yet");
        leader.high_watermark.ok_or(unknown)
    }

    /// What holds before a change that the log is to tell.
    fn check_logged_change(&self, high_watermark: Offset) -> Result<(), Refusal> {
        if self.quorum().kraft_version < 1 {
            return Err((Code::UnsupportedVersion, "kraft.version 0 has no changes of voters"));
        }
        if self.quorums.last_offset().is_some_and(|told| told >= high_watermark) {
            return Err((Code::RequestTimedOut, "the voters before are not committed yet"));
        }
        Ok(())
    }

    pub(crate) fn on_add_voter(&mut self, now: Now, token: Token, request: AddRaftVoterRequest) {
        match self.check_add(&request) {
            Err((error, why)) => self.respond(token, add_response(error, why)),
            Ok(address) => {
                let id = NodeId(request.voter_id);
                let asked = Duration::from_millis(request.timeout_ms.max(0) as u64);
                let deadline = now.clock.after(asked.min(ADD_TIMEOUT_MAX));
                let change = Change::Asking { token, request, deadline };
                let State::Leader(leader) = &mut self.state else { panic!("checked above") };
                leader.change = Some(change);
                let Address { host, port } = address;
                let to = Destination::Node { id, host, port };
                self.send(now, Peer::Node(id), to, Asked::Versions, Request::ApiVersions);
            }
        }
    }

    fn check_add(&self, request: &AddRaftVoterRequest) -> Result<Address, Refusal> {
        let high_watermark = self.check_change(request.cluster_id.as_ref())?;
        self.check_logged_change(high_watermark)?;
        let id = NodeId(request.voter_id);
        if id.0 < 0 || request.voter_directory_id.is_zero() {
            return Err((Code::InvalidRequest, "a voter has a node id and a directory id"));
        }
        if self.quorum().with_id(id).is_some() {
            return Err((Code::DuplicateVoter, "a voter has this node id already"));
        }
        let missing = (Code::InvalidRequest, "the listeners lack the quorum's own");
        let at = endpoint(&request.listeners, &self.settings.listener).ok_or(missing)?;
        if !self.links.is_ready(Peer::Node(id)) {
            return Err((Code::RequestTimedOut, "the new voter is not ready for a request"));
        }
        Ok(Address { host: at.host.clone(), port: at.port })
    }

    /// The new voter did not answer what it supports.
    pub(crate) fn new_voter_failed(&mut self) {
        let State::Leader(leader) = &mut self.state else { return };
        let asking = leader.change.take_if(|change| matches!(change, Change::Asking { .. }));
        if let Some(change) = asking {
            self.answer_change(&change, Code::RequestTimedOut, "the new voter did not answer");
        }
    }

    /// The new voter answered: it becomes one, if it can.
    pub(crate) fn new_voter_supports(
        &mut self,
        now: Now,
        voter: NodeId,
        error: Code,
        range: Option<(i16, i16)>,
    ) {
        if error != Code::None {
            return self.new_voter_failed();
        }
        let level = self.quorum().kraft_version;
        let State::Leader(leader) = &mut self.state else { return };
        let Some(Change::Asking { token, request, deadline }) =
            leader.change.take_if(|change| matches!(change, Change::Asking { request, .. } if request.voter_id == voter.0))
        else {
            return;
        };
        let new = ReplicaKey { id: voter, directory: request.voter_directory_id };
        let (least, most) = range.unwrap_or((0, 0));
        if !(least..=most).contains(&level) {
            let why = "the new voter does not support the kraft.version in force";
            return self.respond(token, add_response(Code::InvalidRequest, why));
        }
        if !leader.is_caught_up(new, now) {
            let why = "the new voter has not the whole log yet";
            return self.respond(token, add_response(Code::RequestTimedOut, why));
        }
        let mut voters = self.quorum().voters.clone();
        voters.voters.push(KraftVoter {
            voter_id: new.id.0,
            voter_directory_id: new.directory,
            endpoints: request.listeners.clone(),
            kraft_version_feature: KraftVersionRange {
                min_supported_version: least,
                max_supported_version: most,
                ..KraftVersionRange::default()
            },
            ..KraftVoter::default()
        });
        let commits = request.ack_when_committed;
        if !commits {
            self.respond(token, add_response(Code::None, ""));
        }
        let answer = commits.then_some((token, ChangeKind::Add, deadline));
        self.change_voters(now, voters, answer);
    }

    pub(crate) fn on_remove_voter(
        &mut self,
        now: Now,
        token: Token,
        request: &RemoveRaftVoterRequest,
    ) {
        let gone =
            ReplicaKey { id: NodeId(request.voter_id), directory: request.voter_directory_id };
        let checked = self.check_change(request.cluster_id.as_ref()).and_then(|high_watermark| {
            self.check_logged_change(high_watermark)?;
            if !self.quorum().keys().any(|voter| voter == gone) {
                return Err((Code::VoterNotFound, "there is no such voter"));
            }
            if self.quorum().len() == 1 {
                return Err((Code::InvalidRequest, "the last voter cannot go"));
            }
            Ok(())
        });
        if let Err((error, why)) = checked {
            return self.respond(token, remove_response(error, why));
        }
        let mut voters = self.quorum().voters.clone();
        voters.voters.retain(|voter| key(voter) != gone);
        let deadline = now.clock.after(self.settings.timers.request_timeout);
        self.change_voters(now, voters, Some((token, ChangeKind::Remove, deadline)));
    }

    pub(crate) fn on_update_voter(
        &mut self,
        now: Now,
        token: Token,
        listener: &str,
        request: &UpdateRaftVoterRequest,
    ) {
        match self.check_update(request) {
            Err((error, _)) => {
                let response = self.update_response(listener, error);
                self.respond(token, response);
            }
            Ok(updated) => {
                let quorum = self.quorum();
                if quorum.kraft_version < 1 {
                    let State::Leader(leader) = &mut self.state else { panic!("checked above") };
                    leader.told.insert(NodeId(updated.voter_id), updated);
                } else if quorum.voter(key(&updated)) != Some(&updated) {
                    let mut voters = quorum.voters.clone();
                    for voter in &mut voters.voters {
                        if voter.voter_id == updated.voter_id {
                            *voter = updated.clone();
                        }
                    }
                    let deadline = now.clock.after(self.settings.timers.request_timeout);
                    let answer = Some((token, ChangeKind::Update, deadline));
                    return self.change_voters(now, voters, answer);
                }
                let response = self.update_response(listener, Code::None);
                self.respond(token, response);
            }
        }
    }

    fn check_update(&self, request: &UpdateRaftVoterRequest) -> Result<KraftVoter, Refusal> {
        if self.is_our_cluster(request.cluster_id.as_ref()) {
            self.check_leads(request.current_leader_epoch).map_err(|error| (error, ""))?;
        }
        let high_watermark = self.check_change(request.cluster_id.as_ref())?;
        let quorum = self.quorum();
        let replica =
            ReplicaKey { id: NodeId(request.voter_id), directory: request.voter_directory_id };
        if quorum.kraft_version >= 1 {
            self.check_logged_change(high_watermark)?;
        }
        if !quorum.has(replica) {
            return Err((Code::VoterNotFound, ""));
        }
        let range = &request.kraft_version_feature;
        let supported = range.min_supported_version..=range.max_supported_version;
        let reachable = endpoint(&request.listeners, &self.settings.listener).is_some();
        if !supported.contains(&quorum.kraft_version) || !reachable {
            return Err((Code::InvalidRequest, ""));
        }
        Ok(KraftVoter {
            voter_id: replica.id.0,
            voter_directory_id: replica.directory,
            endpoints: request.listeners.clone(),
            kraft_version_feature: range.clone(),
            ..KraftVoter::default()
        })
    }

    /// Tells new voters in the log; whoever asked for them is answered once that is committed.
    fn change_voters(
        &mut self,
        now: Now,
        voters: KraftVoters,
        answer: Option<(Token, ChangeKind, Instant)>,
    ) {
        let end = self.append_control(now, &[ControlRecord::KraftVoters(voters)]);
        let resign_at = self.resign_deadline(now);
        let State::Leader(leader) = &mut self.state else { panic!("only a leader appends") };
        leader.change =
            answer.map(|(token, kind, deadline)| Change::Appended { token, kind, end, deadline });
        // Other voters make other majorities: they get their time to fetch.
        leader.fetched.clear();
        leader.resign_at = resign_at;
        // A smaller quorum may have flushed enough already.
        self.advance_high_watermark(now);
    }

    /// Answers a change that is committed.
    pub(crate) fn change_committed(&mut self, high_watermark: Offset) {
        let State::Leader(leader) = &mut self.state else { return };
        let done = leader.change.take_if(
            |change| matches!(change, Change::Appended { end, .. } if *end <= high_watermark),
        );
        if let Some(change) = done {
            self.answer_change(&change, Code::None, "");
        }
    }

    /// Answers a change that takes too long. What is in the log stays there, and may be committed yet.
    pub(crate) fn change_overdue(&mut self, now: Now) {
        let State::Leader(leader) = &mut self.state else { return };
        if let Some(change) = leader.change.take_if(|change| change.deadline() <= now.clock) {
            self.answer_change(
                &change,
                Code::RequestTimedOut,
                "the new voters are not committed yet",
            );
        }
    }

    pub(crate) fn answer_change(&mut self, change: &Change, error: Code, why: &str) {
        let (token, response) = match change {
            Change::Asking { token, .. }
            | Change::Appended { token, kind: ChangeKind::Add, .. } => {
                (*token, add_response(error, why))
            }
            Change::Appended { token, kind: ChangeKind::Remove, .. } => {
                (*token, remove_response(error, why))
            }
            Change::Appended { token, kind: ChangeKind::Update, .. } => {
                (*token, self.update_response(&self.settings.listener, error))
            }
        };
        self.respond(token, response);
    }

    fn update_response(&self, listener: &str, error: Code) -> Response {
        let told = self.told(listener);
        let VoterEndpoint { host, port, .. } = told.endpoint.unwrap_or_default();
        let current_leader = UpdatedLeader {
            leader_id: told.id,
            leader_epoch: told.epoch,
            host,
            port: port.into(),
            ..UpdatedLeader::default()
        };
        Response::UpdateRaftVoter(UpdateRaftVoterResponse {
            error_code: error.number(),
            current_leader,
            ..UpdateRaftVoterResponse::default()
        })
    }

    /// Moves the quorum from `kraft.version` 0 to 1: from then on the log tells who votes. Every voter
    /// must have told this leader by UpdateRaftVoter who it is. Returns the log's end behind it, which is
    /// committed once [`Effect::Committed`] says so; `None` where it is at 1 already, or for
    /// `validate_only`.
    pub fn upgrade_kraft_version(
        &mut self,
        now: Now,
        validate_only: bool,
        effects: &mut Vec<Effect>,
    ) -> Result<Option<Offset>, UpgradeError> {
        let State::Leader(leader) = &self.state else { return Err(UpgradeError::NotLeader) };
        if leader.high_watermark.is_none() {
            return Err(UpgradeError::NotReady);
        }
        if self.quorum().kraft_version >= 1 {
            return Ok(None);
        }
        let mut voters = KraftVoters::default();
        for voter in self.quorum().keys() {
            let told = leader.told.get(&voter.id).ok_or(UpgradeError::Unknown(voter.id))?;
            if told.kraft_version_feature.max_supported_version < 1 {
                return Err(UpgradeError::Unsupported(voter.id));
            }
            voters.voters.push(told.clone());
        }
        if validate_only {
            return Ok(None);
        }
        let version = KraftVersion { kraft_version: 1, ..KraftVersion::default() };
        let records = [ControlRecord::KraftVersion(version), ControlRecord::KraftVoters(voters)];
        let end = self.append_control(now, &records);
        self.handle(now, crate::io::Input::Tick, effects);
        Ok(Some(end))
    }

    /// Whether this replica has something to tell its leader about itself.
    fn has_to_tell(&self, state: &Follower) -> bool {
        let quorum = self.quorum();
        if self.is_voter() {
            let known = quorum.voter(self.me);
            return if quorum.kraft_version < 1 {
                !state.is_known
            } else {
                known != Some(&self.myself)
            };
        }
        let joins = self.settings.auto_join && self.settings.role == Role::Controller;
        joins && quorum.kraft_version >= 1 && state.has_fetched
    }

    /// When it does so next.
    pub(crate) fn update_deadline(&self, state: &Follower) -> Option<Instant> {
        let ready = self.links.is_ready(Peer::Node(state.leader));
        (ready && !self.is_stopping && self.has_to_tell(state)).then_some(state.update_deadline)
    }

    /// Tells the leader, each `fetch.timeout`, that this voter is reached elsewhere or supports something
    /// else, or that this controller would vote. Returns whether it did.
    pub(crate) fn tell_leader(&mut self, now: Now) -> bool {
        let State::Follower(state) = &self.state else { return false };
        if state.update_deadline > now.clock || !self.has_to_tell(state) {
            return false;
        }
        let (leader, address) = (state.leader, state.address.clone());
        let cluster_id = Some(self.settings.cluster_id.clone());
        let (voter_id, voter_directory_id) = (self.me.id.0, self.me.directory);
        let listeners = self.myself.endpoints.clone();
        let (asked, request) = if self.is_voter() {
            let request = UpdateRaftVoterRequest {
                cluster_id,
                current_leader_epoch: self.epoch.0,
                voter_id,
                voter_directory_id,
                listeners,
                kraft_version_feature: self.myself.kraft_version_feature.clone(),
                ..UpdateRaftVoterRequest::default()
            };
            (Asked::Update, Request::UpdateRaftVoter(request))
        } else if let Some(old) = self.quorum().with_id(self.me.id) {
            // This node before its disk was replaced: that one must go first.
            let request = RemoveRaftVoterRequest {
                cluster_id,
                voter_id,
                voter_directory_id: old.voter_directory_id,
                ..RemoveRaftVoterRequest::default()
            };
            (Asked::Join, Request::RemoveRaftVoter(request))
        } else {
            let timeout = self.settings.timers.request_timeout;
            let request = AddRaftVoterRequest {
                cluster_id,
                timeout_ms: timeout.as_millis() as i32,
                voter_id,
                voter_directory_id,
                listeners,
                // The new voter must fetch for its own commit: waiting for it would be waiting for itself.
                ack_when_committed: false,
                ..AddRaftVoterRequest::default()
            };
            (Asked::Join, Request::AddRaftVoter(request))
        };
        let next = now.clock.after(self.settings.timers.fetch_timeout);
        if let State::Follower(state) = &mut self.state {
            state.update_deadline = next;
        }
        self.ask(now, leader, &address, asked, request);
        true
    }

    /// Takes in the answer to UpdateRaftVoter; whether it was of use.
    pub(crate) fn updated(&mut self, now: Now, response: &UpdateRaftVoterResponse) -> bool {
        let UpdatedLeader { leader_id, leader_epoch, host, port, .. } = &response.current_leader;
        let port = u16::try_from(*port).ok().filter(|port| *port > 0);
        let address = port.map(|port| Address { host: host.clone(), port });
        if !self.told_by_response(now, *leader_id, *leader_epoch, address) {
            return false;
        }
        if response.error_code == 0
            && let State::Follower(state) = &mut self.state
        {
            state.is_known = true;
        }
        response.error_code == 0
    }
}

fn message(error: Code, why: &str) -> Option<alloc::string::String> {
    (error != Code::None).then(|| why.to_string())
}

fn add_response(error: Code, why: &str) -> Response {
    Response::AddRaftVoter(AddRaftVoterResponse {
        error_code: error.number(),
        error_message: message(error, why),
        ..AddRaftVoterResponse::default()
    })
}

fn remove_response(error: Code, why: &str) -> Response {
    Response::RemoveRaftVoter(RemoveRaftVoterResponse {
        error_code: error.number(),
        error_message: message(error, why),
        ..RemoveRaftVoterResponse::default()
    })
}

/// Why `kraft.version` stays 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum UpgradeError {
    /// This node does not lead.
    #[error("this node does not lead")]
    NotLeader,
    /// The leader has committed nothing in its epoch yet.
    #[error("the leader has not committed anything in its epoch yet")]
    NotReady,
    /// A voter has not told who it is: it is down, or too old.
    #[error("voter {0} has not told its directory and endpoints: it is down, or too old")]
    Unknown(NodeId),
    /// A voter does not support it.
    #[error("voter {0} does not support kraft.version 1")]
    Unsupported(NodeId),
}
