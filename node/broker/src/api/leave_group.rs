//! LeaveGroup (key 13): members leave a classic group, or an operator has them leave (KIP-345).

use super::group_words::{code, optional, text, wire};
use crate::client::Client;
use crate::shard::Shard;
use flowstone_coordinators::{Answer, Error, LeaveGroup, Leaving, Left, Request};
use flowstone_wire::messages::leave_group_response::MemberResponse;
use flowstone_wire::messages::{LeaveGroupRequest, LeaveGroupResponse};
use std::rc::Rc;

/// From this version on a request has several members; before, one, and one error for all.
const MEMBERS_SINCE: i16 = 3;

/// Answers once they have left.
pub async fn handle(
    shard: &Rc<Shard>,
    client: &Client,
    request: LeaveGroupRequest,
) -> LeaveGroupResponse {
    let leave =
        LeaveGroup { group: text(&request.group_id), members: leaving(client.version, &request) };
    let answer = shard.ask_group(&request.group_id, Request::Leave(leave)).await;
    let Answer::Leave(result) = answer else { unreachable!("a leave's answer") };
    respond(client.version, result)
}

fn leaving(version: i16, request: &LeaveGroupRequest) -> Vec<Leaving> {
    if version < MEMBERS_SINCE {
        return vec![Leaving { member: text(&request.member_id), instance: None }];
    }
    let members = request.members.iter().map(|member| Leaving {
        member: text(&member.member_id),
        instance: optional(member.group_instance_id.as_ref()),
    });
    members.collect()
}

fn respond(version: i16, result: Result<Vec<Left>, Error>) -> LeaveGroupResponse {
    match result {
        Err(error) => LeaveGroupResponse::default().with_error_code(code(Some(error))),
        Ok(left) if version < MEMBERS_SINCE => {
            let error = left.iter().find_map(|member| member.error);
            LeaveGroupResponse::default().with_error_code(code(error))
        }
        Ok(left) => {
            let members = left.iter().map(|member| {
                MemberResponse::default()
                    .with_member_id(wire(&member.member))
                    .with_group_instance_id(member.instance.as_ref().map(wire))
                    .with_error_code(code(member.error))
            });
            LeaveGroupResponse::default().with_members(members.collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flowstone_coordinators::Text;
    use flowstone_wire::messages::leave_group_request::MemberIdentity;
    use flowstone_wire::{Api, ReplyTo, string};

    #[test]
    fn old_versions_leave_one_by_one() {
        let old = LeaveGroupRequest::default().with_member_id(string("a"));
        let one = leaving(2, &old);
        assert_eq!((one.len(), &*one[0].member), (1, "a"));
        let identity = |id: &str| MemberIdentity::default().with_member_id(string(id));
        let new = LeaveGroupRequest::default().with_members(vec![identity("a"), identity("b")]);
        assert_eq!(leaving(3, &new).len(), 2);
    }

    #[test]
    fn old_versions_have_one_error_for_all() {
        let left = |error| Ok(vec![Left { member: Text::from("a"), instance: None, error }]);
        for version in 0..=5 {
            let response = respond(version, left(Some(Error::UnknownMemberId)));
            let (top, of_member) = (response.error_code, response.members.first());
            match of_member {
                None => assert_eq!((version < 3, top), (true, 25)),
                Some(member) => assert_eq!((version < 3, top, member.error_code), (false, 0, 25)),
            }
            let reply_to = ReplyTo { api: Api::LeaveGroup, version, correlation_id: 1 };
            reply_to.encode(&response.into(), &mut Vec::new()).unwrap();
            assert_eq!(respond(version, left(None)).error_code, 0);
            assert_eq!(respond(version, Err(Error::NotCoordinator)).error_code, 16);
        }
    }
}
