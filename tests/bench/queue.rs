//! Prints nanoseconds and bytes of the queue per path: `cargo bench --bench queue`.

#![allow(missing_docs, clippy::unwrap_used)]

use std::fs;
use std::hint::black_box;
use std::time::Instant;

use lsyncd::queue::{Etype, Policy, Queue, Ready, Take};

/// Returns the resident memory of this process in bytes.
fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS"))
        .unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<usize>()
        .unwrap()
        * 1024
}

/// Returns the numbers below `count` in an order without pattern.
fn shuffled(count: usize) -> impl Iterator<Item = usize> {
    let step = 7_368_787 % count;
    (0..count).scan(0, move |at, _| {
        *at = (*at + step) % count;
        Some(*at)
    })
}

fn timed<T>(what: &str, count: usize, run: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = run();
    let each = start.elapsed().as_nanos() as usize / count;
    println!("  {what:<44} {each:>6} ns");
    result
}

fn measure(layout: &str, count: usize, path: impl Fn(usize) -> String) {
    println!("{count} pending, {layout}");
    let paths: Vec<String> = (0..count).map(path).collect();
    let mut queue = Queue::new(Policy::Coalesce);
    let before = resident();
    timed("first event of a path", count, || {
        for path in &paths {
            queue.push(Etype::Create, path.as_bytes(), None, 0);
        }
    });
    println!(
        "  {:<44} {:>6} bytes",
        "a pending path",
        (resident() - before) / count
    );
    timed("another event of a pending path, any order", count, || {
        for n in shuffled(count) {
            queue.push(Etype::Modify, paths[n].as_bytes(), None, 0);
        }
    });
    timed(
        "directory event on top, event inside, in turn",
        2000,
        || {
            for path in &paths[..1000] {
                queue.push(Etype::Attrib, b"/some/", None, 0);
                queue.push(Etype::Modify, path.as_bytes(), None, 0);
            }
        },
    );
    timed("take", count, || queue.take(|_| Take::Take));
    let ids = queue.take(|_| Take::Take);
    queue.activate(&ids);
    timed("an event of an active path", count, || {
        for path in &paths {
            queue.push(Etype::Modify, path.as_bytes(), None, 0);
        }
    });
    timed("retry with the newer one folded in", count, || {
        for id in &ids {
            queue.retry(*id, 0);
        }
    });
    let ids = queue.take(|_| Take::Take);
    queue.activate(&ids);
    timed("finish, any order", ids.len(), || {
        for n in shuffled(ids.len()) {
            queue.finish(ids[n]);
            black_box(queue.first_ready(0, 1000));
        }
    });
    drop(ids);
    assert!(queue.is_empty());
    println!(
        "  {:<44} {:>6} KiB",
        "left over when empty",
        resident().saturating_sub(before) / 1024
    );

    for (order, back) in [("oldest first", false), ("newest first", true)] {
        for path in &paths {
            queue.push(Etype::Create, path.as_bytes(), None, 0);
        }
        let mut ids = queue.take(|_| Take::Take);
        queue.activate(&ids);
        if back {
            ids.reverse();
        }
        timed(&format!("finish, {order}"), count, || {
            for id in ids {
                queue.finish(id);
            }
        });
    }
}

/// Measures a chain of blocked delays with user code: a directory event waits for the newest delay
/// below, an event below waits for the directory's, and so on.
fn measure_chain(count: usize) {
    println!("{count} pending, each waits for the one before");
    let mut queue = Queue::new(Policy::PerEvent);
    timed("directory event and event inside, in turn", count, || {
        for n in 0..count / 2 {
            queue.push(Etype::Attrib, b"/some/", None, 0);
            queue.push(Etype::Modify, format!("/some/{n}").as_bytes(), None, 0);
        }
    });
    timed("take, activate and finish one by one", count, || {
        while let Ready::Now(id) = queue.first_ready(0, 1000) {
            queue.activate(&[id]);
            queue.finish(id);
        }
    });
    assert!(queue.is_empty());
}

fn main() {
    for count in [20_000, 1_000_000] {
        measure("one flat directory", count, |n| {
            format!("/some/twenty byte {n:07}.x")
        });
        measure("four deep", count, |n| {
            let (a, b) = (n % 50, n / 50 % 200);
            format!("/some/{a:02}/{b:03}/twenty byte {n:07}.x")
        });
        measure_chain(count);
    }
}
