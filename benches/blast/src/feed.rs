//! Keeps the machine's free memory touched, so that no measurement pays for the host's.
//!
//! A virtual machine's host takes free memory back within seconds, and the next touch of each page then costs microseconds: more
//! than a broker spends. So this process holds memory that it has touched, and gives it back in pieces as free memory falls:
//! what others then get is warm. It gives up its memory before anybody else is killed for want of it.

use std::fs;
use std::io::{self, BufRead};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use anyhow::{Context, Result};

/// Free memory is kept above this; below, a piece is given back.
const FREE_MIN: u64 = 640 << 20;
/// Filling ends here.
const FREE_FILLED: u64 = 900 << 20;
/// A piece: far above what an allocator keeps for later, so that giving it back gives it to the kernel.
const PIECE: usize = 64 << 20;
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Obeys lines on standard input until it ends: `fill` (answered with the bytes held), `give`, `rest`.
pub fn run(bytes_max: u64) -> Result<()> {
    // Whoever runs out of memory takes ours first. An unprivileged process may raise its own score.
    fs::write("/proc/self/oom_score_adj", "1000")
        .context("offering ourselves to the OOM killer")?;
    let (sender, orders) = mpsc::channel();
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    let mut held: Vec<Vec<u8>> = Vec::new();
    let mut gives = true;
    loop {
        match orders.recv_timeout(LOOK_EVERY) {
            Ok(order) if order == "fill" => {
                while free_bytes()? > FREE_FILLED && ((held.len() + 1) * PIECE) as u64 <= bytes_max
                {
                    held.push(vec![1; PIECE]);
                }
                println!("{}", held.len() * PIECE);
            }
            Ok(order) => gives = order == "give",
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
        while gives && !held.is_empty() && free_bytes()? < FREE_MIN {
            held.pop();
        }
    }
}

fn free_bytes() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemFree:")).context("MemFree")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib << 10)
}
