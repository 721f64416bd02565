//! What a harness does to a world: machines, processes, crashes, faults, and how long it runs.

use super::executor::{Step, drop_tasks, spawn_at, step};
use super::faults::{DiskFaults, DiskOperation, NetFaults};
use super::file::cut_writes;
use super::moment::{Image, Moment};
use super::trace::Kind;
use super::world::{HARNESS, Here, Planned, State, enter, is_alive, leave, with};
use flowstone_types::Instant;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::future::poll_fn;
use std::net::IpAddr;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

/// A simulated machine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct MachineId(usize);

/// A world, owned: it ends when this is dropped. One a thread.
pub struct World(Control);

impl World {
    /// An empty, healthy world in which all chance follows from `seed`.
    pub fn new(seed: u64) -> Self {
        enter(State::new(seed));
        Self(Control(()))
    }

    /// A handle that tasks of the harness can keep.
    pub fn control(&self) -> Control {
        self.0.clone()
    }
}

impl Deref for World {
    type Target = Control;

    fn deref(&self) -> &Control {
        &self.0
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let machines = with(|state| {
            state.machines.iter_mut().for_each(|machine| machine.incarnation += 1);
            state.machines.len()
        });
        (0..machines).for_each(|machine| {
            drop_tasks(machine);
        });
        leave();
    }
}

/// The way to the world of this thread.
#[derive(Clone)]
pub struct Control(());

impl Control {
    /// Adds a machine: a new address, an empty disk, nothing running.
    pub fn machine(&self, name: &str) -> MachineId {
        MachineId(with(|state| state.add_machine(name)))
    }

    /// The machine's address.
    pub fn address(&self, machine: MachineId) -> IpAddr {
        with(|state| state.machines[machine.0].address)
    }

    /// Starts a program on a machine where none runs: `main(shard)` on each of `shards` shards, as
    /// `launch` does. When all of them returned, the process is over and its other tasks with it.
    pub fn boot<F, Fut>(&self, machine: MachineId, shards: usize, main: F)
    where
        F: Fn(usize) -> Fut + 'static,
        Fut: Future<Output = ()> + 'static,
    {
        let incarnation = with(|state| {
            let home = &mut state.machines[machine.0];
            assert!(home.mains == 0, "{} runs already", home.name);
            home.powered = true;
            home.mains = shards;
            home.terminated = false;
            home.busy = vec![0; shards];
            let incarnation = home.incarnation;
            state.event(machine.0, Kind::Boot, [shards as u64, incarnation, 0]);
            incarnation
        });
        let main = Rc::new(main);
        for shard in 0..shards {
            let main = Rc::clone(&main);
            spawn_at(Here { machine: machine.0, incarnation, shard, shards }, async move {
                main(shard).await;
                if !is_alive(machine.0, incarnation) {
                    return; // It ended its own process.
                }
                let left = with(|state| {
                    let home = &mut state.machines[machine.0];
                    home.mains -= 1;
                    home.mains
                });
                if left == 0 {
                    end(machine, true);
                }
            });
        }
    }

    /// Starts a task on a machine without shards: a client.
    pub fn spawn_on(&self, machine: MachineId, task: impl Future<Output = ()> + 'static) {
        let incarnation = with(|state| state.machines[machine.0].incarnation);
        spawn_at(Here { machine: machine.0, incarnation, shard: 0, shards: 1 }, task);
    }

    /// Whether a program that was booted runs.
    pub fn is_running(&self, machine: MachineId) -> bool {
        with(|state| state.machines[machine.0].mains > 0)
    }

    /// Returns once no program runs on the machine.
    pub async fn ended(&self, machine: MachineId) {
        poll_fn(|context| {
            with(|state| {
                let home = &mut state.machines[machine.0];
                if home.mains == 0 {
                    return Poll::Ready(());
                }
                home.waiting_for_end.push(context.waker().clone());
                Poll::Pending
            })
        })
        .await;
    }

    /// Asks the program to stop, as SIGTERM does.
    pub fn terminate(&self, machine: MachineId) {
        with(|state| {
            state.event(machine.0, Kind::Terminate, [0; 3]);
            let home = &mut state.machines[machine.0];
            home.terminated = true;
            std::mem::take(&mut home.waiting_for_termination).into_iter().for_each(Waker::wake);
        });
    }

