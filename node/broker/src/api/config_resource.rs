//! How requests name what has configs.

use crate::refusal::Refusal;
use crate::shard::Shard;
use flowstone_metadata::{ConfigResource, ResourceKind};
use flowstone_types::NodeId;
use flowstone_wire::ErrorCode;

/// Kafka's number of a broker's loggers, whose levels are not configs of the cluster.
pub const BROKER_LOGGER: i8 = 8;

/// The resource that a request names. A broker's must be this one, or all of them (the empty name).
pub fn resource(shard: &Shard, kind: i8, name: &str) -> Result<ConfigResource, Refusal> {
    let invalid = |text: String| Refusal::new(ErrorCode::InvalidRequest, text);
    if kind == BROKER_LOGGER {
        return Err(invalid(
            "log levels are set by flowstone.log.filter, not by BROKER_LOGGER configs".to_owned(),
        ));
    }
    let kind = ResourceKind::from_number(kind)
        .ok_or_else(|| invalid(format!("unknown resource type {kind}")))?;
    if kind == ResourceKind::Broker && !name.is_empty() {
        let id = name
            .parse()
            .map_err(|_| invalid(format!("Node id must be an integer, but it is: {name}")))?;
        if NodeId(id) != shard.node.id {
            return Err(invalid(format!(
                "Unexpected broker id, expected {} or empty string, but received {id}",
                shard.node.id
            )));
        }
    }
    Ok(ConfigResource { kind, name: name.to_owned() })
}
