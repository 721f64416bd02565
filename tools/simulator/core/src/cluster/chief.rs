//! What a controller of a simulated cluster can be asked, be it the simple one or the shipped one.
//!
//! Separate so that the same brokers and clients live under either.

use std::sync::Arc;

use flowstone_types::{NodeId, PartitionId};

use super::cast::Stage;
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
    /// Creates a topic of one partition; one that may lose what was committed, where it knows unclean elections.
    fn create(
        &mut self,
        topic: u64,
        replicas: &[NodeId],
        may_lose: bool,
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
    /// Sets a config of a partition's topic, or removes it; where it knows configs.
    fn configure(
        &mut self,
        _id: PartitionId,
        _key: &str,
        _value: Option<&str>,
        _stage: &mut Stage<'_>,
    ) -> Result<(), Violation> {
        Ok(())
    }
    /// Has anybody lead a partition that nobody leads, be it uncleanly; where it knows how.
    fn elect(&mut self, _id: PartitionId, _stage: &mut Stage<'_>) -> Result<(), Violation> {
        Ok(())
    }
    /// A broker's connections to it are gone, whatever became of the broker; where it cares.
    fn disconnected(&mut self, _node: NodeId, _stage: &mut Stage<'_>) -> Result<(), Violation> {
        Ok(())
    }
}
