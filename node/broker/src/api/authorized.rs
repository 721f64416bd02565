//! The `authorized_operations` fields: what a client may do, as a set of bits.
//!
//! Without an authorizer everybody may do everything that the resource knows (KIP-430); the sets
//! are those of Kafka's `AclEntry.supportedOperations`.

use flowstone_wire::Operation::{
    self, Alter, AlterConfigs, ClusterAction, Create, Delete, Describe, DescribeConfigs,
    IdempotentWrite, Read, Write,
};

/// What can be done to a topic.
pub const TOPIC: i32 =
    bits(&[Read, Write, Create, Delete, Alter, Describe, DescribeConfigs, AlterConfigs]);
/// What can be done to a group.
pub const GROUP: i32 = bits(&[Read, Delete, Describe, DescribeConfigs, AlterConfigs]);
/// What can be done to the cluster.
pub const CLUSTER: i32 =
    bits(&[Create, Alter, Describe, ClusterAction, DescribeConfigs, AlterConfigs, IdempotentWrite]);

const fn bits(operations: &[Operation]) -> i32 {
    let mut bits = 0;
    let mut at = 0;
    while at < operations.len() {
        bits |= 1 << operations[at] as i8;
        at += 1;
    }
    bits
}
