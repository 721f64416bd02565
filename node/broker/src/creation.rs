//! Topics that are created because somebody asked for them, not because somebody created them.

use crate::refusal::Refusal;
use crate::settings::is_internal;
use crate::shard::Shard;
use flowstone_controller::{NewTopic, Random, TopicDefaults, create_topics};
use flowstone_runtime::{random_u64, spawn};
use flowstone_wire::ErrorCode;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use tracing::debug;

/// Topics that a shard creates at one time because clients asked for them. Of those past it nothing
/// is begun; their clients ask again.
const AT_ONCE_MAX: usize = 1000;

/// The topics that a shard is creating because clients asked for them.
#[derive(Default)]
pub struct Creations(RefCell<BTreeSet<String>>);

/// Begins to create topics with the broker's defaults, each once however many ask meanwhile.
pub fn set_about(shard: &Rc<Shard>, names: impl Iterator<Item = String>) {
    let mut under_way = shard.creations.0.borrow_mut();
    let mut begun = Vec::new();
    for name in names {
        if under_way.len() < AT_ONCE_MAX && under_way.insert(name.clone()) {
            begun.push(name);
        }
    }
    drop(under_way);
    if begun.is_empty() {
        return;
    }
    let shard = Rc::clone(shard);
    spawn(async move {
        let topics = begun.iter().map(|name| describe(&shard, name)).collect();
        // Whoever asks again finds the topic, or asks for it anew: there is nobody else to tell.
        if let Err(why) = create(&shard, topics).await {
            debug!("cannot create the topics that clients asked for: {why}");
        }
        let mut under_way = shard.creations.0.borrow_mut();
        for name in &begun {
            under_way.remove(name);
        }
    });
}

/// Sees to it that one of the cluster's own topics exists.
pub async fn ensure_internal(shard: &Rc<Shard>, name: &str) -> Result<(), Refusal> {
    if shard.image().topics.named(name).is_some() {
        return Ok(());
    }
    let answers = create(shard, vec![describe(shard, name)]).await?;
    match answers.into_iter().find_map(|(_, code)| code) {
        // Another was faster.
        None | Some(ErrorCode::TopicAlreadyExists) => Ok(()),
        Some(code) => Err(Refusal::new(
            ErrorCode::CoordinatorNotAvailable,
            format!("cannot create {name}: {}", code.message()),
        )),
    }
}

fn describe(shard: &Shard, name: &str) -> NewTopic {
    let settings = &shard.node.config.settings;
    let mut topic = NewTopic {
        name: name.to_owned(),
        partitions: -1,
        replication_factor: -1,
        assignments: Vec::new(),
        configs: Vec::new(),
    };
    if is_internal(name) {
        let set = |key: &str, value: String| (key.to_owned(), Some(value));
        topic.partitions = settings.offsets_topic_partitions;
        topic.replication_factor = settings.offsets_topic_replication_factor;
        topic.configs = vec![
            set("cleanup.policy", "compact".to_owned()),
            set("compression.type", "producer".to_owned()),
            set("segment.bytes", settings.offsets_topic_segment_bytes.to_string()),
        ];
    }
    topic
}

async fn create(
    shard: &Rc<Shard>,
    topics: Vec<NewTopic>,
) -> Result<Vec<(String, Option<ErrorCode>)>, Refusal> {
    let (defaults, config) = (topic_defaults(shard), (*shard.config()).clone());
    let answers = shard
        .decide(move |image, _| {
            let mut draw = random_u64;
            let random = &mut Random(&mut draw);
            create_topics(image, &topics, defaults, false, &config, random)
        })
        .await?;
    let code = |answer: Result<_, _>| answer.err().map(|error| Refusal::from(error).code);
    Ok(answers.into_iter().map(|(name, answer)| (name, code(answer.map(drop)))).collect())
}

/// What -1 stands for in a request to create a topic.
pub fn topic_defaults(shard: &Shard) -> TopicDefaults {
    let settings = &shard.node.config.settings;
    TopicDefaults {
        partitions: settings.num_partitions,
        replication_factor: settings.default_replication_factor as i16,
    }
}
