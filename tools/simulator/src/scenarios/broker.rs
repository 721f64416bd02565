//! The whole daemon, over its sockets: `flowstoned dev` on one machine, clients on others.
//!
//! What runs is [`Boot::run`], as `flowstoned` runs it on each shard: connections, handlers,
//! metadata log, groups, logs and recovery.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use flowstone_broker::{Boot, Served};
use flowstone_config::Config;
use flowstone_runtime::sim::{Control, MachineId, World};

use crate::members::Members;
use crate::nemesis::{Kinds, Victim};
use crate::passing::Passing;
use crate::seeds::Stats;
use crate::workload::{Plan, Workload};

/// Rounds of faults.
const ROUNDS: u64 = 4;
/// The daemon's port.
const PORT: u16 = 9092;
/// Memory for caches and requests: little, so that reads go to the disk.
const MEMORY_BYTES: u64 = 16 << 20;
/// How long clients and daemon may take to finish once everything is mended.
const FINISHES_WITHIN: Duration = Duration::from_mins(10);

/// Plays it.
pub fn play(world: &World) -> Stats {
    let (control, machine) = (world.control(), world.machine("broker"));
    let address = SocketAddr::new(world.address(machine), PORT);
    let draw = |bound: u64| control.random() % bound;
    let shards = 1 + draw(3) as usize;
    // Segments that end every few batches, or never in a run's time.
    let segments = [Some(60), Some(300), None, None, None, None][draw(6) as usize];
    let topics_pass = draw(4) == 0;
    let members = [3, 2].get(draw(12) as usize).copied().unwrap_or(0);
    let segments = segments.map(|ms: u64| ("segment.ms", ms.to_string()));
    let plan = Plan {
        partitions: 1 + draw(3) as i32,
        producers: 3,
        value_bytes_max: 100 << draw(7),
        pause_max: Duration::from_millis(20),
        configs: segments.into_iter().collect(),
    };
    let kinds = Kinds::draw(&control);
    control.note(format_args!("{kinds:?}, {shards} shards, {members} members, {plan:?}"));
    let group = Members::new(world.control(), address, plan.partitions);
    let members: Vec<_> = (0..members).map(|_| world.machine("member")).collect();
    let workload = Workload::new(world.control(), plan, address);
    let clients: Vec<_> =
        workload.clients().into_iter().map(|c| (world.machine("client"), c)).collect();
    let passing = Passing::new(world.control(), address);
    let other = world.machine("client");
    let others: Vec<MachineId> =
        clients.iter().map(|(machine, _)| *machine).chain([other]).chain(members.clone()).collect();
    world.run(async move {
        let all = control.clone();
        let boot = move || start(&all, machine, shards, MEMORY_BYTES);
        boot();
        workload.create_topic().await;
        for (machine, client) in clients {
            control.spawn_on(machine, client);
        }
        let has_members = !members.is_empty();
        for machine in members {
            control.spawn_on(machine, Rc::clone(&group).run());
        }
        if topics_pass {
            control.spawn_on(other, Rc::clone(&passing).run());
        }
        let victim =
            Victim { control: &control, machine, others: &others, boot: &boot, stops: true };
        let mut stats = victim.torment(ROUNDS, kinds).await;
        control.set_time_limit(control.now().after(FINISHES_WITHIN));
        workload.stop().await;
        if topics_pass {
            passing.stop().await;
        }
        group.stop().await;
        stats += victim.torment(0, kinds).await; // Once more from the disk.
        workload.final_check().await;
        if has_members {
            group.final_check().await;
        }
        (stats.sent, stats.acknowledged) = workload.counts();
        stats
    })
}

/// Starts the daemon, with so much memory for caches and requests; where it cannot start, its
/// process ends.
pub fn start(control: &Control, machine: MachineId, shards: usize, memory_bytes: u64) {
    let set = [
        ("offsets.topic.num.partitions", "3"),
        // A run is over in the time that Kafka waits for a group's first members.
        ("group.initial.rebalance.delay.ms", "50"),
        ("group.min.session.timeout.ms", "100"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()));
    let loaded = Config::dev("/data", PORT, &set).unwrap_or_else(|problems| panic!("{problems:?}"));
    let boot = Boot::new(loaded.config, shards, memory_bytes, Served::Dev, BTreeMap::new());
    let (control, kept) = (control.clone(), Rc::new(boot));
    control.clone().boot(machine, shards, move |shard| {
        let (boot, control) = (Arc::clone(&kept), control.clone());
        async move {
            Arc::clone(&boot).run(shard).await;
            if let Err(why) = boot.outcome() {
                control.note(format_args!("the daemon ends: {why:#}"));
                control.crash(machine);
            }
        }
    });
}
