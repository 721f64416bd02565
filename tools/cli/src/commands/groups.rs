//! `flowstone groups`: what kafka-consumer-groups does.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context;
use clap::{Args, Subcommand};
use flowstone_wire::messages::describe_groups_response::DescribedGroup;
use flowstone_wire::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use flowstone_wire::messages::{
    DeleteGroupsRequest, DescribeGroupsRequest, GroupId, ListGroupsRequest, OffsetDeleteRequest,
};
use flowstone_wire::{ErrorCode, string, topic_name};
use serde_json::json;

use super::for_each;
use crate::Common;
use crate::client::{Cluster, assigned, commit_without_member, committed, until};
use crate::failure::{Failure, check};
use crate::output::{Table, done, parse_time, print_json, say};

const LIST_EXAMPLES: &str = "Examples:\n  flowstone groups list\n  flowstone groups list --json";
const DESCRIBE_EXAMPLES: &str = "\
Examples:
  flowstone groups describe billing             committed offsets and lag of each partition
  flowstone groups describe billing --members   who reads what
  flowstone groups describe billing --json | jq '[.offsets[].lag] | add'";
const RESET_EXAMPLES: &str = "\
Examples:
  flowstone groups reset-offsets billing --topic orders --to-earliest             shows what would change
  flowstone groups reset-offsets billing --topic orders --to-earliest --execute   changes it
  flowstone groups reset-offsets billing --topic orders:0,3 --to-offset 1200 --execute
  flowstone groups reset-offsets billing --all-topics --shift-by -100 --execute
  flowstone groups reset-offsets billing --topic orders --to-time 2026-03-01T12:00Z --execute

The group must have no members meanwhile.";
const DELETE_EXAMPLES: &str = "Examples:\n  flowstone groups delete billing audit";
const DELETE_OFFSETS_EXAMPLES: &str =
    "Examples:\n  flowstone groups delete-offsets billing --topic orders --topic audit:0,1";

/// `flowstone groups`.
#[derive(Subcommand, Debug)]
pub enum Groups {
    /// List groups
    #[command(after_help = LIST_EXAMPLES)]
    List,
    /// Show a group's offsets and lag, or its members
    #[command(after_help = DESCRIBE_EXAMPLES)]
    Describe {
        /// The group
        group: String,
        /// Its members instead of its offsets
        #[arg(short, long)]
        members: bool,
    },
    /// Change where a group reads on; without --execute only shows what would change
    #[command(after_help = RESET_EXAMPLES)]
    ResetOffsets(Reset),
    /// Delete groups that have no members, with their offsets
    #[command(after_help = DELETE_EXAMPLES)]
    Delete {
        /// The groups
        #[arg(required = true)]
        groups: Vec<String>,
    },
    /// Delete a group's offsets of topics that it no longer reads
    #[command(after_help = DELETE_OFFSETS_EXAMPLES)]
    DeleteOffsets {
        /// The group
        group: String,
        /// A topic, or TOPIC:PARTITION,...; may be given several times
        #[arg(short, long, required = true, value_parser = scope)]
        topic: Vec<Scope>,
    },
}

/// `flowstone groups reset-offsets`.
#[derive(Args, Debug)]
pub struct Reset {
    /// The group
    group: String,
    /// A topic, or TOPIC:PARTITION,...; may be given several times
    #[arg(short, long, value_parser = scope, required_unless_present = "all_topics")]
    topic: Vec<Scope>,
    /// Every topic that the group has committed offsets of
    #[arg(long, conflicts_with = "topic")]
    all_topics: bool,
    #[command(flatten)]
    target: Target,
    /// Do it
    #[arg(long)]
    execute: bool,
}

#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
struct Target {
    /// To the first record there is
    #[arg(long)]
    to_earliest: bool,
    /// To the end
    #[arg(long)]
    to_latest: bool,
    /// To this offset
    #[arg(long, value_name = "OFFSET")]
    to_offset: Option<i64>,
    /// By so many records, backwards where negative
    #[arg(long, value_name = "COUNT", allow_hyphen_values = true)]
    shift_by: Option<i64>,
    /// To the first record as late as this
    #[arg(long, value_name = "TIME", value_parser = time)]
    to_time: Option<i64>,
}

/// A topic, and which of its partitions; all without any.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Scope {
    topic: String,
    partitions: Vec<i32>,
}

type Offsets = BTreeMap<String, BTreeMap<i32, i64>>;

