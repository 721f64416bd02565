//! DeleteGroups (key 42): empty groups go, with their offsets.

use super::group_words::{by_partition, code, group_id};
use crate::shard::Shard;
use flowstone_coordinators::{Answer, DeleteGroups, Error, Request};
use flowstone_wire::messages::delete_groups_response::DeletableGroupResult;
use flowstone_wire::messages::{DeleteGroupsRequest, DeleteGroupsResponse};
use std::rc::Rc;

/// Answers for every group, once each.
pub async fn handle(shard: &Rc<Shard>, request: DeleteGroupsRequest) -> DeleteGroupsResponse {
    let ask = |groups| Request::DeleteGroups(DeleteGroups { groups });
    let answers = match by_partition(shard, &request.groups_names) {
        Ok(groups) => {
            shard.ask_partitions(groups.into_iter().map(|(id, groups)| (id, ask(groups)))).await
        }
        Err(groups) => vec![ask(groups).refused(Error::NotCoordinator)],
    };
    let results = answers.into_iter().flat_map(|answer| {
        let Answer::DeleteGroups(results) = answer else { unreachable!("a deletion's answer") };
        results
    });
    let results = results.map(|(group, error)| {
        DeletableGroupResult::default().with_group_id(group_id(&group)).with_error_code(code(error))
    });
    DeleteGroupsResponse::default().with_results(results.collect())
}
