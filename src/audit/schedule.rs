//! The comparisons at configured times (`verify = { at = … }`).

use std::collections::BTreeMap;

use crate::component::{AuditRequest, AuditScope};
use crate::config::VerifyConfig;
use crate::cron::{Crontab, WallTime, Zone};
use crate::id::SyncId;

/// All syncs that are compared at configured times.
pub struct VerifySchedule {
    zone: Zone,
    syncs: BTreeMap<SyncId, (Crontab, VerifyConfig)>,
}

impl VerifySchedule {
    /// Returns a schedule in a time zone, without syncs.
    pub fn new(zone: Zone) -> VerifySchedule {
        VerifySchedule {
            zone,
            syncs: BTreeMap::new(),
        }
    }

    /// Replaces the syncs by those of a configuration. Syncs that stay keep their next time.
    pub fn on_configured(&mut self, syncs: impl Iterator<Item = (SyncId, VerifyConfig)>) {
        let mut before = std::mem::take(&mut self.syncs);
        let all = syncs.map(|(sync, config)| {
            let kept = before.remove(&sync).map(|(crontab, _)| crontab);
            let crontab = kept.unwrap_or_else(|| {
                let mut crontab = Crontab::new(self.zone);
                // The rules were checked when the configuration was read.
                config.at.iter().for_each(|rule| drop(crontab.add(rule)));
                crontab
            });
            (sync, (crontab, config))
        });
        self.syncs = all.collect();
    }

    /// Returns the comparisons whose time has come.
    pub fn on_turn(&mut self, now: WallTime) -> Vec<AuditRequest> {
        let syncs = self.syncs.iter_mut();
        let due = syncs.filter_map(|(sync, (crontab, config))| {
            crontab.is_due(now).then(|| AuditRequest {
                client: None,
                scope: AuditScope {
                    syncs: vec![(*sync, Vec::new())],
                    by_content: config.by_content,
                    repairs: config.repairs,
                    sample: config.sample,
                },
            })
        });
        due.collect()
    }

    /// Returns the time of the next comparison.
    pub fn next(&self) -> Option<WallTime> {
        let crontabs = self.syncs.values().map(|(crontab, _)| crontab);
        crontabs.filter_map(Crontab::next).min()
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
        schedule.on_configured(syncs());
        assert_eq!(schedule.on_turn(10), []);
        assert_eq!(schedule.next(), Some(1800));
        let due = schedule.on_turn(1800);
        assert_eq!(due.len(), 1);
        assert_eq!(due[0].client, None);
        assert_eq!(due[0].scope.syncs, [(ids[1], Vec::new())]);
        assert_eq!(due[0].scope.sample, Some(10));
        assert_eq!(schedule.next(), Some(3600));
        // A sync that a reload has removed is forgotten.
        schedule.on_configured(syncs().skip(1));
        assert_eq!(schedule.on_turn(3600), []);
        assert_eq!(schedule.next(), Some(5400));
    }
}
