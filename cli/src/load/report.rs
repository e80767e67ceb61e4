//! The result of a run.

use hdrhistogram::Histogram;
use serde_json::{Value, json};
use std::time::Duration;

/// Latencies above this are recorded as this.
const MAX_MICROS: u64 = 600_000_000;

/// Latencies, with three significant digits.
#[derive(Debug)]
pub(super) struct Latency {
    micros: Histogram<u64>,
}

impl Default for Latency {
    fn default() -> Self {
        let micros = Histogram::new_with_bounds(1, MAX_MICROS, 3).expect("the bounds are in order");
        Self { micros }
    }
}

impl Latency {
    pub(super) fn record(&mut self, nanos: u64) {
        self.micros.saturating_record(nanos / 1_000);
    }

    pub(super) fn count(&self) -> u64 {
        self.micros.len()
    }

    fn quantiles(&self) -> [(&'static str, f64); 5] {
        let at = |quantile| self.micros.value_at_quantile(quantile) as f64 / 1_000.0;
        [
            ("p50", at(0.5)),
            ("p95", at(0.95)),
            ("p99", at(0.99)),
            ("p999", at(0.999)),
            ("max", self.micros.max() as f64 / 1_000.0),
        ]
    }

    fn object(&self) -> Value {
        self.quantiles()
            .into_iter()
            .map(|(name, value)| (name.to_owned(), json!(value)))
            .collect::<serde_json::Map<_, _>>()
            .into()
    }

    fn row(&self, what: &str) -> String {
        let values = self.quantiles().map(|(_, value)| format!("{value:>10.2}"));
        format!("{what:<16}{}", values.join(""))
    }
}

/// Counters of messages.
#[derive(Debug, Default)]
pub(super) struct Totals {
    pub(super) sent: u64,
    pub(super) acked: u64,
    /// Sum over all receivers.
    pub(super) received: u64,
    pub(super) stored: u64,
    /// Acknowledged, but not stored or not received; counted per receiver.
    pub(super) lost: u64,
    pub(super) duplicated: u64,
    pub(super) out_of_order: u64,
    /// Due, but never acknowledged despite retries.
    pub(super) failed: u64,
    /// Retryable errors.
    pub(super) refused: u64,
    pub(super) reconnects: u64,
    pub(super) most_reconnects_in_a_second: u64,
}

/// A figure of a run that does not measure the path of messages.
#[derive(Debug)]
pub(super) struct Figure {
    /// The name in the text.
    pub(super) label: &'static str,
    /// The name in JSON.
    pub(super) key: &'static str,
    pub(super) value: f64,
    /// Digits after the decimal point in the text.
    pub(super) decimals: usize,
}

impl Figure {
    pub(super) fn new(label: &'static str, key: &'static str, value: f64, decimals: usize) -> Self {
        Self { label, key, value, decimals }
    }

    pub(super) fn count(label: &'static str, key: &'static str, value: u64) -> Self {
        Self::new(label, key, value as f64, 0)
    }
}

/// The outcome of a run.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) load: &'static str,
    pub(super) connections: u64,
    pub(super) seconds: f64,
    pub(super) acks_per_second: f64,
    pub(super) deliveries_per_second: f64,
    pub(super) ack: Latency,
    pub(super) receive: Latency,
    /// The longest time that any sender with due messages received no acknowledgement.
    pub(super) longest_pause: Duration,
    pub(super) server_cpu_seconds_per_million: Option<f64>,
    pub(super) client_cpu_seconds_per_million: Option<f64>,
    /// Set for runs that send.
    pub(super) totals: Option<Totals>,
    /// Connections that ended without a `GOING_AWAY` of the server. Counted for idle connections.
    pub(super) dropped: u64,
    /// Figures of other runs.
    pub(super) figures: Vec<Figure>,
}

impl Outcome {
    /// The violated guarantee, as a sentence.
    pub(super) fn violation(&self) -> Option<String> {
        if self.dropped > 0 {
            return Some(format!("{} of {} connections were dropped", self.dropped, self.connections));
        }
        let totals = self.totals.as_ref()?;
        let Totals { acked, lost, duplicated, out_of_order, .. } = totals;
        if *acked == 0 {
            return Some("no message was acknowledged".to_owned());
        }
        (lost + duplicated + out_of_order > 0)
            .then(|| format!("{lost} lost, {duplicated} duplicated, {out_of_order} out of order"))
    }

