//! The cluster as a client sees it: who the brokers are, who leads what, who coordinates which group.
//!
//! Invariant: layouts are only ever replaced by what a broker said later; a connection that failed is
//! forgotten, so the next call makes a new one.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Duration;

use flowstone_wire::client::Request;
use flowstone_wire::messages::find_coordinator_response::Coordinator;
use flowstone_wire::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use flowstone_wire::messages::metadata_request::MetadataRequestTopic;
use flowstone_wire::messages::metadata_response::MetadataResponseTopic;
use flowstone_wire::messages::{
    BrokerId, FindCoordinatorRequest, ListOffsetsRequest, MetadataRequest,
};
use flowstone_wire::{ErrorCode, Uuid, string, topic_name};

use super::{Connection, until};
use crate::failure::{Failure, check};

/// A broker and where it is reached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Broker {
    /// Its node id.
    pub id: i32,
    /// host:port.
    pub address: String,
    /// Its rack.
    pub rack: Option<String>,
}

/// A topic's layout.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// Its id; zero where the cluster has none.
    pub id: Uuid,
    /// Whether it is the cluster's own.
    pub internal: bool,
    /// Its partitions, by index.
    pub partitions: Vec<Partition>,
}

/// A partition's layout.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Partition {
    /// Its index.
    pub index: i32,
    /// Its leader; -1 for none.
    pub leader: i32,
    /// The leader's epoch; -1 where unknown.
    pub epoch: i32,
    /// Brokers that hold it.
    pub replicas: Vec<i32>,
    /// Those in sync.
    pub isr: Vec<i32>,
}

/// The cluster behind some bootstrap addresses.
pub struct Cluster {
    bootstrap: Vec<String>,
    /// How long a request, or a wait for something to settle, may take.
    pub timeout: Duration,
    first: Option<Connection>,
    nodes: BTreeMap<i32, Connection>,
    /// The brokers, by id.
    pub brokers: BTreeMap<i32, Broker>,
    /// The cluster's id, where it tells.
    pub id: Option<String>,
    /// The controller, or -1.
    pub controller: i32,
    topics: BTreeMap<String, Topic>,
}

impl Cluster {
    /// Connects to the first of the addresses (separated by commas) that answers.
    pub fn connect(bootstrap: &str, timeout: Duration) -> Result<Self, Failure> {
        let bootstrap: Vec<String> = bootstrap
            .split(',')
            .map(|address| with_port(address.trim()))
            .collect::<Result<_, _>>()?;
        let mut cluster = Self {
            bootstrap,
            timeout,
            first: None,
            nodes: BTreeMap::new(),
            brokers: BTreeMap::new(),
            id: None,
            controller: -1,
            topics: BTreeMap::new(),
        };
        cluster.any()?;
        Ok(cluster)
    }

    /// A connection to some broker.
    pub fn any(&mut self) -> Result<&mut Connection, Failure> {
        if self.first.is_none() {
            let mut failure = None;
            for address in &self.bootstrap {
                match Connection::open(address, self.timeout) {
                    Ok(connection) => {
                        self.first = Some(connection);
                        break;
                    }
                    Err(error) => failure = Some(error),
                }
            }
            if self.first.is_none() {
                return Err(failure.expect("there is at least one address"));
            }
        }
        Ok(self.first.as_mut().expect("just opened"))
    }

    /// Asks any broker.
    pub fn call_any<R: Request>(
        &mut self,
        build: impl FnOnce(i16) -> R,
    ) -> Result<R::Response, Failure> {
        let result = self.any()?.call(build);
        if matches!(result, Err(Failure::Unreachable { .. })) {
            self.first = None;
        }
        result
    }

    /// A connection to one broker.
    pub fn node(&mut self, id: i32) -> Result<&mut Connection, Failure> {
        if !self.brokers.contains_key(&id) {
            self.refresh(Some(&[]))?;
        }
        match self.nodes.entry(id) {
            Entry::Occupied(open) => Ok(open.into_mut()),
            Entry::Vacant(free) => {
                let broker = self.brokers.get(&id).ok_or_else(|| Failure::Refused {
                    what: format!("broker {id}"),
                    code: ErrorCode::BrokerNotAvailable as i16,
                    message: Some("the cluster has no such broker now".to_owned()),
                })?;
                Ok(free.insert(Connection::open(&broker.address, self.timeout)?))
            }
        }
    }

    /// Asks one broker. A connection that fails is forgotten.
    pub fn call<R: Request>(
        &mut self,
        node: i32,
        build: impl FnOnce(i16) -> R,
    ) -> Result<R::Response, Failure> {
        let result = self.node(node)?.call(build);
        if matches!(result, Err(Failure::Unreachable { .. })) {
            self.nodes.remove(&node);
        }
        result
    }

