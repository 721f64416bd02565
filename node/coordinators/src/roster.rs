//! The members of one group, those invited to become members, and what is counted over them.
//!
//! Separate so that the counts have one owner: how many members support a protocol, how many wait
//! for the next generation, and how much memory all of them take, are asked at every JoinGroup and
//! must not be counted anew. Invariant: the counts are those of the members held.

use crate::groups::RequestId;
use crate::member::{Member, Waiting};
use crate::request::{Protocol, Text};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::time::Duration;
use flowstone_types::Instant;

#[derive(Clone, Default, Debug)]
pub(crate) struct Roster {
    members: BTreeMap<Text, Member>,
    /// Member id by group instance id.
    statics: BTreeMap<Text, Text>,
    /// How many members support each protocol.
    support: BTreeMap<Text, usize>,
    awaiting_join: usize,
    /// Ids handed out with `MEMBER_ID_REQUIRED`, and until when each may be used (KIP-394).
    invited: BTreeMap<Text, Instant>,
    /// What members and invited ones take, their assignments aside: those fit one record.
    bytes: usize,
}

impl Roster {
    /// How much memory a client's words take here.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn invite(&mut self, id: Text, until: Instant) {
        self.bytes += id.len();
        let other = self.invited.insert(id, until);
        assert!(other.is_none(), "an id is handed out once");
    }

    /// The invitation of `id` is over, one way or another.
    pub fn uninvite(&mut self, id: &str) {
        if self.invited.remove(id).is_some() {
            self.bytes -= id.len();
        }
    }

    pub fn is_invited(&self, id: &str) -> bool {
        self.invited.contains_key(id)
    }

    /// Who was invited and has not come, and until when each may.
    pub fn invited(&self) -> &BTreeMap<Text, Instant> {
        &self.invited
    }

    pub fn len(&self) -> usize {
        self.members.len()
    }

    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// How many wait for the next generation.
    pub fn awaiting_join(&self) -> usize {
        self.awaiting_join
    }

    pub fn contains(&self, id: &str) -> bool {
        self.members.contains_key(id)
    }

    pub fn member(&self, id: &str) -> Option<&Member> {
        self.members.get(id)
    }

    pub fn member_mut(&mut self, id: &str) -> Option<&mut Member> {
        self.members.get_mut(id)
    }

    /// In order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = (&Text, &Member)> {
        self.members.iter()
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&Text, &mut Member)> {
        self.members.iter_mut()
    }

    /// The ids for which `wanted` holds.
    pub fn ids_where(&self, wanted: impl Fn(&Member) -> bool) -> Vec<Text> {
        self.iter().filter(|(_, member)| wanted(member)).map(|(id, _)| id.clone()).collect()
    }

    /// Who is the member of group instance id `instance`.
    pub fn static_id(&self, instance: &str) -> Option<&Text> {
        self.statics.get(instance)
    }

    /// The longest any member wants to be waited for.
    pub fn rebalance_timeout(&self) -> Duration {
        self.members.values().map(|m| m.rebalance_timeout).max().unwrap_or_default()
    }

    pub fn add(&mut self, id: Text, member: Member) {
        if let Some(instance) = &member.instance {
            let other = self.statics.insert(instance.clone(), id.clone());
            assert!(other.is_none(), "one member an instance id");
        }
        self.bytes += member.bytes(&id);
        self.count_protocols(&member.protocols);
        self.awaiting_join += usize::from(matches!(member.waiting, Waiting::Join(_)));
        let other = self.members.insert(id, member);
        assert!(other.is_none(), "a member joins once");
    }

    pub fn remove(&mut self, id: &str) -> Option<Member> {
        let member = self.members.remove(id)?;
        if let Some(instance) = &member.instance {
            self.statics.remove(instance);
        }
        self.bytes -= member.bytes(id);
        self.discount_protocols(&member.protocols);
        self.awaiting_join -= usize::from(matches!(member.waiting, Waiting::Join(_)));
        Some(member)
    }

    /// Sets what `id` waits on; gives what it waited on before.
    pub fn wait(&mut self, id: &str, waiting: Waiting) -> Waiting {
        let member = self.members.get_mut(id).expect("the caller found this member");
        let before = core::mem::replace(&mut member.waiting, waiting);
        self.awaiting_join += usize::from(matches!(waiting, Waiting::Join(_)));
        self.awaiting_join -= usize::from(matches!(before, Waiting::Join(_)));
        before
    }

    /// The JoinGroup that `id` waits on, which it then does no longer.
    pub fn take_join(&mut self, id: &str) -> Option<RequestId> {
        match self.members.get(id)?.waiting {
            Waiting::Join(request) => {
                self.wait(id, Waiting::Nothing);
                Some(request)
            }
            Waiting::Nothing | Waiting::Sync(_) => None,
        }
    }

    /// The SyncGroup that `id` waits on, which it then does no longer.
    pub fn take_sync(&mut self, id: &str) -> Option<RequestId> {
        match self.members.get(id)?.waiting {
            Waiting::Sync(request) => {
                self.wait(id, Waiting::Nothing);
                Some(request)
            }
            Waiting::Nothing | Waiting::Join(_) => None,
        }
    }

    pub fn set_protocols(&mut self, id: &str, protocols: Vec<Protocol>) {
        let member = self.members.get_mut(id).expect("the caller found this member");
        self.bytes -= member.bytes(id);
        let before = core::mem::replace(&mut member.protocols, protocols);
        self.bytes += member.bytes(id);
        let after = member.protocols.clone();
        self.discount_protocols(&before);
        self.count_protocols(&after);
    }

    /// Whether one of `protocols` is supported by every member.
    pub fn shares_one_of(&self, protocols: &[Protocol]) -> bool {
        protocols.iter().any(|p| self.supported_by_all(&p.name))
    }

    /// The protocol most members prefer among those that all support; among equals, the one the
    /// first of them prefers. `None` where there is none: then a check was missed.
    pub fn vote(&self) -> Option<Text> {
        let mut votes: BTreeMap<&Text, usize> = BTreeMap::new();
        for member in self.members.values() {
            let choice = member.protocols.iter().find(|p| self.supported_by_all(&p.name))?;
            *votes.entry(&choice.name).or_default() += 1;
        }
        let most = votes.values().copied().max()?;
        let first = self.members.values().next()?;
        let mut names = first.protocols.iter().map(|p| &p.name);
        names.find(|name| votes.get(name) == Some(&most)).cloned()
    }

    fn supported_by_all(&self, protocol: &str) -> bool {
        self.support.get(protocol).copied().unwrap_or(0) == self.members.len()
    }

    fn count_protocols(&mut self, protocols: &[Protocol]) {
        for protocol in protocols {
            *self.support.entry(protocol.name.clone()).or_default() += 1;
        }
    }

    fn discount_protocols(&mut self, protocols: &[Protocol]) {
        for protocol in protocols {
            let count = self.support.get_mut(&protocol.name).expect("it was counted");
            *count -= 1;
            if *count == 0 {
                self.support.remove(&protocol.name);
            }
        }
    }
}
