//! DescribeGroups (key 15): state and members of classic groups.

use super::authorized;
use super::group_words::{by_partition, code, group_id, wire};
use crate::client::Client;
use crate::shard::Shard;
use flowstone_coordinators::{
    Answer, DescribeGroups, DescribedGroup as Group, DescribedMember, Error, Request,
};
use flowstone_wire::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use flowstone_wire::messages::{DescribeGroupsRequest, DescribeGroupsResponse};
use flowstone_wire::string;
use std::rc::Rc;

/// From this version on an error can come in words, too (KIP-1043).
const MESSAGE_SINCE: i16 = 6;

/// Answers for every group, once each.
pub async fn handle(
    shard: &Rc<Shard>,
    client: &Client,
    request: DescribeGroupsRequest,
) -> DescribeGroupsResponse {
    let version = client.version;
    let described = describe(shard, version, &request).await;
    // Versions before 3 cannot ask.
    let operations = request.include_authorized_operations;
    let groups = described.into_iter().map(|group| respond(version, operations, group));
    DescribeGroupsResponse::default().with_groups(groups.collect())
}

async fn describe(shard: &Rc<Shard>, version: i16, request: &DescribeGroupsRequest) -> Vec<Group> {
    let ask = |groups| Request::Describe(DescribeGroups { version, groups });
    let answers = match by_partition(shard, &request.groups) {
        Ok(groups) => {
            shard.ask_partitions(groups.into_iter().map(|(id, groups)| (id, ask(groups)))).await
        }
        Err(groups) => vec![ask(groups).refused(Error::NotCoordinator)],
    };
    let groups = answers.into_iter().flat_map(|answer| {
        let Answer::Describe(groups) = answer else { unreachable!("a description's answer") };
        groups
    });
    groups.collect()
}

fn respond(version: i16, operations: bool, group: Group) -> DescribedGroup {
    let message = group.message.filter(|_| version >= MESSAGE_SINCE);
    let described = DescribedGroup::default()
        .with_error_code(code(group.error))
        .with_error_message(message.map(string))
        .with_group_id(group_id(&group.group))
        .with_group_state(string(group.state))
        .with_protocol_type(wire(&group.protocol_type))
        .with_protocol_data(wire(&group.protocol))
        .with_members(group.members.into_iter().map(member).collect());
    if operations && group.error.is_none() {
        described.with_authorized_operations(authorized::GROUP)
    } else {
        described
    }
}

fn member(member: DescribedMember) -> DescribedGroupMember {
    DescribedGroupMember::default()
        .with_member_id(wire(&member.member))
        .with_group_instance_id(member.instance.as_ref().map(wire))
        .with_client_id(wire(&member.client_id))
        .with_client_host(wire(&member.client_host))
        .with_member_metadata(member.metadata)
        .with_member_assignment(member.assignment)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use flowstone_coordinators::Text;
    use flowstone_wire::{Api, ReplyTo};

    #[test]
    fn every_version_can_say_everything() {
        for version in 0..=6 {
            let group = Group {
                group: Text::from("g"),
                error: Some(Error::GroupIdNotFound),
                message: Some("Group g not found.".to_owned()),
                state: "Dead",
                protocol_type: Text::from(""),
                protocol: Text::from(""),
                members: vec![DescribedMember {
                    member: Text::from("m"),
                    instance: Some(Text::from("i")),
                    client_id: Text::from("c"),
                    client_host: Text::from("/192.0.2.7"),
                    metadata: Bytes::new(),
                    assignment: Bytes::new(),
                }],
            };
            let known = Group { error: None, message: None, ..group.clone() };
            let groups =
                vec![respond(version, version >= 3, group), respond(version, version >= 3, known)];
            assert_eq!(groups[0].authorized_operations, i32::MIN, "not of a group with an error");
            assert_eq!(groups[1].authorized_operations == authorized::GROUP, version >= 3);
            let response = DescribeGroupsResponse::default().with_groups(groups);
            let reply_to = ReplyTo { api: Api::DescribeGroups, version, correlation_id: 1 };
            reply_to.encode(&response.into(), &mut Vec::new()).unwrap();
        }
    }
}
