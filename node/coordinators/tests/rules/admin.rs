//! DescribeGroups, ListGroups, DeleteGroups.

use crate::harness::{Coordinator, GROUP, commit, join};
use flowstone_coordinators::{
    Answer, DeleteGroups, DescribeGroups, DescribedGroup, Error, ListGroups, Request, Text,
};

#[test]
fn a_stable_group_is_described_with_its_members() {
    let mut c = Coordinator::new();
    let members = c.stable(&[&["range"], &["range"]]);
    let group = c.describe(GROUP);
    assert_eq!(
        (group.state, &*group.protocol_type, &*group.protocol),
        ("Stable", "consumer", "range")
    );
    assert_eq!(group.members.len(), 2);
    let second = group.members.iter().find(|m| m.member == members[1]).unwrap();
    assert_eq!((&*second.client_id, &*second.client_host), ("c", "/127.0.0.1"));
    assert_eq!((second.metadata.len(), &second.assignment[..]), (13, &[1_u8][..]));

    // While it rebalances, metadata and protocol may not fit each other.
    c.ask(join(&members[0]).request());
    let group = c.describe(GROUP);
    assert_eq!((group.state, &*group.protocol), ("PreparingRebalance", ""));
    assert!(group.members.iter().all(|m| m.metadata.is_empty()));
}

/// KIP-1043: from version 6 on an unknown group is an error with a text, before it was "Dead".
#[test]
fn an_unknown_group_is_dead() {
    let mut c = Coordinator::new();
    for (version, error, message) in
        [(5, None, None), (6, Some(Error::GroupIdNotFound), Some("Group g not found."))]
    {
        let groups = vec![GROUP.into()];
        let id = c.ask(Request::Describe(DescribeGroups { version, groups }));
        let want = DescribedGroup {
            group: GROUP.into(),
            error,
            message: message.map(String::from),
            state: "Dead",
            protocol_type: "".into(),
            protocol: "".into(),
            members: Vec::new(),
        };
        assert_eq!(c.take(id), Some(Answer::Describe(vec![want])));
    }
}

fn list(c: &mut Coordinator, states: &[&str], types: &[&str]) -> Vec<Text> {
    let texts = |names: &[&str]| names.iter().map(|name| Text::from(*name)).collect();
    let id = c.ask(Request::List(ListGroups { states: texts(states), types: texts(types) }));
    match c.take(id) {
        Some(Answer::List(Ok(groups))) => groups.into_iter().map(|g| g.group).collect(),
        other => panic!("{other:?}"),
    }
}

/// KIP-518 (states) and KIP-848 (types); names are compared in any case.
#[test]
fn groups_are_listed_by_state_and_type() {
    let mut c = Coordinator::new();
    c.stable(&[&["range"]]);
    c.commit(commit("simple", "t", 1));
    for (states, types, want) in [
        (&[][..], &[][..], &[GROUP, "simple"][..]),
        (&["stable"], &[], &[GROUP]),
        (&["PREPARINGREBALANCE", " Empty "], &[], &["simple"]),
        (&["nonsense"], &[], &[]),
        (&[], &["classic"], &[GROUP, "simple"]),
        (&["Empty"], &["Classic", "consumer"], &["simple"]),
        (&[], &["consumer"], &[]),
    ] {
        let got = list(&mut c, states, types);
        assert_eq!(got.iter().map(|id| &**id).collect::<Vec<_>>(), want, "{states:?} {types:?}");
    }
}

#[test]
fn only_empty_groups_are_deleted() {
    let mut c = Coordinator::new();
    c.stable(&[&["range"]]);
    c.commit(commit("simple", "t", 1));
    let groups = [GROUP, "simple", "nobody", "simple"].map(Text::from).to_vec();
    let id = c.ask(Request::DeleteGroups(DeleteGroups { groups: groups.clone() }));
    let errors = [
        Some(Error::NonEmptyGroup),
        None,
        Some(Error::GroupIdNotFound),
        Some(Error::GroupIdNotFound),
    ];
    let want = groups.into_iter().zip(errors).collect();
    assert_eq!(c.take(id), Some(Answer::DeleteGroups(want)));
    assert_eq!(c.offset("simple", "t"), -1);
    assert_eq!(c.groups.len(), 1);
}
