//! SyncGroup (key 14): the leader hands out the assignment, every member gets its part.

use super::group_words::{code, optional, text, wire};
use crate::client::Client;
use crate::shard::Shard;
use flowstone_coordinators::{Answer, Error, Request, SyncGroup, Synced};
use flowstone_wire::messages::{SyncGroupRequest, SyncGroupResponse};
use std::rc::Rc;

/// From this version on a member says which protocol it believes in (KIP-559).
const PROTOCOL_SINCE: i16 = 5;

/// Answers once the leader's assignment is stored.
pub async fn handle(
    shard: &Rc<Shard>,
    client: &Client,
    request: SyncGroupRequest,
) -> SyncGroupResponse {
    if let Err(error) = check(client.version, &request) {
        return respond(Err(error));
    }
    let assignments = request.assignments.iter();
    let sync = SyncGroup {
        group: text(&request.group_id),
        generation: request.generation_id,
        member: text(&request.member_id),
        instance: optional(request.group_instance_id.as_ref()),
        protocol_type: optional(request.protocol_type.as_ref()),
        protocol: optional(request.protocol_name.as_ref()),
        assignments: assignments
            .map(|one| (text(&one.member_id), one.assignment.clone()))
            .collect(),
    };
    let answer = shard.ask_group(&request.group_id, Request::Sync(sync)).await;
    let Answer::Sync(result) = answer else { unreachable!("a sync's answer") };
    respond(result)
}

fn check(version: i16, request: &SyncGroupRequest) -> Result<(), Error> {
    let missing = request.protocol_type.is_none() || request.protocol_name.is_none();
    if version >= PROTOCOL_SINCE && missing {
        return Err(Error::InconsistentGroupProtocol);
    }
    Ok(())
}

fn respond(result: Result<Synced, Error>) -> SyncGroupResponse {
    match result {
        Ok(synced) => SyncGroupResponse::default()
            .with_protocol_type(synced.protocol_type.as_ref().map(wire))
            .with_protocol_name(synced.protocol.as_ref().map(wire))
            .with_assignment(synced.assignment),
        Err(error) => SyncGroupResponse::default().with_error_code(code(Some(error))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flowstone_wire::string;

    /// KIP-559: "the broker will return INCONSISTENT_GROUP_PROTOCOL" where either is missing.
    #[test]
    fn from_version_5_on_the_protocol_must_be_named() {
        let named = |kind: Option<&str>, name: Option<&str>| {
            SyncGroupRequest::default()
                .with_protocol_type(kind.map(string))
                .with_protocol_name(name.map(string))
        };
        assert_eq!(check(4, &named(None, None)), Ok(()));
        assert_eq!(check(5, &named(Some("consumer"), Some("range"))), Ok(()));
        for request in [named(None, Some("range")), named(Some("consumer"), None)] {
            assert_eq!(check(5, &request), Err(Error::InconsistentGroupProtocol));
        }
    }
}
