//! ListGroups (key 16): the groups of this broker, by state and type where that is asked for.

use super::group_words::{code, group_id, text, wire};
use crate::client::Client;
use crate::shard::Shard;
use flowstone_coordinators::{Answer, Error, ListGroups, ListedGroup as Group, Request};
use flowstone_wire::messages::list_groups_response::ListedGroup;
use flowstone_wire::messages::{ListGroupsRequest, ListGroupsResponse};
use flowstone_wire::string;
use std::rc::Rc;

/// From this version on the answer has a group's state (KIP-518), and from the other on its type
/// (KIP-848).
const STATE_SINCE: i16 = 4;
const TYPE_SINCE: i16 = 5;

/// Answers with the groups of all partitions, or, where one of them is not loaded yet, an error.
pub async fn handle(
    shard: &Rc<Shard>,
    client: &Client,
    request: ListGroupsRequest,
) -> ListGroupsResponse {
    let list = ListGroups {
        states: request.states_filter.iter().map(text).collect(),
        types: request.types_filter.iter().map(text).collect(),
    };
    let questions = shard.group_partitions().into_iter();
    let questions = questions.map(|id| (id, Request::List(list.clone())));
    let mut listed = Vec::new();
    for answer in shard.ask_partitions(questions).await {
        let Answer::List(result) = answer else { unreachable!("a list's answer") };
        match result {
            Ok(groups) => listed.extend(groups),
            // Another broker coordinates these, or none.
            Err(Error::NotCoordinator) => {}
            Err(error) => return ListGroupsResponse::default().with_error_code(code(Some(error))),
        }
    }
    let groups = listed.iter().map(|group| respond(client.version, group));
    ListGroupsResponse::default().with_groups(groups.collect())
}

fn respond(version: i16, group: &Group) -> ListedGroup {
    let mut listed = ListedGroup::default()
        .with_group_id(group_id(&group.group))
        .with_protocol_type(wire(&group.protocol_type));
    if version >= STATE_SINCE {
        listed.group_state = string(group.state);
    }
    if version >= TYPE_SINCE {
        listed.group_type = string(group.group_type);
    }
    listed
}

#[cfg(test)]
mod tests {
    use super::*;
    use flowstone_coordinators::Text;
    use flowstone_wire::{Api, ReplyTo};

    #[test]
    fn every_version_can_say_what_it_knows() {
        let group = Group {
            group: Text::from("g"),
            protocol_type: Text::from("consumer"),
            state: "Stable",
            group_type: "classic",
        };
        for version in 0..=5 {
            let listed = respond(version, &group);
            assert_eq!(listed.group_state.is_empty(), version < 4);
            assert_eq!(listed.group_type.is_empty(), version < 5);
            let response = ListGroupsResponse::default().with_groups(vec![listed]);
            let reply_to = ReplyTo { api: Api::ListGroups, version, correlation_id: 1 };
            reply_to.encode(&response.into(), &mut Vec::new()).unwrap();
        }
    }
}
