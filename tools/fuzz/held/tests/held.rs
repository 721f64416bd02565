//! The allocator that counts, installed.

use flowstone_held::{Counting, most_held};
use std::hint::black_box;

#[global_allocator]
static COUNTING: Counting = Counting;

#[test]
fn the_most_that_was_held_at_once_is_told_and_only_of_this_thread() {
    let kept = black_box(vec![0_u8; 1 << 20]); // From before: not counted.
    let two_at_once = most_held(|| {
        drop(black_box(vec![1_u8; 30_000]));
        let first = black_box(Vec::<u8>::with_capacity(20_000));
        drop((black_box(vec![1_u8; 15_000]), first));
    });
    assert_eq!(two_at_once, 35_000);
    let of_another = most_held(|| {
        std::thread::spawn(|| drop(black_box(vec![1_u8; 1 << 20]))).join().unwrap();
    });
    assert!(of_another < 1 << 16, "{of_another}");
    assert_eq!(most_held(|| drop(kept)), 0);
}
