//! What single steps cost: decoding, filtering, queueing, collapsing, crawling, copying.
//! `cargo bench` runs all, `cargo bench -- NAME` those with NAME in their name.

#![allow(missing_docs, clippy::unwrap_used)]

use std::fs;
use std::hint::black_box;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use lsyncd::batch::Change;
use lsyncd::batch::collapse::{Disk, FileKind, PathRef, Stat, collapse};
use lsyncd::filter::Filter;
use lsyncd::local::{CopyItem, CopyJob, CopyTask, Memory, run_job};
use lsyncd::queue::{Etype, Policy, Queue, Relation, Status, Take, combine};
use lsyncd::watch::{
    Event, Follow, InotifyMode, Loss, Observer, Scope, WatchChoice, Watcher,
    inotify::records as inotify,
};

/// `/some/DD/DDD/twenty byte NNNNNNN.x`
fn path(n: usize) -> Vec<u8> {
    let (a, b) = (n % 50, n / 50 % 200);
    format!("/some/{a:02}/{b:03}/twenty byte {n:07}.x").into_bytes()
}

fn decode(c: &mut Criterion) {
    let mut records = Vec::new();
    for n in 0..1000 {
        records.extend(inotify::encode(inotify::RawEvent {
            wd: n,
            mask: 0x100,
            cookie: 0,
            name: format!("twenty byte {n:07}.x").as_bytes(),
        }));
    }
    let mut group = c.benchmark_group("decode");
    group.throughput(Throughput::Elements(1000));
    group.bench_function("1000 records", |b| {
        b.iter(|| inotify::decode(black_box(&records)).count());
    });
    group.finish();
}

fn combining(c: &mut Criterion) {
    c.bench_function("combine/two events of a path", |b| {
        b.iter(|| {
            combine::combine(
                Policy::Coalesce,
                (black_box(Etype::Create), Status::Wait),
                (black_box(Etype::Modify), false),
                Relation::Same,
            )
        });
    });
}

fn trie(c: &mut Criterion) {
    let mut group = c.benchmark_group("trie");
    for count in [20_000, 1_000_000] {
        let mut queue = Queue::new(Policy::Coalesce);
        for n in 0..count {
            queue.push(Etype::Create, &path(n), None, 0);
        }
        let mut n = 0;
        group.bench_function(format!("another event among {count}"), |b| {
            b.iter(|| {
                n = (n + 7_368_787) % count;
                queue.push(Etype::Modify, &path(n), None, 0)
            });
        });
    }
    group.throughput(Throughput::Elements(20_000));
    group.bench_function("push, take and finish 20000", |b| {
        b.iter(|| {
            let mut queue = Queue::new(Policy::Coalesce);
            for n in 0..20_000 {
                queue.push(Etype::Create, &path(n), None, 0);
            }
            let ids = queue.take(|_| Take::Take);
            queue.activate(&ids);
            for id in ids {
                queue.finish(id);
            }
        });
    });
    group.finish();
}

fn filter(c: &mut Criterion) {
    let mut filter = Filter::default();
    for pattern in [
        "*.tmp",
        "/cache/",
        ".git/",
        "**/node_modules/**",
        "[._]*.sw?",
        "/a/b/*.log",
    ] {
        filter.add_exclude(pattern.as_bytes());
    }
    let path = path(1234);
    c.bench_function("filter/six excludes, four levels", |b| {
        b.iter(|| filter.excluded(black_box(&path)));
    });
}

struct Full;

impl Disk for Full {
    fn lstat(&self, path: &[u8]) -> Option<Stat> {
        let node = if path.ends_with(b".x") {
            FileKind::File
        } else {
            FileKind::Directory
        };
        Some(Stat {
            node,
            mtime: 7,
            ctime: 7,
            exposed: false,
        })
    }
}

