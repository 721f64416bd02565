//! JoinGroup (key 11): enters a classic group; answered once its members are together.

use super::group_words::{code, host, optional, text, wire};
use crate::client::Client;
use crate::shard::Shard;
use flowstone_coordinators::{Answer, JoinGroup, JoinRefused, Joined, Protocol, Request, Text};
use flowstone_runtime::random_bytes;
use flowstone_wire::StrBytes;
use flowstone_wire::messages::join_group_response::JoinGroupResponseMember;
use flowstone_wire::messages::{JoinGroupRequest, JoinGroupResponse};
use std::rc::Rc;

/// From this version on the protocol may be null; before, an empty name stands for none.
const NULL_PROTOCOL_SINCE: i16 = 7;

/// Answers when the group's next generation begins, or at once where the member cannot join.
pub async fn handle(
    shard: &Rc<Shard>,
    client: &Client,
    request: JoinGroupRequest,
) -> JoinGroupResponse {
    let join = join(client, &request, u128::from_le_bytes(random_bytes()));
    let answer = shard.ask_group(&request.group_id, Request::Join(join)).await;
    let Answer::Join(result) = answer else { unreachable!("a join's answer") };
    respond(client.version, result)
}

fn join(client: &Client, request: &JoinGroupRequest, fresh: u128) -> JoinGroup {
    let protocols = request.protocols.iter().map(|protocol| Protocol {
        name: text(&protocol.name),
        metadata: protocol.metadata.clone(),
    });
    JoinGroup {
        version: client.version,
        group: text(&request.group_id),
        member: text(&request.member_id),
        instance: optional(request.group_instance_id.as_ref()),
        session_timeout_ms: request.session_timeout_ms,
        rebalance_timeout_ms: request.rebalance_timeout_ms, // Version 0 decodes to -1.
        protocol_type: text(&request.protocol_type),
        protocols: protocols.collect(),
        client_id: optional(client.id.as_ref()).unwrap_or_else(|| Text::from("")),
        client_host: host(client.address.ip()),
        fresh,
    }
}

fn respond(version: i16, result: Result<Joined, JoinRefused>) -> JoinGroupResponse {
    let none = || (version < NULL_PROTOCOL_SINCE).then(StrBytes::default);
    let response = JoinGroupResponse::default();
    match result {
        Ok(joined) => {
            let members = joined.members.into_iter().map(|member| {
                JoinGroupResponseMember::default()
                    .with_member_id(wire(&member.member))
                    .with_group_instance_id(member.instance.as_ref().map(wire))
                    .with_metadata(member.metadata)
            });
            response
                .with_generation_id(joined.generation)
                .with_protocol_type(joined.protocol_type.as_ref().map(wire))
                .with_protocol_name(joined.protocol.as_ref().map(wire).or_else(none))
                .with_leader(wire(&joined.leader))
                .with_skip_assignment(joined.skip_assignment)
                .with_member_id(wire(&joined.member))
                .with_members(members.collect())
        }
        Err(refused) => response
            .with_error_code(code(Some(refused.error)))
            .with_protocol_name(none())
            .with_member_id(wire(&refused.member)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use flowstone_coordinators::{Error, JoinedMember};
    use flowstone_wire::{Api, ReplyTo};

    fn encodes(version: i16, response: JoinGroupResponse) {
        let reply_to = ReplyTo { api: Api::JoinGroup, version, correlation_id: 1 };
        reply_to.encode(&response.into(), &mut Vec::new()).unwrap();
    }

    #[test]
    fn a_client_without_an_id_joins_under_an_empty_name() {
        let client = Client::new(([192, 0, 2, 7], 9).into(), "PLAINTEXT", false);
        let join = join(&client, &JoinGroupRequest::default(), 7);
        assert_eq!((&*join.client_id, &*join.client_host, join.fresh), ("", "/192.0.2.7", 7));
        assert_eq!(join.rebalance_timeout_ms, -1, "version 0 has none");
    }

    #[test]
    fn every_version_can_say_everything() {
        for version in 0..=9 {
            let member = Text::from("m");
            let joined = Joined {
                generation: 1,
                protocol_type: Some(Text::from("consumer")),
                protocol: None,
                leader: member.clone(),
                skip_assignment: version >= 9,
                member: member.clone(),
                members: vec![JoinedMember {
                    member: member.clone(),
                    instance: Some(Text::from("i")),
                    metadata: Bytes::new(),
                }],
            };
            encodes(version, respond(version, Ok(joined)));
            let refused =
                respond(version, Err(JoinRefused { error: Error::MemberIdRequired, member }));
            assert_eq!(refused.generation_id, -1);
            assert_eq!(refused.protocol_name.is_none(), version >= 7);
            assert_eq!(&*refused.member_id, "m", "to come back with");
            encodes(version, refused);
        }
    }
}
