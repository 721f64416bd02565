//! S6: the clock jumps by an hour, there and back, and then ten times a second.
//!
//! libfaketime stands between the daemon and the clock of the day; the monotonic one stays as it is, as
//! it does on a machine whose administrator, or NTP, sets the time.

use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::load::{Load, Plan};
use crate::stage::Stage;

/// Debian's package libfaketime, where it installs itself.
const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";
const JUMPS: [&str; 6] = ["+3600s", "+0s", "-3600s", "+0s", "+3600s", "-3600s"];
/// Time in which nothing jumps, and between two jumps of the strobe.
const CALM_FOR: Duration = Duration::from_secs(2);
const STROBE_EVERY: Duration = Duration::from_millis(100);
const STROBE_FOR: (Duration, Duration) = (Duration::from_secs(3), Duration::from_secs(30));
/// Writes go on in this time, whatever the clock says.
const GOES_ON_WITHIN: Duration = Duration::from_secs(3);

/// Why the clock cannot jump here.
pub fn missing() -> Option<String> {
    let there = Path::new(LIBRARY).is_file();
    (!there).then(|| format!("needs Debian's package libfaketime ({LIBRARY})"))
}

/// See the file.
pub fn jumps(stage: &mut Stage) -> anyhow::Result<()> {
    let clock = stage.folder().join("clock");
    let next = stage.folder().join("clock.next");
    // In one step, since the daemon reads it at any time.
    let set =
        |offset: &str| std::fs::write(&next, offset).and_then(|()| std::fs::rename(&next, &clock));
    set("+0s")?;
    let mut launch = stage.launch("data");
    launch.under(vec![
        "env".to_owned(),
        format!("LD_PRELOAD={LIBRARY}"),
        format!("FAKETIME_TIMESTAMP_FILE={}", clock.display()),
        "FAKETIME_NO_CACHE=1".to_owned(),
        "FAKETIME_DONT_FAKE_MONOTONIC=1".to_owned(),
    ]);
    let mut daemon = launch.start()?;
    let load = Load::start(daemon.address(), Plan::default())?;
    load.wait_for_more(200, GOES_ON_WITHIN)?;
    for jump in JUMPS {
        set(jump)?;
        load.wait_for_more(100, GOES_ON_WITHIN).with_context(|| format!("behind {jump}"))?;
        sleep(CALM_FOR);
        daemon.must_run()?;
        stage.count("jumps", 1);
    }
    let strobe = if stage.rounds(0, 1) == 0 { STROBE_FOR.0 } else { STROBE_FOR.1 };
    let until = Instant::now() + strobe;
    let before = load.acknowledged();
    while Instant::now() < until {
        set(stage.random.pick::<&str>(&JUMPS))?;
        sleep(STROBE_EVERY);
        daemon.must_run()?;
        stage.count("jumps", 1);
    }
    ensure!(load.acknowledged() > before + 100, "writes stand still while the clock strobes");
    set("-3600s")?;
    daemon.kill()?;
    // What it wrote lies in the future of the one that opens it.
    let _daemon = launch.start()?;
    load.wait_for_more(100, GOES_ON_WITHIN)?;
    stage.count("records acknowledged", load.verdict()?.acknowledged);
    Ok(())
}
