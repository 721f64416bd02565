//! S19: a data directory that is not the one it was.

use std::fs;

use std::path::Path;

use anyhow::{Context, ensure};
use flowstone_wire::ErrorCode;

use super::damage::copy;
use super::known::{self, Served};
use crate::client::{ANSWER_WITHIN, Client, create_topic, delete_topic, topic_names};
use crate::stage::{Launch, Stage};

/// Records of a partition when the image is made, and how many come later.
const IMAGED: i64 = 300;
const LATER: i64 = 200;
const PARTITIONS: i32 = 4;
/// What the daemon says of directories that were not closed by the same run.
const OLD_IMAGE: &str = "not closed by the same run";

/// A second daemon on the directory of one that runs.
pub fn second_daemon(stage: &mut Stage) -> anyhow::Result<()> {
    let launch = stage.launch("data");
    let first = launch.start()?;
    let second = stage.launch("data");
    let (status, complaint) = second.start_refused()?;
    ensure!(status == 1, "the second daemon ended with {status}: {complaint}");
    let names_it = complaint.contains(&second.data().display().to_string());
    ensure!(names_it, "the second daemon does not say which directory: {complaint}");
    ensure!(first.is_listening(), "the first daemon serves no more");
    let status = first.stop()?;
    ensure!(status.success(), "the first daemon ended with {status}");
    Ok(())
}

/// Directories of another node, of another cluster, doubled, and one that lost its identity.
pub fn foreign(stage: &mut Stage) -> anyhow::Result<()> {
    let (ours, theirs) = (two(stage, "ours"), two(stage, "theirs"));
    for launch in [&ours, &theirs] {
        start_and_stop(launch)?;
    }
    let folder = stage.folder().to_owned();
    let (a, b) = (folder.join("ours-a"), folder.join("ours-b"));
    let aside = folder.join("aside");
    // Another node's.
    let mut other = ours.on_another_port();
    other.set("node.id", "2");
    refuses(stage, "a directory of node 1 given to node 2", &other, "node.id")?;
    // Another cluster's in the second slot.
    fs::rename(&b, &aside)?;
    copy(&folder.join("theirs-b"), &b)?;
    refuses(stage, "a directory of another cluster", &ours, "to cluster")?;
    // The first one's copy there.
    fs::remove_dir_all(&b)?;
    copy(&a, &b)?;
    refuses(stage, "a copy of the other directory", &ours, "directory.id")?;
    // An empty one.
    fs::remove_dir_all(&b)?;
    fs::create_dir(&b)?;
    refuses(stage, "a directory that was emptied", &ours, "not formatted")?;
    // Its own again: all is well.
    fs::remove_dir_all(&b)?;
    fs::rename(&aside, &b)?;
    start_and_stop(&ours)
}

