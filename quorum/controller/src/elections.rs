//! Elections that nobody's coming or going asks for: by an operator, for balance, and as a last resort.
//!
//! Separate from [`crate::change`], which holds one election: here is when they are held. What holds: an unclean
//! one is held only where an operator asks for it (KIP-460) or the topic allows it, and only for what nobody leads.

use crate::Decision;
use crate::active::Active;
use crate::change::{Change, Election, Mover};
use crate::error::{ApiError, ErrorKind};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use flowstone_metadata::MetadataRecord;
use flowstone_types::{NodeId, PartitionId};

/// Most elections of one round; the next follows at once. As Kafka's.
const ELECTIONS_MAX: usize = 1_000;

/// What election an operator asks for (ElectLeaders).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ElectionType {
    /// The first of the replicas is to lead.
    Preferred,
    /// Anybody is to lead what nobody does.
    Unclean,
}

/// The answers of an election: topic, partition, and what became of it.
pub type Elected = Vec<(String, Vec<(i32, Result<(), ApiError>)>)>;

impl Active {
    /// Elects leaders as an operator asks: for the partitions told by topic, or for all; then those where
    /// there is nothing to do are not answered for.
    pub fn elect_leaders(
        &self,
        election: ElectionType,
        partitions: Option<&[(String, Vec<i32>)]>,
    ) -> Decision<Elected> {
        let mut records = Vec::new();
        let mut elect = |topic: &str, index: i32| {
            let record = self.elect_leader(topic, index, election);
            (index, record.map(|record| records.push(record)))
        };
        let answers = if let Some(told) = partitions {
            let of_topic = |(topic, indexes): &(String, Vec<i32>)| {
                let elected = indexes.iter().map(|index| elect(topic, *index)).collect();
                (topic.clone(), elected)
            };
            told.iter().map(of_topic).collect()
        } else {
            let mut answers = Vec::new();
            for topic in self.image.topics.iter() {
                let all =
                    (0..topic.partition_count() as i32).map(|index| elect(&topic.name, index));
                let needless = |error: &ApiError| error.kind == ErrorKind::ElectionNotNeeded;
                let told = all.filter(|(_, elected)| !elected.as_ref().is_err_and(needless));
                answers.push((topic.name.to_string(), told.collect()));
            }
            answers
        };
        Decision::each(records, answers)
    }

    fn elect_leader(
        &self,
        topic: &str,
        index: i32,
        election: ElectionType,
    ) -> Result<MetadataRecord, ApiError> {
        let unknown = |what: String| ApiError::new(ErrorKind::UnknownTopicOrPartition, what);
        let topic = self.image.topics.named(topic);
        let topic = topic.ok_or_else(|| unknown("There is no such topic.".to_string()))?;
        let partition = topic.partition(index);
        let partition = partition
            .ok_or_else(|| unknown(format!("There is no partition {}-{index}.", topic.name)))?;
        let (needless, election, unavailable) = match election {
            ElectionType::Preferred => {
                let led = partition.replicas.first() == Some(&partition.leader);
                (led, Election::Preferred, ErrorKind::PreferredLeaderNotAvailable)
            }
            ElectionType::Unclean => {
                let led = partition.leader != NodeId::NONE;
                (led, Election::Unclean, ErrorKind::EligibleLeadersNotAvailable)
            }
        };
        if needless {
            return Err(ErrorKind::ElectionNotNeeded.into());
        }
        let record = self.election(PartitionId { topic: topic.id, index }, election);
        record.ok_or_else(|| unavailable.into())
    }

    fn election(&self, id: PartitionId, election: Election) -> Option<MetadataRecord> {
        let before = self.image.topics.partition(id).expect("a partition of the image");
        let rules = self.rules(id.topic);
        let mut change = Change::new(&self.image, id, before, rules, Mover::Nobody);
        change.election = election;
        change.build().map(MetadataRecord::from)
    }

    /// Gives partitions back to their preferred replicas, as many as one round takes; also whether there
    /// may be more.
    pub(crate) fn balance(&self) -> (Vec<MetadataRecord>, bool) {
        let elect = |id| self.election(id, Election::Preferred);
        one_round(self.members.imbalanced.iter().filter_map(elect))
    }

    /// Elects anybody for what nobody leads, of topics that allow that.
    pub(crate) fn elect_uncleanly(&self) -> (Vec<MetadataRecord>, bool) {
        let allowed = self.members.leaderless.iter().filter(|id| self.rules(id.topic).unclean);
        one_round(allowed.filter_map(|id| self.election(id, Election::Unclean)))
    }
}

fn one_round(elections: impl Iterator<Item = MetadataRecord>) -> (Vec<MetadataRecord>, bool) {
    let records: Vec<_> = elections.take(ELECTIONS_MAX).collect();
    let more = records.len() == ELECTIONS_MAX;
    (records, more)
}
