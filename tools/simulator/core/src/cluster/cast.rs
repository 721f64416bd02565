//! Which machine is whose, and what everything that happens at one needs.
//!
//! Separate because controllers, brokers and clients all act on the same stage.

use flowstone_types::NodeId;

use super::message::{Io, Message};
use super::truth::Truth;
use crate::story::Story;
use crate::world::{Machine, World};

/// What everything that happens at a machine needs.
pub struct Stage<'a> {
    /// Where it happens.
    pub world: &'a mut World<Message, Io>,
    /// Where it is told.
    pub story: &'a mut Story,
    /// Against which it is checked.
    pub truth: &'a mut Truth,
}

/// On which machine which duty lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cast {
    /// The controller.
    pub controller: Machine,
    /// The first broker; the others follow.
    pub first_broker: Machine,
    /// How many brokers there are.
    pub brokers: u8,
    /// All clients.
    pub clients: Machine,
}

impl Cast {
    /// The machine of a broker.
    pub const fn machine(&self, node: NodeId) -> Machine {
        self.first_broker + node.0 as u8
    }

    /// Who a machine is, for people.
    pub fn name(&self, machine: Machine) -> String {
        match self.broker(machine) {
            Some(node) => format!("broker {node}"),
            None if machine == self.controller => "the controller".to_owned(),
            None => "the clients".to_owned(),
        }
    }

    /// The broker on this machine, if there is one.
    pub const fn broker(&self, machine: Machine) -> Option<NodeId> {
        match machine.checked_sub(self.first_broker) {
            Some(n) if n < self.brokers => Some(NodeId(n as i32)),
            _ => None,
        }
    }
}
