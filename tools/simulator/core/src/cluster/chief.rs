//! What a controller of a simulated cluster can be asked, be it the simple one or the shipped one.
//!
//! Separate so that the same brokers and clients live under either.

use std::sync::Arc;

use flowstone_types::{NodeId, PartitionId};

use super::broker::Stage;
use super::message::{Io, Message, View};
use crate::run::Violation;
use crate::world::Machine;

/// A controller.
pub trait Chief {
    /// The metadata that is committed.
    fn view(&self) -> &Arc<View>;
    /// Partitions that changed since this was asked last.
    fn take_changed(&mut self) -> Vec<PartitionId>;
    /// The process starts.
    fn start(&mut self, stage: &mut Stage<'_>) -> Result<(), Violation>;
    /// The process is gone.
    fn ended(&mut self);
    /// A message arrives.
    fn message(
        &mut self,
        from: Machine,
        message: Message,
        stage: &mut Stage<'_>,
    ) -> Result<(), Violation>;
    /// Its time has come.
    fn wake(&mut self, stage: &mut Stage<'_>) -> Result<(), Violation>;
    /// Something of its machine's own is done.
    fn done(&mut self, what: Io, stage: &mut Stage<'_>) -> Result<(), Violation>;
    /// Creates a topic of one partition.
    fn create(
        &mut self,
        topic: u64,
        replicas: &[NodeId],
        stage: &mut Stage<'_>,
    ) -> Result<(), Violation>;
    /// Deletes a partition's topic.
    fn delete(&mut self, id: PartitionId, stage: &mut Stage<'_>) -> Result<(), Violation>;
    /// Moves a partition to other replicas, or calls that off; where it knows how.
    fn reassign(
        &mut self,
        id: PartitionId,
        replicas: Option<Vec<NodeId>>,
        stage: &mut Stage<'_>,
    ) -> Result<(), Violation>;
}