    /// The report as text.
    pub(super) fn table(&self) -> Vec<String> {
        let mut lines =
            vec![format!("{} for {} s, {} connections", self.load, self.seconds, self.connections)];
        let mut row = |what: &str, value: String| lines.push(format!("{what:<28}{value:>12}"));
        if let Some(totals) = &self.totals {
            for (what, value) in [
                ("sent", totals.sent),
                ("acknowledged", totals.acked),
                ("received", totals.received),
                ("stored", totals.stored),
                ("lost", totals.lost),
                ("duplicated", totals.duplicated),
                ("out of order", totals.out_of_order),
                ("failed", totals.failed),
                ("retryable errors", totals.refused),
                ("reconnects", totals.reconnects),
                ("most reconnects in 1 s", totals.most_reconnects_in_a_second),
            ] {
                row(what, value.to_string());
            }
            row("acks per second", format!("{:.0}", self.acks_per_second));
            row("deliveries per second", format!("{:.0}", self.deliveries_per_second));
            row("longest pause, ms", format!("{:.0}", millis(self.longest_pause)));
        }
        for figure in &self.figures {
            row(figure.label, format!("{:.*}", figure.decimals, figure.value));
        }
        if let Some(seconds) = self.server_cpu_seconds_per_million {
            row("server CPU s per million", format!("{seconds:.1}"));
        }
        if let Some(seconds) = self.client_cpu_seconds_per_million {
            row("own CPU s per million", format!("{seconds:.1}"));
        }
        if self.totals.is_some() {
            let names = self.ack.quantiles().map(|(name, _)| format!("{name:>10}"));
            lines.push(format!("{:<16}{}", "milliseconds", names.join("")));
            lines.push(self.ack.row("send to ack"));
            lines.push(self.receive.row("send to receive"));
        }
        lines
    }

    /// The report as JSON.
    pub(super) fn object(&self) -> Value {
        let mut object = json!({
            "load": self.load,
            "connections": self.connections,
            "seconds": self.seconds,
            "server_cpu_seconds_per_million": self.server_cpu_seconds_per_million,
            "client_cpu_seconds_per_million": self.client_cpu_seconds_per_million,
        });
        if let Some(totals) = &self.totals {
            for (name, value) in [
                ("sent", totals.sent),
                ("acked", totals.acked),
                ("received", totals.received),
                ("stored", totals.stored),
                ("lost", totals.lost),
                ("duplicated", totals.duplicated),
                ("out_of_order", totals.out_of_order),
                ("failed", totals.failed),
                ("refused", totals.refused),
                ("reconnects", totals.reconnects),
                ("most_reconnects_in_a_second", totals.most_reconnects_in_a_second),
            ] {
                object[name] = json!(value);
            }
            object["acks_per_second"] = json!(self.acks_per_second);
            object["deliveries_per_second"] = json!(self.deliveries_per_second);
            object["longest_pause_ms"] = json!(millis(self.longest_pause));
            object["ack_ms"] = self.ack.object();
            object["receive_ms"] = self.receive.object();
        }
        for figure in &self.figures {
            object[figure.key] = match figure.decimals {
                0 => json!(figure.value as u64),
                _ => json!(figure.value),
            };
        }
        object
    }
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(totals: Totals) -> Outcome {
        let mut ack = Latency::default();
        for micros in 1..=1_000 {
            ack.record(micros * 1_000);
        }
        Outcome {
            load: "pair",
            connections: 2,
            seconds: 1.0,
            acks_per_second: 1_000.0,
            deliveries_per_second: 1_000.0,
            ack,
            longest_pause: Duration::from_millis(1_500),
            client_cpu_seconds_per_million: Some(3.0),
            totals: Some(totals),
            ..Outcome::default()
        }
    }

    #[test]
    fn lost_duplicated_and_reordered_messages_are_violations() {
        let intact = || Totals { acked: 10, ..Totals::default() };
        assert_eq!(outcome(intact()).violation(), None);
        for broken in [
            Totals { lost: 1, ..intact() },
            Totals { duplicated: 1, ..intact() },
            Totals { out_of_order: 1, ..intact() },
            Totals::default(),
        ] {
            assert!(outcome(broken).violation().is_some());
        }
        assert!(Outcome { dropped: 1, ..Outcome::default() }.violation().is_some());
    }

    #[test]
    fn figures_are_whole_numbers_where_they_count() {
        let figures = vec![Figure::count("frames", "frames", 3), Figure::new("time, ms", "ms", 1.25, 1)];
        let outcome = Outcome { load: "sync", figures, ..Outcome::default() };
        assert!(outcome.table().contains(&format!("{:<28}{:>12}", "time, ms", "1.2")));
        assert_eq!((&outcome.object()["frames"], &outcome.object()["ms"]), (&json!(3), &json!(1.25)));
    }

    #[test]
    fn the_json_report_has_every_figure() {
        let object = outcome(Totals { acked: 10, ..Totals::default() }).object();
        for name in [
            "sent",
            "acked",
            "received",
            "stored",
            "lost",
            "duplicated",
            "out_of_order",
            "failed",
            "reconnects",
            "most_reconnects_in_a_second",
            "longest_pause_ms",
            "acks_per_second",
            "deliveries_per_second",
            "server_cpu_seconds_per_million",
            "client_cpu_seconds_per_million",
        ] {
            assert!(object.get(name).is_some(), "{name}");
        }
        for name in ["p50", "p95", "p99", "p999", "max"] {
            assert!(object["ack_ms"][name].is_number() && object["receive_ms"][name].is_number(), "{name}");
        }
        assert!((object["ack_ms"]["p50"].as_f64().unwrap() - 0.5).abs() < 0.01);
    }
}
