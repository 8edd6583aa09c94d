//! The comparisons at configured times (`verify = { at = … }`).

use std::collections::HashMap;

use crate::component::{AuditRequest, AuditScope};
use crate::config::VerifyConfig;
use crate::cron::{Crontab, WallTime, Zone};
use crate::id::SyncId;

/// The crontabs of all syncs that are compared at configured times.
pub struct VerifySchedule {
    zone: Zone,
    crontabs: HashMap<SyncId, Crontab>,
}

impl VerifySchedule {
    /// Returns a schedule in a time zone, without syncs.
    pub fn new(zone: Zone) -> VerifySchedule {
        VerifySchedule {
            zone,
            crontabs: HashMap::new(),
        }
    }

    /// Returns the comparisons whose time has come. `syncs` are all that are configured.
    pub fn on_turn(
        &mut self,
        syncs: impl Iterator<Item = (SyncId, VerifyConfig)>,
        now: WallTime,
    ) -> Vec<AuditRequest> {
        let mut before = std::mem::take(&mut self.crontabs);
        let mut due = Vec::new();
        for (sync, config) in syncs {
            let mut crontab = before.remove(&sync).unwrap_or_else(|| {
                let mut crontab = Crontab::new(self.zone);
                // The rules were checked when the configuration was read.
                config.at.iter().for_each(|rule| drop(crontab.add(rule)));
                crontab
            });
            if crontab.is_due(now) {
                due.push(AuditRequest {
                    client: None,
                    scope: AuditScope {
                        syncs: vec![(sync, Vec::new())],
                        by_content: config.by_content,
                        repairs: config.repairs,
                        sample: config.sample,
                    },
                });
            }
            self.crontabs.insert(sync, crontab);
        }
        due
    }

    /// Returns the time of the next comparison.
    pub fn next(&self) -> Option<WallTime> {
        self.crontabs.values().filter_map(Crontab::next).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comparison_is_due_at_its_times() {
        let ids = crate::control::fake_view::FakeView::new(&["one", "two"]);
        let ids: Vec<SyncId> = ids.syncs.iter().map(|sync| sync.id).collect();
        let config = |rule: &str| VerifyConfig {
            at: vec![rule.to_owned()],
            by_content: true,
            sample: Some(10),
            repairs: false,
        };
        let configs = [config("0 0 * * * *"), config("0 30 * * * *")];
        let syncs = || ids.iter().copied().zip(configs.clone());
        let mut schedule = VerifySchedule::new(|_| 0);
        assert_eq!(schedule.on_turn(syncs(), 10), []);
        assert_eq!(schedule.next(), Some(1800));
        let due = schedule.on_turn(syncs(), 1800);
        assert_eq!(due.len(), 1);
        assert_eq!(due[0].client, None);
        assert_eq!(due[0].scope.syncs, [(ids[1], Vec::new())]);
        assert_eq!(due[0].scope.sample, Some(10));
        assert_eq!(schedule.next(), Some(3600));
        // A sync that a reload has removed is forgotten.
        assert_eq!(schedule.on_turn(syncs().skip(1), 3600), []);
        assert_eq!(schedule.next(), Some(5400));
    }
}
