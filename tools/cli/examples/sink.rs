//! A broker that stores nothing, to see what `flowstone bench` costs itself:
//!
//! ```text
//! cargo run --release -p flowstone-cli --example sink &
//! flowstone -b 127.0.0.1:PORT bench produce --batch-bytes 1MB
//! ```
//!
//! It prints its address, and runs until its standard input ends.

#[path = "../tests/common/sink.rs"]
mod sink;

fn main() -> std::io::Result<()> {
    println!("{}", sink::start());
    std::io::stdin().read_line(&mut String::new()).map(|_| ())
}
