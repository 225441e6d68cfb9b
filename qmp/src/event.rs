//! Events on their way to the clients: form and rate limit.

use rqemu_machine::machine::Event;
use serde_json::{json, Map, Value};
use std::time::{Duration, Instant, UNIX_EPOCH};

/// Time between two events of a limited kind.
const PERIOD: Duration = Duration::from_secs(1);

/// Events that are sent at most once a second, with the member that tells apart those that do not count together.
const LIMITED: &[(&str, Option<&str>)] = &[
    ("BALLOON_CHANGE", None),
    ("MEMORY_DEVICE_SIZE_CHANGE", Some("qom-path")),
    ("QUORUM_FAILURE", Some("reference")),
    ("QUORUM_REPORT_BAD", Some("node-name")),
    ("RTC_CHANGE", None),
    ("VSERPORT_CHANGE", Some("id")),
    ("WATCHDOG", None),
];

/// An event as it is written.
pub fn to_value(event: &Event) -> Value {
    let at = event.at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut map = Map::new();
    map.insert("timestamp".into(), json!({"seconds": at.as_secs(), "microseconds": at.subsec_micros()}));
    map.insert("event".into(), event.name.into());
    if let Some(data) = &event.data {
        map.insert("data".into(), data.clone());
    }
    map.into()
}

#[derive(Debug)]
struct Window {
    name: &'static str,
    key: Option<Value>,
    ends: Instant,
    held: Option<Event>,
}

/// Rate limit: the first event of a kind goes out at once, the last of those that follow within a second goes out when
/// the second is over, the others are dropped.
#[derive(Debug, Default)]
pub struct Throttle {
    windows: Vec<Window>,
}

impl Throttle {
    /// Passes an event on, or holds it back.
    pub fn pass(&mut self, event: Event, now: Instant) -> Option<Event> {
        let Some((name, member)) = LIMITED.iter().find(|l| l.0 == event.name) else { return Some(event) };
        let key = member.and_then(|m| event.data.as_ref()?.get(m).cloned());
        if let Some(w) = self.windows.iter_mut().find(|w| w.name == *name && w.key == key) {
            w.held = Some(event);
            return None;
        }
        self.windows.push(Window { name, key, ends: now + PERIOD, held: None });
        Some(event)
    }

    /// When [`Throttle::due`] has something to do next.
    pub fn deadline(&self) -> Option<Instant> {
        self.windows.iter().map(|w| w.ends).min()
    }

    /// Ends windows that are over and returns the events they held. A window with an event begins anew.
    pub fn due(&mut self, now: Instant) -> Vec<Event> {
        let mut out = Vec::new();
        self.windows.retain_mut(|w| {
            if w.ends > now {
                return true;
            }
            match w.held.take() {
                Some(event) => {
                    out.push(event);
                    w.ends = now + PERIOD;
                    true
                }
                None => false,
            }
        });
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;

    fn event(name: &'static str, data: Value) -> Event {
        Event { name, data: Some(data), at: SystemTime::now() }
    }

    #[test]
    fn limited_kinds_come_once_a_second() {
        let (mut t, start) = (Throttle::default(), Instant::now());
        let after = |ms| start + Duration::from_millis(ms);
        assert!(t.pass(event("RESET", json!({})), start).is_some());
        assert!(t.pass(event("RESET", json!({})), start).is_some());
        assert!(t.pass(event("RTC_CHANGE", json!({"offset": 1})), start).is_some());
        assert!(t.pass(event("RTC_CHANGE", json!({"offset": 2})), after(1)).is_none());
        assert!(t.pass(event("RTC_CHANGE", json!({"offset": 3})), after(2)).is_none());
        assert!(t.due(after(999)).is_empty());
        assert_eq!(t.deadline(), Some(after(1000)));
        let held = t.due(after(1000));
        assert_eq!(held.len(), 1);
        assert_eq!(held[0].data, Some(json!({"offset": 3})));
        assert!(t.pass(event("RTC_CHANGE", json!({"offset": 4})), after(1500)).is_none());
        assert_eq!(t.due(after(2000)).len(), 1);
        assert!(t.due(after(3000)).is_empty());
        assert_eq!(t.deadline(), None);
        assert!(t.pass(event("RTC_CHANGE", json!({"offset": 5})), after(3001)).is_some());
    }

    #[test]
    fn ports_are_limited_apart() {
        let (mut t, now) = (Throttle::default(), Instant::now());
        assert!(t.pass(event("VSERPORT_CHANGE", json!({"id": "a", "open": true})), now).is_some());
        assert!(t.pass(event("VSERPORT_CHANGE", json!({"id": "b", "open": true})), now).is_some());
        assert!(t.pass(event("VSERPORT_CHANGE", json!({"id": "a", "open": false})), now).is_none());
    }
}