    /// Ends all that runs on the machine, as SIGKILL does. What was written stays, of writes under
    /// way any sectors may; connections are closed by the kernel.
    pub fn crash(&self, machine: MachineId) {
        end(machine, true);
    }

    /// Cuts the machine's power. Of what was not made durable, anything may be gone; its peers hear
    /// nothing. The next `boot` or `power_on` turns it on again.
    pub fn power_loss(&self, machine: MachineId) {
        end(machine, false);
    }

    /// Turns the machine on without starting a program.
    pub fn power_on(&self, machine: MachineId) {
        with(|state| state.machines[machine.0].powered = true);
    }

    /// What the machine's disk does from now on. Files that were broken for good are well again.
    pub fn set_disk_faults(&self, machine: MachineId, faults: DiskFaults) {
        with(|state| {
            state.machines[machine.0].disk.repair();
            state.machines[machine.0].disk_faults = faults;
        });
    }

    /// Lets the next `times` operations of a kind fail (EIO) on files, or flushes of directories,
    /// whose path contains `path`. Forgotten when the process ends.
    pub fn fail_next(&self, machine: MachineId, operation: DiskOperation, path: &str, times: u32) {
        let path = path.to_owned();
        let planned = Planned { operation, path, times };
        with(|state| state.machines[machine.0].planned.push(planned));
    }

    /// Limits the machine's disk to so many bytes (`None`: no limit).
    pub fn set_capacity(&self, machine: MachineId, bytes: Option<u64>) {
        with(|state| state.machines[machine.0].disk.set_capacity(bytes));
    }

    /// Bytes that files take on the machine's disk.
    pub fn disk_used(&self, machine: MachineId) -> u64 {
        with(|state| state.machines[machine.0].disk.used())
    }

    /// What the network does from now on.
    pub fn set_net_faults(&self, faults: NetFaults) {
        with(|state| state.net.faults = faults);
    }

    /// Nothing gets from one machine to another (in this direction) until `heal`.
    pub fn cut(&self, from: MachineId, to: MachineId) {
        with(|state| state.cut(from.0, to.0));
    }

    /// Undoes `cut`: what was sent meanwhile arrives.
    pub fn heal(&self, from: MachineId, to: MachineId) {
        with(|state| state.heal(from.0, to.0));
    }

    /// Breaks all connections between two machines; both ends are told.
    pub fn reset_connections(&self, one: MachineId, other: MachineId) {
        with(|state| state.reset_all(one.0, other.0));
    }

    /// Moves the machine's wall clock against the world's.
    pub fn set_wall_clock_skew(&self, machine: MachineId, ms: i64) {
        with(|state| state.machines[machine.0].wall_clock_skew_ms = ms);
    }

    /// Files that are open on a machine, and connections that it has: for finding leaks.
    pub fn open_handles(&self, machine: MachineId) -> (usize, usize) {
        with(|state| (state.machines[machine.0].disk.open_files(), state.connections(machine.0)))
    }

    /// All files of a machine and their bytes, as a running system would read them.
    pub fn files(&self, machine: MachineId) -> BTreeMap<PathBuf, Vec<u8>> {
        with(|state| state.machines[machine.0].disk.files())
    }

    /// Records every moment of the machine's disk from now on.
    pub fn record(&self, machine: MachineId) {
        with(|state| state.machines[machine.0].record = Some(Vec::new()));
    }

    /// Ends the recording: the moments in their order, the last of them now.
    pub fn recorded(&self, machine: MachineId) -> Vec<Moment> {
        with(|state| {
            state.moment(machine.0);
            state.machines[machine.0].record.take().unwrap_or_default()
        })
    }

    /// Notes how much the harness knows by now, for the moments that end from now on.
    pub fn mark(&self, machine: MachineId, mark: u64) {
        with(|state| state.machines[machine.0].mark = mark);
    }

    /// Puts another disk into a machine where nothing runs.
    pub fn insert_disk(&self, machine: MachineId, image: &Image) {
        with(|state| {
            let machine = &mut state.machines[machine.0];
            assert!(machine.mains == 0, "{} runs", machine.name);
            machine.disk = image.0.clone();
        });
    }