    /// Learns the brokers and the layout of `topics`, or of all (`None`).
    pub fn refresh(&mut self, topics: Option<&[String]>) -> Result<(), Failure> {
        let response = self.call_any(|version| {
            let wanted = topics.map(|names| {
                let topic = |name: &String| {
                    MetadataRequestTopic::default().with_name(Some(topic_name(name)))
                };
                names.iter().map(topic).collect::<Vec<_>>()
            });
            // Before version 1 an empty list means all, and null cannot be said.
            let wanted = if version == 0 { Some(wanted.unwrap_or_default()) } else { wanted };
            MetadataRequest::default()
                .with_topics(wanted)
                .with_allow_auto_topic_creation(version < 4)
        })?;
        check(|| "metadata".to_owned(), response.error_code, None)?;
        self.brokers = response
            .brokers
            .iter()
            .map(|broker| {
                let rack = broker.rack.as_ref().map(ToString::to_string);
                let address = format!("{}:{}", bracketed(&broker.host), broker.port);
                (broker.node_id.0, Broker { id: broker.node_id.0, address, rack })
            })
            .collect();
        let brokers = &self.brokers;
        self.nodes.retain(|id, open| {
            brokers.get(id).is_some_and(|broker| broker.address == open.address())
        });
        self.id = response.cluster_id.map(|id| id.to_string()).or(self.id.take());
        self.controller = response.controller_id.0;
        if topics.is_none() {
            self.topics.clear();
        }
        for topic in response.topics {
            let name = topic.name.as_ref().map(|name| name.to_string()).unwrap_or_default();
            if topic.error_code == 0 || topic.error_code == ErrorCode::LeaderNotAvailable as i16 {
                self.topics.insert(name, layout(topic));
            } else {
                self.topics.remove(&name);
                if topics.is_some() {
                    check(|| format!("topic {name}"), topic.error_code, None)?;
                }
            }
        }
        Ok(())
    }

    /// Every topic that was learned.
    pub const fn topics(&self) -> &BTreeMap<String, Topic> {
        &self.topics
    }

    /// A topic's layout, once every partition has a leader.
    pub fn topic(&mut self, name: &str) -> Result<Topic, Failure> {
        let leaderless = |topic: &Topic| topic.partitions.iter().any(|p| p.leader < 0);
        if self.topics.get(name).is_none_or(leaderless) {
            let timeout = self.timeout;
            until(timeout, || {
                let refreshed = self.refresh(Some(&[name.to_owned()]));
                if let Err(failure) = refreshed {
                    // A topic that is not there does not come by waiting.
                    return if failure.is(ErrorCode::UnknownTopicOrPartition) {
                        Ok(Err(failure))
                    } else {
                        Err(failure)
                    };
                }
                let ready = self.topics.get(name).is_some_and(|topic| !leaderless(topic));
                let code = if ready { ErrorCode::None } else { ErrorCode::LeaderNotAvailable };
                check(|| format!("topic {name}"), code as i16, None).map(Ok)
            })??;
        }
        Ok(self.topics[name].clone())
    }

    /// Waits until a topic that was just made is known to the brokers.
    pub fn topic_soon(&mut self, name: &str) -> Result<Topic, Failure> {
        until(self.timeout, || self.topic(name))
    }

    /// Forgets a topic's layout: a leader moved.
    pub fn forget(&mut self, topic: &str) {
        self.topics.remove(topic);
    }

    /// The broker that coordinates a group.
    pub fn coordinator(&mut self, group: &str) -> Result<i32, Failure> {
        let timeout = self.timeout;
        until(timeout, || {
            let response = self.call_any(|version| {
                let request = FindCoordinatorRequest::default();
                if version >= 4 {
                    request.with_coordinator_keys(vec![string(group)])
                } else {
                    request.with_key(string(group))
                }
            })?;
            let found = response.coordinators.into_iter().next().unwrap_or_else(|| {
                Coordinator::default()
                    .with_error_code(response.error_code)
                    .with_error_message(response.error_message)
                    .with_node_id(response.node_id)
            });
            let what = || format!("coordinator of group {group}");
            check(what, found.error_code, found.error_message.as_deref())?;
            Ok(found.node_id.0)
        })
    }

    /// Offsets of partitions at a time, or at one of Kafka's special ones (-1 end, -2 beginning). -1
    /// is the answer where no record is as late.
    pub fn offsets(
        &mut self,
        topic: &str,
        partitions: &[i32],
        at: i64,
    ) -> Result<BTreeMap<i32, i64>, Failure> {
        let timeout = self.timeout;
        until(timeout, || {
            let result = self.offsets_once(topic, partitions, at);
            if result.as_ref().is_err_and(Failure::may_pass) {
                self.forget(topic);
            }
            result
        })
    }

