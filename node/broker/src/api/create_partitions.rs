//! CreatePartitions (key 37): more partitions for a topic.

use crate::refusal::Refusal;
use crate::shard::Shard;
use flowstone_controller::{NewPartitions, Random, create_partitions};
use flowstone_runtime::random_u64;
use flowstone_types::NodeId;
use flowstone_wire::messages::create_partitions_request::CreatePartitionsTopic;
use flowstone_wire::messages::create_partitions_response::CreatePartitionsTopicResult;
use flowstone_wire::messages::{CreatePartitionsRequest, CreatePartitionsResponse};
use flowstone_wire::{string, topic_name};
use std::rc::Rc;

/// Answers once the new partitions can be written to.
pub async fn handle(
    shard: &Rc<Shard>,
    request: CreatePartitionsRequest,
) -> CreatePartitionsResponse {
    let topics: Vec<NewPartitions> = request.topics.iter().map(wanted).collect();
    let validate_only = request.validate_only;
    let decided = shard
        .decide(move |image, _| {
            let mut draw = random_u64;
            create_partitions(image, &topics, validate_only, &mut Random(&mut draw))
        })
        .await;
    let results = match decided {
        Ok(answers) => answers
            .into_iter()
            .map(|(name, answer)| result(&name, answer.err().map(Refusal::from).as_ref()))
            .collect(),
        Err(refusal) => {
            request.topics.iter().map(|topic| result(&topic.name, Some(&refusal))).collect()
        }
    };
    CreatePartitionsResponse::default().with_results(results)
}

fn wanted(topic: &CreatePartitionsTopic) -> NewPartitions {
    let assignments = topic.assignments.as_ref().map(|assignments| {
        let nodes = assignments
            .iter()
            .map(|assignment| assignment.broker_ids.iter().map(|id| NodeId(id.0)).collect());
        nodes.collect()
    });
    NewPartitions { name: topic.name.to_string(), count: topic.count, assignments }
}

fn result(name: &str, refusal: Option<&Refusal>) -> CreatePartitionsTopicResult {
    let result = CreatePartitionsTopicResult::default().with_name(topic_name(name));
    match refusal {
        None => result.with_error_message(None),
        Some(refusal) => result
            .with_error_code(refusal.code as i16)
            .with_error_message(Some(string(refusal.text()))),
    }
}
