//! What libFuzzer drives: the target that FLOWSTONE_TARGET names, on the bytes it makes up.
#![no_main]

use std::sync::LazyLock;

use flowstone_fuzz::{Counting, Target, target};
use libfuzzer_sys::fuzz_target;

#[global_allocator]
static COUNTING: Counting = Counting;

static TARGET: LazyLock<&Target> = LazyLock::new(|| {
    let name = std::env::var("FLOWSTONE_TARGET").expect("FLOWSTONE_TARGET names a target");
    target(&name).unwrap_or_else(|| panic!("there is no target {name}"))
});

fuzz_target!(|data: &[u8]| TARGET.check(data));