fn collapsing(c: &mut Criterion) {
    let paths: Vec<_> = (0..20_000).map(path).collect();
    let mentions = || -> Vec<PathRef<'_>> {
        let mention = |path| PathRef {
            path,
            gone: false,
            written: true,
            may_be_directory: false,
        };
        paths.iter().map(|path| mention(path.as_slice())).collect()
    };
    let mut group = c.benchmark_group("collapse");
    group.throughput(Throughput::Elements(20_000));
    group.bench_function("20000 paths that exist", |b| {
        b.iter_batched(
            mentions,
            |mentions| collapse(&Full, mentions).is_some(),
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

struct Deaf;

impl Observer for Deaf {
    fn event(&mut self, _: Event<'_>) -> Follow {
        Follow::Nothing
    }
    fn overflow(&mut self) {}
    fn root_lost(&mut self, _: usize, _: Loss) {}
    fn root_back(&mut self, _: usize) {}
    fn out_of_watches(&mut self, _: &[u8]) {}
    fn watch_failed(&mut self, _: &[u8], _: &io::Error, _: &'static str) {}
}

/// `count` directories in two levels.
fn directories(root: &Path, count: usize) {
    for n in 0..count {
        fs::create_dir_all(root.join(format!("{:03}/{n:06}", n % 100))).unwrap();
    }
}

fn crawl(c: &mut Criterion) {
    let root = tempfile::tempdir().unwrap();
    directories(root.path(), 5000);
    let mut source = root.path().as_os_str().as_bytes().to_vec();
    source.push(b'/');
    let mut group = c.benchmark_group("crawl");
    group.sample_size(10);
    group.throughput(Throughput::Elements(5101));
    group.bench_function("5101 directories", |b| {
        b.iter_custom(|times| {
            let mut spent = Duration::ZERO;
            for _ in 0..times {
                let mut poll = mio::Poll::new().unwrap();
                let mut events = mio::Events::with_capacity(8);
                let waker = mio::Waker::new(poll.registry(), mio::Token(0)).unwrap();
                let start = Instant::now();
                let mut watcher = Watcher::new(
                    WatchChoice::Inotify,
                    InotifyMode::CloseWrite,
                    None,
                    Arc::new(waker),
                )
                .unwrap();
                watcher.set_scopes(vec![Scope {
                    root: source.clone(),
                    wants: Arc::new(|_| true),
                }]);
                loop {
                    watcher.turn(Instant::now(), &mut Deaf);
                    if !watcher.crawling() {
                        break;
                    }
                    poll.poll(&mut events, Some(Duration::from_millis(100)))
                        .unwrap();
                }
                spent += start.elapsed();
                assert_eq!(watcher.watched(), 5101);
            }
            spent
        });
    });
    group.finish();
}

fn copy(c: &mut Criterion) {
    let root = tempfile::tempdir().unwrap();
    let place = |name: &str| root.path().join(name).as_os_str().as_bytes().to_vec();
    fs::create_dir(root.path().join("s")).unwrap();
    let items: Vec<_> = (0..1000)
        .map(|n| {
            fs::write(root.path().join(format!("s/f{n}")), "some text").unwrap();
            CopyItem {
                change: Change::Create,
                path: format!("/f{n}").into_bytes(),
                to: None,
            }
        })
        .collect();
    let mut memory = Memory::default();
    let mut group = c.benchmark_group("copy");
    group.throughput(Throughput::Elements(1000));
    for (name, task) in [
        ("1000 small files", CopyTask::Events(items)),
        ("1000 files compared", CopyTask::Everything),
    ] {
        let orders = CopyJob {
            token: 0,
            source: place("s"),
            source_numbers: None,
            target: place("t"),
            delete: true,
            delete_excluded: false,
            keeps_others: false,
            filter: Arc::new(RwLock::new(Filter::default())),
            task,
            renames_applied: true,
            limit: None,
            control: Arc::default(),
        };
        group.bench_function(name, |b| b.iter(|| run_job(&orders, &mut memory).code()));
    }
    group.finish();
}

criterion_group!(
    benches, decode, combining, trie, filter, collapsing, crawl, copy
);
criterion_main!(benches);
