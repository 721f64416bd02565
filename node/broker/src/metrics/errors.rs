//! The error codes that a response carries, for the counts by code.

use flowstone_wire::ResponseBody;

/// Calls `count` with each error code in the response; successes are left out.
pub fn each(response: &ResponseBody, count: impl FnMut(i16)) {
    codes(response).filter(|code| *code != 0).for_each(count);
}

type Codes<'a> = Box<dyn Iterator<Item = i16> + 'a>;

fn one<'a>(code: i16) -> Codes<'a> {
    Box::new(std::iter::once(code))
}

fn of<T>(items: &[T], code: fn(&T) -> i16) -> Codes<'_> {
    Box::new(items.iter().map(code))
}

/// Of the items within items.
fn within<'a, T, U: 'a>(items: &'a [T], inner: fn(&T) -> &[U], code: fn(&U) -> i16) -> Codes<'a> {
    Box::new(items.iter().flat_map(inner).map(code))
}

fn codes(response: &ResponseBody) -> Codes<'_> {
    use ResponseBody as Body;
    match response {
        Body::Produce(r) => {
            within(&r.responses, |topic| &topic.partition_responses, |p| p.error_code)
        }
        Body::Fetch(r) => Box::new(one(r.error_code).chain(within(
            &r.responses,
            |t| &t.partitions,
            |p| p.error_code,
        ))),
        Body::ListOffsets(r) => within(&r.topics, |topic| &topic.partitions, |p| p.error_code),
        Body::Metadata(r) => Box::new(of(&r.topics, |topic| topic.error_code).chain(within(
            &r.topics,
            |topic| &topic.partitions,
            |p| p.error_code,
        ))),
        Body::OffsetCommit(r) => within(&r.topics, |topic| &topic.partitions, |p| p.error_code),
        Body::OffsetFetch(r) => Box::new(
            one(r.error_code)
                .chain(within(&r.topics, |topic| &topic.partitions, |p| p.error_code))
                .chain(of(&r.groups, |group| group.error_code))
                .chain(r.groups.iter().flat_map(|group| {
                    within(&group.topics, |topic| &topic.partitions, |p| p.error_code)
                })),
        ),
        Body::FindCoordinator(r) => {
            Box::new(one(r.error_code).chain(of(&r.coordinators, |found| found.error_code)))
        }
        Body::JoinGroup(r) => one(r.error_code),
        Body::Heartbeat(r) => one(r.error_code),
        Body::LeaveGroup(r) => {
            Box::new(one(r.error_code).chain(of(&r.members, |member| member.error_code)))
        }
        Body::SyncGroup(r) => one(r.error_code),
        Body::DescribeGroups(r) => of(&r.groups, |group| group.error_code),
        Body::ListGroups(r) => one(r.error_code),
        Body::ApiVersions(r) => one(r.error_code),
        Body::CreateTopics(r) => of(&r.topics, |topic| topic.error_code),
        Body::DeleteTopics(r) => of(&r.responses, |topic| topic.error_code),
        Body::DeleteRecords(r) => within(&r.topics, |topic| &topic.partitions, |p| p.error_code),
        Body::InitProducerId(r) => one(r.error_code),
        Body::OffsetForLeaderEpoch(r) => {
            within(&r.topics, |topic| &topic.partitions, |p| p.error_code)
        }
        Body::DescribeConfigs(r) => of(&r.results, |resource| resource.error_code),
        Body::AlterConfigs(r) => of(&r.responses, |resource| resource.error_code),
        Body::DescribeLogDirs(r) => {
            Box::new(one(r.error_code).chain(of(&r.results, |dir| dir.error_code)))
        }
        Body::CreatePartitions(r) => of(&r.results, |topic| topic.error_code),
        Body::DeleteGroups(r) => of(&r.results, |group| group.error_code),
        Body::IncrementalAlterConfigs(r) => of(&r.responses, |resource| resource.error_code),
        Body::OffsetDelete(r) => Box::new(one(r.error_code).chain(within(
            &r.topics,
            |t| &t.partitions,
            |p| p.error_code,
        ))),
        Body::DescribeQuorum(r) => Box::new(one(r.error_code).chain(within(
            &r.topics,
            |t| &t.partitions,
            |p| p.error_code,
        ))),
        Body::DescribeCluster(r) => one(r.error_code),
        Body::DescribeProducers(r) => {
            within(&r.topics, |topic| &topic.partitions, |p| p.error_code)
        }
        Body::ListConfigResources(r) => one(r.error_code),
        Body::DescribeTopicPartitions(r) => of(&r.topics, |topic| topic.error_code),
    }
}