impl Groups {
    /// Does it.
    pub fn run(self, common: &Common) -> anyhow::Result<()> {
        let mut cluster = common.connect()?;
        match self {
            Self::List => list(common, &mut cluster),
            Self::Describe { group, members: false } => describe(common, &mut cluster, &group),
            Self::Describe { group, members: true } => members(common, &mut cluster, &group),
            Self::ResetOffsets(reset) => reset.run(common, &mut cluster),
            Self::Delete { groups } => for_each(&groups, |group| {
                delete(&mut cluster, group)?;
                let answer = json!({ "group": group, "deleted": true });
                Ok(done(common.json, &answer, format_args!("{group} deleted"))?)
            }),
            Self::DeleteOffsets { group, topic } => {
                delete_offsets(&mut cluster, &group, &topic)?;
                let names: Vec<_> = topic.iter().map(|scope| &*scope.topic).collect();
                let answer = json!({ "group": group, "deleted_offsets_of": names });
                let line = format!("{group}: offsets of {} deleted", names.join(", "));
                Ok(done(common.json, &answer, line)?)
            }
        }
    }
}

fn list(common: &Common, cluster: &mut Cluster) -> anyhow::Result<()> {
    cluster.refresh(Some(&[]))?;
    let brokers: Vec<i32> = cluster.brokers.keys().copied().collect();
    let mut groups = BTreeMap::new();
    for broker in brokers {
        let response = cluster.call(broker, |_| ListGroupsRequest::default())?;
        check(|| format!("groups of broker {broker}"), response.error_code, None)?;
        for group in response.groups {
            groups.insert(group.group_id.to_string(), (group, broker));
        }
    }
    let mut table = Table::new(&["group", "state", "type", "protocol_type", "coordinator"]);
    for (name, (group, broker)) in groups {
        let (state, kind) = (json!(&*group.group_state), json!(&*group.group_type));
        table.push([json!(name), state, kind, json!(&*group.protocol_type), json!(broker)]);
    }
    Ok(table.print(common.json)?)
}

/// What the coordinator says of a group; `None` for one that has offsets only, or another protocol
/// than the classic one.
fn described(cluster: &mut Cluster, group: &str) -> Result<Option<DescribedGroup>, Failure> {
    let node = cluster.coordinator(group)?;
    let timeout = cluster.timeout;
    until(timeout, || {
        let wanted = vec![GroupId(string(group))];
        let response =
            cluster.call(node, |_| DescribeGroupsRequest::default().with_groups(wanted))?;
        let Some(found) = response.groups.into_iter().next() else { return Ok(None) };
        let what = || format!("group {group}");
        match check(what, found.error_code, found.error_message.as_deref()) {
            Err(failure) if failure.is(ErrorCode::GroupIdNotFound) => Ok(None),
            Err(failure) => Err(failure),
            Ok(()) if &*found.group_state == "Dead" => Ok(None),
            Ok(()) => Ok(Some(found)),
        }
    })
}

/// Which member reads each partition.
fn readers(group: Option<&DescribedGroup>) -> BTreeMap<(String, i32), (String, String, String)> {
    let mut readers = BTreeMap::new();
    for member in group.into_iter().flat_map(|group| &group.members) {
        for (topic, partitions) in assigned(&member.member_assignment).unwrap_or_default() {
            for partition in partitions {
                let [id, client, host] =
                    [&member.member_id, &member.client_id, &member.client_host]
                        .map(ToString::to_string);
                readers.insert((topic.clone(), partition), (id, client, host));
            }
        }
    }
    readers
}

fn describe(common: &Common, cluster: &mut Cluster, group: &str) -> anyhow::Result<()> {
    let known = described(cluster, group)?;
    let offsets = committed(cluster, group)?;
    if known.is_none() && offsets.is_empty() {
        let code = ErrorCode::GroupIdNotFound as i16;
        return Err(Failure::Refused { what: format!("group {group}"), code, message: None }.into());
    }
    let readers = readers(known.as_ref());
    let mut partitions: BTreeSet<(String, i32)> = readers.keys().cloned().collect();
    for (topic, committed) in &offsets {
        partitions.extend(committed.keys().map(|index| (topic.clone(), *index)));
    }
    let ends = ends(cluster, &partitions)?;
    let mut table =
        Table::new(&["topic", "partition", "committed", "end", "lag", "member", "client", "host"]);
    let mut total = 0;
    for place in partitions {
        let committed = offsets.get(&place.0).and_then(|offsets| offsets.get(&place.1)).copied();
        let end = ends.get(&place).copied();
        let lag = lag(committed, end);
        total += lag.unwrap_or(0);
        let reader = readers.get(&place);
        table.push([
            json!(place.0),
            json!(place.1),
            json!(committed),
            json!(end),
            json!(lag),
            json!(reader.map(|(id, _, _)| id)),
            json!(reader.map(|(_, client, _)| client)),
            json!(reader.map(|(_, _, host)| host)),
        ]);
    }
    let state = known.as_ref().map_or("-", |group| &*group.group_state);
    let count = known.as_ref().map_or(0, |group| group.members.len());
    if common.json {
        let document = json!({ "group": group, "state": state, "members": count, "lag": total, "offsets": table.to_json() });
        return Ok(print_json(&document)?);
    }
    say(format_args!("{group}  {state}, {count} members, lag {total}"))?;
    Ok(table.print(false)?)
}