/// Old images of both directories of a node, or of one of them, are put back.
pub fn restored(stage: &mut Stage) -> anyhow::Result<()> {
    let launch = two(stage, "ours");
    let with = |work: &dyn Fn(&mut Client) -> anyhow::Result<()>| {
        let daemon = launch.start()?;
        work(&mut Client::connect(launch.address(), ANSWER_WITHIN)?)?;
        let status = daemon.stop()?;
        ensure!(status.success(), "the daemon ended with {status}");
        anyhow::Ok(())
    };
    with(&|client| {
        make(client, "kept", 0, IMAGED)?;
        make(client, "dropped", 0, IMAGED)
    })?;
    let folder = stage.folder().to_owned();
    let image = |age: &str| {
        ["a", "b"].iter().try_for_each(|dir| {
            copy(&folder.join(format!("ours-{dir}")), &folder.join(format!("{age}-{dir}")))
        })
    };
    image("old")?;
    with(&|client| {
        for partition in 0..PARTITIONS {
            known::fill_from(client, "kept", partition, IMAGED, LATER)?;
        }
        let code = delete_topic(client, "dropped")?;
        ensure!(code == ErrorCode::None, "cannot delete a topic: {code}");
        make(client, "later", 0, LATER)
    })?;
    image("new")?;
    // The metadata log is in the first.
    for (what, a, b, topics) in [
        ("an old image of both", "old", "old", ["dropped", "kept"]),
        ("an old image of the one without metadata", "new", "old", ["kept", "later"]),
        ("an old image of the one with metadata", "old", "new", ["dropped", "kept"]),
    ] {
        for (dir, age) in [("a", a), ("b", b)] {
            let place = folder.join(format!("ours-{dir}"));
            fs::remove_dir_all(&place)?;
            copy(&folder.join(format!("{age}-{dir}")), &place)?;
        }
        let partitions = partition_dirs(&folder)?;
        let daemon = launch.start().with_context(|| what.to_owned())?;
        let told = daemon.said().contains(OLD_IMAGE);
        ensure!(told == (a != b), "{what}: whether it says {OLD_IMAGE:?}: {told}");
        let mut client = Client::connect(launch.address(), ANSWER_WITHIN)?;
        let there = topic_names(&mut client)?;
        let mut names: Vec<_> = there.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        ensure!(names == topics, "{what}: there are {names:?}, not {topics:?}");
        let ends = ends(&mut client, &topics).with_context(|| what.to_owned())?;
        // What the image had is there; nothing else is, where all of it is old.
        for (topic, partition, end) in &ends {
            let may_be: &[i64] = match (*topic, a == b) {
                ("kept" | "dropped", true) => &[IMAGED],
                ("kept", false) => &[IMAGED, IMAGED + LATER],
                // Parts of it are in a directory that knows nothing of it.
                ("dropped", false) => &[0, IMAGED],
                _ => &[0, LATER],
            };
            ensure!(may_be.contains(end), "{what}: {topic}-{partition} ends at {end}");
            known::fill_from(&mut client, topic, *partition, *end, 10)
                .with_context(|| what.to_owned())?;
        }
        daemon.kill()?;
        let daemon = launch.start().with_context(|| what.to_owned())?;
        let mut client = Client::connect(launch.address(), ANSWER_WITHIN)?;
        for ((topic, partition, end), again) in ends.iter().zip(self::ends(&mut client, &topics)?) {
            let again = again.2;
            ensure!(again == end + 10, "{what}: {topic}-{partition} ended at {end}, then {again}");
        }
        daemon.kill()?;
        // What nobody knows any more is not taken away.
        let left = partition_dirs(&folder)?;
        for dir in &partitions {
            ensure!(left.contains(dir), "{what}: {dir} is gone");
        }
        stage.count("images", 1);
    }
    Ok(())
}

/// A node with two directories.
fn two(stage: &Stage, name: &str) -> Launch {
    let mut launch = stage.launch(&format!("{name}-a"));
    let dirs = ["a", "b"].map(|it| stage.folder().join(format!("{name}-{it}")));
    launch.set("log.dirs", &dirs.map(|it| it.display().to_string()).join(","));
    launch
}

fn start_and_stop(launch: &Launch) -> anyhow::Result<()> {
    let status = launch.start()?.stop()?;
    ensure!(status.success(), "the daemon ended with {status}");
    Ok(())
}

/// A topic whose every partition has these records.
fn make(client: &mut Client, topic: &str, from: i64, count: i64) -> anyhow::Result<()> {
    let code = create_topic(client, topic, PARTITIONS, &[])?;
    ensure!(code == ErrorCode::None, "cannot create topic {topic}: {code}");
    (0..PARTITIONS).try_for_each(|it| known::fill_from(client, topic, it, from, count))
}

/// How far each partition of these topics is served, every record of it what it was.
fn ends<'a>(client: &mut Client, topics: &[&'a str]) -> anyhow::Result<Vec<(&'a str, i32, i64)>> {
    let mut ends = Vec::new();
    for topic in topics {
        for partition in 0..PARTITIONS {
            let Served { upto, refused } =
                known::served(client, topic, partition, 0, IMAGED + LATER + 10)?;
            ensure!(refused.is_none(), "{topic}-{partition}: {refused:?} at {upto}");
            ends.push((*topic, partition, upto));
        }
    }
    Ok(ends)
}

/// The partitions' directories.
fn partition_dirs(folder: &Path) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    for dir in ["ours-a", "ours-b"] {
        for entry in fs::read_dir(folder.join(dir))?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_deleted = name.contains('.');
            if !is_deleted
                && ["kept-", "dropped-", "later-"].iter().any(|topic| name.starts_with(topic))
            {
                found.push(format!("{dir}/{name}"));
            }
        }
    }
    Ok(found)
}

fn refuses(stage: &mut Stage, what: &str, launch: &Launch, names: &str) -> anyhow::Result<()> {
    let (status, said) = launch.start_refused().with_context(|| what.to_owned())?;
    ensure!(status != 101, "{what}: it panics: {said}");
    ensure!(said.contains(names), "{what}: the complaint does not name {names}: {said}");
    stage.count("refused", 1);
    Ok(())
}
