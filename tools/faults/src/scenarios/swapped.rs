//! S19: a data directory that is not the one it was.

use std::fs;

use anyhow::{Context, ensure};

use super::damage::copy;
use crate::stage::{Launch, Stage};

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
    let two = |stage: &Stage, name: &str| {
        let mut launch = stage.launch(&format!("{name}-a"));
        let dirs = ["a", "b"].map(|it| stage.folder().join(format!("{name}-{it}")));
        let dirs = dirs.map(|it| it.display().to_string());
        launch.set("log.dirs", &dirs.join(","));
        launch
    };
    let (ours, theirs) = (two(stage, "ours"), two(stage, "theirs"));
    for launch in [&ours, &theirs] {
        let status = launch.start()?.stop()?;
        ensure!(status.success(), "the daemon ended with {status}");
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
    // Its own again: all is well.
    fs::remove_dir_all(&b)?;
    fs::rename(&aside, &b)?;
    let status = ours.start()?.stop()?;
    ensure!(status.success(), "the daemon ended with {status}");
    Ok(())
}

fn refuses(stage: &mut Stage, what: &str, launch: &Launch, names: &str) -> anyhow::Result<()> {
    let (status, said) = launch.start_refused().with_context(|| what.to_owned())?;
    ensure!(status != 101, "{what}: it panics: {said}");
    ensure!(said.contains(names), "{what}: the complaint does not name {names}: {said}");
    stage.count("refused", 1);
    Ok(())
}
