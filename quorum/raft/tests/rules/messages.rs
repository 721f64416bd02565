//! The messages against Kafka's notation.

use flowstone_raft::messages::*;
use flowstone_schema::{EncodeError, Message};

/// Any instance goes there and back, in every version.
#[test]
fn every_version_of_every_rpc_goes_there_and_back() {
    fn check<M: Message + PartialEq + std::fmt::Debug>() {
        let mut state = 7_u64;
        let mut draw = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state >> 20
        };
        for version in M::VERSION_MIN..=M::VERSION_MAX {
            for _ in 0..50 {
                let message = M::example(version, &mut draw);
                let bytes = message.to_vec(version).unwrap();
                assert_eq!(M::decode(version, &bytes).unwrap(), message, "version {version}");
            }
        }
    }
    check::<VoteRequest>();
    check::<VoteResponse>();
    check::<BeginQuorumEpochRequest>();
    check::<BeginQuorumEpochResponse>();
    check::<EndQuorumEpochRequest>();
    check::<EndQuorumEpochResponse>();
    check::<FetchRequest>();
    check::<FetchResponse>();
    check::<FetchSnapshotRequest>();
    check::<FetchSnapshotResponse>();
    check::<DescribeQuorumRequest>();
    check::<DescribeQuorumResponse>();
    check::<AddRaftVoterRequest>();
    check::<AddRaftVoterResponse>();
    check::<RemoveRaftVoterRequest>();
    check::<RemoveRaftVoterResponse>();
    check::<UpdateRaftVoterRequest>();
    check::<UpdateRaftVoterResponse>();
}

/// KIP-996: a pre-vote must not reach a peer that would take it for a vote.
#[test]
fn a_pre_vote_has_no_old_version() {
    let pre_vote = crate::harness::vote(2, 3, (2, 5), true);
    assert!(matches!(pre_vote.to_vec(1), Err(EncodeError::FieldNotInVersion { .. })));
    assert!(crate::harness::vote(2, 3, (2, 5), false).to_vec(0).is_ok());
}

/// What newer peers are told besides is left out for older ones.
#[test]
fn answers_fit_every_version() {
    let mut one = crate::harness::leader();
    let effects =
        one.request(flowstone_raft::Request::Vote(crate::harness::vote(2, 9, (8, 5), false)));
    let flowstone_raft::Response::Vote(response) = crate::harness::response(&effects) else {
        panic!()
    };
    (0..=2).for_each(|version| assert!(response.to_vec(version).is_ok()));
}