    fn offsets_once(
        &mut self,
        topic: &str,
        partitions: &[i32],
        at: i64,
    ) -> Result<BTreeMap<i32, i64>, Failure> {
        let layout = self.topic(topic)?;
        let mut found = BTreeMap::new();
        for (leader, indices) in layout.by_leader(partitions)? {
            let asked = indices.iter().map(|index| {
                ListOffsetsPartition::default().with_partition_index(*index).with_timestamp(at)
            });
            let asked = ListOffsetsTopic::default()
                .with_name(topic_name(topic))
                .with_partitions(asked.collect());
            let response = self.call(leader, |_| {
                ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![asked])
            })?;
            for partition in response.topics.into_iter().flat_map(|topic| topic.partitions) {
                let what = || format!("offsets of {topic}-{}", partition.partition_index);
                check(what, partition.error_code, None)?;
                found.insert(partition.partition_index, partition.offset);
            }
        }
        Ok(found)
    }
}

impl Topic {
    /// The indices of all partitions.
    pub fn indices(&self) -> Vec<i32> {
        self.partitions.iter().map(|partition| partition.index).collect()
    }

    /// A partition, or the error that there is none.
    pub fn partition(&self, index: i32) -> Result<&Partition, Failure> {
        self.partitions.iter().find(|partition| partition.index == index).ok_or_else(|| {
            Failure::Usage(format!(
                "topic {} has no partition {index}: it has {} (0 to {})",
                self.name,
                self.partitions.len(),
                self.partitions.len().saturating_sub(1)
            ))
        })
    }

    /// Which of the partitions each broker leads.
    pub fn by_leader(&self, partitions: &[i32]) -> Result<BTreeMap<i32, Vec<i32>>, Failure> {
        let mut leaders: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
        for index in partitions {
            leaders.entry(self.partition(*index)?.leader).or_default().push(*index);
        }
        Ok(leaders)
    }
}

fn layout(topic: MetadataResponseTopic) -> Topic {
    let ids = |ids: &[BrokerId]| ids.iter().map(|id| id.0).collect();
    let mut partitions: Vec<Partition> = topic
        .partitions
        .iter()
        .map(|partition| Partition {
            index: partition.partition_index,
            leader: partition.leader_id.0,
            epoch: partition.leader_epoch,
            replicas: ids(&partition.replica_nodes),
            isr: ids(&partition.isr_nodes),
        })
        .collect();
    partitions.sort_by_key(|partition| partition.index);
    Topic {
        name: topic.name.map(|name| name.to_string()).unwrap_or_default(),
        id: topic.topic_id,
        internal: topic.is_internal,
        partitions,
    }
}

/// host:port, with Kafka's port where there is none.
fn with_port(address: &str) -> Result<String, Failure> {
    let wrong = || Failure::Usage(format!("{address:?} is no address: expected host:port"));
    if address.is_empty() || address.contains("://") || address.contains(char::is_whitespace) {
        return Err(wrong());
    }
    match address.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
            port.parse::<u16>().map(|_| address.to_owned()).map_err(|_| wrong())
        }
        Some(_) => Ok(format!("{}:9092", bracketed(address.trim_matches(['[', ']'])))),
        None => Ok(format!("{address}:9092")),
    }
}

/// An IPv6 address needs brackets before its port.
fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_a_port() {
        for (given, want) in [
            ("localhost:19092", "localhost:19092"),
            ("localhost", "localhost:9092"),
            ("[::1]:19092", "[::1]:19092"),
            ("[::1]", "[::1]:9092"),
            ("::1", "[::1]:9092"),
        ] {
            assert_eq!(with_port(given).unwrap(), want);
        }
        for bad in ["", "localhost:port", "kafka://localhost:9092", "a b:1", "h:70000"] {
            assert!(matches!(with_port(bad), Err(Failure::Usage(_))), "{bad}");
        }
    }

    #[test]
    fn partitions_are_found_by_their_leader() {
        let partition =
            |index, leader| Partition { index, leader, epoch: 0, replicas: vec![], isr: vec![] };
        let partitions = vec![partition(0, 1), partition(1, 2), partition(2, 1)];
        let topic = Topic { name: "t".to_owned(), id: Uuid::nil(), internal: false, partitions };
        let leaders = topic.by_leader(&[0, 1, 2]).unwrap();
        assert_eq!(leaders, BTreeMap::from([(1, vec![0, 2]), (2, vec![1])]));
        assert!(topic.by_leader(&[3]).unwrap_err().to_string().contains("no partition 3"));
    }
}
