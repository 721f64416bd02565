//! The table of APIs: every fact about which requests we speak, once.
//!
//! `ApiVersions`, decoding, encoding, dispatch (the broker matches on [`RequestBody`]), size limits,
//! the authorisation hook and the README's compatibility table come from it. An API is here when
//! the daemon has a handler for it, and not before: what is advertised works.
//!
//! To add one: a row, its shape for each version (see `shape.rs`), a handler. The shape tests say
//! whether the shape is kafka-protocol's.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages as m;
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion};

use crate::api::{LISTS, Listener, Operation, RECORDS, Resource, Row, RunsOn, SMALL};
use crate::newest;

macro_rules! apis {
    ($(
        $key:literal $name:ident($request:ident => $response:ident) $lowest:literal..=$highest:literal,
        advertised from $advertised:literal, $listener:ident, $runs_on:ident,
        $(before $authentication:ident,)? at most $limit:ident,
        by [$($operation:ident $resource:ident),*],
        $about:literal,
        { $($since:literal.. $shape:literal),+ };
    )+) => {
        /// The APIs we speak; as a number, its key on the wire.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(i16)]
        pub enum Api {
            $( #[doc = $about] $name = $key, )+
        }

        impl Api {
            /// Every API we speak, ascending by key.
            pub const ALL: &[Self] = &[$( Self::$name ),+];

            /// The API with this key on the wire.
            pub const fn from_key(key: i16) -> Option<Self> {
                match key {
                    $( $key => Some(Self::$name), )+
                    _ => None,
                }
            }

            /// What the table says about it.
            pub const fn row(self) -> &'static Row {
                match self {
                    $( Self::$name => const { &Row {
                        api: Self::$name,
                        name: stringify!($name),
                        lowest: $lowest,
                        highest: $highest,
                        advertised_lowest: $advertised,
                        listener: Listener::$listener,
                        runs_on: RunsOn::$runs_on,
                        before_authentication: false $(|| stringify!($authentication).len() > 0)?,
                        request_bytes_max: $limit,
                        authorised_by: &[$( (Operation::$operation, Resource::$resource) ),*],
                        about: $about,
                        shapes: &[$( ($since, $shape) ),+],
                    } }, )+
                }
            }

            /// The version by which kafka-protocol writes and reads `version`: the same, except where
            /// Kafka gave a new number to unchanged bytes and kafka-protocol does not know it yet.
            /// What has other bytes is in `newest.rs`.
            fn codec_version(self, version: i16) -> i16 {
                match self {
                    Self::ListOffsets => version.min(10), // 11 adds a special time (KIP-1023).
                    Self::DescribeLogDirs => version.min(4), // 5 changes the response's body.
                    _ => version,
                }
            }

            /// Version of the request header (1, or 2 with tagged fields) that `version` has.
            pub fn request_header_version(self, version: i16) -> i16 {
                let version = self.codec_version(version);
                match self {
                    $( Self::$name => m::$request::header_version(version), )+
                }
            }

            /// Version of the response header (0, or 1 with tagged fields) that `version` has.
            pub fn response_header_version(self, version: i16) -> i16 {
                let version = self.codec_version(version);
                match self {
                    $( Self::$name => m::$response::header_version(version), )+
                }
            }
        }

        /// A decoded request: what the daemon dispatches on.
        #[derive(Clone, PartialEq, Debug)]
        pub enum RequestBody {
            $( #[doc = $about] $name(m::$request), )+
        }

        impl RequestBody {
            /// Decodes a body whose shape has been walked.
            pub(crate) fn decode(api: Api, version: i16, body: &mut Bytes) -> Result<Self, String> {
                match (api, version) {
                    (Api::OffsetCommit, 10..) => {
                        return newest::offset_commit(version, body).map(Self::OffsetCommit);
                    }
                    (Api::OffsetFetch, 10..) => {
                        return newest::offset_fetch(version, body).map(Self::OffsetFetch);
                    }
                    _ => {}
                }
                let version = api.codec_version(version);
                match api {
                    $( Api::$name => m::$request::decode(body, version).map(Self::$name), )+
                }
                .map_err(|error| format!("{error:#}"))
            }

            /// Appends the body as a client writes it.
            pub(crate) fn encode(&self, version: i16, buffer: &mut BytesMut) -> Result<(), String> {
                match (self, version) {
                    (Self::OffsetCommit(request), 10..) => {
                        return newest::put_offset_commit(request, version, buffer);
                    }
                    (Self::OffsetFetch(request), 10..) => {
                        return newest::put_offset_fetch(request, version, buffer);
                    }
                    _ => {}
                }
                let version = self.api().codec_version(version);
                match self {
                    $( Self::$name(request) => request.encode(buffer, version), )+
                }
                .map_err(|error| format!("{error:#}"))
            }

            /// Which API this is a request of.
            pub const fn api(&self) -> Api {
                match self {
                    $( Self::$name(_) => Api::$name, )+
                }
            }
        }

        /// A response, ready to be encoded for the version that was asked with.
        #[derive(Clone, PartialEq, Debug)]
        pub enum ResponseBody {
            $( #[doc = $about] $name(m::$response), )+
        }

        impl ResponseBody {
            /// Decodes a response's body, for what holds our codec against another. Of DescribeLogDirs only
            /// versions below 5: what 5 adds is only written. The peer is trusted, as in [`crate::client`].
            pub fn decode(api: Api, version: i16, body: &mut Bytes) -> Result<Self, String> {
                let version = api.codec_version(version);
                match api {
                    $( Api::$name => m::$response::decode(body, version).map(Self::$name), )+
                }
                .map_err(|error| format!("{error:#}"))
            }

            /// Which API this is a response of.
            pub const fn api(&self) -> Api {
                match self {
                    $( Self::$name(_) => Api::$name, )+
                }
            }

            /// Appends the body to `buffer`, records included.
            pub(crate) fn encode(&self, version: i16, buffer: &mut BytesMut) -> Result<(), String> {
                if let (Self::DescribeLogDirs(response), 5..) = (self, version) {
                    return newest::describe_log_dirs(response, buffer);
                }
                let version = self.api().codec_version(version);
                match self {
                    $( Self::$name(response) => response.encode(buffer, version), )+
                }
                .map_err(|error| format!("{error:#}"))
            }
        }

        $( impl From<m::$response> for ResponseBody {
            fn from(response: m::$response) -> Self {
                Self::$name(response)
            }
        } )+
    };
}

apis! {
    0 Produce(ProduceRequest => ProduceResponse) 3..=13, advertised from 0, Broker, Broker,
        at most RECORDS, by [Write Topic, Write TransactionalId],
        "Append record batches; acks 0, 1 and all; topic ids since 13",
        { 3.. "s24[s[4b]]", 9.. "S24(S(4ST)T)T", 13.. "S24(u(4ST)T)T" };
    1 Fetch(FetchRequest => FetchResponse) 4..=18, advertised from 4, Broker, Broker,
        at most LISTS, by [Read Topic, ClusterAction Cluster],
        "Read record batches; long poll, sessions, topic ids since 13",
        {
            4.. "44441[s[484]]", 5.. "44441[s[4884]]", 7.. "4444144[s[4884]][s[4]]",
            9.. "4444144[s[44884]][s[4]]", 11.. "4444144[s[44884]][s[4]]s",
            12.. "4444144(S(448484T)T)(S(4)T)S<0S>", 13.. "4444144(u(448484T)T)(u(4)T)S<0S>",
            15.. "444144(u(448484T)T)(u(4)T)S<0S;148T>",
            17.. "444144(u(448484<0u>)T)(u(4)T)S<0S;148T>",
            18.. "444144(u(448484<0u;18>)T)(u(4)T)S<0S;148T>"
        };
    2 ListOffsets(ListOffsetsRequest => ListOffsetsResponse) 1..=11, advertised from 1, Broker, Broker,
        at most LISTS, by [Describe Topic],
        "Offsets by time: earliest, latest, greatest timestamp, any timestamp",
        {
            1.. "4[s[48]]", 2.. "41[s[48]]", 4.. "41[s[448]]", 6.. "41(S(448T)T)T",
            10.. "41(S(448T)T)4T"
        };
    3 Metadata(MetadataRequest => MetadataResponse) 0..=13, advertised from 0, Broker, Broker,
        at most LISTS, by [Describe Topic, Create Topic, Create Cluster],
        "Brokers, topics and their leaders; creates topics where that is on",
        {
            0.. "[s]", 4.. "[s]1", 8.. "[s]111", 9.. "(ST)111T", 10.. "(uST)111T", 11.. "(uST)11T"
        };
    8 OffsetCommit(OffsetCommitRequest => OffsetCommitResponse) 2..=10, advertised from 2, Broker, Broker,
        at most LISTS, by [Read Group, Read Topic],
        "Keep a group's position; topic ids since 10",
        {
            2.. "s4s8[s[48s]]", 5.. "s4s[s[48s]]", 6.. "s4s[s[484s]]", 7.. "s4ss[s[484s]]",
            8.. "S4SS(S(484ST)T)T", 10.. "S4SS(u(484ST)T)T"
        };
    9 OffsetFetch(OffsetFetchRequest => OffsetFetchResponse) 1..=10, advertised from 1, Broker, Broker,
        at most LISTS, by [Describe Group, Describe Topic],
        "A group's position, for several groups since 8; topic ids since 10",
        {
            1.. "s[s[4]]", 6.. "S(S(4)T)T", 7.. "S(S(4)T)1T", 8.. "(S(S(4)T)T)1T",
            9.. "(SS4(S(4)T)T)1T", 10.. "(SS4(u(4)T)T)1T"
        };
    10 FindCoordinator(FindCoordinatorRequest => FindCoordinatorResponse) 0..=6, advertised from 0, Broker, Broker,
        at most LISTS, by [Describe Group, Describe TransactionalId, ClusterAction Cluster],
        "Which broker coordinates a group",
        { 0.. "s", 1.. "s1", 3.. "S1T", 4.. "1(S)T" };
    11 JoinGroup(JoinGroupRequest => JoinGroupResponse) 0..=9, advertised from 0, Broker, Broker,
        at most LISTS, by [Read Group],
        "Enter a classic group; static members since 5",
        {
            0.. "s4ss[sb]", 1.. "s44ss[sb]", 5.. "s44sss[sb]", 6.. "S44SSS(SST)T",
            8.. "S44SSS(SST)ST"
        };
    12 Heartbeat(HeartbeatRequest => HeartbeatResponse) 0..=4, advertised from 0, Broker, Broker,
        at most SMALL, by [Read Group],
        "Stay in a classic group",
        { 0.. "s4s", 3.. "s4ss", 4.. "S4SST" };
    13 LeaveGroup(LeaveGroupRequest => LeaveGroupResponse) 0..=5, advertised from 0, Broker, Broker,
        at most LISTS, by [Read Group],
        "Leave a classic group, or have members leave",
        { 0.. "ss", 3.. "s[ss]", 4.. "S(SST)T", 5.. "S(SSST)T" };
    14 SyncGroup(SyncGroupRequest => SyncGroupResponse) 0..=5, advertised from 0, Broker, Broker,
        at most LISTS, by [Read Group],
        "Hand out and get a classic group's assignment",
        { 0.. "s4s[sb]", 3.. "s4ss[sb]", 4.. "S4SS(SST)T", 5.. "S4SSSS(SST)T" };
    15 DescribeGroups(DescribeGroupsRequest => DescribeGroupsResponse) 0..=6, advertised from 0, Broker, Broker,
        at most LISTS, by [Describe Group],
        "State and members of classic groups",
        { 0.. "[s]", 3.. "[s]1", 5.. "(S)1T" };
    16 ListGroups(ListGroupsRequest => ListGroupsResponse) 0..=5, advertised from 0, Broker, Broker,
        at most SMALL, by [Describe Cluster, Describe Group],
        "All groups, by state since 4 and by type since 5",
        { 0.. "", 3.. "T", 4.. "(S)T", 5.. "(S)(S)T" };
    18 ApiVersions(ApiVersionsRequest => ApiVersionsResponse) 0..=4, advertised from 0, BrokerAndController, Broker,
        before authentication, at most SMALL, by [],
        "This table, and the features; any version is answered",
        { 0.. "", 3.. "SST" };
    19 CreateTopics(CreateTopicsRequest => CreateTopicsResponse) 2..=7, advertised from 2, BrokerAndController, Controller,
        at most LISTS, by [Create Cluster, Create Topic],
        "New topics, with configs and placement, or only checked",
        { 2.. "[s42[4[4]][ss]]41", 5.. "(S42(4(4)T)(SST)T)41T" };
    20 DeleteTopics(DeleteTopicsRequest => DeleteTopicsResponse) 1..=6, advertised from 1, BrokerAndController, Controller,
        at most LISTS, by [Delete Topic],
        "Delete topics by name, or by id since 6",
        { 1.. "[s]4", 4.. "(S)4T", 6.. "(SuT)4T" };
    21 DeleteRecords(DeleteRecordsRequest => DeleteRecordsResponse) 0..=2, advertised from 0, Broker, Broker,
        at most LISTS, by [Delete Topic],
        "Drop the records below an offset",
        { 0.. "[s[48]]4", 2.. "(S(48T)T)4T" };
    22 InitProducerId(InitProducerIdRequest => InitProducerIdResponse) 0..=5, advertised from 0, Broker, Broker,
        at most SMALL, by [Write TransactionalId, IdempotentWrite Cluster],
        "An id for an idempotent producer",
        { 0.. "s4", 2.. "S4T", 3.. "S482T" };
    23 OffsetForLeaderEpoch(OffsetForLeaderEpochRequest => OffsetForLeaderEpochResponse) 2..=4, advertised from 2, Broker, Broker,
        at most LISTS, by [Describe Topic, ClusterAction Cluster],
        "Where a leader's epoch ended",
        { 2.. "[s[444]]", 3.. "4[s[444]]", 4.. "4(S(444T)T)T" };
    32 DescribeConfigs(DescribeConfigsRequest => DescribeConfigsResponse) 1..=4, advertised from 1, BrokerAndController, Broker,
        at most LISTS, by [DescribeConfigs Topic, DescribeConfigs Cluster, DescribeConfigs Group],
        "Configs with their sources, synonyms, types and documentation",
        { 1.. "[1s[s]]1", 3.. "[1s[s]]11", 4.. "(1S(S)T)11T" };
    33 AlterConfigs(AlterConfigsRequest => AlterConfigsResponse) 0..=2, advertised from 0, BrokerAndController, Controller,
        at most LISTS, by [AlterConfigs Topic, AlterConfigs Cluster, AlterConfigs Group],
        "Replace all configs of a topic or broker (the old way)",
        { 0.. "[1s[ss]]1", 2.. "(1S(SST)T)1T" };
    35 DescribeLogDirs(DescribeLogDirsRequest => DescribeLogDirsResponse) 1..=5, advertised from 1, Broker, Broker,
        at most LISTS, by [Describe Cluster],
        "Sizes of data directories and of the partitions in them",
        { 1.. "[s[4]]", 2.. "(S(4)T)T" };
    37 CreatePartitions(CreatePartitionsRequest => CreatePartitionsResponse) 0..=3, advertised from 0, BrokerAndController, Controller,
        at most LISTS, by [Alter Topic],
        "More partitions for a topic",
        { 0.. "[s4[[4]]]41", 2.. "(S4((4)T)T)41T" };
    42 DeleteGroups(DeleteGroupsRequest => DeleteGroupsResponse) 0..=2, advertised from 0, Broker, Broker,
        at most LISTS, by [Delete Group],
        "Delete empty groups",
        { 0.. "[s]", 2.. "(S)T" };
    44 IncrementalAlterConfigs(IncrementalAlterConfigsRequest => IncrementalAlterConfigsResponse) 0..=1, advertised from 0, BrokerAndController, Controller,
        at most LISTS, by [AlterConfigs Topic, AlterConfigs Cluster, AlterConfigs Group],
        "Set, delete, append to and subtract from configs",
        { 0.. "[1s[s1s]]1", 1.. "(1S(S1ST)T)1T" };
    47 OffsetDelete(OffsetDeleteRequest => OffsetDeleteResponse) 0..=0, advertised from 0, Broker, Broker,
        at most LISTS, by [Delete Group, Read Topic],
        "Forget a group's position in some topics",
        { 0.. "s[s[4]]" };
    55 DescribeQuorum(DescribeQuorumRequest => DescribeQuorumResponse) 0..=2, advertised from 0, BrokerAndController, Controller,
        at most SMALL, by [Describe Cluster],
        "Leader, voters and observers of the metadata quorum",
        { 0.. "(S(4T)T)T" };
    60 DescribeCluster(DescribeClusterRequest => DescribeClusterResponse) 0..=2, advertised from 0, BrokerAndController, Broker,
        at most SMALL, by [Describe Cluster],
        "Cluster id, brokers or controllers",
        { 0.. "1T", 1.. "11T", 2.. "111T" };
    61 DescribeProducers(DescribeProducersRequest => DescribeProducersResponse) 0..=0, advertised from 0, Broker, Broker,
        at most LISTS, by [Read Topic],
        "Which producers a partition remembers",
        { 0.. "(S(4)T)T" };
    74 ListConfigResources(ListConfigResourcesRequest => ListConfigResourcesResponse) 0..=1, advertised from 0, Broker, Broker,
        at most SMALL, by [DescribeConfigs Cluster],
        "Which resources have configs",
        { 0.. "T", 1.. "(1)T" };
    75 DescribeTopicPartitions(DescribeTopicPartitionsRequest => DescribeTopicPartitionsResponse) 0..=0, advertised from 0, Broker, Broker,
        at most LISTS, by [Describe Topic],
        "Topics and their partitions, page by page",
        { 0.. "(ST)4?{S4T}T" };
}