    /// The machine's disk as it is now.
    pub fn image(&self, machine: MachineId) -> Image {
        with(|state| {
            let machine = &state.machines[machine.0];
            Moment::of(&machine.disk, machine.writing.values(), machine.mark).image()
        })
    }

    /// Changes a file's bytes behind everybody's back, durably: bit rot, or a test's preparation.
    /// Bytes past the end make it longer.
    pub fn corrupt(&self, machine: MachineId, path: &Path, offset: u64, bytes: &[u8]) {
        with(|state| {
            let disk = &mut state.machines[machine.0].disk;
            let operation = disk.operation();
            let content = disk.content(path);
            content.write(operation, offset, bytes);
            content.flushed_range(operation, offset, bytes.len() as u64);
        });
    }

    /// Runs the world until `task`, of the harness, is done. Panics where nothing can happen any
    /// more, or where the virtual time limit passes.
    pub fn run<T: 'static>(&self, task: impl Future<Output = T> + 'static) -> T {
        let _seed = TellSeed;
        let result = Rc::new(RefCell::new(None));
        let place = Rc::clone(&result);
        self.spawn_on(MachineId(HARNESS), async move {
            let value = task.await;
            *place.borrow_mut() = Some(value);
        });
        loop {
            if let Some(value) = result.borrow_mut().take() {
                return value;
            }
            assert!(step() == Step::Moved, "everything waits for something else");
        }
    }

    /// Runs the world for so long, in virtual time.
    pub fn run_for(&self, duration: Duration) {
        self.run(crate::sleep(duration));
    }

    /// The virtual clock.
    pub fn now(&self) -> Instant {
        super::world::now()
    }

    /// Ends a run (by panic) whose virtual clock passes `limit`: something goes in circles.
    pub fn set_time_limit(&self, limit: Instant) {
        with(|state| state.time_limit = limit.0);
    }

    /// A number from the world's seed, for the harness's own choices.
    pub fn random(&self) -> u64 {
        with(|state| state.rng.bits())
    }

    /// Equal for two runs that took the same path.
    pub fn trace_hash(&self) -> u64 {
        with(|state| state.trace.hash())
    }

    /// How many events there were.
    pub fn events(&self) -> u64 {
        with(|state| state.trace.events())
    }

    /// Keeps the last `lines` events for `trace`.
    pub fn keep_trace(&self, lines: usize) {
        with(|state| state.trace.keep(lines));
    }

    /// The events that were kept, one a line.
    pub fn trace(&self) -> String {
        with(|state| state.trace.text(|machine| state.machines[machine].name.clone()))
    }

    /// Puts a line into the trace, as of the machine whose code runs.
    pub fn note(&self, note: impl fmt::Display) {
        let machine = super::world::here().machine;
        with(|state| state.trace.note(state.now, machine, &note.to_string()));
    }

    /// Whether the process that runs now is still alive: false while its tasks are dropped.
    pub fn is_alive(&self) -> bool {
        let here = super::world::here();
        is_alive(here.machine, here.incarnation)
    }
}

/// The end of a machine's process, with or without the power.
fn end(MachineId(machine): MachineId, powered: bool) {
    assert!(machine != HARNESS, "the harness lives outside");
    with(|state| {
        let home = &mut state.machines[machine];
        home.incarnation += 1; // Whatever is dropped from here on does nothing.
        home.mains = 0;
        home.powered = powered;
        home.terminated = false;
        home.planned.clear();
        home.waiting_for_termination.clear();
        std::mem::take(&mut home.waiting_for_end).into_iter().for_each(Waker::wake);
    });
    let tasks = drop_tasks(machine) as u64;
    with(|state| {
        let kind = if powered { Kind::Kill } else { Kind::PowerLoss };
        state.event(machine, kind, [tasks, 0, 0]);
        cut_writes(state, machine);
        state.close_all(machine);
        let State { machines, rng, .. } = state;
        let disk = &mut machines[machine].disk;
        if powered { disk.killed() } else { disk.power_loss(rng) }
    });
}

/// Says which seed a panic belongs to.
struct TellSeed;

impl Drop for TellSeed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let (seed, at, events) =
                with(|state| (state.seed, state.now as f64 / 1e6, state.trace.events()));
            eprintln!("simulation: seed {seed}, at {at:.6} ms of virtual time, event {events}");
        }
    }
}
