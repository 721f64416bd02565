//! DescribeGroups and ListGroups: what operators see.

use crate::error::Error;
use crate::group::{Group, State};
use crate::groups::Groups;
use crate::request::{
    DescribeGroups, DescribedGroup, DescribedMember, ListGroups, ListedGroup, Text,
};
use alloc::format;
use alloc::vec::Vec;
use bytes::Bytes;

/// First version of DescribeGroups in which an unknown group is an error (KIP-1043).
const NOT_FOUND_SINCE: i16 = 6;
/// The only group type we have so far, as Kafka's coordinator writes it.
const GROUP_TYPE: &str = "classic";

impl Groups {
    pub(crate) fn describe(&self, describe: &DescribeGroups) -> Vec<DescribedGroup> {
        let one = |id: &Text| match self.by_id.get(id) {
            Some(group) => group.describe(),
            None if describe.version >= NOT_FOUND_SINCE => DescribedGroup {
                message: Some(format!("Group {id} not found.")),
                state: State::Dead.name(),
                ..DescribedGroup::failed(id, Error::GroupIdNotFound)
            },
            None => DescribedGroup {
                error: None,
                state: State::Dead.name(),
                ..DescribedGroup::failed(id, Error::GroupIdNotFound)
            },
        };
        describe.groups.iter().map(one).collect()
    }

    pub(crate) fn list(&self, list: &ListGroups) -> Vec<ListedGroup> {
        // Kafka trims the names of states, and of types does not.
        let of_state = |state: &str| {
            list.states.is_empty()
                || list.states.iter().any(|s| s.trim().eq_ignore_ascii_case(state))
        };
        let of_type =
            list.types.is_empty() || list.types.iter().any(|t| t.eq_ignore_ascii_case(GROUP_TYPE));
        let wanted = |group: &&Group| of_type && of_state(group.state.name());
        let one = |group: &Group| ListedGroup {
            group: group.id.clone(),
            protocol_type: group.protocol_type.clone().unwrap_or_else(|| Text::from("")),
            state: group.state.name(),
            group_type: GROUP_TYPE,
        };
        self.by_id.values().filter(wanted).map(one).collect()
    }
}

impl Group {
    fn describe(&self) -> DescribedGroup {
        let stable = matches!(self.state, State::Stable { .. });
        // Only then is it certain that members and protocol belong together.
        let protocol = self.protocol.clone().filter(|_| stable);
        let member = |(id, member): (&Text, &crate::member::Member)| DescribedMember {
            member: id.clone(),
            instance: member.instance.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            metadata: (protocol.as_deref())
                .and_then(|protocol| member.metadata(protocol))
                .map_or_else(Bytes::new, Bytes::clone),
            assignment: member.assignment.clone(),
        };
        DescribedGroup {
            group: self.id.clone(),
            error: None,
            message: None,
            state: self.state.name(),
            protocol_type: self.protocol_type.clone().unwrap_or_else(|| Text::from("")),
            members: self.roster.iter().map(member).collect(),
            protocol: protocol.clone().unwrap_or_else(|| Text::from("")),
        }
    }
}