/// Records that a group has not committed yet.
fn lag(committed: Option<i64>, end: Option<i64>) -> Option<i64> {
    Some((end? - committed?).max(0))
}

/// Where partitions end. A topic that was deleted since has no end.
fn ends(
    cluster: &mut Cluster,
    partitions: &BTreeSet<(String, i32)>,
) -> Result<BTreeMap<(String, i32), i64>, Failure> {
    let mut by_topic: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for (topic, index) in partitions {
        by_topic.entry(topic).or_default().push(*index);
    }
    let mut ends = BTreeMap::new();
    for (topic, indices) in by_topic {
        match cluster.offsets(topic, &indices, -1) {
            Ok(found) => {
                ends.extend(found.into_iter().map(|(index, end)| ((topic.to_owned(), index), end)));
            }
            Err(failure) if failure.is(ErrorCode::UnknownTopicOrPartition) => {}
            Err(failure) => return Err(failure),
        }
    }
    Ok(ends)
}

fn members(common: &Common, cluster: &mut Cluster, group: &str) -> anyhow::Result<()> {
    let group = described(cluster, group)?.ok_or_else(|| Failure::Refused {
        what: format!("group {group}"),
        code: ErrorCode::GroupIdNotFound as i16,
        message: None,
    })?;
    let mut table = Table::new(&["member", "instance", "client", "host", "partitions"]);
    for member in &group.members {
        let partitions = assigned(&member.member_assignment).unwrap_or_default();
        let partitions: Vec<String> = partitions
            .into_iter()
            .flat_map(|(topic, list)| list.into_iter().map(move |index| format!("{topic}-{index}")))
            .collect();
        table.push([
            json!(&*member.member_id),
            json!(member.group_instance_id.as_deref()),
            json!(&*member.client_id),
            json!(&*member.client_host),
            json!(partitions),
        ]);
    }
    if !common.json {
        let (id, state) = (group.group_id.as_str(), group.group_state.as_str());
        say(format_args!("{id}  {state}, protocol {}", group.protocol_data.as_str()))?;
    }
    Ok(table.print(common.json)?)
}

impl Reset {
    fn run(&self, common: &Common, cluster: &mut Cluster) -> anyhow::Result<()> {
        if let Some(group) = described(cluster, &self.group)?
            && !group.members.is_empty()
        {
            let what = format!("group {} has {} members", self.group, group.members.len());
            let code = ErrorCode::NonEmptyGroup as i16;
            return Err(Failure::Refused { what, code, message: None }.into());
        }
        let current = committed(cluster, &self.group)?;
        let scopes = if self.all_topics {
            let scope = |(topic, offsets): (&String, &BTreeMap<i32, i64>)| Scope {
                topic: topic.clone(),
                partitions: offsets.keys().copied().collect(),
            };
            current.iter().map(scope).collect()
        } else {
            self.topic.clone()
        };
        let mut wanted = Offsets::new();
        let mut table = Table::new(&["topic", "partition", "committed", "new", "changed"]);
        for scope in scopes {
            let indices = if scope.partitions.is_empty() {
                cluster.topic(&scope.topic)?.indices()
            } else {
                scope.partitions.clone()
            };
            let before = current.get(&scope.topic).cloned().unwrap_or_default();
            let new = self.target.offsets(cluster, &scope.topic, &indices, &before)?;
            for (index, offset) in &new {
                let committed = before.get(index);
                let changed = committed != Some(offset);
                table.push([
                    json!(scope.topic),
                    json!(index),
                    json!(committed),
                    json!(offset),
                    json!(changed),
                ]);
            }
            wanted.entry(scope.topic).or_default().extend(new);
        }
        if self.execute {
            commit_without_member(cluster, &self.group, &wanted).with_context(|| {
                format!("group {} is unchanged, or changed in part", self.group)
            })?;
        }
        table.print(common.json)?;
        if !self.execute {
            eprintln!("Nothing was changed: use --execute to do it.");
        }
        Ok(())
    }
}

