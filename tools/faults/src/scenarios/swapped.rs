//! S19: a data directory that is not the one it was.

use anyhow::ensure;

use crate::stage::Stage;

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
