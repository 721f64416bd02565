//! Runs many small jobs at once and waits for all of them.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use flowstone_runtime::{local::Notify, spawn};

/// Starts `job` for every item in the same turn of the shard, so that their I/O is one submission;
/// returns the results in the items' order once all are done.
pub async fn gather<T, R, F>(items: Vec<T>, job: impl Fn(T) -> F) -> Vec<R>
where
    R: 'static,
    F: Future<Output = R> + 'static,
{
    let mut items = items;
    if items.len() <= 1 {
        return match items.pop() {
            Some(only) => vec![job(only).await],
            None => Vec::new(),
        };
    }
    let results: Rc<RefCell<Vec<Option<R>>>> = Rc::new(RefCell::new(Vec::new()));
    results.borrow_mut().resize_with(items.len(), || None);
    let (left, done) = (Rc::new(Cell::new(items.len())), Rc::new(Notify::new()));
    for (at, item) in items.into_iter().enumerate() {
        let (job, results, left, done) = (job(item), results.clone(), left.clone(), done.clone());
        spawn(async move {
            let result = job.await;
            results.borrow_mut()[at] = Some(result);
            left.set(left.get() - 1);
            if left.get() == 0 {
                done.notify_all();
            }
        });
    }
    loop {
        let notified = done.notified();
        if left.get() == 0 {
            return results.take().into_iter().flatten().collect();
        }
        notified.await;
    }
}

/// As [`gather`], with at most `limit` jobs at once, for jobs that hold files or buffers.
pub async fn gather_bounded<T, R, F>(items: Vec<T>, limit: usize, job: impl Fn(T) -> F) -> Vec<R>
where
    R: 'static,
    F: Future<Output = R> + 'static,
{
    let mut results = Vec::with_capacity(items.len());
    let mut items = items.into_iter().peekable();
    while items.peek().is_some() {
        results.extend(gather(items.by_ref().take(limit).collect(), &job).await);
    }
    results
}