impl Target {
    /// The new offset of each partition, within what is there.
    fn offsets(
        &self,
        cluster: &mut Cluster,
        topic: &str,
        indices: &[i32],
        current: &BTreeMap<i32, i64>,
    ) -> Result<BTreeMap<i32, i64>, Failure> {
        let starts = cluster.offsets(topic, indices, -2)?;
        let ends = cluster.offsets(topic, indices, -1)?;
        if self.to_earliest {
            return Ok(starts);
        }
        if self.to_latest {
            return Ok(ends);
        }
        let at = self.to_time.map(|ms| cluster.offsets(topic, indices, ms)).transpose()?;
        let new = |index: &i32| {
            let (start, end) = (starts[index], ends[index]);
            let base = current.get(index).copied();
            let wanted = match (self.to_offset, self.shift_by, &at) {
                (Some(offset), _, _) => Some(offset),
                (_, Some(count), _) => base.map(|base| base.saturating_add(count)),
                (_, _, Some(found)) => Some(found[index]).map(|at| if at < 0 { end } else { at }),
                (None, None, None) => None, // clap requires one of them.
            };
            wanted.map(|offset| (*index, offset.clamp(start, end)))
        };
        Ok(indices.iter().filter_map(new).collect())
    }
}

fn delete(cluster: &mut Cluster, group: &str) -> Result<(), Failure> {
    let node = cluster.coordinator(group)?;
    let timeout = cluster.timeout;
    until(timeout, || {
        let wanted = vec![GroupId(string(group))];
        let response =
            cluster.call(node, |_| DeleteGroupsRequest::default().with_groups_names(wanted))?;
        response
            .results
            .iter()
            .try_for_each(|result| check(|| format!("group {group}"), result.error_code, None))
    })
}

fn delete_offsets(cluster: &mut Cluster, group: &str, scopes: &[Scope]) -> Result<(), Failure> {
    let mut topics = Vec::new();
    let current = committed(cluster, group)?;
    for scope in scopes {
        let indices: Vec<i32> = if scope.partitions.is_empty() {
            current.get(&scope.topic).into_iter().flat_map(BTreeMap::keys).copied().collect()
        } else {
            scope.partitions.clone()
        };
        let partitions = indices
            .into_iter()
            .map(|index| OffsetDeleteRequestPartition::default().with_partition_index(index));
        topics.push(
            OffsetDeleteRequestTopic::default()
                .with_name(topic_name(&scope.topic))
                .with_partitions(partitions.collect()),
        );
    }
    let node = cluster.coordinator(group)?;
    let response = cluster.call(node, |_| {
        OffsetDeleteRequest::default().with_group_id(GroupId(string(group))).with_topics(topics)
    })?;
    check(|| format!("group {group}"), response.error_code, None)?;
    for topic in response.topics {
        for partition in topic.partitions {
            let place = format!("{}-{}", topic.name.as_str(), partition.partition_index);
            check(|| format!("offset of {place} in group {group}"), partition.error_code, None)?;
        }
    }
    Ok(())
}

fn scope(text: &str) -> Result<Scope, String> {
    let (topic, partitions) = text.split_once(':').unwrap_or((text, ""));
    let wrong = || "expected TOPIC or TOPIC:PARTITION,...".to_owned();
    let indices = partitions.split(',').filter(|index| !index.is_empty());
    let partitions =
        indices.map(|index| index.parse::<i32>().map_err(|_| wrong())).collect::<Result<_, _>>()?;
    if topic.is_empty() { Err(wrong()) } else { Ok(Scope { topic: topic.to_owned(), partitions }) }
}

fn time(text: &str) -> Result<i64, String> {
    parse_time(text).ok_or_else(|| "expected a time such as 2026-03-01T12:00Z".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_read() {
        let all = Scope { topic: "orders".to_owned(), partitions: vec![] };
        assert_eq!(scope("orders"), Ok(all.clone()));
        assert_eq!(scope("orders:0,3"), Ok(Scope { partitions: vec![0, 3], ..all }));
        assert!(scope(":1").is_err() && scope("a:b").is_err());
    }

    #[test]
    fn lag_needs_both_ends() {
        assert_eq!(lag(Some(3), Some(10)), Some(7));
        assert_eq!(lag(Some(12), Some(10)), Some(0), "committed behind a truncated end");
        assert_eq!((lag(None, Some(10)), lag(Some(3), None)), (None, None));
    }
}
