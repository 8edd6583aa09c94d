//! The thread that keeps reports and answers queries.

use std::sync::Arc;
use std::time::Duration;

use mio::Waker;

use super::page::ReportPage;
use super::store::ReportStore;
use crate::history::{OrderThread, RingDirectory};
use crate::log;
use crate::status::drift_report::DriftReport;

/// The maximum time for which the end of the daemon waits for the last write.
const FINISH_TIMEOUT: Duration = Duration::from_secs(2);

/// The maximum number of reports of an answer.
const MAX_PAGE_REPORTS: usize = 1000;

/// The kept reports of a daemon.
pub struct Reports {
    /// Passed to the thread when it starts.
    root: Option<Box<dyn RingDirectory>>,
    waker: Arc<Waker>,
    limit: u64,
    thread: Option<OrderThread<ReportOrder, ReportAnswer>>,
}

/// The answer to a query.
#[derive(Debug, PartialEq)]
pub struct ReportAnswer {
    /// The number that was passed with the query.
    pub token: u64,
    /// The reports.
    pub page: ReportPage,
}

enum ReportOrder {
    Keep(Box<DriftReport>, u64),
    Read(u64, usize),
}

impl Reports {
    /// Returns reports below `root`. Without it, none are kept. `waker` is fired for each answer.
    pub fn new(root: Option<Box<dyn RingDirectory>>, waker: Arc<Waker>) -> Reports {
        Reports {
            root,
            waker,
            limit: 0,
            thread: None,
        }
    }

    /// Sets the maximum number of reports. With 0 none are kept.
    pub fn set_limit(&mut self, limit: u64) {
        self.limit = limit;
    }

    /// Keeps a report.
    pub fn keep(&mut self, report: DriftReport) {
        if self.limit > 0 {
            self.give(ReportOrder::Keep(Box::new(report), self.limit));
        }
    }

    /// Reads the newest reports and checks all. [`Reports::answers`] returns them, with `token`.
    /// Returns false if that is not possible.
    pub fn read(&mut self, token: u64, count: usize) -> bool {
        self.give(ReportOrder::Read(token, count.min(MAX_PAGE_REPORTS)))
    }

    /// Returns the answers to queries.
    pub fn answers(&self) -> Vec<ReportAnswer> {
        self.thread.iter().flat_map(OrderThread::answers).collect()
    }

    /// Waits until everything is written, but not long.
    pub fn finish(&mut self) {
        if let Some(thread) = self.thread.take()
            && !thread.finish(FINISH_TIMEOUT)
        {
            log::warn("the last report is not kept: the state directory hangs");
        }
    }

    fn give(&mut self, order: ReportOrder) -> bool {
        let (root, waker) = (&mut self.root, Arc::clone(&self.waker));
        let start = || {
            let root = root.take();
            OrderThread::start("reports", waker, move |orders: Vec<ReportOrder>| {
                let answers = orders
                    .into_iter()
                    .filter_map(|order| run_order(root.as_deref(), order));
                answers.collect()
            })
        };
        OrderThread::give(&mut self.thread, order, start)
    }
}

fn run_order(root: Option<&dyn RingDirectory>, order: ReportOrder) -> Option<ReportAnswer> {
    match order {
        ReportOrder::Keep(report, limit) => {
            keep(root, *report, limit);
            None
        }
        ReportOrder::Read(token, count) => Some(ReportAnswer {
            token,
            page: page(root, count),
        }),
    }
}

/// Keeps a report. The hash in the log is a witness that is not in the state directory.
fn keep(root: Option<&dyn RingDirectory>, report: DriftReport, limit: u64) {
    let Some(root) = root else {
        return;
    };
    let name = report.sync.clone();
    let kept = ReportStore::open(root).and_then(|mut store| store.append(report, limit));
    match kept {
        Ok((number, hash)) => log::normal(format_args!("{name}: report {number}, SHA-256 {hash}")),
        Err(error) => log::warn(format_args!("{name}: cannot keep the report: {error}")),
    }
}

fn page(root: Option<&dyn RingDirectory>, count: usize) -> ReportPage {
    let unavailable = |why: String| ReportPage {
        unavailable: Some(why),
        ..ReportPage::default()
    };
    match root {
        None => {
            unavailable("the daemon has no state directory; settings{ stateDir } sets one".into())
        }
        Some(root) => match ReportStore::open(root).and_then(|store| store.page(count)) {
            Ok(page) => page,
            Err(error) => unavailable(format!("the reports cannot be read: {error}")),
        },
    }
}
