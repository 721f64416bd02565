//! Heartbeat (key 12): a member of a classic group is alive, and learns of a rebalance.

use super::group_words::{code, optional, text};
use crate::shard::Shard;
use flowstone_coordinators::{Answer, Heartbeat, Request};
use flowstone_wire::messages::{HeartbeatRequest, HeartbeatResponse};
use std::rc::Rc;

/// Answers at once.
pub async fn handle(shard: &Rc<Shard>, request: HeartbeatRequest) -> HeartbeatResponse {
    let heartbeat = Heartbeat {
        group: text(&request.group_id),
        generation: request.generation_id,
        member: text(&request.member_id),
        instance: optional(request.group_instance_id.as_ref()),
    };
    let answer = shard.ask_group(&request.group_id, Request::Heartbeat(heartbeat)).await;
    let Answer::Heartbeat(result) = answer else { unreachable!("a heartbeat's answer") };
    HeartbeatResponse::default().with_error_code(code(result.err()))
}
